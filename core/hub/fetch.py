"""The only code that fetches files from the network; `--offline` turns it off.

A file that is here already, in the hub's cache or put there by hand, needs no request. Before a
download, `announce` gets a line with its name, host and size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from imprompt.core.atomic_files import storage_errors
from imprompt.core.errors import ImpromptError, StorageFull, WeightsMissing
from imprompt.core.hub.download import download, partial_path
from imprompt.core.hub.hub_files import (
    HubFile,
    Repository,
    Wanted,
    adopt,
    cached_choice,
    file_at,
    has_all,
    hub_url,
    repository_folder,
    settle,
)
from imprompt.core.hub.refusals import busy, busy_or_broken, missing, no_such_file, refused
from imprompt.core.retries import retrying
from imprompt.core.text import size_text

ASK_TIMEOUT_S = 10
"""Timeout of a request to the hub, downloads aside."""


@dataclass(frozen=True, slots=True)
class Remote:
    """What the hub reports about a file at one commit; `size_bytes` is None if it does not say.

    `file.revision` is that commit, so that what is fetched next is of the same one.
    """

    file: HubFile
    url: str
    etag: str
    size_bytes: int | None
    optional: bool = False


Announce = Callable[[str], None]


def silent(line: str) -> None:
    """Ignore the line."""


def fetch(file: HubFile, *, offline: bool, announce: Announce) -> Path:
    """Return the local path of a hub file, after downloading it if it is not here.

    Raises:
        WeightsMissing: it is not here, and `offline` is set or the hub cannot be reached or
            refuses.
        WeightsRejected: the download does not match the hub's checksum.
        StorageFull: the disk is full or may not be written.
    """
    return fetch_choice((file,), offline=offline, announce=announce)


def fetch_choice(files: Sequence[HubFile], *, offline: bool, announce: Announce) -> Path:
    """Return the first of several files that is here, else download the first that the hub has.

    Raises what `fetch` raises; if the hub has none of them, the error names the last.
    """
    if (path := cached_choice(files)) is not None:
        return path
    want = Wanted(tuple(files))
    fetch_all(lambda: [want], offline=offline, announce=announce)
    if (path := cached_choice(files)) is not None:
        return path
    raise no_such_file(want)


class FetchListener:
    """Hears what `fetch_all` does; this one announces downloads and raises the first failure."""

    def __init__(self, announce: Announce) -> None:
        self.announce = announce

    def cached(self, path: Path) -> None:
        """Hear of a wanted file that is here already."""

    def starting(self, remotes: Sequence[Remote]) -> None:
        """Hear what is about to be downloaded; an error ends `fetch_all`."""

    def fetching(self, number: int, total: int) -> None:
        """Hear that download `number` of `total` begins."""

    def fetched(self, remote: Remote, path: Path) -> None:
        """Hear of a download that is complete."""

    def failed(self, name: str, error: ImpromptError) -> None:  # noqa: ARG002 for subclasses
        """Hear that a file cannot be fetched; `fetch_all` continues unless this raises."""
        raise error


def fetch_all(
    list_wanted: Callable[[], Sequence[Wanted]],
    *,
    offline: bool,
    announce: Announce = silent,
    listener: FetchListener | None = None,
    digests: Iterable[str] = (),
) -> int:
    """Fetch what is wanted and not here, and return the number of different files wanted.

    All files of a repository are of one commit: if one that is needed is missing, the others are
    taken from the commit that the hub names now, too, and only content that is new is downloaded.

    Optional files are asked for only together with a missing file that is needed, so what was
    fetched once causes no further request, whatever its repository lacks.

    Args:
        list_wanted: returns what is wanted as far as the files on this machine tell (an index of
            shards names the shards); called again after each round until nothing new is wanted.
        offline: use no network.
        announce: takes a line for the user about each download.
        listener: hears of progress and failures, in place of `announce`.
        digests: sha256 of weight files; of several commits here, one that has them is used.

    Raises what `fetch` raises, unless the listener does not.
    """
    listener = listener or FetchListener(announce)
    known: dict[Wanted, None] = {}
    commits: dict[Repository, str] = {}
    while new := [want for want in dict.fromkeys(list_wanted()) if want not in known]:
        known |= dict.fromkeys(new)
        settle(known, digests=digests)
        absent = []
        for want in new:
            if (path := cached_choice(want.choices)) is not None:
                listener.cached(path)
            else:
                absent.append(want)
        moving = {want.repository for want in absent if not want.optional}
        if moving:
            asked = [want for want in known if want.repository in moving]
            remotes = _ask_for_all(asked, commits, offline=offline, listener=listener)
            _download_all(remotes, listener)
            _adopt_whole(moving, known, commits)
    return len(known)


def _ask_for_all(
    wants: Sequence[Wanted],
    commits: dict[Repository, str],
    *,
    offline: bool,
    listener: FetchListener,
) -> list[Remote]:
    """Return what the hub has of these, as far as it is not here.

    The first answer about a repository settles the commit (added to `commits`) that all its files
    are of. A hub that cannot be reached is asked only once.
    """
    remotes: list[Remote] = []
    reachable = True
    for want in sorted(wants, key=_urgency):
        if want.optional and (offline or not reachable):
            continue
        commit = commits.get(want.repository)
        at = [replace(file, revision=commit or file.revision) for file in want.choices]
        if commit is not None and any(file_at(file, commit) for file in at):
            continue
        if want.optional and any(remote.file in at for remote in remotes):
            continue  # something else needs the same file
        file = want.named
        try:
            if not reachable:
                raise missing(file, "was not asked for, since the hub cannot be reached")
            remote = find_remote(
                replace(want, choices=tuple(at)), offline=offline, announce=listener.announce
            )
            if remote is not None:
                commits.setdefault(want.repository, remote.file.revision)
                remotes.append(remote)
            elif not want.optional:
                raise no_such_file(want)
        except WeightsMissing as error:
            reachable = reachable and (offline or _refused_by_hub(error))
            if not want.optional:
                listener.failed(f"{file.repo}/{file.filename}", error)
            elif reachable:
                _tell_left_out(error, listener)
    # Optional files first: once the last needed one is here, nothing is asked again.
    return sorted(dict.fromkeys(remotes), key=lambda remote: not remote.optional)


def _urgency(want: Wanted) -> tuple[bool, bool]:
    """Return what sorts needed files before optional ones, and each before those that are here."""
    return want.optional, cached_choice(want.choices) is not None


def _tell_left_out(error: ImpromptError, listener: FetchListener) -> None:
    listener.announce(f"{error.message} It is optional, so the work continues without it.")


def _download_all(remotes: Sequence[Remote], listener: FetchListener) -> None:
    if remotes:
        listener.starting(remotes)
    for number, remote in enumerate(remotes, start=1):
        listener.fetching(number, len(remotes))
        try:
            path = take(remote, announce=listener.announce)
        except WeightsMissing as error:
            if remote.optional:
                _tell_left_out(error, listener)
            else:
                listener.failed(f"{remote.file.repo}/{remote.file.filename}", error)
        except ImpromptError as error:
            listener.failed(f"{remote.file.repo}/{remote.file.filename}", error)
        else:
            listener.fetched(remote, path)


def _adopt_whole(
    repositories: Iterable[Repository], wants: Iterable[Wanted], commits: Mapping[Repository, str]
) -> None:
    """Let the hub's cache name the new commit of each repository if all that is needed is here."""
    needed = [want for want in wants if not want.optional]
    for repository in repositories:
        commit = commits.get(repository)
        of_it = [want for want in needed if want.repository == repository]
        if commit is not None and has_all(of_it, commit):
            adopt(repository, commit)


def find_remote(want: Wanted, *, offline: bool, announce: Announce = silent) -> Remote | None:
    """Return what the hub says of the first choice that it has, or None.

    Raises:
        WeightsMissing: see `ask_hub`.
    """
    _require_open(want.named, offline=offline)
    for file in want.choices:
        remote = ask_hub(file, offline=offline, announce=announce)
        if remote is not None:
            return replace(remote, optional=want.optional)
    return None


def ask_hub(file: HubFile, *, offline: bool, announce: Announce = silent) -> Remote | None:
    """Return what the hub says of the file, or None if it has no such file.

    Raises:
        WeightsMissing: `offline` is set, or the hub does not answer within `ASK_TIMEOUT_S`, or
            refuses.
    """
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    _require_open(file, offline=offline)
    url = hub_url(file)
    try:
        said = retrying(
            lambda: get_hf_file_metadata(url, timeout=ASK_TIMEOUT_S),
            host=urlsplit(url).netloc,
            announce=announce,
            passing=busy_or_broken,
        )
    except EntryNotFoundError:
        return None
    except HfHubHTTPError as error:
        if error.response.status_code == 404 and not isinstance(
            error, RepositoryNotFoundError | RevisionNotFoundError
        ):
            return None  # a mirror that does not say what is missing
        raise refused(file, error) from error
    except Exception as error:  # of its HTTP library or the system; all mean "not from there"
        raise refused(file, error) from error
    at = replace(file, revision=said.commit_hash or file.revision)
    return Remote(at, hub_url(at), said.etag or "", said.size)


def _require_open(file: HubFile, *, offline: bool) -> None:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if offline or HF_HUB_OFFLINE:
        raise missing(
            file, f"is not in the cache, and {'--offline' if offline else 'HF_HUB_OFFLINE'} is set"
        )


def kept_bytes(remote: Remote) -> int:
    """Return how many bytes of the file's content are here, from whatever was fetched before."""
    blobs = _blobs(remote.file)
    for path in (blobs / remote.etag, partial_path(blobs, remote.etag)):
        if remote.etag and path.is_file():
            return path.stat().st_size
    return 0


def take(remote: Remote, *, announce: Announce) -> Path:
    """Download what `ask_hub` returned into the hub's cache, resuming an interrupted attempt.

    Raises what `fetch` raises.
    """
    from huggingface_hub import hf_hub_download

    file = remote.file
    blobs = _blobs(file)
    label = f"{file.filename} of {file.repo}"
    host = urlsplit(remote.url)
    if not (remote.etag and (blobs / remote.etag).is_file()):
        announce(f"Fetching {label} ({size_text(remote.size_bytes)}) from {host.hostname}.")
    try:
        retrying(
            lambda: download(
                remote.url,
                blobs,
                etag=remote.etag,
                size_bytes=remote.size_bytes,
                label=label,
                announce=announce,
            ),
            host=host.netloc,
            announce=announce,
            passing=busy,  # the library takes up broken connections itself
        )
        with storage_errors(blobs):
            # The content is in place, so this only links it; if its etag is not a digest, the
            # library downloads it.
            return Path(
                hf_hub_download(
                    file.repo, file.filename, revision=file.revision, repo_type=file.repo_type
                )
            )
    except ImpromptError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise StorageFull(
                f"{error.filename} cannot be written: {error.strerror}.",
                hint="Name another folder with HF_HOME.",
            ) from error
        raise refused(file, error) from error


def _blobs(file: HubFile) -> Path:
    """Return where the hub's cache keeps a repository's files, by digest."""
    return repository_folder(file.repository) / "blobs"


def _refused_by_hub(error: WeightsMissing) -> bool:
    """Return whether the hub itself refused, so that other files are worth asking for."""
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error.__cause__, HfHubHTTPError)
