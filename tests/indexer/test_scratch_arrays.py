"""Arrays in files without a name: the same values as in memory, little of them in memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprompt.indexer import scratch_arrays
from imprompt.indexer.scratch_arrays import Scratch, ScratchArray

REPOSITORY = Path(__file__).resolve().parents[2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 5000), st.booleans())
def test_as_in_memory(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, wide: bool
) -> None:
    """Append, take, put and blocks do what they do to an array in memory, whatever the window."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype((np.uint64, (4,))) if wide else np.dtype(np.int32)
    expected = rng.integers(0, 2**31, (rows, *dtype.shape)).astype(dtype.base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch_arrays, "_WINDOW_BYTES", 4096)
        patch.setattr(scratch_arrays, "_BLOCK_ROWS", 999)
        with Scratch(tmp_path_factory.getbasetemp()) as scratch:
            array = scratch.array(dtype)
            for part in np.array_split(expected, 3):
                array.append(part)
            assert len(array) == rows
            assert array.n_bytes == expected.nbytes
            if rows:
                indexes = rng.integers(0, rows, 700)
                np.testing.assert_array_equal(array.take(indexes), expected[indexes])
                changed = rng.permutation(rows)[: rows // 2]
                expected[changed] = expected[changed] + 1
                array.put(changed, expected[changed])
            array.fill(10, 3)
            expected = np.concatenate([expected, np.full((10, *dtype.shape), 3, dtype.base)])
            np.testing.assert_array_equal(np.concatenate([*array.blocks()]), expected)
            assert array.take(np.empty(0, dtype=np.int64)).shape == (0, *dtype.shape)


def test_an_empty_array(tmp_path: Path) -> None:
    """Nothing to read, and nothing to map."""
    with ScratchArray(tmp_path, np.int64) as array:
        assert [*array.blocks()] == []
        assert array.take(np.empty(0, dtype=np.int64)).dtype == np.int64
        array.put(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@pytest.mark.skipif(sys.platform != "linux", reason="Windows deletes the file when it is closed")
def test_no_file_has_a_name(tmp_path: Path) -> None:
    """The folder is empty all the time, so a killed process leaves nothing in it."""
    with ScratchArray(tmp_path, np.int64) as array:
        array.fill(100_000, 1)
        array.put(np.arange(9, dtype=np.int64), np.zeros(9, dtype=np.int64))
        assert [*tmp_path.iterdir()] == []
    array.close()


def test_a_full_disk(tmp_path: Path) -> None:
    """A file that may not grow ends in `StorageFull`, in `fill` before anything is mapped."""
    program = f"""
import resource, numpy as np
from pathlib import Path
from imprompt.core.errors import StorageFull
from imprompt.indexer.scratch_arrays import Scratch
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
with Scratch(Path({str(tmp_path)!r})) as scratch:
    for write in (lambda a: a.append(np.zeros(50_000)), lambda a: a.fill(50_000, 1)):
        try:
            array = scratch.array(np.int64)
            write(array)
            array.take(np.arange(50_000))
        except StorageFull as error:
            print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert (
        done.stdout.splitlines()
        == [f"{tmp_path} cannot be written: {os.strerror(errno.EFBIG)}."] * 2
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_little_stays_in_memory(tmp_path: Path) -> None:
    """Random reads and changes all over 400 MB keep no more than a window of 16 MiB in memory."""
    rows = 50_000_000
    with ScratchArray(tmp_path, np.int64) as array:
        array.fill(rows, 7)
        indexes = np.random.default_rng(0).permutation(rows // 64)[:200_000] * 64
        before = resident_bytes()
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # forgets the peak so far
        assert int(array.take(indexes).sum()) == 7 * len(indexes)
        array.put(indexes, indexes)
        assert int(array.take(indexes).sum()) == int(indexes.sum())
        assert resident_bytes("VmHWM") - before < 50_000_000
        assert resident_bytes() - before < 30_000_000


def resident_bytes(name: str = "VmRSS") -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
