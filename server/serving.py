"""Runs a server until it is told to stop, then drains it."""

from __future__ import annotations

import signal
import threading
import webbrowser
from types import FrameType
from typing import TYPE_CHECKING

from imprompt.core.errors import ConfigError, ImpromptError
from imprompt.core.hub.fetch import Announce
from imprompt.server.app import create_app
from imprompt.server.logs import configure_logs
from imprompt.server.server_settings import ServerSettings

if TYPE_CHECKING:
    import uvicorn

    from imprompt.server.middleware import Middleware
    from imprompt.server.models import LoadEncoder

_DRAIN_S = 30
_OPEN_FILES = 1 << 16
_MAX_HEADER_BYTES = 32 << 10


def serve(
    settings: ServerSettings, *, load: LoadEncoder, announce: Announce, open_page: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT, then drain: finish open requests for at most 30 s.

    Args:
        load: see `imprompt.server.models.LoadEncoder`.
        announce: takes a line for the person who started the server.
        open_page: open the page in the user's browser when the server is ready.

    Raises:
        ConfigError: the port cannot be opened, or a setting cannot be used.
        ImpromptError: the index or the models cannot be used.
    """
    _raise_file_limit()
    failures: list[ImpromptError] = []

    def stop(error: ImpromptError) -> None:
        failures.append(error)
        server.should_exit = True

    def ready() -> None:
        if open_page:
            # A browser in a terminal blocks until it is left.
            threading.Thread(target=_open, args=(settings, announce), daemon=True).start()

    app = create_app(settings, load=load, announce=announce, on_ready=ready, on_failure=stop)
    configure_logs(json=settings.log_json)
    server = _uvicorn_server(app, settings)
    # After draining, uvicorn raises the signal again. Ignore it: ending is what was asked for.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)
    shown_host = f"[{settings.host}]" if ":" in settings.host else settings.host
    announce(f"Serving {settings.index} on http://{shown_host}:{settings.port}")
    try:
        # Bind before the models are loaded and the readers started, so that nothing is still
        # starting when the command ends because the port is taken.
        with server.config.bind_socket() as listener:
            server.run(sockets=[listener])
    except SystemExit as error:
        raise ConfigError(
            f"{settings.host}:{settings.port} cannot be opened for serving.",
            hint="Another program may use the port: choose one with --port.",
        ) from error
    if failures:
        raise failures[0]


def _open(settings: ServerSettings, announce: Announce) -> None:
    """Open the page in the user's browser, or tell its address."""
    every = settings.host in ("0.0.0.0", "::")  # noqa: S104 compared, not bound
    host = "127.0.0.1" if every else settings.host
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/"
    if not webbrowser.open(address):
        announce(f"No browser could be opened. The page is at {address}")


def _uvicorn_server(app: Middleware, settings: ServerSettings) -> uvicorn.Server:
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
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


def _raise_file_limit() -> None:
    """Raise the limit on open files: each vector shard is one, and two during a version change.

    Windows has no such limit.
    """
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Ignore a signal."""
