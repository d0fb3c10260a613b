"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from imprompt.core.atomic_files import atomic_write, sha256_file
from imprompt.core.errors import StorageFull


def test_a_file_appears_with_all_its_bytes(tmp_path: Path) -> None:
    """What was written is there, folders included, and nothing else."""
    target = tmp_path / "a" / "b.bin"
    with atomic_write(target) as file:
        file.write(b"one")
        assert not target.exists()
    assert target.read_bytes() == b"one"
    assert [path.name for path in target.parent.iterdir()] == ["b.bin"]


def test_a_failure_leaves_the_older_file_and_no_debris(tmp_path: Path) -> None:
    """An error in the middle of writing costs nothing that was there."""
    target = tmp_path / "b.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(target) as file:
        file.write(b"new")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["b.bin"]


def test_a_full_disk_is_said_by_name(tmp_path: Path) -> None:
    """`/dev/full` behaves as a full disk for every user, root included."""
    target = tmp_path / "b.bin"
    with (
        pytest.raises(StorageFull, match=r"b\.bin cannot be written: No space left on device"),
        atomic_write(target) as file,
    ):
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")
        file.write(b"never reached")
    assert not list(tmp_path.iterdir())


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    """A file larger than a chunk hashes like its bytes in one piece."""
    data = bytes(range(256)) * 8192
    (tmp_path / "x").write_bytes(data)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_a_new_file_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor a link that leads nowhere, with hard links or without."""
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").symlink_to(tmp_path / "nowhere")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    for name in ("links", "no links"):
        for taken in ("a", "b"):
            with (
                pytest.raises(FileExistsError),
                atomic_write(tmp_path / taken, replace=False) as file,
            ):
                file.write(b"new")
        with atomic_write(tmp_path / name, replace=False) as file:
            file.write(b"new")
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "links").read_bytes() == (tmp_path / "no links").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "links", "no links"]
