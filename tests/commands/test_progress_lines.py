"""Lines of progress where there is no terminal."""

from __future__ import annotations

import threading
import time

import pytest

from imprompt.commands.progress_lines import Lines


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


def test_done_rate_and_time_left(clock: Clock, said: list[str]) -> None:
    """At most one line in 30 s, however often a stage reports."""
    with Lines(said.append, clock=clock).start("Encoding", 10_000) as task:
        for _ in range(90):
            clock.s += 1
            task.advance(50)
    assert said == [
        "Encoding: 1,500 of 10,000, 50/s, 3 min left",
        "Encoding: 3,000 of 10,000, 50/s, 2 min left",
        "Encoding: 4,500 of 10,000, 50/s, 2 min left",
    ]


def test_short_stages_share_the_lines(clock: Clock, said: list[str]) -> None:
    """Ten stages of 10 s print three lines; one run of 20 s prints none."""
    lines = Lines(said.append, clock=clock)
    for number in range(10):
        with lines.start(f"Stage {number}", 2) as task:
            for _ in range(2):
                clock.s += 5
                task.advance(1)
    assert [line.partition(":")[0] for line in said] == ["Stage 2", "Stage 5", "Stage 8"]
    lines = Lines(said.append, clock=clock)
    with lines.start("Short", 1) as task:
        clock.s += 20
        task.advance(1)
    assert len(said) == 3


def test_what_an_earlier_run_did_is_no_speed(clock: Clock, said: list[str]) -> None:
    """A resumed stage reports that at once."""
    with Lines(said.append, clock=clock).start("Encoding", 10_000) as task:
        task.advance(9_000)
        for _ in range(3):
            clock.s += 10
            task.advance(20)
    assert said == ["Encoding: 9,060 of 10,000, 2/s, 8 min left"]


def test_the_rate_is_recent(clock: Clock, said: list[str]) -> None:
    """After a slow half an hour, a fast quarter of an hour gives the time left."""
    with Lines(said.append, clock=clock).start("Encoding", 1_000_000) as task:
        for n in [1] * 60 + [3000] * 30:
            clock.s += 30
            task.advance(n)
    assert said[59] == "Encoding: 60 of 1,000,000, 0.033/s, 347 days left"
    assert said[-1] == "Encoding: 90,060 of 1,000,000, 100/s, 2 h 31 min left"


def test_without_a_total(clock: Clock, said: list[str]) -> None:
    """What is done and since when."""
    with Lines(said.append, clock=clock).start("Reading", None) as task:
        clock.s += 45
        task.advance(9)
    assert said == ["Reading: 9, 0.2/s, 45 s so far"]


def test_a_stage_that_reports_nothing_is_no_silence(said: list[str]) -> None:
    """A thread looks after it, and ends with it."""
    before = threading.active_count()
    with Lines(said.append, every_s=0.05).start("Training", None):
        deadline = time.monotonic() + 10
        while len(said) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said[:2] == ["Training: 0 s so far"] * 2
    assert threading.active_count() == before


def test_a_reader_that_left_ends_no_build(clock: Clock) -> None:
    """A line that cannot be printed is not missed."""

    def gone(_: str) -> None:
        raise BrokenPipeError

    with Lines(gone, clock=clock).start("Encoding", 2) as task:
        clock.s += 60
        task.advance(1)
