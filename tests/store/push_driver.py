"""Pushes an index and kills itself at a named point.

Run as a program of its own by `test_milvus_push.py`.

    python tests/store/push_driver.py INDEX PLACE POINT

POINT is "none", or "before METHOD N", "after METHOD N": the n-th call of that method of Milvus'
client.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import imprompt.store.milvus.upload
from imprompt.core.errors import ImpromptError
from imprompt.core.settings import MilvusPlace, index_place
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.upload import PushOptions, push
from tests.killing import die

BATCH_ROWS = 40


def arm(point: str) -> None:
    if point == "none":
        return
    moment, wanted, number = point.split()
    call, calls = Connection.call, Counter[str]()

    def wrapper(self: Connection, method: str, /, *words: Any, **options: Any) -> Any:
        about_meta = words and words[0] == "imprompt_meta"
        calls[method] += not about_meta
        hit = method == wanted and not about_meta and calls[method] == int(number)
        if hit and moment == "before":
            die()
        answer = call(self, method, *words, **options)
        if hit:
            die()
        return answer

    Connection.call = wrapper  # type: ignore[method-assign]


def main(index: str, place: str, point: str) -> int:
    imprompt.store.milvus.upload._ROWS_AT_ONCE = BATCH_ROWS
    imprompt.store.milvus.upload._MARK_EVERY = 1
    arm(point)
    target = index_place(place)
    assert isinstance(target, MilvusPlace)
    try:
        report = push(Path(index), target, options=PushOptions())
    except ImpromptError as error:
        sys.stdout.write(f"{error.exit_code} {error}\n")
        return error.exit_code
    sys.stdout.write(f"sent {report.sent}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
