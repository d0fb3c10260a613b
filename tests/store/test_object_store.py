"""The place through which shards pass: what is put there, who may not be named there."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.core.errors import Checksum, ConfigError, StoreError
from imprompt.store.manifest import ShardRecord
from imprompt.store.object_store import ObjectStore, checked_url
from imprompt.store.shards import keep_shard
from tests.store.builders import random_vectors, write_shards

PLAN = "ab" * 32


@pytest.fixture
def record(tmp_path: Path) -> ShardRecord:
    return write_shards(tmp_path / "made", random_vectors(40))[0]


def test_a_shard_passes_through_a_folder(record: ShardRecord, tmp_path: Path) -> None:
    """Its bytes come out as they went in, however often put; nothing of the build stays."""
    depot = ObjectStore(checked_url(str(tmp_path / "shared")), PLAN)
    for _ in range(2):
        depot.put(tmp_path / "made", record)
    assert [path.name for path in (tmp_path / "shared").rglob("*") if path.is_file()] == [
        f"{record.sha256}.npy"
    ]
    keep_shard(tmp_path / "kept", record, depot.chunks(record))
    assert (tmp_path / "kept" / record.file).read_bytes() == (
        tmp_path / "made" / record.file
    ).read_bytes()
    (tmp_path / "shared" / "other").write_text("of somebody else", "utf-8")
    depot.clear()
    depot.clear()
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["other"]


def test_other_bytes_never_appear(record: ShardRecord, tmp_path: Path) -> None:
    """A shard that is not what its record says leaves no file behind."""
    content = (tmp_path / "made" / record.file).read_bytes()
    for wrong in ([content[:-1]], [content, b"x"], [], [content[:-1], b"\0"]):
        with pytest.raises(Checksum, match="did not arrive"):
            keep_shard(tmp_path / "kept", record, wrong)
        assert not [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]


def test_a_place_that_cannot_be_used(record: ShardRecord, tmp_path: Path) -> None:
    """One line that names the place: it is a file, or holds no such shard."""
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(StoreError, match="file cannot be used"):
        ObjectStore(str(tmp_path / "file"), PLAN).put(tmp_path / "made", record)
    with pytest.raises(Checksum, match=r"gone from .*empty"):
        list(ObjectStore(str(tmp_path / "empty"), PLAN).chunks(record))


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:topsecret@bucket/prefix",
        "s3://AKIAKEY@bucket/prefix",
        "s3://bucket/prefix?secret_key=topsecret",
        "s3://bucket/prefix?access_key=AKIAKEY&region=eu-west-1",
    ],
)
def test_credentials_are_refused_and_not_repeated(url: str) -> None:
    """They would end in logs and in the histories of shells."""
    with pytest.raises(ConfigError) as caught:
        checked_url(url)
    assert "topsecret" not in str(caught.value)
    assert "AKIAKEY" not in str(caught.value)


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders become absolute; buckets keep their three location parameters; others are refused."""
    monkeypatch.chdir(tmp_path)
    assert checked_url("shared") == str(tmp_path / "shared")
    for url in (
        "s3://bucket/prefix?region=eu-west-1",
        "gs://bucket",
        "s3://b/p?endpoint_override=localhost:9000&scheme=http",
    ):
        assert checked_url(url) == url
    for url in ("http://host/path", "ftp://host/path"):
        with pytest.raises(ConfigError, match="cannot hold shards"):
            checked_url(url)
