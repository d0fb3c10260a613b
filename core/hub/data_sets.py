"""The files of a data set of the hub: as the hub lists them, else as they lie on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from imprompt.core.errors import WeightsMissing
from imprompt.core.hub.fetch import ASK_TIMEOUT_S, Announce
from imprompt.core.hub.hub_files import (
    BY_HAND,
    SNAPSHOTS,
    HubFile,
    Repository,
    hand_path,
    named_commit,
    repository_folder,
)
from imprompt.core.hub.refusals import busy_or_broken, reason
from imprompt.core.retries import retrying


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
        return _ask_for_files(repo, revision, offline=offline, announce=announce)
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


def _ask_for_files(repo: str, revision: str, *, offline: bool, announce: Announce) -> HubListing:
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
        info = retrying(
            lambda: HfApi().dataset_info(repo, revision=revision, timeout=ASK_TIMEOUT_S),
            host=urlsplit(page).netloc,
            announce=announce,
            passing=busy_or_broken,
        )
    except Exception as error:  # of its HTTP library or the system; all mean "not from there"
        raise WeightsMissing(f"{refusal}: {reason(error, page)}.", path=repo, hint=hint) from error
    return HubListing(
        str(info.sha), tuple(sorted(file.rfilename for file in info.siblings or ())), True
    )


def _places(repo: str, revision: str) -> list[Path]:
    """Return the folders in which files of a data set may be."""
    repository = Repository(repo, revision, "dataset")
    snapshot = repository_folder(repository) / SNAPSHOTS / named_commit(repository)
    return [snapshot, hand_path(HubFile(repo, "any", revision, "dataset")).parent]
