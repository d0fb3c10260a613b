"""Which engine is meant, and whether a cluster answers, is settled before anything is read."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from imprompt.core.errors import ClusterUnreachable, ConfigError
from imprompt.indexer.ray_session import check_answers, parse_address
from tests.conftest import Imprompt


def test_addresses() -> None:
    """Ray's port by default; a bad address is refused and not echoed, it may hold a password."""
    assert parse_address("ray") == ""
    assert parse_address("ray://head") == "head:6379"
    assert parse_address("ray://10.0.0.7:1234") == "10.0.0.7:1234"
    for wrong in (
        "spark",
        "ray://",
        "ray://:80",
        "ray://user:secret@head:6379",
        "ray://head:port",
        "ray:head",
        "ray://head/x",
    ):
        with pytest.raises(ConfigError) as caught:
            parse_address(wrong)
        assert "secret" not in str(caught.value)


def test_nothing_answers() -> None:
    """A port that nobody listens at is refused at once."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    with pytest.raises(ClusterUnreachable, match=rf"Nothing answers at 127\.0\.0\.1:{port}"):
        check_answers(f"127.0.0.1:{port}")


def test_something_else_answers() -> None:
    """A server that is no Ray is waited for as long as is told, and no longer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ClusterUnreachable, match=f"at {address} is not a head node of Ray"):
            check_answers(address, timeout_s=1)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--engine", "spark"], 10, "--engine 'spark' is not an engine."),
        (["--engine", "ray://127.0.0.1:1"], 81, "Nothing answers at 127.0.0.1:1"),
        (["--shards", "s3://bucket"], 10, "--shards belongs to --engine ray."),
        (["--engine", "ray", "--shards", "s3://key:secret@bucket"], 10, "holds a user or a key"),
    ],
)
def test_options_that_cannot_be_used(
    words: list[str], code: int, said: str, imprompt: Imprompt, tmp_path: Path
) -> None:
    """One line with its own exit code; no index is begun."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a red fox\n", "utf-8")
    done = imprompt("build-index", "--corpus", corpus, "--index", tmp_path / "index", *words)
    assert done.code == code
    assert said in done.err.splitlines()[-1]
    assert "secret" not in done.err
    assert not (tmp_path / "index").exists()
