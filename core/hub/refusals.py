"""Why a file of the hub cannot be had, in one line, and which refusals pass by themselves."""

from __future__ import annotations

from urllib.parse import urlsplit

from imprompt.core.errors import WeightsMissing, first_line
from imprompt.core.hub.hub_files import HubFile, Wanted, hand_path, hub_url
from imprompt.core.retries import PASSING_STATUS, Refusal

_BROKEN = frozenset({"ReadError", "RemoteProtocolError", "WriteError"})
"""Broken connections, by the names of the HTTP library's errors."""
_BAD_TOKEN = "Invalid credentials"  # noqa: S105 the hub's words


def busy(error: Exception) -> Refusal | None:
    """Return what `retrying` needs of a refusal of the hub that may pass."""
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError):
        return None
    answer = error.response
    if answer.status_code not in PASSING_STATUS:
        return None
    return Refusal(f"answered {answer.status_code}", answer.headers.get("Retry-After", ""))


def busy_or_broken(error: Exception) -> Refusal | None:
    """Return the same, also of a connection that broke off."""
    if isinstance(error, ConnectionResetError) or type(error).__name__ in _BROKEN:
        return Refusal("broke the connection off")
    return busy(error)


def missing(file: HubFile, what: str) -> WeightsMissing:
    """Return the error for a missing file: its name, `what`, and how to get it by hand."""
    return WeightsMissing(
        f"{file.repo}/{file.filename} {what}.", path=file.filename, hint=by_hand(file)
    )


def no_such_file(want: Wanted) -> WeightsMissing:
    """Return the error for a file that the repository does not have, so nobody can fetch it."""
    file = want.named
    return WeightsMissing(
        f"{file.repo}/{file.filename} cannot be fetched: the hub has no such file.",
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
