"""The queue before a model: what waits goes together, and only so much may wait."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from imprompt.core.errors import ImpromptError, QueryError
from imprompt.server.http_errors import HttpError
from imprompt.server.micro_batches import MicroBatcher
from imprompt.server.prometheus import Metrics


class Doubler:
    """Doubles numbers once `go` is set; a 13 makes a batch fail, a 0 has an error of its own."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, jobs: Sequence[int]) -> list[int | ImpromptError]:
        self.begun.set()
        assert self.go.wait(10)
        self.batches.append(list(jobs))
        if 13 in jobs:
            raise ValueError("13")
        return [2 * job if job else QueryError("nothing") for job in jobs]


def batcher(
    work: Doubler, *, max_batch: int = 4, max_waiting: int = 6, max_weight: int = 100
) -> MicroBatcher[int, int]:
    return MicroBatcher(
        "test",
        work,
        max_batch=max_batch,
        max_waiting=max_waiting,
        max_weight=max_weight,
        metrics=Metrics(),
    )


def held(queue: MicroBatcher[int, int], work: Doubler) -> None:
    """Keep the worker busy with a job of its own."""
    queue.submit(1)
    assert work.begun.wait(10)


def test_what_waits_goes_together() -> None:
    """Jobs that arrive meanwhile form the next batch, at most `max_batch`; each gets its result."""
    work = Doubler()
    queue = batcher(work)
    held(queue, work)
    futures = [queue.submit(number) for number in (2, 3, 4, 5, 6)]
    work.go.set()
    assert [future.result(10) for future in futures] == [4, 6, 8, 10, 12]
    queue.close()
    assert work.batches == [[1], [2, 3, 4, 5], [6]]


def test_more_than_may_wait_is_refused_at_once() -> None:
    """By count and by weight; one heavy job alone may wait. Afterwards there is room again."""
    work = Doubler()
    queue = batcher(work, max_waiting=2)
    held(queue, work)
    queue.submit(2, weight=1000)
    with pytest.raises(HttpError) as caught:
        queue.submit(3, weight=1)
    assert (caught.value.kind, caught.value.headers["Retry-After"]) == ("busy", "1")
    work.go.set()
    queue.close()
    again = Doubler()
    queue = batcher(again, max_waiting=2)
    held(queue, again)
    futures = [queue.submit(2), queue.submit(3)]
    with pytest.raises(HttpError):
        queue.submit(4)
    again.go.set()
    assert [future.result(10) for future in futures] == [4, 6]
    assert queue.submit(5).result(10) == 10
    queue.close()


def test_given_up_jobs_cost_nothing() -> None:
    """A client that goes away takes its job along, where it has not begun."""
    work = Doubler()
    queue = batcher(work)
    held(queue, work)
    gone, kept = queue.submit(2), queue.submit(3)
    assert gone.cancel()
    work.go.set()
    assert kept.result(10) == 6
    queue.close()
    assert work.batches == [[1], [3]]


def test_given_up_jobs_take_no_place() -> None:
    """A queue full of those who went away has room."""
    work = Doubler()
    queue = batcher(work, max_waiting=2)
    held(queue, work)
    gone = [queue.submit(2), queue.submit(3)]
    assert all(future.cancel() for future in gone)
    kept = queue.submit(4)
    work.go.set()
    assert kept.result(10) == 8
    queue.close()


def test_one_bad_job_does_not_take_the_others_with_it() -> None:
    """A batch that fails is asked one by one; an error that is a result stays one job's."""
    work = Doubler()
    queue = batcher(work)
    held(queue, work)
    fine, bad, none = queue.submit(2), queue.submit(13), queue.submit(0)
    work.go.set()
    assert fine.result(10) == 4
    with pytest.raises(ValueError, match="13"):
        bad.result(10)
    with pytest.raises(QueryError):
        none.result(10)
    queue.close()


def test_closing_answers_what_waits() -> None:
    """Nothing that was taken is dropped; nothing more is taken."""
    work = Doubler()
    queue = batcher(work)
    held(queue, work)
    future = queue.submit(4)
    work.go.set()
    queue.close()
    assert future.result(0) == 8
    with pytest.raises(HttpError):
        queue.submit(5)
