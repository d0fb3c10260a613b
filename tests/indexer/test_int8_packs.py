"""Packs of int8 vectors: half as long, restored to the same bytes everywhere, and they say so."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from imprompt.cli import app
from imprompt.core.errors import Checksum
from imprompt.indexer.adding import add_corpora
from imprompt.indexer.installing import install_pack
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.indexer.reindexing import reindex
from imprompt.store.exact_index import ExactIndex
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.packs.int8_vectors import (
    DamagedRows,
    int8_file,
    quantized,
    restored,
    restored_file,
    rounding_of,
)
from imprompt.store.packs.packing import PackOptions, pack_version
from tests.indexer.doubles import BagOfWords, BagPair, write_corpus
from tests.indexer.small_index import IVF, build_small, manifest_in_service
from tests.store.builders import random_vectors

INT8 = PackOptions(int8=True, licence="CC0-1.0")


def pack(root: Path, out: Path, options: PackOptions = INT8) -> Path:
    with open_version(root) as version:
        pack_version(version, out, options)
    return out


@pytest.fixture(scope="module", params=["SQfp16", IVF])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small(tmp_path_factory.mktemp("built"), index_factory=request.param)


@pytest.fixture(scope="module")
def packed(built: Path) -> Path:
    return pack(built, built.parent / "int8.imprompt")


@pytest.fixture(scope="module")
def installed(packed: Path) -> Path:
    root = packed.parent / "installed"
    install_pack(root, packed)
    return root


def test_rounding_keeps_directions() -> None:
    """A restored row has length 1 and lies within a 127th of the largest value in each entry."""
    rows = random_vectors(200, 48).astype(np.float16)
    found = restored(quantized(rows)).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    largest = np.abs(rows).max(axis=1, keepdims=True).astype(np.float64)
    assert (np.abs(found - rows.astype(np.float64)) <= 1.05 * largest / 127).all()


def test_rounding_again_changes_nothing() -> None:
    """So an installed index packs to the vectors that it came with."""
    rows = restored(quantized(random_vectors(500, 384).astype(np.float16)))
    assert np.array_equal(restored(quantized(rows)), rows)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_shard_is_restored_from_any_chunks(size: int) -> None:
    """The bytes are those that numpy writes for the restored rows."""
    codes = random_vectors(9, 5).astype(np.float16)
    content = int8_file(codes)
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    found = b"".join(restored_file(chunks, rows=9, dim=5))
    header, values = found[:128], np.frombuffer(found[128:], dtype="<f2").reshape(9, 5)
    assert b"'<f2'" in header
    assert b"(9, 5)" in header
    assert np.array_equal(values, restored(quantized(codes)))


@pytest.mark.parametrize("rows", [8, 10])
def test_other_rows_than_the_manifest_says(rows: int) -> None:
    with pytest.raises(DamagedRows, match="does not hold"):
        list(restored_file([int8_file(np.ones((9, 5), dtype=np.float16))], rows=rows, dim=5))


def test_a_row_of_zeros_is_refused() -> None:
    content = int8_file(np.ones((2, 4), dtype=np.float16))
    with pytest.raises(DamagedRows, match="without a length"):
        list(restored_file([content[:-4] + bytes(4)], rows=2, dim=4))


def test_the_same_bytes_twice(built: Path, packed: Path, tmp_path: Path) -> None:
    """Nothing is left beside it, either."""
    again = pack(built, tmp_path / "again.imprompt")
    assert again.read_bytes() == packed.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.imprompt"]


def test_vectors_take_a_byte_a_value(built: Path, packed: Path) -> None:
    manifest = manifest_in_service(built)
    with zipfile.ZipFile(packed) as archive:
        record = json.loads(archive.read("PACK.json"))
    sizes = {name: said["bytes"] for name, said in record["members"].items() if "vectors" in name}
    assert all(name.endswith(".int8.npy") for name in sizes)
    dims = {encoder.space: encoder.dim for encoder in manifest.encoders}
    assert sum(sizes.values()) == sum(
        128 + shard.rows * dims[space]
        for space, shards in manifest.shards.items()
        for shard in shards
    )


def test_what_is_installed_is_restored(built: Path, installed: Path) -> None:
    """Its vectors are those of the rounded rows; it verifies, and answers by them exactly."""
    assert verify(installed) == []
    with open_version(built) as one, open_version(installed) as other:
        for space in one.manifest.shards:
            before = one.vectors(space).codes(0, one.manifest.rows)
            after = other.vectors(space).codes(0, one.manifest.rows)
            assert np.array_equal(after, restored(quantized(before)))
        queries = one.vectors("bag").block(0, 20)
        found = other.index("bag").search(queries, 9, effort=1.0)
        exact = ExactIndex(other.vectors("bag")).search(queries, 9)
        assert np.array_equal(found.ids, exact.ids)
        assert np.array_equal(found.scores, exact.scores)


def test_the_cost_is_measured_and_said(built: Path, packed: Path, installed: Path) -> None:
    """In the card, the manifest, `info` and `verify`: the figures that a second way gives."""
    manifest = manifest_in_service(installed)
    rounding = rounding_of(manifest.shards["bag"])
    assert rounding is not None
    assert rounding_of(manifest_in_service(built).shards["bag"]) is None
    rows = manifest.rows
    assert rounding.n == min(rows, 256)
    with open_version(built) as one, open_version(installed) as other:
        picked = np.random.default_rng(0).permutation(rows)[: rounding.n]
        scores = [
            version.vectors("bag").rows(picked).astype(np.float64) @ vectors.T
            for version, vectors in (
                (one, one.vectors("bag").block(0, rows).astype(np.float64)),
                (one, other.vectors("bag").block(0, rows).astype(np.float64)),
            )
        ]
    for found in scores:
        found[np.arange(len(picked)), picked] = -2
    near = [np.argsort(-found, axis=1, kind="stable")[:, :10] for found in scores]
    share = np.mean([np.isin(a, b).mean() for a, b in zip(*near, strict=True)])
    assert rounding.recall_at_10 == pytest.approx(share, abs=0.02)  # many rows tie
    with zipfile.ZipFile(packed) as archive:
        assert f"recall@10 {rounding.recall_at_10:.4f}" in archive.read("README.md").decode()
    for command in ("info", "verify"):
        done = CliRunner().invoke(app, [command, "--index", str(installed)], env={"COLUMNS": "400"})
        assert done.exit_code == 0
        assert f"recall@10 {rounding.recall_at_10:.4f}" in done.output
    done = CliRunner().invoke(app, ["info", "--index", str(installed)])
    assert "CC0-1.0" in done.output


def test_packing_it_again_costs_nothing_more(installed: Path, packed: Path, tmp_path: Path) -> None:
    """Also the first cost stays said, and the licence, without stating it again."""
    again = pack(installed, tmp_path / "again.imprompt", PackOptions(int8=True))
    assert again.read_bytes() == packed.read_bytes()


def test_later_changes_keep_the_note(installed: Path, tmp_path: Path) -> None:
    """`reindex` and `add` keep restored vectors, what was measured and the licence."""
    root = Path(shutil.copytree(installed, tmp_path / "copy"))
    before = manifest_in_service(root)
    reindex(root, index_factory="IVF4,SQ8")
    made = manifest_in_service(root)
    assert made.shards == before.shards
    corpus = write_corpus(tmp_path / "more.txt", 20, salt="more")
    add_corpora(root, [parse_corpus(str(corpus))], BagPair(), extra=[BagOfWords("second", dim=7)])
    added = manifest_in_service(root)
    assert added.rows > before.rows
    for manifest in (made, added):
        assert rounding_of(manifest.shards["bag"]) == rounding_of(before.shards["bag"])
        assert manifest.licence == "CC0-1.0"
    assert verify(root) == []


def test_a_changed_byte_is_refused(packed: Path, tmp_path: Path) -> None:
    """Wherever among the vectors it is."""
    content = bytearray(packed.read_bytes())
    at = content.index(b".int8.npy.zst") + 200
    content[at] ^= 1
    damaged = tmp_path / "damaged.imprompt"
    damaged.write_bytes(content)
    with pytest.raises(Checksum, match="is not a whole pack"):
        install_pack(tmp_path / "new", damaged)


def test_a_file_that_is_no_pack(tmp_path: Path) -> None:
    """Something else is called that, and not a damaged pack."""
    for content in (b"", b"x", b"a table, perhaps\n" * 100):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(Checksum, match=r"file is not a pack\."):
            install_pack(tmp_path / "new", tmp_path / "file")
