"""What `prefetch` does: list the files that a need has on the hub, check the others, and fetch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from imprompt.core.errors import ImpromptError, StorageFull, WeightsMissing
from imprompt.core.hub import download
from imprompt.core.hub.fetch import FetchListener, Remote, fetch_all, kept_bytes
from imprompt.core.hub.hub_files import Wanted, cached_choice, hand_path, hub_folder, hub_url
from imprompt.core.hub.repositories import licence_of, size_of
from imprompt.core.text import size_text

if TYPE_CHECKING:
    from imprompt.environment.model_files import Need


class ListedFile(msgspec.Struct, frozen=True, rename={"need": "for"}):
    """A file on the hub that a need asks for.

    `urgency` is "needed", "optional", or "or instead of it" for an alternative to the file before;
    `here` is its path on this machine, None if it is missing; `bytes` and `licence` are None and ""
    where unknown without a request.
    """

    need: str
    repo: str
    repo_type: str
    file: str
    urgency: str
    url: str
    put_at: str
    bytes: int | None
    licence: str
    here: str | None


class DownloadSize(msgspec.Struct, frozen=True):
    """How much is to be downloaded: bytes of known size, files of unknown size, and free space."""

    bytes: int
    unknown: int
    free_bytes: int


def list_files(need: Need) -> Iterator[ListedFile]:
    """Yield the files of a need on the hub, without a request."""
    for want in need.settled():
        here = cached_choice(want.choices)
        for number, file in enumerate(want.choices):
            first = "optional" if want.optional else "needed"
            yield ListedFile(
                need=need.name,
                repo=file.repo,
                repo_type=file.repo_type,
                file=file.filename,
                urgency="or instead of it" if number else first,
                url=hub_url(file),
                put_at=str(hand_path(file)),
                bytes=size_of(file),
                licence=licence_of(file),
                here=None if here is None else str(here),
            )


def check_installed(needs: Sequence[Need]) -> Iterator[tuple[str, ImpromptError | None]]:
    """Yield each file that a package or the user provides, with the error if it is missing.

    A file that the hub may provide instead is not missing here: fetching it says so.
    """
    from imprompt.encoders.weights import pinned_weights, wanted_files

    for role in dict.fromkeys(role for need in needs for role in need.pinned):
        try:
            pinned_weights(role)
        except WeightsMissing as error:
            if not wanted_files((role,)):
                yield role, error
        except ImpromptError as error:
            yield role, error
        else:
            yield role, None
    for path in dict.fromkeys(path for need in needs for path in need.local):
        if path.exists():
            yield str(path), None
        else:
            hint = "Name another file."
            yield str(path), WeightsMissing(f"{path} does not exist.", path=path, hint=hint)


def fetch_needs(needs: Sequence[Need], *, offline: bool, listener: FetchListener) -> int:
    """Fetch what the needs lack, and return the number of different files that they ask for.

    Failures go to the listener, which may raise them.
    """
    refused: set[str] = set()

    def list_wanted() -> list[Wanted]:
        wants: list[Wanted] = []
        for need in needs:
            try:
                wants += need.wanted()
            except ImpromptError as error:
                if need.name not in refused:
                    refused.add(need.name)
                    listener.failed(need.name, error)
        return wants

    return fetch_all(list_wanted, offline=offline, listener=listener)


def download_size(remotes: Sequence[Remote]) -> DownloadSize:
    """Return how much a download of these files takes, less what earlier attempts kept."""
    return DownloadSize(
        bytes=max(0, sum((remote.size_bytes or 0) - kept_bytes(remote) for remote in remotes)),
        unknown=sum(remote.size_bytes is None for remote in remotes),
        free_bytes=download.free_bytes(hub_folder()),
    )


def check_space(size: DownloadSize) -> None:
    """Raise `StorageFull` if a download does not fit."""
    if size.bytes > size.free_bytes:
        raise StorageFull(
            f"{size_text(size.bytes)} do not fit into {hub_folder()}, which has "
            f"{size_text(size.free_bytes)} free.",
            hint="Free some space, or name another cache folder with HF_HOME.",
        )
