"""Processes that read images: one that hangs, crashes or eats memory costs one image only."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from imprompt.core.errors import ImageRejected
from imprompt.images.bounds import DEFAULT_LIMITS
from imprompt.retriever.questions import read_image
from imprompt.server.image_readers import ImageReaders
from imprompt.server.server_settings import Limits
from tests.hostile.images import scans
from tests.server.conftest import Serve
from tests.server.pictures import PARAMETERS, b64, png

Value = TypeVar("Value")


@contextmanager
def readers(**limits: object) -> Iterator[ImageReaders]:
    found = ImageReaders(Limits(**limits))  # type: ignore[arg-type]
    try:
        found.start()
        yield found
    finally:
        found.close()


def read(found: ImageReaders, work: Callable[..., Value], *args: object) -> Value:
    return asyncio.run(found.read(work, *args))


def workers() -> set[int]:
    """Processes that descend from this one."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def test_an_image_comes_back_as_it_would_be_read_here() -> None:
    """Picture and carried prompt; an error with its class, reason and hint."""
    with readers() as found:
        there = read(found, read_image, png(parameters=PARAMETERS), False, DEFAULT_LIMITS)
        here = read_image(png(parameters=PARAMETERS), False, DEFAULT_LIMITS)
        assert there.picture.tobytes() == here.picture.tobytes()
        assert (there.carried, there.note) == (here.carried, here.note)
        with pytest.raises(ImageRejected, match="not an image") as caught:
            read(found, read_image, b"nothing", False, DEFAULT_LIMITS)
        assert caught.value.reason.startswith("not an image")


def test_where_nothing_is_forked_they_are_started_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no fork server."""
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    with readers() as found:
        started = [" ".join(child.cmdline()) for child in psutil.Process().children()]
        assert sum("spawn_main" in line for line in started) == 2
        assert read(found, read_image, png(), False, DEFAULT_LIMITS).picture.size == (64, 64)


@pytest.mark.parametrize(
    ("work", "args", "says"),
    [
        (time.sleep, (60,), "longer than 0.5 s"),
        (os.abort, (), "its decoder crashed"),
        (os._exit, (1,), "its decoder crashed"),
        (bytes, (1 << 30,), "takes more than 268,435,456 bytes"),
    ],
)
def test_what_goes_wrong_costs_one_image(
    work: Callable[..., object], args: tuple[int, ...], says: str
) -> None:
    """It is refused at once, and the next ones are read, several times over."""
    with readers(read_timeout_s=0.5, reader_memory_bytes=256 << 20) as found:
        for _ in range(3):
            begun = time.monotonic()
            with pytest.raises(ImageRejected, match=says):
                read(found, work, *args)
            assert time.monotonic() - begun < 5
            assert read(found, read_image, png(), False, DEFAULT_LIMITS).picture.size == (64, 64)


def test_both_may_hang_at_once() -> None:
    """While large images wait behind them; all come to an end."""
    with readers(read_timeout_s=0.5) as found:

        async def ask() -> list[object]:
            hung = [found.read(time.sleep, 60) for _ in range(4)]
            waiting = [found.read(len, bytes(20 << 20)) for _ in range(4)]
            return await asyncio.gather(*hung, *waiting, return_exceptions=True)

        results = asyncio.run(asyncio.wait_for(ask(), 20))
    assert [type(result) for result in results[:4]] == [ImageRejected] * 4
    assert results[4:] == [20 << 20] * 4


def test_a_client_that_goes_away_ends_the_work() -> None:
    """Cancelling kills the process that works, and another one takes its place."""
    with readers(read_timeout_s=60) as found:
        before = workers()

        async def leave() -> None:
            task = asyncio.create_task(found.read(time.sleep, 50))
            await asyncio.sleep(0.5)
            task.cancel()

        asyncio.run(leave())
        until = time.monotonic() + 10
        while before <= workers():
            assert time.monotonic() < until
            time.sleep(0.05)
        assert read(found, len, b"four") == 4


def test_a_reader_writes_no_file(tmp_path: Path) -> None:
    """Whatever a decoder is made to do, the disk stays as it is."""
    with readers() as found, pytest.raises(OSError, match="File too large"):
        read(found, (tmp_path / "file").write_bytes, b"something")


def test_they_end_with_the_server() -> None:
    """No process stays but the one that forks the readers, for the next server of this process."""
    with readers() as found:
        assert read(found, len, b"four") == 4
    before = workers()
    with readers() as found:
        assert read(found, len, b"four") == 4
        made = workers() - before
    assert len(made) == 2
    until = time.monotonic() + 10
    while made & workers():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_texts_do_not_wait_for_images(serve: Serve) -> None:
    """While the costliest images keep both readers busy, more texts than images are answered."""
    body = {"images": [b64(scans(14, 7000, refine=True))], "k": 1}
    with serve() as client, ThreadPoolExecutor(4) as pool:
        images = [pool.submit(client.post, "/v1/query", json=body) for _ in range(12)]
        texts = 0
        while not all(image.done() for image in images):
            response = client.post("/v1/search", json={"text": f"a fox {texts}"})
            assert response.status_code == 200
            texts += 1
    assert [image.result().status_code for image in images] == [200] * len(images)
    assert texts > len(images)
