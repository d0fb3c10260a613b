"""An advisory lock: the pusher renews a heartbeat; others back off while it is fresh.

Milvus has no locks. So the right to push is a text that is written, read back after a while, and
rewritten every few seconds. Clocks are not compared: a text that does not change for `WATCH_S` is
left from a push that died.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from imprompt.core.errors import BuildLocked, ImpromptError
from imprompt.store.milvus.meta import Meta

WATCH_S = 10.0
BEAT_S = 2.0
SETTLE_S = 1.0
_KEY = "push"
_LOOK_S = 0.5


@contextmanager
def push_lease(meta: Meta, *, where: str) -> Iterator[None]:
    """Hold the right to push as long as the block runs.

    Raises:
        BuildLocked: another push is running there.
    """
    holder = uuid.uuid4().hex
    _wait_for_silence(meta, where=where)
    meta.put(_KEY, f"{holder} 0")
    # A push that came at the same time has written by now, and only one of both texts is left.
    time.sleep(SETTLE_S)
    if not (meta.get(_KEY) or "").startswith(holder):
        raise _locked(where)
    ended = threading.Event()
    beating = threading.Thread(
        target=_beat, args=(meta, holder, ended), name="push-lease", daemon=True
    )
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        with suppress(ImpromptError):  # a server that is gone forgets it after WATCH_S
            meta.remove(_KEY)


def _wait_for_silence(meta: Meta, *, where: str) -> None:
    first = meta.get(_KEY)
    until = time.monotonic() + WATCH_S
    while first is not None and time.monotonic() < until:
        time.sleep(_LOOK_S)
        heartbeat = meta.get(_KEY)
        if heartbeat is None:
            return
        if heartbeat != first:
            raise _locked(where)


def _beat(meta: Meta, holder: str, ended: threading.Event) -> None:
    beats = 0
    while not ended.wait(BEAT_S):
        beats += 1
        with suppress(ImpromptError):  # sending the rows fails for the same reason, and reports it
            meta.put(_KEY, f"{holder} {beats}")


def _locked(where: str) -> BuildLocked:
    return BuildLocked(
        f"Another push into {where} is running.", hint="Wait until it has ended, then try again."
    )
