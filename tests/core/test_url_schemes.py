r"""A drive of Windows is no scheme, wherever a text may begin with one: C:\x, C:/x.

Paths are tried as texts: on Linux they are relative names with odd letters.
"""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import pytest

from imprompt.core.errors import ConfigError, CorpusError, WeightsMissing
from imprompt.core.hub.hub_files import HubFile
from imprompt.core.settings import MilvusPlace, index_place
from imprompt.core.url_schemes import has_drive, url_scheme
from imprompt.core.weight_names import split_weights
from imprompt.encoders.registry import load_encoder
from imprompt.environment.model_files import encoder_need
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store import layout
from imprompt.store.object_store import ObjectStore, checked_url

DRIVES = ["C:\\prompts", "c:/prompts", "C://prompts", "C:prompts"]


@pytest.mark.parametrize("path", DRIVES)
def test_a_drive_is_no_scheme(path: str) -> None:
    """Indexes, shards, files of Milvus Lite and weights are paths on it."""
    assert has_drive(path)
    assert PureWindowsPath(path).drive.upper() == "C:"
    assert url_scheme(path) == ""
    assert index_place(path) == Path(path).absolute()
    assert index_place(f"milvus:{path}.db") == MilvusPlace(str(Path(f"{path}.db").absolute()))
    assert checked_url(path) == str(Path(path).absolute())
    assert split_weights(path) is None
    assert split_weights(f"ViT-B-32//{path}") == ("ViT-B-32", Path(path))
    assert encoder_need(f"lite:{path}").local == (Path(path),)


def test_schemes() -> None:
    """Two letters and more before `://`."""
    assert url_scheme("s3://bucket/prefix") == "s3"
    assert url_scheme("HTTPS://host") == "https"
    for path in ("a/b", "/a/b", "hf:OWNER/NAME", "", "ViT-B-32//weights.pt", "://x"):
        assert url_scheme(path) == ""
        assert not has_drive(path)


@pytest.mark.parametrize("path", DRIVES)
def test_what_is_not_there_is_named_as_it_was_typed(path: str) -> None:
    """Corpora and heads on a drive are looked up as files."""
    with pytest.raises(CorpusError) as corpus:
        parse_corpus(f"{path}.csv")
    assert corpus.value.path == Path(f"{path}.csv")
    with pytest.raises(CorpusError, match="is not a folder") as images:
        parse_corpus(f"images:{path}")
    assert images.value.path == Path(path)
    with pytest.raises(WeightsMissing) as head:
        load_encoder(f"lite:{path}").images  # noqa: B018 the head is read now at the latest
    assert head.value.path == Path(path)


def test_a_listing_may_not_name_a_file_on_a_drive() -> None:
    """Joined to a folder, it would lead out of it."""
    assert PureWindowsPath("cache") / "C:/x" == PureWindowsPath("C:/x")
    with pytest.raises(ConfigError, match="not a path inside"):
        HubFile("someone/model", "C:/x")


DEVICES = [f"{kind}{number}" for kind in ("COM", "LPT") for number in range(10)]
RESERVED = {"CON", "PRN", "AUX", "NUL", *DEVICES}


def test_names_of_an_index_are_names_on_windows() -> None:
    """None is reserved, holds a forbidden character, or ends in a dot or a space."""
    for file in (
        *(layout.MANIFEST, layout.PLAN, layout.JOURNAL, layout.PROMPTS, layout.DROPPED),
        layout.shard_file("hf-hub:OWNER/NAME", 7),
        layout.index_file("ViT-L-14/openai"),
        layout.row_sums_file("a:b*c?"),
    ):
        for part in file.split("/"):
            assert part.partition(".")[0].upper() not in RESERVED
            assert not set(part) & set('<>:"\\|?*')
            assert part.rstrip(". ") == part


def test_shards_in_a_folder_with_odd_letters(tmp_path: Path) -> None:
    """A path is never parsed as a URL."""
    ObjectStore(checked_url(str(tmp_path / "C:" / "a b%20#?ü")), "0" * 64).clear()
    with pytest.raises(ConfigError, match="not UTF-8"):
        checked_url("bad \udcff")
