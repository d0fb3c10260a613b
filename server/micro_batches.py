"""A micro-batching queue before a model: waiting jobs are batched, and their number is bounded.

The worker takes what is in the queue and never waits for more: a single client is answered at
once, and while one batch is being processed the next one accumulates.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

from imprompt.core.errors import ImpromptError
from imprompt.server.http_errors import busy
from imprompt.server.prometheus import Metrics

Job = TypeVar("Job")
Result = TypeVar("Result")

_LOG = logging.getLogger("imprompt.server")


@dataclass(frozen=True, slots=True)
class _QueuedJob(Generic[Job, Result]):
    job: Job
    weight: int
    future: Future[Result]
    queued_at: float


class MicroBatcher(Generic[Job, Result]):
    """One queue and one worker thread before a model.

    Args:
        name: the queue's label in the metrics.
        work: returns one result or error for each job of a batch, in order; an exception becomes
            the result of every job.
        max_batch: jobs per batch, at least 1.
        max_waiting: jobs that may wait.
        max_weight: total weight of the waiting jobs; a single job may exceed it.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Job]], Sequence[Result | ImpromptError]],
        *,
        max_batch: int,
        max_waiting: int,
        max_weight: int,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self._work = work
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._max_weight = max_weight
        self._metrics = metrics
        self._queue: deque[_QueuedJob[Job, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"model-{name}", daemon=True)
        self._thread.start()

    def submit(self, job: Job, *, weight: int = 0) -> Future[Result]:
        """Queue a job and return its future; cancelling that before the job starts skips the job.

        Raises:
            HttpError: the queue is full ("busy") or closed.
        """
        with self._changed:
            if self._closed:
                raise busy("The server is shutting down.")
            if len(self._queue) >= self._max_waiting:
                # Jobs whose clients have gone take no room.
                self._queue = deque(
                    queued for queued in self._queue if not queued.future.cancelled()
                )
            waiting_weight = sum(queued.weight for queued in self._queue)
            too_heavy = bool(self._queue) and waiting_weight + weight > self._max_weight
            if len(self._queue) >= self._max_waiting or too_heavy:
                raise busy(f"The queue is full: {len(self._queue)} requests are waiting.")
            queued: _QueuedJob[Job, Result] = _QueuedJob(job, weight, Future(), perf_counter())
            self._queue.append(queued)
            self._changed.notify()
            self._metrics.waiting.labels(self.name).set(len(self._queue))
        return queued.future

    def close(self) -> None:
        """Finish the waiting jobs, then stop the worker; new jobs are refused."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._process(batch)

    def _next_batch(self) -> list[_QueuedJob[Job, Result]]:
        """Wait for jobs and return those not cancelled; an empty batch means that it is closed."""
        with self._changed:
            while True:
                batch: list[_QueuedJob[Job, Result]] = []
                while self._queue and len(batch) < self._max_batch:
                    queued = self._queue.popleft()
                    if queued.future.set_running_or_notify_cancel():
                        batch.append(queued)
                self._metrics.waiting.labels(self.name).set(len(self._queue))
                if batch or (self._closed and not self._queue):
                    break
                self._changed.wait()
        now = perf_counter()
        for queued in batch:
            self._metrics.stage_seconds.labels("wait").observe(now - queued.queued_at)
        return batch

    def _process(self, batch: list[_QueuedJob[Job, Result]]) -> None:
        self._metrics.batch_size.labels(self.name).observe(len(batch))
        try:
            results = self._work([queued.job for queued in batch])
        except Exception as error:  # noqa: BLE001 -- passed on to the clients; the worker lives on
            # One bad job may have failed the whole batch, so each job is tried again alone. An
            # ImpromptError is about the index or a model and would only come again.
            if len(batch) > 1 and not isinstance(error, ImpromptError):
                extra = {"event": "batch-split", "error": type(error).__name__}
                _LOG.warning("batch failed, retrying its jobs one by one", extra=extra)
                for queued in batch:
                    self._process([queued])
                return
            for queued in batch:
                queued.future.set_exception(error)
            return
        for queued, result in zip(batch, results, strict=True):
            if isinstance(result, ImpromptError):
                queued.future.set_exception(result)
            else:
                queued.future.set_result(result)
