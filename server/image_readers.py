"""Image files of clients, read in processes of their own, each with a limit of time and of memory.

A decoder that hangs, eats memory or crashes costs one image: its process is killed and replaced,
and no question waits for it but those about images. What runs here imports no model.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import resource
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TypeVar

from imprompt.core.errors import ConfigError, ImageRejected
from imprompt.images.image_opening import PLUGIN_MODULES, ImageLimits
from imprompt.images.metadata.file_texts import read_texts
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, read_embedded_prompt
from imprompt.server.server_settings import Limits

_LOG = logging.getLogger("imprompt.server")
_READERS = 2
_START_S = 60
_NAME = "image in memory"
_PRELOADED = [__name__, "numpy", "imprompt.retriever.questions", "sd_parsers", *PLUGIN_MODULES]

Value = TypeVar("Value")


def read_carried(image: bytes, limits: ImageLimits) -> EmbeddedPrompt | None:
    """Return the prompt that an image carries in its texts or its pixels, or None.

    Raises:
        ImageRejected: the image cannot be read.
    """
    return read_embedded_prompt(image, limits=limits, hidden=True)


def read_png_info(
    image: bytes, limits: ImageLimits
) -> tuple[EmbeddedPrompt | None, dict[str, str]]:
    """Return the prompt and all texts of an image; raises as `read_carried`."""
    return read_carried(image, limits), read_texts(image, limits=limits).texts


class Readers:
    """A few processes that read images.

    Args:
        limits: how long one image may take, and what a process may hold.
    """

    def __init__(self, limits: Limits) -> None:
        from pebble import ProcessPool

        context = multiprocessing.get_context(
            "forkserver"
        )  # not fork: there are threads, and torch
        context.set_forkserver_preload(_PRELOADED)
        self._limits = limits
        self._closed = threading.Event()
        self._idle = asyncio.Semaphore(_READERS)
        self._pool = ProcessPool(
            _READERS, context=context, initializer=_confine, initargs=(limits.reader_memory_bytes,)
        )

    def start(self) -> None:
        """Start the processes.

        Raises:
            ConfigError: the system does not let them start.
        """
        from pebble import ProcessExpired

        try:
            waiting: set[Future[None]] = {self._pool.schedule(_nothing) for _ in range(_READERS)}
            deadline = monotonic() + _START_S
            while waiting and not self._closed.is_set():
                done, waiting = wait(waiting, timeout=0.1)
                for future in done:
                    future.result()
                if monotonic() > deadline:
                    raise TimeoutError
        except (OSError, RuntimeError, ProcessExpired, TimeoutError) as error:
            if self._closed.is_set():
                return
            message = f"The processes that read images cannot be started ({type(error).__name__})."
            hint = "They need a folder for temporary files that may be written."
            raise ConfigError(message, hint=hint) from error

    async def read(self, work: Callable[..., Value], *args: object) -> Value:
        """Return `work(*args)`, done by an idle process; cancelling it ends the process.

        Raises:
            ImageRejected: the image cannot be read, or not within the limits.
        """
        from pebble import ProcessExpired

        seconds = self._limits.read_timeout_s
        async with self._idle:
            future = self._pool.schedule(work, args=args, timeout=seconds)
            try:
                return await asyncio.wrap_future(future)
            except TimeoutError as error:
                _LOG.warning("reader ended", extra={"event": "reader-ended", "error": "timeout"})
                reason = f"reading it took longer than {seconds:g} s"
                raise ImageRejected(
                    _NAME, reason, hint="Save the picture again as a plain PNG or JPEG."
                ) from error
            except ProcessExpired as error:
                _LOG.warning("reader ended", extra={"event": "reader-ended", "error": "crash"})
                raise ImageRejected(_NAME, "its decoder broke down") from error
            except MemoryError as error:
                limit = self._limits.reader_memory_bytes
                raise ImageRejected(
                    _NAME, f"reading it takes more than {limit:,} bytes of memory"
                ) from error

    def close(self) -> None:
        """End the processes and what they do."""
        self._closed.set()
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


def _nothing() -> None:
    """Do nothing, in a process that is there afterwards."""


def _confine(max_memory: int) -> None:
    """Let this process take so much more memory, write no file, log nothing and leave no core, where the system knows how.

    Decoders in C print what they find odd to standard error, which is the server's log.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[5])
        limit = pages * resource.getpagesize() + max_memory
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
