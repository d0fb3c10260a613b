"""An index deleted, damaged or replaced under load: right answers or a clear problem, only."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from imprompt.core.atomic_files import atomic_write
from imprompt.server.server_settings import ServerSettings
from imprompt.store import layout
from imprompt.store.publish import read_current
from tests.server.conftest import PROMPTS, Serve
from tests.server.load import Answer, Load, asking, until

SHARD, INDEX = "vectors/*/00000.npy", "index/*.faiss"
SLOW = pytest.mark.slow


@pytest.fixture
def root(index: Path, tmp_path: Path) -> Path:
    """An index of its own."""
    return Path(shutil.copytree(index, tmp_path / "index"))


def files(root: Path, pattern: str) -> list[Path]:
    """Files of the version in service, with the right to write them."""
    name, _ = read_current(root) or ("", "")
    found = sorted(layout.version_folder(root, name).glob(pattern))
    assert found
    for path in found:
        path.chmod(0o644)
    return found


@contextmanager
def loaded(serve: Serve, root: Path) -> Iterator[tuple[TestClient, Load]]:
    """A server under load; at the end there were only right answers and checksum problems."""
    with serve(ServerSettings(root, watch_s=0.05)) as client:

        def ask(text: str) -> Answer:
            done = client.post("/v1/search", json={"text": text, "k": 1})
            return done.status_code, done.json()

        with asking(ask, PROMPTS) as load:
            yield client, load
        assert not load.wrong
        assert set(load.refused) <= {(503, "checksum")}


def invert(path: Path) -> None:
    """Turn every bit of the file's second half, in place."""
    content = path.read_bytes()
    half = len(content) // 2
    with path.open("r+b") as file:
        file.seek(half)
        file.write(bytes(byte ^ 0xFF for byte in content[half:]))


def cut(path: Path) -> None:
    """Leave the first half of the file, in place."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def delete_all(root: Path) -> None:
    shutil.rmtree(root)


def delete_files(root: Path) -> None:
    for pattern in (SHARD, INDEX, layout.PROMPTS):
        for path in files(root, pattern):
            path.unlink()


def spoil_current(root: Path) -> None:
    layout.current_path(root).write_bytes(b"\xffnonsense")


def spoil_index(root: Path) -> None:
    for path in files(root, INDEX):
        invert(path)


def cut_index(root: Path) -> None:
    for path in files(root, INDEX):
        cut(path)


@pytest.mark.parametrize(
    "happens",
    [
        delete_all,
        cut_index,
        *(pytest.param(each, marks=SLOW) for each in (delete_files, spoil_current, spoil_index)),
    ],
)
def test_what_does_no_harm(serve: Serve, root: Path, happens: Callable[[Path], None]) -> None:
    """Files deleted, CURRENT overwritten, FAISS's file damaged or cut: every answer stays right."""
    with loaded(serve, root) as (client, load):
        happens(root)
        load.goes_on(30)
        assert client.get("/readyz").status_code == 200
    assert not load.refused


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        (SHARD, invert),
        (layout.PROMPTS, cut),
        pytest.param(SHARD, cut, marks=SLOW),
        pytest.param(layout.PROMPTS, invert, marks=SLOW),
    ],
)
def test_what_is_damaged_in_place_is_withdrawn_until_it_is_whole(
    serve: Serve, root: Path, pattern: str, damage: Callable[[Path], None]
) -> None:
    """Bytes flipped or a file cut short in place: a problem that names the file but no path.

    Readiness is lost, liveness is not. With the old bytes back the same server answers again.
    """
    with loaded(serve, root) as (client, load):
        before = {path: path.read_bytes() for path in files(root, pattern)}
        for path in before:
            damage(path)
        load.is_refused()
        done = client.post("/v1/search", json={"text": "fox"})
        assert (done.status_code, done.json()["kind"], done.headers["retry-after"]) == (
            503,
            "checksum",
            "1",
        )
        assert any(path.name in done.json()["detail"] for path in before)
        assert str(root) not in done.text
        assert client.get("/readyz").json() == {"status": "index damaged"}
        assert client.get("/healthz").status_code == 200
        for path, content in before.items():
            path.write_bytes(content)
        load.goes_on()
        assert client.get("/readyz").status_code == 200
    metrics = client.get("/metrics").text
    assert "imprompt_index_version_withdrawals_total 1.0" in metrics


@SLOW
def test_a_damaged_index_is_replaced_by_a_new_one(
    serve: Serve, build: Callable[..., Path], tmp_path: Path
) -> None:
    """Whoever builds again need not start the server again."""
    root = build(tmp_path)
    with loaded(serve, root) as (_, load):
        for path in files(root, SHARD):
            invert(path)
        load.is_refused()
        old = load.right[-1]
        build(tmp_path, (*PROMPTS, "a teapot"))
        load.goes_on()
        assert old not in load.right[-3:]


@SLOW
def test_a_file_written_over_with_its_own_bytes_comes_back(serve: Serve, root: Path) -> None:
    """As restoring a backup does: answers stop until every byte has been read again."""
    with loaded(serve, root) as (client, load):
        for path in files(root, SHARD):
            path.write_bytes(path.read_bytes())
        until(lambda: "imprompt_index_version_withdrawals_total 1.0" in client.get("/metrics").text)
        load.goes_on()


def test_a_new_version_that_is_damaged_is_refused(
    serve: Serve, build: Callable[..., Path], root: Path, tmp_path: Path
) -> None:
    """Whichever of its files it is: the old one goes on without a dropped request."""
    (tmp_path / "other").mkdir()
    other = build(tmp_path / "other", (*PROMPTS, "a teapot"))
    name, sha256 = read_current(other) or ("", "")
    with loaded(serve, root) as (client, load):
        for number, pattern in enumerate((SHARD, INDEX, layout.PROMPTS, layout.MANIFEST), 1):
            folder = layout.version_folder(root, f"{name}{number}")
            shutil.copytree(layout.version_folder(other, name), folder)
            for path in folder.glob(pattern):
                path.chmod(0o644)
                invert(path)
            with atomic_write(layout.current_path(root)) as file:
                file.write(f"{name}{number} {sha256}\n".encode())
            until(
                lambda number=number: (  # type: ignore[misc]
                    f"imprompt_index_version_failures_total {number}.0"
                    in client.get("/metrics").text
                )
            )
            load.goes_on()
    assert not load.refused
    assert len(set(load.right)) == 1
