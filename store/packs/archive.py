"""The container of a pack: a ZIP file of stored members, in one fixed form.

Any tool opens it. Here it is read front to back, by names that are known beforehand, and its
directory must be the one that the writer would have written for what was found. So there is no
second reading of it: members cannot overlap, repeat, hide between others or lead elsewhere.

The form is that of ZIP64 (APPNOTE.TXT 6.3.10, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT):
no compression, no flags but UTF-8, 1980-01-01, and regular files that everybody may read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from imprompt.core.errors import Checksum
from imprompt.store.paths import read_at

_MAGIC = b"PK\3\4"
_VERSION, _UTF8, _STORED, _DAY = 45, 0x0800, 0, 0x0021
_UNIX, _MODE, _IN_EXTRA = 3, 0o100644 << 16, 0xFFFF_FFFF
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_LOCAL_EXTRA = struct.Struct("<HHQQ")
_CENTRAL = struct.Struct("<4sBBHHHHHIIIHHHHHII")
_CENTRAL_EXTRA = struct.Struct("<HHQQQ")
_END_64 = struct.Struct("<4sQBBHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4sHHHHIIH")

DAMAGED = "Fetch it again, or ask whoever packed it."
"""The remedy for a pack that is not whole, as a hint."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Where the bytes of a member lie, and their crc32."""

    offset: int
    length: int
    crc: int


@dataclass(frozen=True, slots=True)
class _Member:
    name: bytes
    crc: int
    length: int
    header_at: int


class ArchiveWriter:
    """Writes members one after the other into a file that can seek; `finish` ends it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._members: list[_Member] = []
        self._at = 0

    def add(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write a member.

        Raises:
            OSError: the file cannot be written.
        """
        crc, length, header_at = 0, 0, self._at
        header_bytes = len(_local_header(_Member(name.encode(), 0, 0, 0)))
        self._file.write(bytes(header_bytes))
        for chunk in chunks:
            self._file.write(chunk)
            crc, length = zlib.crc32(chunk, crc), length + len(chunk)
        member = _Member(name.encode(), crc, length, header_at)
        self._file.seek(header_at)
        self._file.write(_local_header(member))
        self._at = header_at + header_bytes + length
        self._file.seek(self._at)
        self._members.append(member)

    def finish(self) -> None:
        """Write the directory.

        Raises:
            OSError: the file cannot be written.
        """
        self._file.write(_directory(self._members, self._at))


class ArchiveReader:
    """Reads the members of a file in their order, whoever wrote it.

    Args:
        file: open for reading; stays the caller's.
        path: for messages.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.path = path
        self.n_bytes = file.seek(0, 2)
        self._descriptor = file.fileno()
        self._members: list[_Member] = []
        self._at = 0

    def begins_as_one(self) -> bool:
        """Return whether the file begins like a ZIP file, if it has a beginning at all."""
        return read_at(self._descriptor, len(_MAGIC), 0) == _MAGIC

    def expect(self, name: str) -> Extent:
        """Return where the next member lies, which must have this name.

        Raises:
            Checksum: it is another member, or none that `ArchiveWriter` writes.
        """
        encoded = name.encode()
        header_bytes = _LOCAL.size + len(encoded) + _LOCAL_EXTRA.size
        header = self.read(self._at, header_bytes)
        crc = _LOCAL.unpack_from(header)[6]
        length = _LOCAL_EXTRA.unpack_from(header, header_bytes - _LOCAL_EXTRA.size)[3]
        member = _Member(encoded, crc, length, self._at)
        if header != _local_header(member):
            raise self.damaged(f"the member {name} is not where it belongs")
        extent = Extent(self._at + header_bytes, length, crc)
        self._at = extent.offset + length
        if self._at > self.n_bytes:
            raise self.damaged(
                f"the member {name} claims {length:,} bytes, and the file ends first"
            )
        self._members.append(member)
        return extent

    def expect_end(self) -> None:
        """Check that nothing but the directory follows.

        Raises:
            Checksum: something else does, or another directory.
        """
        directory = _directory(self._members, self._at)
        if self._at + len(directory) != self.n_bytes or directory != self.read(
            self._at, len(directory)
        ):
            raise self.damaged("its directory is not that of its members")

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return exactly so many bytes from an offset on.

        Raises:
            Checksum: the file ends before.
        """
        if offset + n_bytes > self.n_bytes:
            raise self.damaged("it ends early")
        parts, missing = [], n_bytes
        while missing and (part := read_at(self._descriptor, missing, offset + n_bytes - missing)):
            parts.append(part)
            missing -= len(part)
        if missing:
            raise self.damaged("it ends early")
        return b"".join(parts)

    def content(self, extent: Extent) -> bytes:
        """Return the bytes of a small member.

        Raises:
            Checksum: the file ends before, or their sum is another.
        """
        content = self.read(extent.offset, extent.length)
        if zlib.crc32(content) != extent.crc:
            raise self.damaged("the sum of a member is another")
        return content

    def damaged(self, reason: str) -> Checksum:
        """Return the error for a file that is not a pack as it should be; a phrase says why."""
        return Checksum(f"{self.path} is not a whole pack: {reason}.", path=self.path, hint=DAMAGED)


def _local_header(member: _Member) -> bytes:
    fixed = _LOCAL.pack(_MAGIC, *_described(member, extra_bytes=_LOCAL_EXTRA.size))
    return fixed + member.name + _LOCAL_EXTRA.pack(1, 16, member.length, member.length)


def _described(member: _Member, *, extra_bytes: int) -> tuple[int, ...]:
    """Return the fields that a member has alike in its own header and in the directory."""
    return (
        _VERSION,
        _UTF8,
        _STORED,
        0,
        _DAY,
        member.crc,
        _IN_EXTRA,
        _IN_EXTRA,
        len(member.name),
        extra_bytes,
    )


def _directory(members: Iterable[_Member], at: int) -> bytes:
    """Return everything after the members, which end at the offset `at`."""
    entries = [
        _CENTRAL.pack(
            b"PK\1\2",
            _VERSION,
            _UNIX,
            *_described(member, extra_bytes=_CENTRAL_EXTRA.size),
            0,
            0,
            0,
            _MODE,
            _IN_EXTRA,
        )
        + member.name
        + _CENTRAL_EXTRA.pack(1, 24, member.length, member.length, member.header_at)
        for member in members
    ]
    central, count = b"".join(entries), len(entries)
    end_64 = _END_64.pack(
        b"PK\6\6",
        _END_64.size - 12,
        _VERSION,
        _UNIX,
        _VERSION,
        0,
        0,
        count,
        count,
        len(central),
        at,
    )
    locator = _LOCATOR.pack(b"PK\6\7", 0, at + len(central), 1)
    end = _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _IN_EXTRA, _IN_EXTRA, 0)
    return central + end_64 + locator + end
