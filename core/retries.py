"""Requests that are made again where a refusal may pass."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

MOST_ATTEMPTS = 4
LONGEST_WAIT_S = 60.0
"""If a host asks to wait longer, that is its answer."""
PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request failed, such as "answered 503", where it may succeed later.

    `retry_after` is what the header of that name says; "" where there is none.
    """

    reason: str
    retry_after: str = ""


def retrying(
    call: Callable[[], Result],
    *,
    host: str,
    announce: Callable[[str], None],
    passing: Callable[[Exception], Refusal | None],
) -> Result:
    """Return what `call` returns, after calling it again if its failure may pass.

    The waits double from one second, half of each at random, unless the host says how long. At most
    four calls are made.

    Args:
        call: makes one request.
        host: that it goes to.
        announce: takes a line before each wait.
        passing: returns what is known of a failure, None if it will not pass.

    Raises:
        Exception: what the last call raised.
    """
    attempt = 1
    while True:
        try:
            return call()
        except Exception as error:
            refusal = passing(error)
            wait_s = None if refusal is None else _wait_s(refusal, attempt)
            if refusal is None or wait_s is None or attempt == MOST_ATTEMPTS:
                raise
            announce(
                f"{host} {refusal.reason}; trying again in {wait_s:.0f} s "
                f"({attempt} of {MOST_ATTEMPTS - 1})."
            )
        time.sleep(wait_s)
        attempt += 1


def _wait_s(refusal: Refusal, attempt: int) -> float | None:
    """Return how long to wait before the next attempt; None if the host asks for too long."""
    try:
        asked_s = float(refusal.retry_after)
    except ValueError:
        return 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311 no secret
    return max(asked_s, 0.0) if asked_s <= LONGEST_WAIT_S else None
