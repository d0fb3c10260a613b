"""The only code that fetches files from the network; `--offline` turns it off.

A file that is here already, in the hub's cache or put there by hand, needs no request. Before a
download, `announce` gets a line with its name, host and size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from imprompt.core.atomic_files import storage_errors
from imprompt.core.errors import ConfigError, ImpromptError, StorageFull, WeightsMissing, first_line
from imprompt.core.hub.download import download, partial_path
from imprompt.core.settings import settings
from imprompt.core.text import size_text
from imprompt.core.url_schemes import has_drive

DEFAULT_REVISION = "main"
ASK_TIMEOUT_S = 10
"""Timeout of a request to the hub, downloads aside."""

SNAPSHOTS = "snapshots"
BY_HAND = "by-hand"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of the Hugging Face repository OWNER/NAME, at a branch, tag or commit."""

    repo: str
    filename: str
    revision: str = DEFAULT_REVISION
    repo_type: str = "model"

    def __post_init__(self) -> None:
        """Raise `ConfigError` if the file would lie outside its repository's folder."""
        if (
            self.filename.startswith("/")
            or "\\" in self.filename
            or has_drive(self.filename)
            or ".." in self.filename.split("/")
        ):
            raise ConfigError(
                f"{self.filename[:80]!r} is not a path inside the repository {self.repo}."
            )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that something needs: the first of `choices` that the hub has; it may be optional."""

    choices: tuple[HubFile, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Remote:
    """What the hub reports about a file; `size_bytes` is None if it does not say."""

    file: HubFile
    url: str
    etag: str
    size_bytes: int | None


Announce = Callable[[str], None]


def silent(line: str) -> None:
    """Ignore the line."""


def wanted(repo: str, *filenames: str, optional: bool = False) -> Wanted:
    """Return a want for the first of these files that a model's repository has."""
    return Wanted(tuple(HubFile(repo, filename) for filename in filenames), optional=optional)


def cached_file(file: HubFile) -> Path | None:
    """Return the file's path in the hub's cache or as put by hand, or None; makes no request.

    Raises:
        ConfigError: the repository's name is malformed.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(
            file.repo, file.filename, revision=file.revision, repo_type=file.repo_type
        )
    except ValueError as error:
        raise ConfigError(
            f"{file.repo!r} is not a repository of the hub.", hint="Write OWNER/NAME."
        ) from error
    if isinstance(found, str):
        return Path(found)
    by_hand = hand_path(file)
    return by_hand if by_hand.is_file() else None


def cached_choice(files: Sequence[HubFile]) -> Path | None:
    """Return `cached_file` of the first of several files that is here, or None."""
    return next((path for file in files if (path := cached_file(file)) is not None), None)


def hand_path(file: HubFile) -> Path:
    """Return where a user puts the file by hand; it counts for every revision."""
    kind = "" if file.repo_type == "model" else f"{file.repo_type}s"
    return settings().cache / BY_HAND / kind / file.repo / file.filename


def hub_url(file: HubFile) -> str:
    """Return the URL of the file."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(file.repo, file.filename, revision=file.revision, repo_type=file.repo_type)


def hub_folder() -> Path:
    """Return the hub's cache on this machine: below HF_HOME, or the user's cache folder."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def by_hand(file: HubFile) -> str:
    """Return the remedy without a network, in one line."""
    return (
        f"Fetch {hub_url(file)} on a machine with a network and put it at {hand_path(file)}, or "
        "copy its hub cache here."
    )


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
    if (remote := find_remote(Wanted(tuple(files)), offline=offline)) is not None:
        return take(remote, announce=announce)
    raise missing(files[-1], "cannot be fetched: the hub has no such file")


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
) -> int:
    """Fetch what is wanted and not here, and return the number of different files wanted.

    Optional files are asked for only together with a missing file that is needed, so what was
    fetched once causes no further request, whatever its repository lacks.

    Args:
        list_wanted: returns what is wanted as far as the files on this machine tell (an index of
            shards names the shards); called again after each round until nothing new is wanted.
        offline: use no network.
        announce: takes a line for the user about each download.
        listener: hears of progress and failures, in place of `announce`.

    Raises what `fetch` raises, unless the listener does not.
    """
    listener = listener or FetchListener(announce)
    known: dict[Wanted, None] = {}
    while new := [want for want in dict.fromkeys(list_wanted()) if want not in known]:
        known |= dict.fromkeys(new)
        absent = []
        for want in new:
            if (path := cached_choice(want.choices)) is not None:
                listener.cached(path)
            else:
                absent.append(want)
        if not all(want.optional for want in absent):
            # Optional files first: once the last needed one is here, nothing is asked again.
            absent.sort(key=lambda want: not want.optional)
            _download_all(_ask_for_all(absent, offline=offline, listener=listener), listener)
    return len(known)


def _ask_for_all(
    wants: Sequence[Wanted], *, offline: bool, listener: FetchListener
) -> list[Remote]:
    """Return what the hub has of these; a hub that cannot be reached is asked only once."""
    remotes, reachable = [], True
    for want in wants:
        if want.optional and (offline or not reachable):
            continue
        file = want.choices[-1]
        try:
            if not reachable:
                raise missing(file, "was not asked for, since the hub cannot be reached")
            if (remote := find_remote(want, offline=offline)) is not None:
                remotes.append(remote)
            elif not want.optional:
                raise missing(file, "cannot be fetched: the hub has no such file")
        except WeightsMissing as error:
            listener.failed(f"{file.repo}/{file.filename}", error)
            reachable = reachable and (offline or _refused_by_hub(error))
    return [*dict.fromkeys(remotes)]  # several wants may name one file


def _download_all(remotes: Sequence[Remote], listener: FetchListener) -> None:
    if remotes:
        listener.starting(remotes)
    for number, remote in enumerate(remotes, start=1):
        listener.fetching(number, len(remotes))
        try:
            path = take(remote, announce=listener.announce)
        except ImpromptError as error:
            listener.failed(f"{remote.file.repo}/{remote.file.filename}", error)
        else:
            listener.fetched(remote, path)


def find_remote(want: Wanted, *, offline: bool) -> Remote | None:
    """Return what the hub says of the first choice that it has, or None.

    Raises:
        WeightsMissing: see `ask_hub`.
    """
    _require_open(want.choices[-1], offline=offline)
    return next(
        (remote for file in want.choices if (remote := ask_hub(file, offline=offline)) is not None),
        None,
    )


def ask_hub(file: HubFile, *, offline: bool) -> Remote | None:
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
        said = get_hf_file_metadata(url, timeout=ASK_TIMEOUT_S)
    except EntryNotFoundError:
        return None
    except HfHubHTTPError as error:
        if error.response.status_code == 404 and not isinstance(
            error, RepositoryNotFoundError | RevisionNotFoundError
        ):
            return None  # a mirror that does not say what is missing
        raise missing(file, f"cannot be fetched: {_reason(error, url)}") from error
    except Exception as error:  # of its HTTP library or the system; all mean "not from there"
        raise missing(file, f"cannot be fetched: {_reason(error, url)}") from error
    return Remote(file, url, said.etag or "", said.size)


def _require_open(file: HubFile, *, offline: bool) -> None:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if offline or HF_HUB_OFFLINE:
        raise missing(
            file, f"is not in the cache, and {'--offline' if offline else 'HF_HUB_OFFLINE'} is set"
        )


def kept_bytes(remote: Remote) -> int:
    """Return how many bytes of the file an earlier, interrupted attempt has kept."""
    part = partial_path(_blobs(remote.file), remote.etag)
    return part.stat().st_size if part.is_file() else 0


def take(remote: Remote, *, announce: Announce) -> Path:
    """Download what `ask_hub` returned into the hub's cache, resuming an interrupted attempt.

    Raises what `fetch` raises.
    """
    from huggingface_hub import hf_hub_download

    file = remote.file
    blobs = _blobs(file)
    label = f"{file.filename} of {file.repo}"
    announce(
        f"Fetching {label} ({size_text(remote.size_bytes)}) from {urlsplit(remote.url).hostname}."
    )
    try:
        download(
            remote.url,
            blobs,
            etag=remote.etag,
            size_bytes=remote.size_bytes,
            label=label,
            announce=announce,
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
        raise missing(file, f"cannot be fetched: {_reason(error, remote.url)}") from error


def _blobs(file: HubFile) -> Path:
    """Return where the hub's cache keeps a repository's files, by digest."""
    from huggingface_hub.file_download import repo_folder_name

    return hub_folder() / repo_folder_name(repo_id=file.repo, repo_type=file.repo_type) / "blobs"


@dataclass(frozen=True, slots=True)
class HubListing:
    """The files of a data set at one `commit`, sorted.

    `whole` is False if they are only those on this machine.
    """

    commit: str
    filenames: tuple[str, ...]
    whole: bool


def list_data_set(repo: str, revision: str, *, offline: bool, announce: Announce) -> HubListing:
    """Return the files of a data set: from the hub, else from its cache or as put by hand.

    Raises:
        WeightsMissing: `offline` is set, or the hub does not answer or refuses, and nothing of it
            lies here.
    """
    try:
        return _ask_for_files(repo, revision, offline=offline)
    except WeightsMissing as error:
        for folder in _places(repo, revision):
            here = tuple(
                sorted(
                    path.relative_to(folder).as_posix()
                    for path in folder.rglob("*")
                    if path.is_file()
                )
            )
            if here:
                announce(f"{error.message} Reading the files of it that lie in {folder}.")
                return HubListing(
                    folder.name if folder.parent.name == SNAPSHOTS else BY_HAND, here, False
                )
        raise


def commit_of(path: Path) -> str:
    """Return the commit of a file that `fetch` returned; `BY_HAND` if the user put it there."""
    parts = path.parts
    return (
        parts[parts.index(SNAPSHOTS) + 1]
        if SNAPSHOTS in parts and BY_HAND not in parts
        else BY_HAND
    )


def _ask_for_files(repo: str, revision: str, *, offline: bool) -> HubListing:
    from huggingface_hub import HfApi, constants

    refusal = f"The files of the data set {repo} cannot be listed"
    page = f"{constants.ENDPOINT}/datasets/{repo}"
    hint = (
        f"Fetch its data files from {page} by hand and put them into "
        f"{_places(repo, revision)[-1]}, or copy its hub cache here."
    )
    if offline or constants.HF_HUB_OFFLINE:
        raise WeightsMissing(
            f"{refusal}: {'--offline' if offline else 'HF_HUB_OFFLINE'} is set.",
            path=repo,
            hint=hint,
        )
    try:
        info = HfApi().dataset_info(repo, revision=revision, timeout=ASK_TIMEOUT_S)
    except Exception as error:  # as in `ask_hub`
        raise WeightsMissing(f"{refusal}: {_reason(error, page)}.", path=repo, hint=hint) from error
    return HubListing(
        str(info.sha), tuple(sorted(file.rfilename for file in info.siblings or ())), True
    )


def _places(repo: str, revision: str) -> list[Path]:
    """Return the folders in which files of a data set may be."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="dataset")
    try:
        commit = (cache / "refs" / revision).read_text("utf-8").strip() or revision
    except (OSError, ValueError):
        commit = revision
    return [cache / SNAPSHOTS / commit, hand_path(HubFile(repo, "any", revision, "dataset")).parent]


def missing(file: HubFile, what: str) -> WeightsMissing:
    """Return the error for a missing file: its name, `what`, and how to get it by hand."""
    return WeightsMissing(
        f"{file.repo}/{file.filename} {what}.", path=file.filename, hint=by_hand(file)
    )


def _refused_by_hub(error: WeightsMissing) -> bool:
    """Return whether the hub itself refused, so that other files are worth asking for."""
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error.__cause__, HfHubHTTPError)


def _reason(error: Exception, url: str) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    host = urlsplit(url).netloc
    if isinstance(error, GatedRepoError):
        return (
            f"{host} asks for a licence to be accepted on the repository's page, and for a token "
            "in HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError):
        return f"{host} has no such repository, or wants a token in HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"{host} has no such revision of it"
    if isinstance(error, HfHubHTTPError):
        return f"{host} answered {error.response.status_code}"
    if "timeout" in type(error).__name__.lower():
        return f"{host} did not answer in time"
    return f"{host}: {first_line(error)}"
