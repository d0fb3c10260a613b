"""Shards: float16 files that read as one array of unit rows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from imprompt.core.atomic_files import sha256_file
from imprompt.core.errors import Checksum, ConfigError, EncoderError, StoreError, UnknownRow
from imprompt.store import layout
from imprompt.store.manifest import ShardRecord
from imprompt.store.mapping import map_file
from imprompt.store.ranking import cosines, ranked
from imprompt.store.shards import ShardedVectors, shard_is_whole, write_codes, write_shard
from tests.store.builders import random_vectors, write_shards


@pytest.fixture(params=[True, False], ids=["mapped", "read"])
def stored(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[ShardedVectors, np.ndarray]:
    """230 rows in shards of 64, and the same rows as numpy reads them."""
    records = write_shards(tmp_path, random_vectors(230))
    whole = np.concatenate([np.load(tmp_path / record.file) for record in records])
    return ShardedVectors(tmp_path, records, mapped=request.param), whole


def test_file_is_a_plain_array(tmp_path: Path) -> None:
    """A shard is an `.npy` file that numpy reads.

    Its record has its rows, length, sha256 and provenance.
    """
    vectors = random_vectors(5)
    record = write_shard(
        tmp_path, layout.shard_file("s", 3), vectors, provenance={"batch_size": 64}
    )
    path = tmp_path / "vectors/s/00003.npy"
    np.testing.assert_array_equal(np.load(path), vectors.astype(np.float16))
    expected = ShardRecord(
        "vectors/s/00003.npy", 5, path.stat().st_size, sha256_file(path), {"batch_size": 64}
    )
    assert record == expected
    assert list(path.parent.iterdir()) == [path]


def test_rows_are_unit_and_close(stored: tuple[ShardedVectors, np.ndarray]) -> None:
    """Reading gives float32 rows of length 1, within float16 rounding of what was written."""
    vectors, _ = stored
    rows = vectors.block(0, 230)
    assert rows.dtype == np.float32
    assert (len(vectors), vectors.dim) == (230, 16)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=3e-7)
    np.testing.assert_allclose(rows, random_vectors(230), atol=6e-4)


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 230), (0, 1), (63, 65), (10, 200), (64, 128), (229, 230), (200, 999), (5, 5), (230, 240)],
)
def test_blocks_across_shards(
    stored: tuple[ShardedVectors, np.ndarray], start: int, stop: int
) -> None:
    """A block is the rows from start to stop, whichever shards they lie in; the end cuts it."""
    vectors, raw = stored
    np.testing.assert_array_equal(vectors.codes(start, stop), raw[start:stop])
    expected = (
        vectors.rows(np.arange(start, min(stop, 230)))
        if start < 230
        else np.empty((0, 16), dtype=np.float32)
    )
    assert vectors.block(start, stop).tobytes() == expected.tobytes()


def test_rows_in_any_order(stored: tuple[ShardedVectors, np.ndarray]) -> None:
    """Rows come in the order asked for, repeats included, with the same bits alone or together."""
    vectors, raw = stored
    ids = np.random.default_rng(0).integers(0, 230, 500)
    found = vectors.rows(ids)
    unit = raw[ids].astype(np.float64) / np.linalg.norm(
        raw[ids].astype(np.float64), axis=1, keepdims=True
    )
    np.testing.assert_allclose(found, unit, atol=1e-7)
    assert b"".join(vectors.rows(ids[i : i + 1]).tobytes() for i in range(500)) == found.tobytes()
    assert vectors.rows(np.empty(0, dtype=np.int64)).shape == (0, 16)


def test_walk_over_all(stored: tuple[ShardedVectors, np.ndarray]) -> None:
    """`blocks` gives every row once, in order."""
    vectors, _ = stored
    parts = list(vectors.blocks(100))
    assert [start for start, _ in parts] == [0, 100, 200]
    assert (
        np.concatenate([block for _, block in parts]).tobytes() == vectors.block(0, 230).tobytes()
    )


@pytest.mark.parametrize("row_id", [-1, 230])
def test_unknown_row(stored: tuple[ShardedVectors, np.ndarray], row_id: int) -> None:
    """A row that is not there is named."""
    with pytest.raises(UnknownRow, match=f"Row {row_id} "):
        stored[0].rows(np.array([0, row_id]))


@pytest.mark.parametrize(
    "vectors",
    [
        pytest.param(np.empty((0, 4), dtype=np.float32), id="no-rows"),
        pytest.param(np.zeros((2, 4), dtype=np.float32), id="zeros"),
        pytest.param(np.full((2, 4), np.nan, dtype=np.float32), id="nan"),
        pytest.param(np.full((2, 4), np.inf, dtype=np.float32), id="infinite"),
        pytest.param(np.ones(4, dtype=np.float32), id="one-dimensional"),
        pytest.param(np.ones((2, 4)), id="float64"),
        pytest.param(np.ones((2, 4), dtype=np.float16), id="float16"),
    ],
)
def test_what_cannot_be_stored(tmp_path: Path, vectors: np.ndarray) -> None:
    """Vectors without a direction are refused, and no file appears."""
    with pytest.raises((StoreError, EncoderError), match=r"00000\.npy"):
        write_shard(tmp_path, layout.shard_file("s", 0), vectors, provenance={})
    assert not list(tmp_path.rglob("*.npy"))


def test_whole(tmp_path: Path) -> None:
    """A shard is whole with its recorded bytes and no others."""
    record = write_shards(tmp_path, random_vectors(5))[0]
    path = tmp_path / record.file
    content = path.read_bytes()
    assert shard_is_whole(tmp_path, record)
    for other in (content[:-1], content + b"x", content[:-1] + bytes([content[-1] ^ 1])):
        path.write_bytes(other)
        assert not shard_is_whole(tmp_path, record)
    path.unlink()
    assert not shard_is_whole(tmp_path, record)


def test_shards_of_two_dimensions(tmp_path: Path) -> None:
    """Shards that disagree about the dimension are not read as one array."""
    records = [
        write_shard(tmp_path, layout.shard_file("s", i), random_vectors(3, 4 + i), provenance={})
        for i in range(2)
    ]
    vectors = ShardedVectors(tmp_path, records)
    with pytest.raises(Checksum, match="5 dimensions, not 4"):
        vectors.rows(np.array([4]))


def test_shards_are_mapped_when_they_are_touched(tmp_path: Path) -> None:
    """Opening looks at every length.

    A header that is not what was recorded is found by the first row that is asked of it.
    """
    records = write_shards(tmp_path, random_vectors(200))
    path = tmp_path / records[1].file
    whole = path.read_bytes()
    for changed in (whole[:-1], whole + b"\0"):
        path.write_bytes(changed)
        with pytest.raises(Checksum, match=r"00001\.npy has"):
            ShardedVectors(tmp_path, records)
    path.write_bytes(whole.replace(b"(64, 16)", b"(16, 64)"))
    vectors = ShardedVectors(tmp_path, records)
    assert vectors.rows(np.array([0, 63, 128])).shape == (3, 16)
    with pytest.raises(Checksum, match=r"00001\.npy holds 16 x 64"):
        vectors.rows(np.array([64]))


def test_maps_need_no_descriptors(tmp_path: Path) -> None:
    """An index of millions has thousands of shards, and many a shell allows 1,024 open files.

    A shard that was read takes none.
    """
    vectors = ShardedVectors(tmp_path, write_shards(tmp_path, random_vectors(300), shard_rows=3))
    assert vectors.block(0, 300).shape == (300, 16)
    opened = [os.path.realpath(descriptor) for descriptor in Path("/dev/fd").iterdir()]
    assert not [path for path in opened if path.startswith(str(tmp_path.resolve()))]


def test_rows_outlive_the_vectors(tmp_path: Path) -> None:
    """A file stays mapped while an array of it is used, and cannot be written through."""
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 64)
    part = map_file(path)[100:200]
    path.unlink()
    assert part.tolist() == list(range(100, 200))
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1
    path.write_bytes(b"")
    assert map_file(path).size == 0


def test_value_that_is_not_finite(tmp_path: Path) -> None:
    """A value that became infinite on disk is an error where it is read, not a score."""
    record = write_shards(tmp_path, random_vectors(5))[0]
    path = tmp_path / record.file
    content = bytearray(path.read_bytes())
    content[-2:] = b"\x00\x7c"
    path.write_bytes(content)
    vectors = ShardedVectors(tmp_path, [record])
    assert vectors.block(0, 4).shape == (4, 16)
    with pytest.raises(Checksum):
        vectors.rows(np.array([4]))


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    """Rows that are gone are named as damage and do not end the process.

    A file that was removed is read on as it was.
    """
    vectors = ShardedVectors(
        tmp_path, records := write_shards(tmp_path, random_vectors(230)), mapped=False
    )
    whole = vectors.block(0, 230)
    with (tmp_path / records[1].file).open("r+b") as file:
        file.truncate(records[1].bytes // 2)
    with pytest.raises(Checksum, match=r"00001\.npy has been cut short"):
        vectors.block(60, 130)
    with pytest.raises(Checksum, match=r"00001\.npy has been cut short"):
        vectors.rows(np.array([127]))
    (tmp_path / records[2].file).unlink()
    assert (vectors.block(128, 192) == whole[128:192]).all()


def test_names_of_spaces() -> None:
    """Any space name makes one folder, different names different ones.

    Names that would climb out are refused.
    """
    names = ["a/b", "a%2Fb", "a b", "a:b", "Öl", "openclip ViT-B-32//x.pt"]
    found = {layout.shard_file(name, 0) for name in names} | {
        layout.index_file(name) for name in names
    }
    assert len(found) == 12
    assert all(file.count("/") in (1, 2) for file in found)
    for bad in ("", "..", "."):
        with pytest.raises(ConfigError):
            layout.index_file(bad)


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129, 300, 1500])
def test_cosines_are_those_of_the_rows(stored: tuple[ShardedVectors, np.ndarray], n: int) -> None:
    """They have the bits that the rows give, in the order asked for, repeats included."""
    vectors, _ = stored
    row_ids = np.random.default_rng(n).integers(0, len(vectors), n)
    query = random_vectors(1, vectors.dim, seed=5)
    expected = cosines(query, vectors.rows(row_ids))[0]
    for _ in range(2):
        assert vectors.cosines(query, row_ids).tobytes() == expected.tobytes()


@pytest.mark.parametrize("k", [1, 10, 128, 299, 300, 400])
def test_nearest_are_the_best_cosines(tmp_path: Path, k: int) -> None:
    """The ids and the bits that ranking all cosines gives, with ties and with near ties."""
    rows = random_vectors(300, 24)
    rows[100:160] = rows[100]
    rows[200:260] = rows[100] + 1e-4 * random_vectors(60, 24, seed=3)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = ShardedVectors(tmp_path, write_shards(tmp_path, rows))
    row_ids = np.sort(np.random.default_rng(k).permutation(300)[: max(k, 250)])
    for query in (*random_vectors(5, 24, seed=8), rows[100]):
        expected = ranked(row_ids, vectors.cosines(query[None], row_ids), k)
        ids, scores = vectors.nearest(query[None], row_ids, k)
        assert ids.tolist() == expected[0].tolist()
        assert scores.tobytes() == expected[1].tobytes()


def test_nearest_of_rows_that_are_not_of_length_1(tmp_path: Path) -> None:
    """None is ruled out by its product: a long row that points elsewhere is not the nearest."""
    rows = np.array([[1, 0], [40, 30], [0.5, 0], [0, 1]], dtype=np.float16)
    vectors = ShardedVectors(
        tmp_path, [write_codes(tmp_path, "vectors/s/00000.npy", rows, provenance={})]
    )
    query = np.array([[1, 0]], dtype=np.float32)
    ids, scores = vectors.nearest(query, np.arange(4), 3)
    assert ids.tolist() == [0, 2, 1]
    np.testing.assert_allclose(scores, [1, 1, 0.8], atol=1e-6)


def test_every_finite_code_is_read_as_numpy_reads_it(tmp_path: Path) -> None:
    """Both zeros, subnormal values and the largest among them."""
    codes = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    codes = codes[np.isfinite(codes)]
    rows = np.stack([codes, np.ones_like(codes)], axis=1)
    vectors = ShardedVectors(
        tmp_path, [write_codes(tmp_path, "vectors/s/00000.npy", rows, provenance={})]
    )
    expected = rows.astype(np.float32)
    expected /= np.linalg.norm(expected.astype(np.float64), axis=1).astype(np.float32)[:, None]
    np.testing.assert_array_equal(vectors.block(0, len(rows)), expected)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_value_that_is_not_finite_is_damage(tmp_path: Path, value: float) -> None:
    """In a file that was changed behind the record's back."""
    rows = np.array([[1, 0], [value, 0]], dtype=np.float16)
    vectors = ShardedVectors(
        tmp_path, [write_codes(tmp_path, "vectors/s/00000.npy", rows, provenance={})]
    )
    with pytest.raises(Checksum, match="without a length"):
        vectors.rows(np.array([1]))
    with pytest.raises(Checksum, match="without a length"):
        vectors.cosines(np.array([[1, 0]], dtype=np.float32), np.array([0, 1]))
    with pytest.raises(Checksum, match="without a length"):
        vectors.nearest(np.array([[1, 0]], dtype=np.float32), np.array([0, 1]), 1)
