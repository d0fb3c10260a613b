"""The steps that a build has finished: JSON lines, each on disk before the next step begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from imprompt.core.atomic_files import storage_errors, sync_folder
from imprompt.core.errors import ConfigError
from imprompt.core.values import RejectedRow
from imprompt.store.layout import shard_file
from imprompt.store.manifest import Count, ShardRecord
from imprompt.store.paths import open_file

_LONGEST_LINE = 1 << 22


class Numbered(msgspec.Struct, frozen=True, tag="numbered"):
    """`prompts.duckdb` is complete; `funnel` counts corpus rows by what became of them.

    `parameters` of the rows have generation parameters.
    """

    rows: Count
    rows_digest: str
    funnel: dict[str, Count]
    rejected: list[RejectedRow]
    parameters: Count = 0


class ShardDone(msgspec.Struct, frozen=True, tag="shard"):
    """A shard is complete; `truncated` of its texts are longer than the encoder's limit."""

    space: str
    number: Count
    truncated: Count
    record: ShardRecord


Entry: TypeAlias = Numbered | ShardDone


class Journal:
    """The journal of a staging folder; a context manager. One user at a time, under the write lock.

    Opening cuts off everything from the first torn or unknown line on: those steps are repeated.

    Raises:
        Checksum: the file is a link, or not a regular file.
        StorageFull: the disk is full or read-only; also from `append`.
    """

    def __init__(self, path: Path) -> None:
        with storage_errors(path):
            self.entries: list[Entry] = []
            self._path = path
            self._descriptor = open_file(
                path.parent, path.name, flags=os.O_RDWR | os.O_CREAT | os.O_APPEND
            )
            whole = 0
            with os.fdopen(os.dup(self._descriptor), "rb") as lines:
                while (entry := _parse(line := lines.readline(_LONGEST_LINE))) is not None:
                    self.entries.append(entry)
                    whole += len(line)
            os.ftruncate(self._descriptor, whole)
            os.fsync(self._descriptor)
            sync_folder(path.parent)

    def append(self, entry: Entry) -> None:
        """Add an entry; it is on disk when this returns."""
        with storage_errors(self._path):
            write_whole(self._descriptor, msgspec.json.encode(entry) + b"\n")
            os.fsync(self._descriptor)
        self.entries.append(entry)

    def numbered(self) -> Numbered | None:
        """Return the last `Numbered` entry, if any."""
        return next(
            (entry for entry in reversed(self.entries) if isinstance(entry, Numbered)), None
        )

    def shards(self) -> dict[tuple[str, int], ShardDone]:
        """Return the finished shards by space and number; the last entry counts."""
        return {
            (entry.space, entry.number): entry
            for entry in self.entries
            if isinstance(entry, ShardDone)
        }

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)


def write_whole(descriptor: int, content: bytes) -> None:
    """Write all of `content`, in as many calls as it takes."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _parse(line: bytes) -> Entry | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry: Any = msgspec.json.decode(line, type=Numbered | ShardDone)
        if isinstance(entry, ShardDone) and entry.record.file != shard_file(
            entry.space, entry.number
        ):
            return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ConfigError):
        return None
    parsed: Entry = entry
    return parsed
