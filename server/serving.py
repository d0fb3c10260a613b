"""Runs a server until it is told to stop: answers what it has taken, then ends."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from imprompt.core.errors import ConfigError, ImpromptError
from imprompt.core.hub.fetch import Announce
from imprompt.server.app import create_app
from imprompt.server.logs import configure_logs
from imprompt.server.server_settings import ServerConfig

if TYPE_CHECKING:
    from imprompt.core.protocols import DualEncoder

_DRAIN_S = 30
_OPEN_FILES = 1 << 16
_MAX_HEADER_BYTES = 32 << 10


def serve(config: ServerConfig, *, load: Callable[[str], DualEncoder], announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, then drain: no new connections, at most 30 s for what was taken.

    Raises:
        ConfigError: the port cannot be opened, or a setting cannot be used.
        ImpromptError: index or models cannot be used.
    """
    import uvicorn

    _allow_open_files()
    failures: list[ImpromptError] = []

    def failed(error: ImpromptError) -> None:
        failures.append(error)
        server.should_exit = True

    app = create_app(config, load=load, announce=announce, failed=failed)
    configure_logs(json=config.log_json)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_DRAIN_S,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        )
    )
    # uvicorn raises the signal once more when it has drained; that we ended is what was asked for,
    # no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    shown = f"[{config.host}]" if ":" in config.host else config.host
    announce(f"Serving {config.index} on http://{shown}:{config.port}")
    try:
        # Before models are loaded and readers started, which would go on starting while the command
        # ends.
        with server.config.bind_socket() as opened:
            server.run(sockets=[opened])
    except SystemExit as error:
        message = f"{config.host}:{config.port} cannot be opened for serving."
        raise ConfigError(
            message, hint="Another program may hold the port: choose one with --port."
        ) from error
    if failures:
        raise failures[0]


def _allow_open_files() -> None:
    """As many open files as the system lets us have: each shard of the vectors is one, twice so while versions change."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _end(_number: int, _frame: FrameType | None) -> None:
    """Nothing more to do."""
