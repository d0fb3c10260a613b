"""A server that is not there, does not answer, dies, or wants a token.

One line, soon, and no word of the token.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import imprompt.store.milvus.connection
from imprompt.core.errors import ConfigError, NoIndex, StoreError, Unreachable
from imprompt.core.pip_lines import install_extra
from imprompt.core.settings import MilvusPlace
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.milvus_version import open_milvus
from imprompt.store.milvus.upload import PushOptions, push
from tests.conftest import Imprompt
from tests.store.builders import SPACE, build
from tests.store.lite_server import free_port, lite_server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "root:hunter2-hunter2"  # noqa: S105 no real one


def test_a_closed_port(imprompt: Imprompt) -> None:
    """Nobody listens: within seconds every verb says so in a line with the address and exits."""
    place = f"milvus:http://127.0.0.1:{free_port()}"
    for words in (
        ["query", "--text", "a fox"],
        ["info"],
        ["embed", "--space", "index", "--texts", "x.txt", "--out", "x.npy"],
    ):
        began = time.monotonic()
        done = imprompt(*words, "--index", place)
        assert (done.code, done.err.count("\n"), done.out) == (58, 1, "")
        assert done.err.startswith(f"error: {place} does not answer (unavailable)")
        assert time.monotonic() - began < 60


def test_a_listener_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing: each try ends after its time."""
    monkeypatch.setattr(imprompt.store.milvus.connection, "CONNECT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        began = time.monotonic()
        with pytest.raises(Unreachable, match="does not answer"):
            Connection(MilvusPlace(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        assert 1.5 < time.monotonic() - began < 15


@pytest.mark.timeout(1200)
def test_a_server_that_dies_between_two_questions(tmp_path: Path) -> None:
    """The next question ends in one line, soon; a push ends so, too."""
    build(tmp_path / "index", rows=30)
    with lite_server(tmp_path / "server") as server:
        push(tmp_path / "index", server.place, options=PushOptions())
        with open_milvus(server.place) as version:
            query = version.vectors(SPACE).rows(np.array([3]))
            assert version.index(SPACE).search(query, 1).ids.tolist() == [[3]]
            server.kill()
            for ask in (
                lambda: version.index(SPACE).search(query, 1),
                lambda: version.prompts.get_many([3]),
                lambda: push(tmp_path / "index", server.place, options=PushOptions()),
            ):
                began = time.monotonic()
                with pytest.raises(Unreachable, match=str(server.place)):
                    ask()
                assert time.monotonic() - began < 60


@pytest.mark.timeout(1200)
def test_a_token_is_sent_and_never_told(tmp_path: Path) -> None:
    """Neither where all goes well nor where it does not, with all that can be said turned on."""
    build(tmp_path / "index", rows=30)
    environment = {**os.environ, "IMPROMPT_MILVUS_TOKEN": TOKEN, "GRPC_TRACE": ""}
    with lite_server(tmp_path / "server") as server:
        words = [
            ["push", "--index", str(tmp_path / "index"), str(server.place), "--verbose"],
            [
                "push",
                "--index",
                str(tmp_path / "index"),
                str(server.place),
                "--milvus-index-type",
                "DISKANN",
                "--verbose",
            ],
            ["info", "--index", str(server.place), "--verbose"],
            ["info", "--index", f"milvus:http://127.0.0.1:{free_port()}", "--verbose"],
            ["info", "--index", f"milvus:http://{TOKEN}@127.0.0.1:19530", "--verbose"],
        ]
        codes = []
        for some in words:
            done = subprocess.run(
                [sys.executable, "cli.py", *some],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=400,
            )
            codes.append(done.returncode)
            assert "hunter2" not in done.stdout + done.stderr
            assert "Traceback" not in done.stderr
        assert codes == [0, 50, 0, 58, 10]


def test_a_token_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's refusal is told with the variable that is read.

    Its words are shown without the token.
    """
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from pymilvus.grpc_gen import milvus_pb2_grpc

    class Guarded(milvus_pb2_grpc.MilvusServiceServicer):  # type: ignore[misc]  # it has no types
        def Connect(self, request: object, context: grpc.ServicerContext) -> None:  # noqa: N802 the protocol's name
            seen.append(dict(context.invocation_metadata()).get("authorization"))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"auth check failure for {TOKEN}")

    seen: list[object] = []
    server = grpc.server(ThreadPoolExecutor(2))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(Guarded(), server)
    place = MilvusPlace(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    try:
        for token, said in (("", "no token was sent"), (TOKEN, "the token was sent")):
            monkeypatch.setenv("IMPROMPT_MILVUS_TOKEN", token)
            with pytest.raises(StoreError, match=said) as caught:
                Connection(place)
            assert "hunter2" not in str(caught.value)
            assert "IMPROMPT_MILVUS_TOKEN" in caught.value.hint
        assert seen[0] is None
        assert seen[-1]
    finally:
        server.stop(None).wait()


def test_files_that_are_none_of_milvus_lite(tmp_path: Path) -> None:
    """A missing one is not made by asking; another kind of file is left as it is."""
    missing, other = tmp_path / "missing.db", tmp_path / "other.db"
    with pytest.raises(NoIndex, match=r"There is no .*missing\.db"):
        open_milvus(MilvusPlace(str(missing)))
    assert not missing.exists()
    other.write_bytes(b"SQLite format 3\0")
    with pytest.raises(StoreError, match=r"other\.db cannot be served by Milvus Lite"):
        open_milvus(MilvusPlace(str(other)))
    assert other.read_bytes() == b"SQLite format 3\0"


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("pymilvus", re.escape(install_extra("milvus"))),
        ("milvus_lite.adapter.grpc.server", "pip install milvus-lite"),
    ],
)
def test_a_package_that_is_not_installed(
    module: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends in the line that installs it."""
    (tmp_path / "a.db").mkdir()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=said):
        open_milvus(MilvusPlace(str(tmp_path / "a.db")))


def test_nothing_stays_behind(tmp_path: Path) -> None:
    """A file that was opened twice and closed twice.

    No thread runs, and another process may have it.
    """
    place = MilvusPlace(str(tmp_path / "a.db"))
    before = threading.active_count()
    build(tmp_path / "index", rows=30)
    push(tmp_path / "index", place, options=PushOptions())
    with open_milvus(place) as one, open_milvus(place) as other:
        assert len(one.prompts) == len(other.prompts) == 30
        one.close()
        one.close()
        assert other.prompts.get_many([1])[0].row_id == 1
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.05)
    assert threading.active_count() <= before
    script = "import sys; from milvus_lite import MilvusLite; MilvusLite(sys.argv[1]).close()"
    assert (
        subprocess.run([sys.executable, "-c", script, place.address], check=False).returncode == 0
    )
