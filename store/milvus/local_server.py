"""Milvus Lite: a file that one process serves to itself, for all versions that it has open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imprompt.core.errors import BuildLocked, ConfigError, StoreError
from imprompt.core.pip_lines import pip_install

_STOP_S = 5
_AT_ONCE = 1
"""Requests at a time: a search sets `nprobe` and `efSearch` of the shared FAISS index, so of two at
once, one gets the other's, or fails (seen: "Invalid key=53 nlist=16")."""


@dataclass(slots=True)
class _Served:
    server: Any
    database: Any
    port: int
    holders: int = 0


_SERVED: dict[Path, _Served] = {}
"""The files that this process serves; global, because a file is locked for one server."""

_LOCK = threading.Lock()


def hold_lite(file: Path) -> tuple[str, Callable[[], None]]:
    """Return (address, release) of the server of a file; it ends with its last holder.

    Raises:
        ConfigError: milvus-lite is not installed.
        BuildLocked: another process serves the file.
        StoreError: it is not a file of Milvus Lite, or cannot be made.
    """
    path = file.absolute()
    with _LOCK:
        served = _SERVED.get(path)
        if served is None:
            served = _SERVED[path] = _serve(path)
        served.holders += 1
    gone = threading.Event()

    def let_go() -> None:
        with _LOCK:
            if gone.is_set():
                return
            gone.set()
            served.holders -= 1
            if not served.holders:
                del _SERVED[path]
                served.server.stop(grace=_STOP_S).wait()
                served.database.close()

    return f"http://127.0.0.1:{served.port}", let_go


def _serve(path: Path) -> _Served:
    try:
        from milvus_lite.adapter.grpc.server import start_server_in_thread
        from milvus_lite.exceptions import DataDirLockedError
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed: {path} is a file of Milvus Lite.",
            hint=pip_install("milvus-lite"),
        ) from error
    try:
        return _Served(
            *start_server_in_thread(
                data_dir=str(path), host="127.0.0.1", port=0, max_workers=_AT_ONCE
            )
        )
    except DataDirLockedError as error:
        raise BuildLocked(
            f"{path} is used by another process; a file of Milvus Lite serves one at a time.",
            hint="Wait until it has ended, or run a server of Milvus.",
        ) from error
    except Exception as error:  # whatever keeps it from serving, it is this file
        raise StoreError(f"{path} cannot be served by Milvus Lite: {error}.") from error
