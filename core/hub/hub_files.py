"""Files of the Hugging Face hub, and where they are on this machine; makes no request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import ConfigError
from imprompt.core.settings import settings
from imprompt.core.url_schemes import has_drive

DEFAULT_REVISION = "main"
SNAPSHOTS = "snapshots"
BY_HAND = "by-hand"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of the hub, OWNER/NAME, at a branch, tag or commit."""

    name: str
    revision: str = DEFAULT_REVISION
    kind: str = "model"


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

    @property
    def repository(self) -> Repository:
        """Return where it is from."""
        return Repository(self.repo, self.revision, self.repo_type)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that something needs: the first of `choices` that the hub has; it may be optional.

    `if_absent` is what helps a user whose repository has none of them. Messages name the last of
    `choices`, which most repositories have, or the first with `name_first`.
    """

    choices: tuple[HubFile, ...]
    optional: bool = False
    if_absent: str = ""
    name_first: bool = False

    @property
    def named(self) -> HubFile:
        """Return the file that messages name."""
        return self.choices[0 if self.name_first else -1]

    @property
    def repository(self) -> Repository:
        """Return where the choices are from; all are from one."""
        return self.choices[0].repository


_settled: dict[Repository, str] = {}
"""The commit whose files are used, of repositories of which the hub's cache names another."""


def wanted(repo: str, *filenames: str, optional: bool = False, if_absent: str = "") -> Wanted:
    """Return a want for the first of these files that a model's repository has."""
    return Wanted(tuple(HubFile(repo, filename) for filename in filenames), optional, if_absent)


def cached_file(file: HubFile) -> Path | None:
    """Return the file's path in the hub's cache or as put by hand, or None.

    Raises:
        ConfigError: the repository's name is malformed.
    """
    commit = _settled.get(file.repository, file.revision)
    if (found := file_at(file, commit)) is not None:
        return found
    by_hand = hand_path(file)
    return by_hand if by_hand.is_file() else None


def cached_choice(files: Sequence[HubFile]) -> Path | None:
    """Return `cached_file` of the first of several files that is here, or None."""
    return next((path for file in files if (path := cached_file(file)) is not None), None)


def file_at(file: HubFile, revision: str) -> Path | None:
    """Return the file's path in the hub's cache at a branch, tag or commit, or None.

    Raises:
        ConfigError: the repository's name is malformed.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(
            file.repo, file.filename, revision=revision, repo_type=file.repo_type
        )
    except ValueError as error:
        raise ConfigError(
            f"{file.repo!r} is not a repository of the hub.", hint="Write OWNER/NAME."
        ) from error
    return Path(found) if isinstance(found, str) else None


def settle(wants: Iterable[Wanted], *, digests: Iterable[str] = ()) -> None:
    """Decide for each repository from which of its commits in the hub's cache files are taken.

    It is one that has every file that is needed: the one that the cache names for the revision, or
    else the newest. Another program may have fetched a single file of a newer commit, and files of
    two commits are never mixed.

    Args:
        wants: all that is wanted of these repositories.
        digests: sha256 of files; a commit that has one of them goes first.
    """
    by_repository: dict[Repository, list[Wanted]] = {}
    for want in wants:
        if not want.optional:
            by_repository.setdefault(want.repository, []).append(want)
    preferred = frozenset(digests)
    for repository, needed in by_repository.items():
        whole = [commit for commit in _commits(repository) if has_all(needed, commit)]
        if preferred:
            whole.sort(key=lambda commit: preferred.isdisjoint(_digests(needed, commit)))
        if whole and whole[0] != named_commit(repository):
            _settled[repository] = whole[0]
        else:
            _settled.pop(repository, None)


def adopt(repository: Repository, commit: str) -> None:
    """Name the commit as the revision's in the hub's cache, as the hub's library does.

    Raises:
        StorageFull: the disk is full or may not be written.
    """
    _settled.pop(repository, None)
    if _COMMIT.fullmatch(repository.revision) or named_commit(repository) == commit:
        return
    with atomic_write(repository_folder(repository) / "refs" / repository.revision) as file:
        file.write(commit.encode())


def has_all(wants: Iterable[Wanted], commit: str) -> bool:
    """Return whether every want is in the hub's cache at a commit, or was put there by hand."""
    return all(
        any(file_at(file, commit) or hand_path(file).is_file() for file in want.choices)
        for want in wants
    )


def snapshots(repository: Repository) -> list[Path]:
    """Return the folders of a repository's commits in the hub's cache, the newest first."""
    try:
        folders = [
            (path.stat().st_mtime_ns, path)
            for path in (repository_folder(repository) / SNAPSHOTS).iterdir()
            if path.is_dir()
        ]
    except OSError:
        return []
    return [path for _, path in sorted(folders, reverse=True)]


def repository_folder(repository: Repository) -> Path:
    """Return the folder of a repository in the hub's cache."""
    from huggingface_hub.file_download import repo_folder_name

    return hub_folder() / repo_folder_name(repo_id=repository.name, repo_type=repository.kind)


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


def commit_of(path: Path) -> str:
    """Return the commit of a file in the hub's cache; `BY_HAND` if the user put it there."""
    parts = path.parts
    return (
        parts[parts.index(SNAPSHOTS) + 1]
        if SNAPSHOTS in parts and BY_HAND not in parts
        else BY_HAND
    )


def _commits(repository: Repository) -> Iterator[str]:
    """Yield the commit that the cache names for the revision, then the others, newest first."""
    named = named_commit(repository)
    yield named
    if not _COMMIT.fullmatch(repository.revision):
        yield from (path.name for path in snapshots(repository) if path.name != named)


def named_commit(repository: Repository) -> str:
    """Return the commit that the hub's cache names for the revision, else the revision itself."""
    try:
        named = repository_folder(repository) / "refs" / repository.revision
        return named.read_text("utf-8").strip() or repository.revision
    except (OSError, ValueError):
        return repository.revision


def _digests(wants: Iterable[Wanted], commit: str) -> Iterator[str]:
    """Yield the digests of files in the hub's cache, which names their content by it."""
    for want in wants:
        for file in want.choices:
            if (path := file_at(file, commit)) is not None:
                yield path.resolve().name
