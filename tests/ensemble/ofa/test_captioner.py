"""From a folder, or the hub's cache, to sentences."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from transformers import BartTokenizer

from imprompt.core.errors import (
    ConfigError,
    ImpromptError,
    MemberUnavailable,
    WeightsMissing,
    WeightsRejected,
)
from imprompt.core.pip_lines import install_extra
from imprompt.ensemble.ofa import captioner
from imprompt.ensemble.ofa.captioner import PROMPT, OfaCaptioner
from imprompt.ensemble.ofa.ofa_config import read_config
from tests.ensemble.ofa.builders import TINY, TINY_CONFIG, picture, write_checkpoint


def load(source: Path | str, *, device: str = "cpu") -> OfaCaptioner:
    """Offline, with nothing to announce."""
    return OfaCaptioner.load(
        source, device=device, offline=True, announce=lambda line: pytest.fail(line)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tensors: dict[str, Tensor]) -> Path:
    """A whole checkpoint. Not to be changed."""
    return write_checkpoint(tmp_path_factory.mktemp("ofa") / "tiny", tiny_tensors)


@pytest.fixture
def scratch(folder: Path, tmp_path: Path) -> Path:
    """The same checkpoint, to be spoilt."""
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def spoil(folder: Path, name: str, content: str) -> None:
    """Put another file in a linked one's place."""
    (folder / name).unlink()
    (folder / name).write_text(content, "utf-8")


@pytest.fixture(scope="module")
def tiny_captioner(folder: Path) -> OfaCaptioner:
    """Loaded once."""
    return load(folder)


def test_each_image_gets_its_sentence(tiny_captioner: OfaCaptioner) -> None:
    """Captions are in order, as for each image alone, without control tokens or outer blanks."""
    first, second = tiny_captioner.captions([picture(1), picture(2)])
    assert first != second
    assert tiny_captioner.captions([picture(2)]) == [second]
    for text in (first, second):
        assert text
        assert text == text.strip()
        assert not any(token in text for token in ("<s>", "</s>", "<pad>", "<unk>"))


def test_the_files_of_a_model_are_told(tiny_captioner: OfaCaptioner) -> None:
    """All that its sentences depend on."""
    assert {"config.json", "vocab.json", "merges.txt"} < {
        path.name for path in tiny_captioner.files
    }
    assert len(tiny_captioner.files) == 4


def test_no_images_no_captions(tiny_captioner: OfaCaptioner) -> None:
    """An empty batch is answered without the network."""
    assert tiny_captioner.captions([]) == []


def test_pixels_are_those_of_torchvision() -> None:
    """Squashed to 480 x 480 by a bicubic filter, mean and deviation 0.5, as torchvision does it."""
    images = [picture(1), picture(2).rotate(90, expand=True)]
    oracle = v2.Compose(
        [
            v2.Resize((480, 480), interpolation=v2.InterpolationMode.BICUBIC),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    found = captioner._pixels(images)
    assert found.dtype == np.float32
    assert np.abs(found - torch.stack([oracle(image) for image in images]).numpy()).max() < 1e-6


@pytest.mark.parametrize("text", [PROMPT, " a cat's 3 hats, naïve —  two  blanks", "no blank"])
def test_tokens_are_those_of_bart(folder: Path, text: str) -> None:
    """The byte-level BPE encodes and decodes as transformers' tokenizer does."""
    ours = captioner._read_tokenizer(folder / "vocab.json", folder / "merges.txt", TINY_CONFIG)
    oracle = BartTokenizer.from_pretrained(folder)
    ids = ours.encode(text).ids
    assert [0, *ids, 2] == oracle(text).input_ids
    assert ours.decode(ids) == text


def test_a_repository_is_found_in_the_hubs_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, OWNER/NAME loads from the cache; what is not there is named, with a remedy."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--ofa"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots" / "c0ffee").symlink_to(folder)
    assert isinstance(load("someone/ofa"), OfaCaptioner)
    with pytest.raises(
        WeightsMissing, match=r"nobody/ofa/config\.json is not in the cache, and --offline is set"
    ):
        load("nobody/ofa")


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def saying(**settings: object) -> Callable[[Path], None]:
    return lambda folder: spoil(folder, "config.json", json.dumps({**TINY, **settings}))


def vocabulary(**changes: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tokens = json.loads((folder / "vocab.json").read_text("utf-8"))
        spoil(folder, "vocab.json", json.dumps({**tokens, **changes}))

    return change


BAD_FOLDERS: dict[str, tuple[Callable[[Path], None], type[ImpromptError], str]] = {
    "no configuration": (without("config.json"), WeightsMissing, r"has no config\.json"),
    "no vocabulary": (without("vocab.json"), WeightsMissing, r"has no vocab\.json"),
    "no weights": (
        without("pytorch_model.bin"),
        WeightsMissing,
        r"has no model\.safetensors and no pytorch_model\.bin",
    ),
    "torn configuration": (
        lambda folder: spoil(folder, "config.json", "{"),
        WeightsRejected,
        "truncated",
    ),
    "a size is missing": (
        lambda folder: spoil(folder, "config.json", "{}"),
        WeightsRejected,
        "missing required field `vocab_size`",
    ),
    "a size of zero": (saying(d_model=0), WeightsRejected, r">= 1.*d_model"),
    "heads that do not divide": (
        saying(d_model=33),
        WeightsRejected,
        "d_model 33 is not a multiple of 4",
    ),
    "an unknown trunk": (saying(resnet_type="vit"), WeightsRejected, "'vit'.*resnet_type"),
    "another architecture": (
        saying(model_type="blip"),
        WeightsRejected,
        "model_type = 'blip'; only 'ofa'",
    ),
    "no NormFormer": (saying(normformer=False), WeightsRejected, "normformer = False; only True"),
    "another width": (saying(d_model=64), WeightsRejected, "in another shape or kind"),
    "a layer more": (
        saying(encoder_layers=3),
        WeightsRejected,
        r"lacks 23 tensors: encoder\.layers\.2",
    ),
    "a layer less": (saying(decoder_layers=2), WeightsRejected, "beyond those of the network"),
    "torn vocabulary": (
        lambda folder: spoil(folder, "vocab.json", '{"a": '),
        WeightsRejected,
        "are not a BPE vocabulary",
    ),
    "torn merges": (
        lambda folder: spoil(folder, "merges.txt", "a b c d\n"),
        WeightsRejected,
        "are not a BPE vocabulary",
    ),
    "other control tokens": (
        vocabulary(**{"</s>": 5, "!": 2}),
        WeightsRejected,
        "is not the vocabulary of this OFA network",
    ),
    "a prompt beyond the table": (
        vocabulary(**{"?": 9999}),
        WeightsRejected,
        "is not the vocabulary of this OFA network",
    ),
}


@pytest.mark.parametrize(
    ("change", "kind", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS.keys()
)
def test_a_spoilt_folder_is_named(
    scratch: Path, change: Callable[[Path], None], kind: type[ImpromptError], message: str
) -> None:
    """A file that is missing, torn or of another network: one line with value and remedy."""
    change(scratch)
    with pytest.raises(kind, match=message) as caught:
        load(scratch)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_source_that_is_nothing_is_named() -> None:
    """Neither a folder nor a repository: no request is tried."""
    with pytest.raises(WeightsMissing, match="/no/such/folder is neither a folder nor OWNER/NAME"):
        load("/no/such/folder")


def test_an_unknown_device_is_refused_first(tmp_path: Path) -> None:
    """Before any file is looked for."""
    with pytest.raises(ConfigError, match="tpu"):
        load(tmp_path, device="tpu")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without timm the member says so, and how to get it, before it looks for 1.9 GB of weights."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        MemberUnavailable,
        match=rf"ofa: the package timm is not installed\. .*{re.escape(install_extra('ofa'))}",
    ):
        load("/no/such/folder")


def test_the_published_configuration_is_read(tmp_path: Path) -> None:
    """The settings of OFA-Sys/ofa-large-caption that matter, among many that do not."""
    settings = {
        **TINY,
        "d_model": 1024,
        "normformer": True,
        "dropout": 0.1,
        "use_cache": False,
        "architectures": ["OFAModel"],
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert read_config(tmp_path / "config.json").d_model == 1024
