"""Why a file of the hub cannot be had, in one line, and which refusals pass by themselves."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from imprompt.core.errors import WeightsMissing, first_line
from imprompt.core.hub.hub_files import HubFile, Wanted, hand_path, hub_url

MOST_ATTEMPTS = 4
LONGEST_WAIT_S = 60.0
"""If the hub asks to wait longer, that is the answer."""
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_ERRORS = frozenset({"ReadError", "RemoteProtocolError", "WriteError"})
"""Broken connections, by the names of the HTTP library's errors."""
_BAD_TOKEN = "Invalid credentials"  # noqa: S105 the hub's words
_NO_FILE = "cannot be fetched: the hub has no such file"

Result = TypeVar("Result")


def retrying(
    call: Callable[[], Result],
    *,
    host: str,
    announce: Callable[[str], None],
    connections: bool = True,
) -> Result:
    """Return what `call` returns, after calling it again if its failure may pass.

    The waits double from one second, half of each at random, unless the hub says how long. At most
    four calls are made.

    Args:
        call: makes one request.
        host: that it goes to.
        announce: takes a line before each wait.
        connections: also after a broken connection, and not only after a refusal.

    Raises:
        Exception: what the last call raised.
    """
    for attempt in range(1, MOST_ATTEMPTS + 1):
        try:
            return call()
        except Exception as error:
            wait_s = _passes_in(error, attempt, connections=connections)
            if wait_s is None or attempt == MOST_ATTEMPTS:
                raise
            announce(
                f"{host} {_brief(error)}; trying again in {wait_s:.0f} s "
                f"({attempt} of {MOST_ATTEMPTS - 1})."
            )
            time.sleep(wait_s)
    raise AssertionError  # the last attempt returned or raised


def _passes_in(error: Exception, attempt: int, *, connections: bool) -> float | None:
    """Return how many seconds to wait before the next call; None if that would not help."""
    from huggingface_hub.errors import HfHubHTTPError

    backoff_s = 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311 no secret
    if isinstance(error, ConnectionResetError) or type(error).__name__ in _PASSING_ERRORS:
        return backoff_s if connections else None
    if not isinstance(error, HfHubHTTPError):
        return None
    if error.response.status_code not in _PASSING_STATUS:
        return None
    try:
        asked_s = float(error.response.headers.get("Retry-After", ""))
    except ValueError:
        return backoff_s
    return max(asked_s, 0.0) if asked_s <= LONGEST_WAIT_S else None


def _brief(error: Exception) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return f"answered {error.response.status_code}"
    return "broke the connection off"


def missing(file: HubFile, what: str) -> WeightsMissing:
    """Return the error for a missing file: its name, `what`, and how to get it by hand."""
    return WeightsMissing(
        f"{file.repo}/{file.filename} {what}.", path=file.filename, hint=by_hand(file)
    )


def no_such_file(want: Wanted) -> WeightsMissing:
    """Return the error for a file that the repository does not have, so nobody can fetch it."""
    file = want.choices[-1]
    return WeightsMissing(
        f"{file.repo}/{file.filename} {_NO_FILE}.",
        path=file.filename,
        hint=want.if_absent or "Check the name of the repository and what it holds.",
    )


def by_hand(file: HubFile) -> str:
    """Return the remedy without a network, in one line."""
    return (
        f"Fetch {hub_url(file)} on a machine with a network and put it at {hand_path(file)}, or "
        "copy its hub cache here."
    )


def refused(file: HubFile, error: Exception) -> WeightsMissing:
    """Return the error for a file that the hub refused, with the remedy for that refusal."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hint = by_hand(file)
    if has_bad_token(error):
        hint = "Log in again (`hf auth login`) or correct HF_TOKEN. Public files need no token."
    elif isinstance(error, GatedRepoError):
        page = hub_url(file).partition("/resolve/")[0]
        hint = f"Accept the licence on {page}, then run `hf auth login` or set HF_TOKEN."
        if _has_token():
            hint = f"Accept the licence on {page} with the account of your token."
    elif isinstance(error, RepositoryNotFoundError):
        hint = "Check the name. A private one needs `hf auth login` or HF_TOKEN."
        if _has_token():
            hint = "Check the name, and whether your token may read it."
    elif isinstance(error, RevisionNotFoundError):
        hint = "Name another revision, or none for the newest."
    return WeightsMissing(
        f"{file.repo}/{file.filename} cannot be fetched: {reason(error, hub_url(file))}.",
        path=file.filename,
        hint=hint,
    )


def has_bad_token(error: Exception) -> bool:
    """Return whether the hub does not know the user's token; then it refuses public files, too."""
    from huggingface_hub.errors import HfHubHTTPError

    return (
        isinstance(error, HfHubHTTPError)
        and error.response.status_code == 401
        and (
            _BAD_TOKEN in error.response.headers.get("X-Error-Message", "")
            or (_has_token() and not error.response.headers.get("X-Error-Code"))
        )
    )


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())


def reason(error: Exception, url: str) -> str:
    """Return why a request to the hub failed, as the end of a sentence."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    host = urlsplit(url).netloc
    if has_bad_token(error):
        return f"{host} does not accept your token"
    if isinstance(error, GatedRepoError):
        if _has_token():
            return f"your token has no access to this gated repository of {host}"
        return f"the repository is gated: {host} asks for its licence to be accepted, and a token"
    if isinstance(error, RepositoryNotFoundError):
        return f"{host} has no such repository, or it is private"
    if isinstance(error, RevisionNotFoundError):
        return f"{host} has no such revision of it"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        asked = error.response.headers.get("Retry-After", "")
        return f"{host} answered {status}" + (f" and asks to wait {asked} s" if asked else "")
    if "timeout" in type(error).__name__.lower():
        return f"{host} did not answer in time"
    return f"{host}: {first_line(error)}"
