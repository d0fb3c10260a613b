"""A micro-batching queue: what waits for a model goes to it together, and only so much may wait.

The worker takes what is there and never waits for more: one client alone is answered at once, and
while a batch is being worked on, the next one gathers by itself.
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
class _Waiting(Generic[Job, Result]):
    job: Job
    weight: int
    future: Future[Result]
    since: float


class MicroBatcher(Generic[Job, Result]):
    """One queue and one worker thread before a model.

    Args:
        name: of the queue, in the metrics.
        work: one result (or its error) for each job of a batch, in order. What it raises becomes
            the result of each job.
        max_batch: jobs that `work` gets at once, at least 1.
        max_waiting: jobs that may wait.
        max_weight: what the waiting jobs may weigh together; one alone may weigh more.
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
        self._waiting: deque[_Waiting[Job, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"model-{name}", daemon=True)
        self._thread.start()

    def submit(self, job: Job, *, weight: int = 0) -> Future[Result]:
        """The result to come; cancelling it spares the work, if that has not begun.

        Raises:
            HttpError: too much is waiting ("busy"), or the queue is closed.
        """
        with self._changed:
            if self._closed:
                raise busy("The server is being shut down.")
            if len(self._waiting) >= self._max_waiting:
                # What was given up takes no one's place.
                self._waiting = deque(
                    waiting for waiting in self._waiting if not waiting.future.cancelled()
                )
            held = sum(waiting.weight for waiting in self._waiting)
            if len(self._waiting) >= self._max_waiting or (
                self._waiting and held + weight > self._max_weight
            ):
                raise busy(f"{len(self._waiting)} questions are waiting already.")
            waiting: _Waiting[Job, Result] = _Waiting(job, weight, Future(), perf_counter())
            self._waiting.append(waiting)
            self._changed.notify()
            self._metrics.waiting.labels(self.name).set(len(self._waiting))
        return waiting.future

    def close(self) -> None:
        """Finish what waits, then end the worker; nothing more is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._answer(batch)

    def _next_batch(self) -> list[_Waiting[Job, Result]]:
        """What is to be worked on now, without what was given up meanwhile; empty when the queue is closed and done."""
        with self._changed:
            while True:
                batch: list[_Waiting[Job, Result]] = []
                while self._waiting and len(batch) < self._max_batch:
                    waiting = self._waiting.popleft()
                    if waiting.future.set_running_or_notify_cancel():
                        batch.append(waiting)
                self._metrics.waiting.labels(self.name).set(len(self._waiting))
                if batch or (self._closed and not self._waiting):
                    break
                self._changed.wait()
        now = perf_counter()
        for waiting in batch:
            self._metrics.stage_seconds.labels("wait").observe(now - waiting.since)
        return batch

    def _answer(self, batch: list[_Waiting[Job, Result]]) -> None:
        self._metrics.batch_size.labels(self.name).observe(len(batch))
        try:
            results = self._work([waiting.job for waiting in batch])
        except Exception as error:  # noqa: BLE001 -- it is handed on, to those who asked
            # Whatever a model raises is the answer of those who asked; the worker lives on. A batch
            # may hold one poisonous job:
            # each is tried once more by itself.
            if len(batch) > 1 and not isinstance(error, ImpromptError):
                _LOG.warning(
                    "batch failed, asking one by one",
                    extra={"event": "batch-split", "error": type(error).__name__},
                )
                for waiting in batch:
                    self._answer([waiting])
                return
            for waiting in batch:
                waiting.future.set_exception(error)
            return
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, ImpromptError):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(result)
