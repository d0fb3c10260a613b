"""The one gate through which files come from outside. `--offline` shuts it; nothing else in imprompt touches the network.

A file that the hub's own cache already holds is found without a request. Before anything is fetched, `announce` is told what,
from where, and how large it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import WeightsMissing

DEFAULT_REVISION = "main"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a Hugging Face repository: `repo` is OWNER/NAME, `revision` a branch, tag or commit."""

    repo: str
    filename: str
    revision: str = DEFAULT_REVISION
    repo_type: str = "model"


Announce = Callable[[str], None]


def silent(line: str) -> None:
    """Announces nothing."""


def cached_file(file: HubFile) -> Path | None:
    """Where the hub's cache holds the file, or None; never a request."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(file.repo, file.filename, revision=file.revision, repo_type=file.repo_type)
    return Path(found) if isinstance(found, str) else None


def fetch(file: HubFile, *, offline: bool, announce: Announce) -> Path:
    """The local path of a hub file; downloaded first where the cache lacks it and the network may be used.

    Raises:
        WeightsMissing: it is not in the cache, and `offline` is set or the hub cannot be reached or refuses.
    """
    if (found := cached_file(file)) is not None:
        return found
    remedy = (
        f"Fetch {file.filename} of {file.repo} (revision {file.revision}) on a machine with a network and copy its hub cache here, "
        "or name a local file instead."
    )
    if offline:
        raise WeightsMissing(
            f"{file.repo}/{file.filename} is not in the cache, and --offline is set.", path=file.filename, hint=remedy
        )
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        url = hf_hub_url(file.repo, file.filename, revision=file.revision, repo_type=file.repo_type)
        size = get_hf_file_metadata(url, timeout=10).size
        announce(f"Fetching {file.filename} of {file.repo} ({_megabytes(size)}) from {url.split('/')[2]}.")
        return Path(hf_hub_download(file.repo, file.filename, revision=file.revision, repo_type=file.repo_type))
    except Exception as error:  # the hub client raises its own, httpx's and the system's errors; all mean "not here"
        reason = str(error).strip().splitlines()
        raise WeightsMissing(
            f"{file.repo}/{file.filename} cannot be fetched: {reason[0] if reason else type(error).__name__}.",
            path=file.filename,
            hint=remedy,
        ) from error


def _megabytes(size_bytes: int | None) -> str:
    return "size unknown" if size_bytes is None else f"{size_bytes / 1e6:,.0f} MB"
