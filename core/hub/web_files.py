"""Files of any web server, by their address: resumed, and kept until they have been used.

Nobody says what such a file should be, so whoever asks for it checks its content.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from imprompt.core.atomic_files import storage_errors, sync_folder
from imprompt.core.errors import ConfigError, Unreachable, first_line
from imprompt.core.hub.download import go_on, sole_writer
from imprompt.core.hub.fetch import Announce
from imprompt.core.settings import settings

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def fetch_url(url: str, *, offline: bool, announce: Announce) -> Path:
    """Return the local path of a file after downloading it, into the user's cache.

    A broken connection is resumed up to five times; after that, or after a kill, the next call
    resumes the download. The user's token for the hub is not sent. Remove the file with `forget`.

    Raises:
        ConfigError: it is no https address (http only on this machine), or holds a password.
        Unreachable: `offline` is set, or the server does not answer or refuses.
        StorageFull: the disk is full or may not be written; the incomplete download is kept.
    """
    host = _checked_host(url)
    path = file_place(url)
    if path.is_file():
        return path
    if offline or _hub_is_off():
        why = "--offline" if offline else "HF_HUB_OFFLINE"
        raise Unreachable(
            f"{_shown(url)} is not here, and {why} is set.",
            hint="Fetch it on a machine with a network, and name the file.",
        )
    announce(f"Fetching {path.name} from {host}.")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with sole_writer(path.with_name(f"{path.name}.lock"), announce=announce):
            if not path.is_file():
                _download(url, path, host, announce)
    return path


def forget(url: str) -> None:
    """Remove a downloaded file, and an incomplete download of it."""
    path = file_place(url)
    for leftover in (path, _partial(path)):
        leftover.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()


def is_missing(error: Unreachable) -> bool:
    """Return whether a server answered that it has no such file."""
    return getattr(getattr(error.__cause__, "response", None), "status_code", 0) in (404, 410)


def _download(url: str, path: Path, host: str, announce: Announce) -> None:
    partial = _partial(path)
    with partial.open("ab+") as file:
        try:
            go_on(file, url, headers={}, announce=announce)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 416:  # what is here is no beginning of what is there now
                file.truncate(0)
            said = f"answered {status}" if status else f"does not answer: {first_line(error)}"
            raise Unreachable(
                f"{_shown(url)} cannot be fetched: {host} {said}.",
                hint="Run the command again to resume the download.",
            ) from error
    partial.replace(path)
    sync_folder(path.parent)


def _checked_host(url: str) -> str:
    """Return the host of an address that may be fetched.

    Raises:
        ConfigError: it may not.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        plain = url.isascii() and all(char > " " for char in url) and parts.port != 0
    except ValueError:
        plain, host = False, ""
    if not plain or not host or parts.username is not None or parts.password is not None:
        raise ConfigError(
            "The address is not https://HOST/FILE, without a user name.",
            hint="Name such an address.",
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise ConfigError(
            f"{parts.scheme}://{host} is not protected on its way.", hint="Use https."
        )
    return host


def _shown(url: str) -> str:
    """Return an address without its query, which may hold a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def file_place(url: str) -> Path:
    """Return where the file of an address is kept."""
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]", "_", urlsplit(url).path.rpartition("/")[2], flags=re.ASCII)
    return settings().cache / "urls" / digest / (name.strip(".")[-100:] or "file")


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.incomplete")


def _hub_is_off() -> bool:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)
