"""ahead and side_by_side: the same items in order, made by other threads, few at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from imprompt.core.lookahead import ahead, side_by_side


def test_the_next_item_is_made_while_one_is_used() -> None:
    """Exactly one is made ahead: when item n is used, n + 1 gets ready, and n + 2 is not begun."""
    made: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    coming = ahead(items())
    assert next(coming) == 0
    assert second.wait(10)
    time.sleep(0.05)
    assert made == [0, 1]
    assert list(coming) == [1, 2, 3]


def test_an_error_comes_in_its_place() -> None:
    """What was made before it is handed out first, in both."""

    def halves(number: int) -> float:
        return 1 / number

    def items() -> Iterator[float]:
        yield from map(halves, [2, 1, 0, 1])

    for coming in (ahead(items()), side_by_side(halves, [2, 1, 0, 1], threads=3)):
        assert [next(coming), next(coming)] == [0.5, 1.0]
        with pytest.raises(ZeroDivisionError):
            next(coming)


def test_side_by_side_keeps_the_order_and_holds_few() -> None:
    """Slow items keep the order; at most `threads` are made ahead of the one in use."""
    begun: list[int] = []

    def slow(number: int) -> int:
        begun.append(number)
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number

    used = 0
    for number in side_by_side(slow, range(40), threads=4):
        assert number == used
        used += 1
        assert len(begun) <= used + 4
    assert used == 40
    assert list(side_by_side(slow, [])) == []


def test_what_is_given_up_is_not_made() -> None:
    """Whoever stops early waits for what is under way and no more."""
    begun: list[int] = []

    def note(number: int) -> int:
        begun.append(number)
        return number

    coming = side_by_side(note, range(1000), threads=2)
    next(coming)
    coming.close()
    assert len(begun) <= 4
