"""Reads clients' image files in separate processes, each with a time and a memory limit.

A decoder that hangs, allocates too much or crashes costs one image: its process is killed and
replaced, and only requests with images wait for that. These processes import no model.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
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


def read_prompt(image: bytes, limits: ImageLimits) -> EmbeddedPrompt | None:
    """Return the prompt in an image's metadata or hidden in its pixels, or None.

    Raises:
        ImageRejected: the image cannot be read.
    """
    return read_embedded_prompt(image, limits=limits, hidden=True)


def read_png_info(
    image: bytes, limits: ImageLimits
) -> tuple[EmbeddedPrompt | None, dict[str, str]]:
    """Return the prompt and all metadata texts of an image; raises like `read_prompt`."""
    return read_prompt(image, limits), read_texts(image, limits=limits).texts


class ImageReaders:
    """A pool of processes that read images within the time and memory of `limits`."""

    def __init__(self, limits: Limits) -> None:
        from pebble import ProcessPool

        # Not fork, which is unsafe in a process with threads and torch. Windows has only spawn.
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload(_PRELOADED)
        self._limits = limits
        self._closed = threading.Event()
        self._idle = asyncio.Semaphore(_READERS)
        self._pool = ProcessPool(
            _READERS, context=context, initializer=_restrict, initargs=(limits.reader_memory_bytes,)
        )

    def start(self) -> None:
        """Start the processes.

        Raises:
            ConfigError: they cannot be started.
        """
        from pebble import ProcessExpired

        try:
            pending: set[Future[None]] = {self._pool.schedule(_no_op) for _ in range(_READERS)}
            deadline = monotonic() + _START_S
            while pending and not self._closed.is_set():
                finished, pending = wait(pending, timeout=0.1)
                for future in finished:
                    future.result()
                if monotonic() > deadline:
                    raise TimeoutError
        except (OSError, RuntimeError, ProcessExpired, TimeoutError) as error:
            if self._closed.is_set():
                return
            message = f"The processes that read images cannot be started ({type(error).__name__})."
            hint = "They need a writable folder for temporary files; check TMPDIR."
            raise ConfigError(message, hint=hint) from error

    async def read(self, work: Callable[..., Value], *args: object) -> Value:
        """Run `work(*args)` in an idle process; cancelling the call kills that process.

        Raises:
            ImageRejected: the image cannot be read within the limits.
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
                hint = "Save the image again as a plain PNG or JPEG."
                raise ImageRejected(_NAME, reason, hint=hint) from error
            except ProcessExpired as error:
                _LOG.warning("reader ended", extra={"event": "reader-ended", "error": "crash"})
                raise ImageRejected(_NAME, "its decoder crashed") from error
            except MemoryError as error:
                limit = self._limits.reader_memory_bytes
                reason = f"reading it takes more than {limit:,} bytes of memory"
                raise ImageRejected(_NAME, reason) from error

    def close(self) -> None:
        """Stop the processes, including any that are reading."""
        self._closed.set()
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


def _no_op() -> None:
    """Do nothing; a process that has run this is ready."""


def _restrict(max_memory: int) -> None:
    """Limit this process to `max_memory` more bytes, and let it write no file and no core dump.

    Its output goes to /dev/null: decoders in C print warnings to standard error, which is the
    server's log. Limits that the system does not support are skipped.
    """
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(devnull, stream)
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        data_pages = int(Path("/proc/self/statm").read_text("ascii").split()[5])
        limit = data_pages * resource.getpagesize() + max_memory
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
