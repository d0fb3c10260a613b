"""A version goes through `pack` and `install` into another folder, with the same answers."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import imprompt.indexer.installing
from imprompt.core.errors import (
    BuildLocked,
    Checksum,
    ConfigError,
    FormatVersion,
    IndexDiffers,
    StorageFull,
)
from imprompt.indexer.adding import add_corpora
from imprompt.indexer.build import build_index
from imprompt.indexer.installing import InstallReport, install_pack
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.indexer.reindexing import reindex
from imprompt.store import layout
from imprompt.store.index_version import IndexVersion, open_version
from imprompt.store.locking import write_lock
from imprompt.store.manifest import ShardRecord
from imprompt.store.packs import unpacking
from imprompt.store.packs.pack_record import PackRecord
from imprompt.store.packs.packing import PackOptions, pack_version
from imprompt.store.publish import current_name, version_names
from imprompt.store.shards import keep_shard
from tests.hostile.packs import Parts
from tests.indexer.doubles import BagOfWords, BagPair, write_corpus
from tests.indexer.small_index import IVF, build_small, flip, manifest_in_service, version_folder

LONG_AGO = (1980, 1, 1, 0, 0, 0)


def pack(root: Path, out: Path, options: PackOptions | None = None) -> PackRecord:
    with open_version(root) as version:
        return pack_version(version, out, options or PackOptions())


@pytest.fixture(scope="module", params=["SQfp16", IVF])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat index, whose file is made again, and an inverted file, which is packed."""
    return build_small(tmp_path_factory.mktemp("built"), index_factory=request.param)


@pytest.fixture(scope="module")
def packed(built: Path) -> Path:
    path = built.parent / "small.imprompt"
    pack(built, path)
    return path


def assert_same_answers(one: IndexVersion, other: IndexVersion) -> None:
    """Prompts, parameters, vectors to the bit, and hits with their scores."""
    rows = range(one.manifest.rows)
    assert one.prompts.get_many(rows) == other.prompts.get_many(rows)
    assert one.prompts.parameters(rows) == other.prompts.parameters(rows)
    for space in other.manifest.shards:
        codes = [each.vectors(space).codes(0, len(rows)) for each in (one, other)]
        assert np.array_equal(codes[0], codes[1])
    queries = one.vectors("bag").block(0, 20)
    for effort in (None, 0.3, 1.0):
        found = [each.index("bag").search(queries, 9, effort=effort) for each in (one, other)]
        assert np.array_equal(found[0].ids, found[1].ids)
        assert np.array_equal(found[0].scores, found[1].scores)


def test_there_and_back(built: Path, packed: Path, tmp_path: Path) -> None:
    """The index in another folder answers and verifies as the first, and packs to equal bytes."""
    before = manifest_in_service(built)
    report = install_pack(tmp_path / "new", packed)
    found = manifest_in_service(tmp_path / "new")
    assert report == InstallReport(found, report.record, installed=True)
    assert (found.rows, found.rows_digest) == (before.rows, before.rows_digest)
    assert (found.plan, found.plan_sha256) == (before.plan, before.plan_sha256)
    assert (found.shards, found.indexes) == (before.shards, before.indexes)
    assert (found.check_queries, found.funnel) == (before.check_queries, before.funnel)
    assert found.parameters == before.parameters == 4
    own = {layout.PROMPTS, layout.JOURNAL}
    assert {file: found.files[file] for file in {*found.files} - own} == {
        file: before.files[file] for file in {*before.files} - own
    }
    with open_version(built) as one, open_version(tmp_path / "new") as other:
        assert_same_answers(one, other)
    pack(tmp_path / "new", tmp_path / "again.imprompt")
    assert (tmp_path / "again.imprompt").read_bytes() == packed.read_bytes()
    assert list(layout.staging_root(tmp_path / "new").iterdir()) == []


def test_the_file_is_a_plain_zip_of_zstd_files(built: Path, packed: Path, tmp_path: Path) -> None:
    """Python's zipfile and the programs unzip and zstd read it; there is no time and no owner."""
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names[:2] == ["PACK.json", "README.md"]
        assert {info.date_time for info in archive.infolist()} == {LONG_AGO}
        record = json.loads(archive.read("PACK.json"))
        for name, said in record["members"].items():
            content = archive.read(name if name == "README.md" else f"{name}.zst")
            if name != "README.md":
                content = pa.CompressedInputStream(pa.py_buffer(content), "zstd").read()
            assert len(content) == said["bytes"]
            assert hashlib.sha256(content).hexdigest() == said["sha256"]
        lines = archive.read("prompts.jsonl.zst")
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tq", packed], check=True, capture_output=True)
    if shutil.which("zstd"):
        done = subprocess.run(["zstd", "-dc"], input=lines, check=True, capture_output=True)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        with open_version(built) as version:
            prompts = version.prompts.get_many(range(len(rows)))
        assert [row["text"] for row in rows] == [prompt.text for prompt in prompts]


def test_the_same_bytes_whenever_it_is_packed(built: Path, packed: Path, tmp_path: Path) -> None:
    """Also after another file was written there, and of another copy of the folder."""
    copy = Path(shutil.copytree(built, tmp_path / "copy"))
    out = tmp_path / "out.imprompt"
    out.write_bytes(b"something else")
    out.with_name("out.imprompt.sig").write_text("of that")
    pack(copy, out)
    assert out.read_bytes() == packed.read_bytes()
    assert not out.with_name("out.imprompt.sig").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "out.imprompt"]


def test_the_card_says_what_is_in_it(packed: Path) -> None:
    """Corpora, counts of the rules, encoders with weights, recall, and who may use it."""
    with zipfile.ZipFile(packed) as archive:
        card = archive.read("README.md").decode()
    for said in ("corpus.txt", "| duplicate |", "| read | 3", "text bag", "recall@10", "second"):
        assert said in card
    assert "4 prompts have generation parameters" in card
    assert "No licence was stated" in card


def test_without_sources_and_of_one_space(built: Path, tmp_path: Path) -> None:
    """No name, path or parameter is in the file; texts, counts and the searched space are."""
    options = PackOptions(spaces=("bag",), sources=False, licence="CC0-1.0 | and *more*")
    record = pack(built, tmp_path / "a.imprompt", options)
    assert len(record.without) == 3
    with zipfile.ZipFile(tmp_path / "a.imprompt") as archive:
        whole = b"".join(
            archive.read(name)
            if not name.endswith(".zst")
            else pa.CompressedInputStream(pa.py_buffer(archive.read(name)), "zstd").read()
            for name in archive.namelist()
        )
        card = archive.read("README.md").decode()
    for private in (b"corpus.txt", b"images", b".png", b"line 1", b"blur", b"Seed"):
        assert private not in whole.replace(b"near an image", b""), private
    assert "CC0-1.0 \\| and \\*more\\*" in card
    install_pack(tmp_path / "new", tmp_path / "a.imprompt")
    found, before = manifest_in_service(tmp_path / "new"), manifest_in_service(built)
    assert [encoder.name for encoder in found.encoders] == [*found.shards] == ["bag"]
    assert found.plan_sha256 != before.plan_sha256
    with open_version(built) as one, open_version(tmp_path / "new") as other:
        rows = range(before.rows)
        pairs = zip(one.prompts.get_many(rows), other.prompts.get_many(rows), strict=True)
        for old, new in pairs:
            assert (new.source, new.source_key) == ("", "")
            assert (new.text, new.embedded_text, new.prompt_key, new.group_id) == (
                old.text,
                old.embedded_text,
                old.prompt_key,
                old.group_id,
            )
            assert (new.n_submitted, new.n_duplicates) == (old.n_submitted, old.n_duplicates)
    pack(built, tmp_path / "b.imprompt", options)
    assert (tmp_path / "b.imprompt").read_bytes() == (tmp_path / "a.imprompt").read_bytes()


@pytest.mark.parametrize(
    ("spaces", "said"), [(("third",), "no space 'third'"), (("second",), "could not be searched")]
)
def test_spaces_that_cannot_be(
    spaces: tuple[str, ...], said: str, built: Path, tmp_path: Path
) -> None:
    """Nothing is written."""
    with pytest.raises(ConfigError, match=said):
        pack(built, tmp_path / "a.imprompt", PackOptions(spaces=spaces))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["prompts.duckdb", "vectors/second/00003.npy"])
def test_what_is_damaged_is_not_packed(file: str, built: Path, tmp_path: Path) -> None:
    """No file appears, and one that was there stays."""
    root = Path(shutil.copytree(built, tmp_path / "index"))
    flip(version_folder(root) / file, at=-200 if file.endswith("npy") else 300_000)
    (tmp_path / "a.imprompt").write_bytes(b"old")
    with pytest.raises(Checksum):
        pack(root, tmp_path / "a.imprompt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.imprompt", "index"]
    assert (tmp_path / "a.imprompt").read_bytes() == b"old"


def test_nothing_is_installed_twice(built: Path, packed: Path, tmp_path: Path) -> None:
    """Where it came from, and where it was installed before; a damaged one is made anew."""
    names = version_names(built)
    assert not install_pack(built, packed).installed
    assert version_names(built) == names
    root = tmp_path / "new"
    install_pack(root, packed)
    assert not install_pack(root, packed).installed
    assert len(version_names(root)) == 1
    flip(version_folder(root) / "vectors/bag/00001.npy")
    assert install_pack(root, packed).installed
    assert manifest_in_service(root).rows_digest == manifest_in_service(built).rows_digest


def test_another_index_is_only_replaced_on_demand(packed: Path, tmp_path: Path) -> None:
    """Without `replace`, the other one answers as before."""
    root = tmp_path / "index"
    other = write_corpus(tmp_path / "other.txt", 20)
    before = build_index(root, [parse_corpus(str(other))], BagPair()).manifest
    with pytest.raises(IndexDiffers, match=r"other\.txt"):
        install_pack(root, packed)
    assert current_name(root) == before.version
    assert install_pack(root, packed, replace=True).installed
    assert manifest_in_service(root).rows > before.rows
    assert before.version in version_names(root), "the old one stays until `gc`"


def test_an_installed_index_is_like_any_other(built: Path, packed: Path, tmp_path: Path) -> None:
    """More may be added to it, and its index made anew."""
    root = tmp_path / "new"
    rows = install_pack(root, packed).manifest.rows
    more = write_corpus(tmp_path / "more.txt", 60, salt="new")
    add_corpora(root, [parse_corpus(str(more))], BagPair(), extra=[BagOfWords("second", dim=7)])
    assert manifest_in_service(root).rows > rows
    assert reindex(root, index_factory="IVF8,SQ8").built
    assert manifest_in_service(root).indexes["bag"].factory == "IVF8,SQ8"


def test_an_interrupted_installation_is_resumed(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was unpacked is not unpacked again, unless it was damaged meanwhile."""
    root = tmp_path / "new"
    kept: list[ShardRecord] = []

    def until_the_fourth(staging: Path, record: ShardRecord, chunks: Iterable[bytes]) -> None:
        kept.append(record)
        if len(kept) == 4:
            raise KeyboardInterrupt
        keep_shard(staging, record, chunks)

    monkeypatch.setattr(unpacking, "keep_shard", until_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        install_pack(root, packed)
    assert current_name(root) is None
    first = Path(kept[0].file).name
    del kept[:]

    def noted(staging: Path, record: ShardRecord, chunks: Iterable[bytes]) -> None:
        kept.append(record)
        keep_shard(staging, record, chunks)

    monkeypatch.setattr(unpacking, "keep_shard", noted)
    (staging,) = layout.staging_root(root).iterdir()
    flip(next(staging.rglob(first)))
    install_pack(root, packed)
    with open_version(root) as version:
        members = sum(map(len, version.manifest.shards.values()))
        info = version.manifest.indexes["bag"]
        members += 0 if info.factory == "SQfp16" else len(info.all_files)
    assert len(kept) == members - 2, "three were there, and one of them was damaged"
    assert manifest_in_service(root)


def test_room_on_the_disk_is_asked_for_first(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written."""
    monkeypatch.setattr(imprompt.indexer.installing, "free_bytes", lambda folder: 100_000)
    with pytest.raises(StorageFull, match="free"):
        install_pack(tmp_path / "new", packed)
    assert not (tmp_path / "new").exists()


def test_one_writer_at_a_time(packed: Path, tmp_path: Path) -> None:
    with write_lock(tmp_path / "new"), pytest.raises(BuildLocked):
        install_pack(tmp_path / "new", packed)


def test_another_format_says_so(packed: Path, tmp_path: Path) -> None:
    """A later format is not guessed at."""
    other, parts = tmp_path / "later.imprompt", Parts.of(packed)
    parts.record["pack_format"] = [3, 0]
    other.write_bytes(parts.whole())
    with pytest.raises(FormatVersion, match=r"format 3\.0"):
        install_pack(tmp_path / "new", other)


def test_a_flipped_bit_is_never_installed(packed: Path, tmp_path: Path) -> None:
    """Anywhere in the file: it is refused, and no index appears."""
    content = packed.read_bytes()
    copy = tmp_path / "flipped.imprompt"
    rng = np.random.default_rng(0)
    places = [*range(0, 60, 13), len(content) - 1, *rng.integers(0, len(content), 15).tolist()]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        copy.write_bytes(changed)
        with pytest.raises((Checksum, FormatVersion)) as caught:
            install_pack(tmp_path / "new", copy)
        assert "\n" not in str(caught.value)
        assert current_name(tmp_path / "new") is None
    for length in (0, 10, len(content) // 2, len(content) - 1):
        copy.write_bytes(content[:length])
        with pytest.raises(Checksum):
            install_pack(tmp_path / "new", copy)
    copy.write_bytes(content + b"\0")
    with pytest.raises(Checksum):
        install_pack(tmp_path / "new", copy)
