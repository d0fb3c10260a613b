"""Data sets of the Hugging Face hub: which of their files are read, at which commit.

docs/adr/0005-hub-files.md explains which of them are read with the library `datasets`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

from imprompt.core.errors import ConfigError, CorpusError, WeightsMissing, first_line
from imprompt.core.hub.data_sets import HubListing, list_data_set
from imprompt.core.hub.fetch import Announce, fetch
from imprompt.core.hub.hub_files import (
    BY_HAND,
    DEFAULT_REVISION,
    HubFile,
    Repository,
    adopt,
    commit_of,
)
from imprompt.indexer.readers.compression import table_suffix
from imprompt.indexer.readers.rows import StreamedSource
from imprompt.indexer.readers.table_files import (
    ARCHIVE_SUFFIX,
    FORMS,
    TEXT_SUFFIX,
    NamedFile,
    is_data,
    joined_source,
    outranked,
)
from imprompt.indexer.readers.webdatasets import require_datasets

HUB = "hf:"
FORM = f"{HUB}OWNER/NAME[@REVISION][:CONFIG][#COLUMN]"
CARD = "README.md"

_SPEC = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^:#\s]+))?(?::(?P<config>[^#]+))?(?:#(?P<column>.+))?",
    re.ASCII | re.DOTALL,
)
_MAX_CARD_BYTES = 1 << 20
_MAX_PATTERNS = 10_000
_MAX_BRACKETS = 5_000
"""The parser takes quadratic time for nested lists."""
_SPLITS = ("train", "validation", "valid", "val", "dev", "eval", "test")
"""Splits in reading order; all are read, and files that name none come last."""

_PIECE = re.compile(r"-(\d{5})-of-(\d{5})\.")


@dataclass(frozen=True, slots=True)
class HubCorpus:
    """A data set of the hub; without `filenames`, its card and its files' names decide."""

    repo: str
    revision: str = DEFAULT_REVISION
    config: str | None = None
    column: str | None = None
    filenames: tuple[str, ...] = ()


def parse_hub_spec(spec: str) -> HubCorpus:
    """Parse what follows "hf:".

    Raises:
        ConfigError: it is not OWNER/NAME[@REVISION][:CONFIG][#COLUMN].
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    refusal = ConfigError(f"{HUB}{spec} does not name a data set.", hint=f"Use {FORM}.")
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise refusal
    repo, revision, config, column = match.group("repo", "revision", "config", "column")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise refusal from error
    return HubCorpus(repo, revision or DEFAULT_REVISION, config, column)


def hub_source(
    corpus: HubCorpus, *, name: str | None, column: str | None, offline: bool, announce: Announce
) -> StreamedSource:
    """Read a data set; `source_key` is "FILE:KEY", with the file's path in the repository.

    The fingerprint covers repository, commit, configuration and the files' content.

    Args:
        corpus: the data set.
        name: of the source; None takes the repository's, without its owner.
        column: of the prompts, if `corpus` does not name it.
        offline: never ask the hub.
        announce: takes a line on each download, and on what the cache is trusted with.

    Raises:
        CorpusError: the hub has no such data set, it does not answer and the cache lacks a file,
            the data set has no such configuration, or none of its files can be read.
    """
    try:
        commit, files = _fetched(corpus, offline=offline, announce=announce)
    except WeightsMissing as error:
        raise CorpusError(error.message, path=Path(error.path), hint=error.hint) from error
    origin = f"{HUB}{corpus.repo}@{commit}{f':{corpus.config}' if corpus.config else ''}"
    source = joined_source(
        name or corpus.repo.partition("/")[2], files, column=corpus.column or column, origin=origin
    )

    def digest() -> str:
        return sha256(f"{origin}\n{source.fingerprint()}".encode()).hexdigest()

    return StreamedSource(source.name, False, source.open_rows, digest, source.count, origin)


def _fetched(
    corpus: HubCorpus, *, offline: bool, announce: Announce
) -> tuple[str, list[NamedFile]]:
    """Return the commit, and its files in reading order."""
    if corpus.filenames:
        filenames = list(corpus.filenames)
        commit = commit_of(
            fetch(_file(corpus, filenames[0], corpus.revision), offline=offline, announce=announce)
        )
    else:
        listing = list_data_set(corpus.repo, corpus.revision, offline=offline, announce=announce)
        commit = listing.commit
        filenames = _data_files(corpus, listing, offline=offline, announce=announce)
    revision = corpus.revision if commit == BY_HAND else commit
    files = []
    for filename in filenames:
        path = fetch(_file(corpus, filename, revision), offline=offline, announce=announce)
        files.append(NamedFile(filename, path))
    if commit != BY_HAND:  # so that it is found without the hub, too
        adopt(Repository(corpus.repo, corpus.revision, "dataset"), commit)
    return commit, files


def _file(corpus: HubCorpus, filename: str, revision: str) -> HubFile:
    return HubFile(corpus.repo, filename, revision, "dataset")


def _data_files(
    corpus: HubCorpus, listing: HubListing, *, offline: bool, announce: Announce
) -> list[str]:
    patterns: list[str] | None = None
    if CARD in listing.filenames:
        card = fetch(_file(corpus, CARD, listing.commit), offline=offline, announce=announce)
        patterns = card_patterns(card, corpus)
    if patterns is None and corpus.config is not None:
        patterns = [f"{corpus.config}/"]
    chosen = choose_files(listing.filenames, patterns)
    if not chosen:
        kinds = sorted({Path(filename).suffix for filename in listing.filenames} - {"", ".md"})
        part = f" for {corpus.config}" if corpus.config else ""
        raise CorpusError(
            f"{HUB}{corpus.repo} has no data file{part} of a kind that can be read; "
            f"it has: {', '.join(kinds) or 'none'}.",
            hint=f"Kinds: {FORMS}.",
        )
    if any(table_suffix(Path(filename)) == ARCHIVE_SUFFIX for filename in chosen):
        require_datasets(f"{HUB}{corpus.repo}")  # before gigabytes are fetched
    if not listing.whole:
        _refuse_missing_pieces(corpus, chosen)
    return chosen


def card_patterns(card: Path, corpus: HubCorpus) -> list[str] | None:
    """Return the file patterns of a configuration in the card's order; None if it lists none.

    Without a name it is the card's default, the one called "default", or the only one.

    Raises:
        CorpusError: the card cannot be read, has no such configuration, or has several and no
            default.
    """
    configs = {str(entry.get("config_name", "default")): entry for entry in _configs(card)}
    if not configs:
        return None
    default = next(
        (name for name, entry in configs.items() if entry.get("default") is True), "default"
    )
    name = corpus.config or (next(iter(configs)) if len(configs) == 1 else default)
    if name not in configs:
        problem = "has several configurations and no default"
        if corpus.config:
            problem = f"has no configuration {name!r}"
        raise CorpusError(
            f"{HUB}{corpus.repo} {problem}; there are: {', '.join(configs)}.",
            path=card,
            hint=f"Name one: {HUB}{corpus.repo}:{next(iter(configs))}.",
        )
    entry = configs[name]
    folder = str(entry.get("data_dir") or "").strip("/")
    patterns = _paths(entry["data_files"], card) if entry.get("data_files") else [""]
    return [f"{folder}/{pattern}" if folder else pattern for pattern in patterns]


def choose_files(filenames: Sequence[str], patterns: Sequence[str] | None) -> list[str]:
    """Return the data files in reading order.

    With patterns: those that match, pattern by pattern. Without: those of the most frequent kind
    (texts only if there is nothing else), by split (train first), then by path. Files and folders
    whose names begin with a dot are left out, and kinds that are `outranked`.
    """
    tables = sorted(filter(is_data, filenames))
    if patterns is not None:
        matching = (name for pattern in patterns for name in tables if _matches(name, pattern))
        return _without_outranked(dict.fromkeys(matching))
    tables = _without_outranked(tables)
    kinds = Counter(table_suffix(Path(name)) for name in tables)
    most = max(
        kinds, key=lambda kind: (kind != TEXT_SUFFIX, kinds[kind], kind == ".parquet"), default=None
    )
    return sorted(
        (name for name in tables if table_suffix(Path(name)) == most),
        key=lambda name: (_split_rank(name), name),
    )


def _without_outranked(tables: Iterable[str]) -> list[str]:
    """Return the files whose kind is not `outranked`."""
    kinds = {name: table_suffix(Path(name)) for name in tables}
    without = outranked(kinds.values())
    return [name for name, kind in kinds.items() if kind not in without]


def _configs(card: Path) -> list[Mapping[str, Any]]:
    configs = _front_matter(card).get("configs")
    if not isinstance(configs, list):
        return []
    entries = [entry for entry in configs if isinstance(entry, Mapping)]
    for entry in entries:
        for key in ("config_name", "data_dir"):
            if not isinstance(entry.get(key), str | None):
                raise _bad_card(card, f"{key} is not text")
    return entries


def _front_matter(card: Path) -> Mapping[str, Any]:
    """Return the YAML between the two lines of dashes at the top of a card; empty without any."""
    import yaml  # comes with huggingface_hub
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    try:
        with card.open("rb") as file:
            content = file.read(_MAX_CARD_BYTES + 1)
        if len(content) > _MAX_CARD_BYTES:
            raise _bad_card(card, f"it has more than {_MAX_CARD_BYTES:,} bytes")
        block = REGEX_YAML_BLOCK.search(content.decode("utf-8-sig"))
        if block and sum(map(block.group(2).count, "[{&")) > _MAX_BRACKETS:
            raise _bad_card(card, f"its YAML has more than {_MAX_BRACKETS:,} brackets and anchors")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        front_matter = yaml.load(block.group(2), Loader=loader) if block else None  # noqa: S506 both are safe loaders
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise _bad_card(card, first_line(error)) from error
    return front_matter if isinstance(front_matter, Mapping) else {}


def _bad_card(card: Path, reason: str) -> CorpusError:
    return CorpusError(
        f"The data set's card {card} cannot be read: {reason}.",
        path=card,
        hint="Name one of its files instead.",
    )


def _paths(value: Any, card: Path) -> list[str]:
    """Return the patterns of `data_files`: one, a list, one for each split, or {split, path} items.

    Raises:
        CorpusError: there are more than `_MAX_PATTERNS`: YAML aliases turn a few lines into
            millions.
    """
    patterns: list[str] = []
    waiting, steps = [value], 0
    while waiting:
        part, steps = waiting.pop(), steps + 1
        if steps > _MAX_PATTERNS:
            raise _bad_card(card, f"its data_files hold more than {_MAX_PATTERNS:,} entries")
        if isinstance(part, str):
            patterns.append(part)
        elif isinstance(part, Mapping):
            inner = [part["path"]] if "path" in part else list(part.values())
            waiting += inner[::-1]
        elif isinstance(part, list):
            waiting += part[::-1]
    return patterns


def _matches(name: str, pattern: str) -> bool:
    pattern = pattern.removeprefix("./")
    if pattern == "" or pattern.endswith("/"):
        return name.startswith(pattern)
    return (
        fnmatchcase(name, pattern)
        or fnmatchcase(name, pattern.replace("**/", ""))
        or name.startswith(f"{pattern}/")
    )


def _split_rank(name: str) -> int:
    words = re.split(r"[^a-z]+", name.lower())
    return next((rank for rank, split in enumerate(_SPLITS) if split in words), len(_SPLITS))


def _refuse_missing_pieces(corpus: HubCorpus, filenames: Sequence[str]) -> None:
    """Raise if the cache holds only some pieces of a data set, as far as file names tell."""
    for filename in filenames:
        match = _PIECE.search(filename)
        if match is None:
            continue
        total = match.group(2)
        for number in range(int(total)):
            piece = _PIECE.sub(f"-{number:05d}-of-{total}.", filename)
            if piece not in filenames:
                raise CorpusError(
                    f"The hub's cache lacks {piece} of {corpus.repo}.",
                    path=Path(piece),
                    hint="Fetch it, or drop --offline.",
                )
