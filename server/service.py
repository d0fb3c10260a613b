"""What a server does, without HTTP: loads models and index once, and answers questions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from imprompt.core.errors import ImageRejected, ImpromptError
from imprompt.core.hub.fetch import Announce
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
from imprompt.retriever import Answer
from imprompt.retriever.questions import ReadImage, complete_question, read_image
from imprompt.server.answering import (
    AnswerJob,
    AnswerRequest,
    Embeddings,
    EmbedJob,
    Job,
    JobResult,
    run_jobs,
)
from imprompt.server.http_errors import busy
from imprompt.server.image_readers import ImageReaders, read_png_info, read_prompt
from imprompt.server.micro_batches import MicroBatcher
from imprompt.server.models import LoadEncoder, Models
from imprompt.server.prometheus import Metrics
from imprompt.server.server_settings import ServerSettings
from imprompt.server.snapshots import CurrentSnapshot, Snapshot
from imprompt.server.thumbnails import folders_by_name, image_of, no_image, thumbnail
from imprompt.store.gpu import opened_gpu

_ROW_THREADS = 2
_PICTURES_AT_ONCE = 2

Value = TypeVar("Value")


class Service:
    """Answers from the index version in service, once `load` has returned.

    Args:
        load: see `imprompt.server.models.LoadEncoder`.
        announce: takes a line for the person who started the server.

    Raises:
        ConfigError: no blend config has that name, the device cannot be used, or a folder of
            pictures cannot be served.
    """

    def __init__(
        self, settings: ServerSettings, *, load: LoadEncoder, metrics: Metrics, announce: Announce
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.picture_folders = folders_by_name(settings.picture_folders)
        self._resources = ExitStack()
        gpu = self._resources.enter_context(opened_gpu(settings.device, announce=announce))
        prepare = Models(settings, load=load, announce=announce, gpu=gpu).prepare
        self.current = CurrentSnapshot(
            settings.index, prepare, metrics=metrics, mapped=settings.map_index
        )
        self._readers = ImageReaders(settings.limits)
        # Each holds a whole file in memory; those that wait hold nothing.
        self._picture_slots = asyncio.Semaphore(_PICTURES_AT_ONCE)
        self._row_threads = ThreadPoolExecutor(_ROW_THREADS, thread_name_prefix="rows")
        # Two queues, so that texts do not wait for the slower images.
        self._queues = {name: self._queue(name) for name in ("image", "text")}
        self._stopped = threading.Event()

    def _queue(self, name: str) -> MicroBatcher[Job, Answer | Embeddings]:
        limits = self.settings.limits
        return MicroBatcher(
            name,
            self._run_jobs,
            max_batch=self.settings.max_batch,
            max_waiting=limits.max_waiting,
            max_weight=limits.max_waiting_pixels,
            metrics=self.metrics,
        )

    @property
    def ready(self) -> bool:
        """Whether the index and the models are loaded."""
        return self.current.ready and not self._stopped.is_set()

    def check_ready(self) -> None:
        """Raise the error that every request gets while nothing can be answered.

        Raises:
            Checksum: the index was damaged while it was served.
            HttpError: the server is starting or shutting down ("busy").
        """
        if not self.ready:
            raise self.current.damage or busy("The models are being loaded.")

    def load(self) -> None:
        """Open the index, load every model and use each once; then the server is ready.

        Raises:
            ImpromptError: the index or a model cannot be used.
        """
        self._readers.start()
        self.current.load()

    def watch(self) -> None:
        """Look for new index versions until the service is closed; blocks its thread."""
        while not self._stopped.wait(self.settings.watch_s):
            self.current.poll()

    def close(self) -> None:
        """Answer the waiting jobs, then release everything."""
        self._stopped.set()
        self.metrics.ready.set(0)
        self._readers.close()
        self._row_threads.shutdown(cancel_futures=True)
        for queue in self._queues.values():
            queue.close()
        self.current.close()
        self._resources.close()

    async def answer(self, requests: Sequence[AnswerRequest]) -> list[Answer | ImpromptError]:
        """Return one result for each request, in order: its answer, or the error it fails with.

        Raises:
            HttpError: a queue is full.
            TimeoutError: it took longer than the limit.
        """
        async with asyncio.timeout(self.settings.limits.answer_timeout_s):
            results = await asyncio.gather(*map(self._answer, requests), return_exceptions=True)
        answers: list[Answer | ImpromptError] = []
        for result in results:
            if not isinstance(result, Answer | ImpromptError):
                raise result
            answers.append(result)
        return answers

    async def answer_one(self, request: AnswerRequest) -> Answer:
        """Return the answer; raises its error, or like `answer`."""
        (answer,) = await self.answer([request])
        if isinstance(answer, ImpromptError):
            raise answer
        return answer

    async def run(self, work: Callable[[Snapshot], Value]) -> Value:
        """Return `work(snapshot)`, run in a thread while the snapshot in service is leased.

        Raises like `answer`.
        """

        def leased() -> Value:
            with self.current.lease() as snapshot:
                return work(snapshot)

        self._check_open()
        async with asyncio.timeout(self.settings.limits.answer_timeout_s):
            return await asyncio.get_running_loop().run_in_executor(self._row_threads, leased)

    async def extract(self, image: bytes) -> EmbeddedPrompt | None:
        """Return the prompt in the image's metadata or hidden in its pixels, or None.

        Raises:
            ImageRejected: the image cannot be read.
            HttpError, TimeoutError: as in `answer`.
        """
        return await self._read(read_prompt, image, self.settings.limits.image)

    async def png_info(self, image: bytes) -> tuple[EmbeddedPrompt | None, dict[str, str]]:
        """Return what `extract` does, and all metadata texts of the file by keyword."""
        return await self._read(read_png_info, image, self.settings.limits.image)

    async def picture(self, version: str, row_id: int, side_px: int) -> bytes:
        """Return a JPEG of the image that a row's prompt was read from.

        Raises:
            HttpError: there is none to show; also as in `answer`.
            TimeoutError: as in `answer`.
        """
        limits = self.settings.limits.image
        async with asyncio.timeout(self.settings.limits.answer_timeout_s), self._picture_slots:
            image = await self.run(
                lambda snapshot: image_of(
                    snapshot, self.picture_folders, version, row_id, max_bytes=limits.max_bytes
                )
            )
            try:
                return await self._read(thumbnail, image, side_px, limits)
            except ImageRejected as error:
                raise no_image() from error

    async def embed(
        self, texts: Sequence[str], images: Sequence[bytes], *, output: bool
    ) -> Embeddings:
        """Return the embeddings of the texts, then of the images.

        Args:
            output: embed in MiniLM's space instead of that of the index.

        Raises:
            ImageRejected: an image cannot be read.
            HttpError, TimeoutError: as in `answer`.
        """
        limits = self.settings.limits
        async with asyncio.timeout(limits.answer_timeout_s):
            pictures = [
                (await self._read(read_image, image, True, limits.image)).picture
                for image in images
            ]
            n_pixels = sum(picture.width * picture.height for picture in pictures)
            job = EmbedJob(tuple(texts), tuple(pictures), output)
            result = await self._queued(job, n_pixels=n_pixels)
        if not isinstance(result, Embeddings):
            raise TypeError(f"an embed job returned {type(result).__name__}")
        return result

    async def _answer(self, request: AnswerRequest) -> Answer:
        question = request.question
        image: ReadImage | None = None
        if question.image is not None:
            limits = self.settings.limits.image
            image = await self._read(read_image, question.image, question.ignore_metadata, limits)
        read = complete_question(question, image)
        result = await self._queued(AnswerJob(read, request), n_pixels=read.n_pixels)
        if isinstance(result, Embeddings):
            raise TypeError("an answer job returned embeddings")
        return result

    async def _read(self, work: Callable[..., Value], *args: object) -> Value:
        """Return `work(*args)`, run by one of the image readers; raises like `extract`."""
        self._check_open()
        async with asyncio.timeout(self.settings.limits.answer_timeout_s):
            with self.metrics.stage("read"):
                return await self._readers.read(work, *args)

    def _check_open(self) -> None:
        if self._stopped.is_set():
            raise busy("The server is shutting down.")

    async def _queued(self, job: Job, *, n_pixels: int) -> Answer | Embeddings:
        queue = self._queues["image" if n_pixels else "text"]
        return await asyncio.wrap_future(queue.submit(job, weight=n_pixels))

    def _run_jobs(self, jobs: Sequence[Job]) -> list[JobResult]:
        with self.current.lease() as snapshot:
            return run_jobs(snapshot, jobs, self.metrics)
