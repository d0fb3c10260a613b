"""What a server does, without HTTP: questions in, answers out; models and index loaded once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from imprompt.core.errors import ImpromptError
from imprompt.core.hub.fetch import Announce
from imprompt.ensemble.ensemble import Ensemble
from imprompt.ensemble.explanation import ExplainedAnswer
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
from imprompt.retriever import Answer
from imprompt.retriever.questions import joined, read_image
from imprompt.server.answering import (
    Answered,
    Ask,
    AskJob,
    Done,
    EmbeddedTexts,
    EmbedJob,
    Job,
    work_off,
)
from imprompt.server.http_errors import busy
from imprompt.server.image_readers import Readers, read_carried, read_png_info
from imprompt.server.micro_batches import MicroBatcher
from imprompt.server.models import Models
from imprompt.server.prometheus import Metrics
from imprompt.server.server_settings import ServerConfig
from imprompt.server.snapshots import Snapshot, Snapshots
from imprompt.store.gpu import opened_gpu

if TYPE_CHECKING:
    from imprompt.core.protocols import DualEncoder

_ROW_THREADS = 2

Value = TypeVar("Value")


class Service:
    """Answers from the index in service, once `warm` has been called.

    Args:
        config: of the server.
        load: makes an encoder by its name, as `imprompt.encoders.registry.load_encoder` does.
        metrics: where everything is counted.
        announce: takes a line for the person who started the server.

    Raises:
        ConfigError: no blend config has that name, or the device cannot be used.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        load: Callable[[str], DualEncoder],
        metrics: Metrics,
        announce: Announce,
    ) -> None:
        self.config = config
        self.metrics = metrics
        self._held = ExitStack()
        gpu = self._held.enter_context(opened_gpu(config.device, announce=announce))
        prepare = Models(config, load=load, announce=announce, gpu=gpu).prepare
        self.snapshots = Snapshots(config.index, prepare, metrics=metrics, mapped=config.map_index)
        self._readers = Readers(config.limits)
        self._rows = ThreadPoolExecutor(_ROW_THREADS, thread_name_prefix="rows")
        self._queues = {name: self._queue(name) for name in ("image", "text")}
        self._stopped = threading.Event()

    def _queue(self, name: str) -> MicroBatcher[Job, Answered | EmbeddedTexts]:
        limits = self.config.limits
        return MicroBatcher(
            name,
            self._work,
            max_batch=self.config.max_batch,
            max_waiting=limits.max_waiting,
            max_weight=limits.max_waiting_pixels,
            metrics=self.metrics,
        )

    @property
    def ready(self) -> bool:
        """Index and models are warm."""
        return self.snapshots.ready and not self._stopped.is_set()

    def check_ready(self) -> None:
        """Raise what whoever asks is told while nothing can be answered.

        Raises:
            Checksum: the index was damaged while it was served.
            HttpError: models and index are not warm yet, or the server is being shut down ("busy").
        """
        if not self.ready:
            raise self.snapshots.damage or busy("The models are being loaded.")

    @property
    def has_members(self) -> bool:
        """The ensemble can vote."""
        with self.snapshots.lease() as snapshot:
            return isinstance(snapshot.ensemble, Ensemble)

    def warm(self) -> None:
        """Open the index, load every model and use each once; then the server is ready.

        Raises:
            ImpromptError: the index or a model cannot be used.
        """
        self._readers.start()
        self.snapshots.load()

    def watch(self) -> None:
        """Look for new versions until the service is closed; for a thread of its own."""
        while not self._stopped.wait(self.config.watch_s):
            self.snapshots.look()

    def close(self) -> None:
        """Answer what waits, then let go of everything."""
        self._stopped.set()
        self.metrics.ready.set(0)
        self._readers.close()
        self._rows.shutdown(cancel_futures=True)
        for queue in self._queues.values():
            queue.close()
        self.snapshots.close()
        self._held.close()

    async def ask(self, asks: Sequence[Ask]) -> list[Answered | ImpromptError]:
        """One result for each question, in order; a question that cannot be answered gets its error.

        Raises:
            HttpError: too much is waiting.
            TimeoutError: it took longer than the limit.
        """
        async with asyncio.timeout(self.config.limits.answer_timeout_s):
            results = await asyncio.gather(*map(self._ask, asks), return_exceptions=True)
        for result in results:
            if not isinstance(result, Answer | ExplainedAnswer | ImpromptError):
                raise result
        return [
            result
            for result in results
            if isinstance(result, Answer | ExplainedAnswer | ImpromptError)
        ]

    async def run(self, work: Callable[[Snapshot], Value]) -> Value:
        """What `work` makes of the snapshot in service, in a thread; it is kept open meanwhile.

        Raises as `ask` does.
        """

        def leased() -> Value:
            with self.snapshots.lease() as snapshot:
                return work(snapshot)

        self._check_open()
        async with asyncio.timeout(self.config.limits.answer_timeout_s):
            return await asyncio.get_running_loop().run_in_executor(self._rows, leased)

    async def extract(self, image: bytes) -> EmbeddedPrompt | None:
        """The prompt that the image carries in its texts or its pixels, or None.

        Raises:
            ImageRejected: the image cannot be read.
            HttpError, TimeoutError: as `ask`.
        """
        return await self._read(read_carried, image, self.config.limits.image)

    async def png_info(self, image: bytes) -> tuple[EmbeddedPrompt | None, dict[str, str]]:
        """The same, with all texts of the file by keyword."""
        return await self._read(read_png_info, image, self.config.limits.image)

    async def _read(self, work: Callable[..., Value], *args: object) -> Value:
        """What a reader makes of an image. Raises as `extract`."""
        self._check_open()
        async with asyncio.timeout(self.config.limits.answer_timeout_s):
            with self.metrics.stage("read"):
                return await self._readers.read(work, *args)

    def _check_open(self) -> None:
        if self._stopped.is_set():
            raise busy("The server is being shut down.")

    async def embed(
        self, texts: Sequence[str], images: Sequence[bytes], *, output: bool
    ) -> EmbeddedTexts:
        """Unit rows of the texts, then of the images; in MiniLM's space (`output`) or in that of the index.

        Raises:
            ImageRejected: an image cannot be read.
            HttpError, TimeoutError: as `ask`.
        """
        limits = self.config.limits.image
        async with asyncio.timeout(self.config.limits.answer_timeout_s):
            read = [await self._read(read_image, image, True, limits) for image in images]
            pictures = [found.picture for found in read]
            job = EmbedJob(tuple(texts), tuple(pictures), output)
            done = await self._queued(
                job, n_pixels=sum(picture.width * picture.height for picture in pictures)
            )
        if not isinstance(done, EmbeddedTexts):
            raise TypeError(f"an embedding was asked for, {type(done).__name__} came")
        return done

    async def _ask(self, ask: Ask) -> Answered:
        image, ignore = ask.question.image, ask.question.ignore_metadata
        found = (
            None
            if image is None
            else await self._read(read_image, image, ignore, self.config.limits.image)
        )
        read = joined(ask.question, found)
        done = await self._queued(AskJob(read, ask), n_pixels=read.n_pixels)
        if isinstance(done, EmbeddedTexts):
            raise TypeError("an answer was asked for, an embedding came")
        return done

    async def _queued(self, job: Job, *, n_pixels: int) -> Answered | EmbeddedTexts:
        return await asyncio.wrap_future(
            self._queues["image" if n_pixels else "text"].submit(job, weight=n_pixels)
        )

    def _work(self, jobs: Sequence[Job]) -> list[Done]:
        with self.snapshots.lease() as snapshot:
            return work_off(snapshot, jobs, self.metrics)
