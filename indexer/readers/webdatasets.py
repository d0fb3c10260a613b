"""Corpora in WebDatasets: tar archives whose files are grouped into samples by their names.

`0001.jpg`, `0001.txt`, `0002.jpg` and `0002.txt` are two samples with the members `jpg` and `txt`.
The library `datasets` reads them. It keeps a sample in memory, decompresses members and decodes
others by their suffix. So the headers of an archive are checked first, and the library gets no
decoders: it returns bytes, which are checked here.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from imprompt.core.errors import CorpusError, first_line
from imprompt.core.pip_lines import install_extra
from imprompt.core.text import as_utf8
from imprompt.core.values import RejectedRow
from imprompt.indexer.readers.columns import (
    DEFAULT_COLUMN,
    cached,
    choose_column,
    file_source,
    judge_cells,
)
from imprompt.indexer.readers.rows import MAX_LINE_BYTES, Row, StreamedSource, judge
from imprompt.indexer.readers.text_lines import parse_object

EXTRA = "datasets"

_TEXTS = frozenset({"txt", "text", "caption", "prompt", "transcript"})
_OBJECTS = frozenset({"json", "jsn"})
"""Suffixes of members that hold text, and of those that hold JSON."""

_PEEKED_SAMPLES = 1000
_MAX_COLUMNS = 10_000
_MAX_SAMPLE_BYTES = 64 << 20
"""The library takes four times as much memory, whichever member is read."""

_MAX_SAMPLE_MEMBERS = 1000
_MAX_NAME = 1000
_MAX_EXTENDED_BYTES = 1 << 16
"""Of a header with a long name or other attributes, which tarfile keeps in memory."""

_MAX_ATTRIBUTES = 100
_EXTENDED = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
_COMPRESSED = frozenset({"bz2", "gz", "lz4", "xz", "zip", "zst"})
_COMPRESSED_HEADS = (
    b"BZh",
    b"\x1f\x8b",
    b"\xfd7zXZ",
    b"]\0\0",
    b"\x28\xb5\x2f\xfd",
    b"PK\3\4",
    b"PK\5\6",
)
"""First bytes by which the library takes a file for a compressed one."""

_RESERVED = frozenset({"__key__", "__url__"})
"""Members that the library adds to each sample."""

_Sample: TypeAlias = dict[str, tuple[tarfile.TarFile, tarfile.TarInfo]]
"""The members of a sample: the archive that holds the content, and the header."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A member, or a field of a member that is a JSON object."""

    member: str
    field: str | None
    is_text: bool


def webdataset_source(path: Path, *, column: str | None) -> StreamedSource:
    """Read an archive of samples; `source_key` is "row N", counted from 0.

    A column is a member that holds text (`txt`), or a field of one that is a JSON object
    (`json.caption`, or `caption`). Without a name it is the member `prompt`, the field `prompt`,
    the only text member, or the only text field.

    Raises:
        CorpusError: the package `datasets` is missing, the archive is damaged or refused, or it
            has no such column.
    """
    require_datasets(str(path))
    columns = _columns(path)
    chosen = columns[_choose(path, column, columns)]
    name = as_utf8(path.name)

    count = cached([path], lambda: sum(1 for _ in _samples(path)))

    def rows(start: int) -> Iterator[Row]:
        total, number = count(), start
        if start >= total:
            return
        for content in itertools.islice(_contents(path, chosen.member), start, None):
            yield _row(content, chosen.field, source=name, key=f"row {number}")
            number += 1
        if number < total:
            raise _refusal(path, f"only {number:,} of its {total:,} samples can be read")

    identity = f"{chosen.member}\n{chosen.field}"
    return file_source(path, "webdataset", identity, rows, count=count)


def require_datasets(what: str) -> None:
    """Check that the package `datasets` is installed, without importing it.

    Raises:
        CorpusError: it is not.
    """
    try:
        importlib.metadata.version(EXTRA)
    except importlib.metadata.PackageNotFoundError as error:
        raise _missing(what, EXTRA) from error


def _row(content: bytes | None, field: str | None, *, source: str, key: str) -> Row:
    """Return the row of a text or of a JSON object's field; None is a missing member."""
    if content is None or field is None:
        return judge(content, source=source, key=key)
    item = parse_object(content if len(content) <= MAX_LINE_BYTES else None)
    if isinstance(item, str):
        return RejectedRow(source, key, item)
    return judge_cells(item.get(field), item, source=source, key=key)


def _columns(path: Path) -> dict[str, _Column]:
    """Return the columns of the first samples by name: "txt", "json.caption"."""
    columns: dict[str, _Column] = {}
    for sample in itertools.islice(_samples(path), _PEEKED_SAMPLES):
        for member, (archive, header) in sample.items():
            kind = member.rpartition(".")[2].lower()
            columns.setdefault(member, _Column(member, None, is_text=kind in _TEXTS))
            if kind not in _OBJECTS or header.size > MAX_LINE_BYTES:
                continue
            file = archive.extractfile(header)
            item = parse_object(b"" if file is None else file.read())
            for field, value in item.items() if isinstance(item, dict) else ():
                name = f"{member}.{field}"
                if name not in columns or isinstance(value, str):
                    columns[name] = _Column(member, field, is_text=isinstance(value, str))
        if len(columns) > _MAX_COLUMNS:
            raise _refusal(path, f"its samples have more than {_MAX_COLUMNS:,} members and fields")
    return columns


def _choose(path: Path, asked: str | None, columns: Mapping[str, _Column]) -> str:
    """Return the name of the column asked for, or else of the one that holds the prompts."""
    wanted = DEFAULT_COLUMN if asked is None else asked
    texts = [name for name, column in columns.items() if column.is_text]
    if wanted not in columns:
        fields = [name for name in texts if columns[name].field == wanted]
        members = [name for name in texts if columns[name].field is None]
        if len(fields) == 1:
            return fields[0]
        if asked is None and len(members) == 1:
            return members[0]
    return choose_column(path, asked, list(columns), texts=texts)


def _contents(path: Path, member: str) -> Iterator[bytes | None]:
    """Yield a member of each sample, as the library reads it; None for a sample without it.

    The archive has been checked: it names no other file, and no sample is too large. The builder is
    made directly, because `load_dataset` would report its use to a server.

    Raises:
        CorpusError: the library fails.
    """
    if "::" in str(path) or "://" in str(path):
        raise _refusal(path, "the library datasets would take its path for a URL")
    try:
        from datasets import Features, Value
        from datasets.data_files import DataFilesDict, DataFilesList
        from datasets.packaged_modules.webdataset.webdataset import WebDataset

        # The library patches the module of a builder, so this one stays in the module of its base.
        undecoded = type(
            "Undecoded",
            (WebDataset,),
            # An error if a later library calls its decoders something else.
            {"DECODERS": WebDataset.DECODERS.fromkeys(()), "__module__": WebDataset.__module__},
        )
        with tempfile.TemporaryDirectory(prefix="imprompt-") as folder:  # only for its lock
            builder = undecoded(
                cache_dir=folder,
                data_files=DataFilesDict(train=DataFilesList([str(path.absolute())], [])),
                features=Features({member: Value("binary")}),
            )
        with _without_torch():
            dataset = builder.as_streaming_dataset(split="train")
        for sample in dataset:
            yield sample[member]
    except ImportError as error:
        raise _missing(str(path), error.name or EXTRA) from error
    except Exception as error:  # pyarrow, tarfile and the library raise errors of many kinds
        raise _refusal(path, first_line(error)) from error


@contextmanager
def _without_torch() -> Iterator[None]:
    """Keep the library from importing torch, as it does to make a torch data set."""
    from datasets import config

    before, config.TORCH_AVAILABLE = config.TORCH_AVAILABLE, False
    try:
        yield
    finally:
        config.TORCH_AVAILABLE = before


def _samples(path: Path) -> Iterator[_Sample]:
    """Yield the members of each sample, grouped as the library does, from the headers only.

    Raises:
        CorpusError: the archive is damaged or compressed, holds anything but regular files and
            folders, a path that leads outside or a compressed member, or exceeds a limit.
    """
    try:
        with path.open("rb") as file:
            if file.read(8).startswith(_COMPRESSED_HEADS):
                raise _refusal(path, "it is compressed")
        with tarfile.open(path, "r:", tarinfo=_BoundedHeader) as archive:
            yield from _grouped(path, archive)
    except (
        *(tarfile.TarError, OSError, EOFError),
        *(ValueError, OverflowError, RecursionError, MemoryError),
    ) as error:
        raise _refusal(path, first_line(error)) from error


def _grouped(path: Path, archive: tarfile.TarFile) -> Iterator[_Sample]:
    key, size_bytes = "", 0
    sample: _Sample = {}
    while (header := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined] # tarfile would keep all headers
        if reason := _problem(archive, header):
            raise _refusal(path, reason)
        folder, slash, name = header.name.rpartition("/")
        stem, dot, member = name.partition(".")
        if not header.isreg() or name.startswith((".", "__")) or not dot:
            continue
        if sample and key != f"{folder}{slash}{stem}":
            yield sample
            sample, size_bytes = {}, 0
        key = f"{folder}{slash}{stem}"
        if member in sample or member in _RESERVED:
            raise _refusal(path, f"it has {header.name} twice")
        sample[member] = (archive, header)
        size_bytes += header.size
        if size_bytes > _MAX_SAMPLE_BYTES or len(sample) > _MAX_SAMPLE_MEMBERS:
            raise _refusal(
                path,
                f"its sample {key} has more than {_MAX_SAMPLE_BYTES >> 20} MiB "
                f"or {_MAX_SAMPLE_MEMBERS:,} members",
            )
    if sample:
        yield sample


class _BoundedHeader(tarfile.TarInfo):
    """A header of 512 bytes, refused if it is damaged or declares too many bytes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _BoundedHeader:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):  # tarfile would take it for the end of the archive
                raise tarfile.ReadError("a header is damaged") from error
            raise
        if header.size < 0 or (header.type in _EXTENDED and header.size > _MAX_EXTENDED_BYTES):
            raise tarfile.ReadError(f"a header declares {header.size:,} bytes")
        return header


def _problem(archive: tarfile.TarFile, header: tarfile.TarInfo) -> str:
    """Return why a member is refused, or ""."""
    if len(header.name) > _MAX_NAME or len(archive.pax_headers) > _MAX_ATTRIBUTES:
        return "a name is too long, or it has too many attributes"
    if header.size < 0:  # by an attribute
        return "a member has a negative size"
    if any(char < " " for char in header.name):
        return "a name has control characters"
    if header.name.startswith("/") or ".." in header.name.split("/"):
        return f"{header.name} leads outside"
    if header.issparse() or not (header.isreg() or header.isdir()):
        return f"{header.name} is a link, a device or a sparse file"
    if header.isreg() and header.name.rpartition(".")[2].lower() in _COMPRESSED:
        return f"{header.name} is compressed"
    return ""


def _missing(what: str, package: str) -> CorpusError:
    return CorpusError(
        f"{what} is read as a WebDataset, which needs the package {package}.",
        hint=f"Install it: {install_extra(EXTRA)}",
    )


def _refusal(path: Path, reason: str) -> CorpusError:
    return CorpusError(
        f"{path} cannot be read as a WebDataset: {reason}.",
        path=path,
        hint="Write the archive again, or leave it out.",
    )
