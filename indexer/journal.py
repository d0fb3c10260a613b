"""What a build has finished so far: one JSON object a line, each on disk before the next step begins."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
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
    """`prompts.duckdb` is whole: so many rows, of this digest;

    `funnel` counts corpus rows by what became of them.
    """

    rows: Count
    rows_digest: str
    funnel: dict[str, Count]
    rejected: list[RejectedRow]


class ShardDone(msgspec.Struct, frozen=True, tag="shard"):
    """Shard `number` of a space is whole;

    `truncated` of its texts are longer than the encoder reads.
    """

    space: str
    number: Count
    truncated: Count
    record: ShardRecord


Entry: TypeAlias = Numbered | ShardDone


class Journal:
    """The journal of one staging folder; a context manager. One user at a time, under the write lock.

    On opening, everything from the first line that is torn or not understood is cut off: what it
    spoke of is done again.

    Raises:
        Checksum: it is a link, or no regular file.
        StorageFull: the disk is full or may not be written; also from `append`.
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
        """Add an entry; when this returns, it is on disk."""
        with storage_errors(self._path):
            write_whole(self._descriptor, msgspec.json.encode(entry) + b"\n")
            os.fsync(self._descriptor)
        self.entries.append(entry)

    def numbered(self) -> Numbered | None:
        """The last entry of that kind, if any."""
        return next(
            (entry for entry in reversed(self.entries) if isinstance(entry, Numbered)), None
        )

    def shards(self) -> dict[tuple[str, int], ShardDone]:
        """The finished shards by space and number; the last entry counts."""
        return {
            (entry.space, entry.number): entry
            for entry in self.entries
            if isinstance(entry, ShardDone)
        }

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)


def write_whole(descriptor: int, content: bytes) -> None:
    """Write all of `content`, however many calls it takes."""
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
