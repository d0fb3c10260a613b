"""Write a version of an index as one file."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from imprompt.core.atomic_files import atomic_write, check_place, sha256_file, storage_errors
from imprompt.core.errors import Checksum
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress, ProgressTask
from imprompt.store.index_version import IndexVersion
from imprompt.store.layout import VERIFY
from imprompt.store.manifest import FileRecord, Manifest
from imprompt.store.packs.archive import ArchiveWriter
from imprompt.store.packs.card import card
from imprompt.store.packs.frames import compressed
from imprompt.store.packs.pack_record import (
    CARD,
    FRAMES,
    INT8_FORMAT,
    PACK_FORMAT,
    PROMPT_LINES,
    RECORD,
    PackRecord,
    encode_record,
    member_names,
    reduced,
)
from imprompt.store.packs.prompt_lines import PromptLine, lines_of, row_of
from imprompt.store.packs.rounded_version import int8_content, int8_places, rounded_manifest
from imprompt.store.paths import open_file
from imprompt.store.prompts import RowsDigest

SIGNATURE = ".sig"
_TEXT_LEVEL = 9
_NUMBER_LEVEL = 1
"""Of the levels of zstd, 1 compresses vectors to .919, and so does every other."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PackOptions:
    """What a pack holds.

    Attributes:
        spaces: those that are kept, by name or by encoder; all where there are none.
        sources: whether with the names of corpora, each prompt's source and source key, and
            generation parameters.
        licence: of the prompts, in words; where it is "", the one of the version is kept.
        int8: whether vectors are rounded to one byte a value.
    """

    spaces: tuple[str, ...] = ()
    sources: bool = True
    licence: str = ""
    int8: bool = False


def pack_version(
    version: IndexVersion,
    out: Path,
    options: PackOptions = PackOptions(),
    *,
    progress: Progress = SILENT,
) -> PackRecord:
    """Write a version as one file, which appears whole or not at all.

    The same version and options give the same bytes, whenever and wherever it is done, with the
    same pyarrow. Everything is compared with its hash while it is read.

    Raises:
        ConfigError: a space is unknown, or `out` is a folder.
        Checksum: the version is damaged.
        StorageFull: the disk is full or may not be written.
    """
    check_place(out)
    for leftover in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):  # of a call that was killed
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    licence = options.licence or version.manifest.licence
    manifest = msgspec.structs.replace(
        reduced(version.manifest, options.spaces, sources=options.sources), licence=licence
    )
    files, folder = {**version.manifest.files}, version.folder
    lines = _LinesOf(version, sources=options.sources)
    with ExitStack() as stack:
        stack.enter_context(storage_errors(out))
        spooled = stack.enter_context(tempfile.TemporaryFile(dir=out.parent))
        places: dict[str, tuple[str, int, int]] = {}
        if options.int8:
            folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(
                        dir=out.parent,
                        prefix=f".{out.name}.",
                        suffix=".tmp",
                        ignore_cleanup_errors=True,
                    )
                )
            )
            manifest = rounded_manifest(version, manifest, folder, progress=progress)
            places = int8_places(manifest)
            files = _records_of_indexes(folder, manifest) | {
                name: _record_of(int8_content(version, place)) for name, place in places.items()
            }
        names = sorted(member_names(manifest, int8=options.int8))
        total = sum(files[file].bytes for file in names if file in files)
        with progress.start("Packing the prompts", manifest.rows) as task:
            for frame in compressed(lines.chunks(task), level=_TEXT_LEVEL):
                spooled.write(frame)
        manifest = msgspec.structs.replace(manifest, rows_digest=lines.rows_digest)
        without = _left_out(version.manifest, manifest, sources=options.sources)
        readme = card(manifest, licence=licence, without=without).encode()
        files |= {PROMPT_LINES: lines.record, CARD: _record_of(readme)}
        record = PackRecord(
            pack_format=INT8_FORMAT if options.int8 else PACK_FORMAT,
            licence=licence,
            without=without,
            left_out=[
                encoder
                for encoder in version.manifest.encoders
                if encoder.space not in manifest.shards
            ],
            manifest=manifest,
            members={name: files[name] for name in names},
        )
        with progress.start("Packing vectors and index", total) as task, atomic_write(out) as file:
            archive = ArchiveWriter(file)
            archive.add(RECORD, [encode_record(record)])
            for name in names:
                if name == CARD:
                    archive.add(CARD, [readme])
                elif name == PROMPT_LINES:
                    archive.add(name + FRAMES, _chunks(spooled))
                elif name in places:
                    content = int8_content(version, places[name])
                    archive.add(name + FRAMES, compressed([content], level=_NUMBER_LEVEL))
                    task.advance(len(content))
                else:
                    chunks = _checked(folder, name, files[name], task)
                    archive.add(name + FRAMES, compressed(chunks, level=_NUMBER_LEVEL))
            archive.finish()
            # It would be that of the file which is replaced now.
            with suppress(FileNotFoundError):
                signature_path(out).unlink()
    return record


def signature_path(pack: Path) -> Path:
    """Return where the signature of a pack lies."""
    return pack.with_name(pack.name + SIGNATURE)


class _LinesOf:
    """The lines of a version's prompts; record and digest are known after `chunks`."""

    def __init__(self, version: IndexVersion, *, sources: bool) -> None:
        self._version = version
        self._sources = sources
        self.record = FileRecord(0, "")
        self.rows_digest = version.manifest.rows_digest

    def chunks(self, task: ProgressTask) -> Iterator[bytes]:
        encoder, digest, size = msgspec.json.Encoder(), hashlib.sha256(), 0
        new_digest = RowsDigest()
        self._check()
        for row_id, line in enumerate(self._lines()):
            if not self._sources:
                new_digest.add(row_of(row_id, line))
            chunk = encoder.encode(line) + b"\n"
            digest.update(chunk)
            size += len(chunk)
            task.advance(1)
            yield chunk
        self.record = FileRecord(size, digest.hexdigest())
        if not self._sources:
            self.rows_digest = new_digest.hexdigest()

    def _check(self) -> None:
        prompts = self._version.prompts
        if prompts.digest() != self.rows_digest:
            raise Checksum(
                f"{prompts.path} does not hold the rows that were published.",
                path=prompts.path,
                hint=VERIFY,
            )

    def _lines(self) -> Iterator[PromptLine]:
        return lines_of(self._version.prompts, sources=self._sources)


def _left_out(whole: Manifest, kept: Manifest, *, sources: bool) -> list[str]:
    """Return what of a version is not in its pack, in words."""
    left = [
        f"the vectors of {encoder.name} (space {encoder.space})"
        for encoder in whole.encoders
        if encoder.space not in kept.shards
    ]
    if not sources:
        left.append("the names of the corpora, and where in them each prompt was found")
        if whole.parameters:
            left.append("generation parameters: negative prompts and settings")
    return left


def _record_of(content: bytes) -> FileRecord:
    return FileRecord(len(content), hashlib.sha256(content).hexdigest())


def _records_of_indexes(folder: Path, manifest: Manifest) -> dict[str, FileRecord]:
    """Return length and hash of every index file in a folder."""
    return {
        file: FileRecord((folder / file).stat().st_size, sha256_file(folder / file))
        for info in manifest.indexes.values()
        for file in info.all_files
    }


def _checked(folder: Path, file: str, record: FileRecord, task: ProgressTask) -> Iterator[bytes]:
    """Yield the bytes of a file of the version; raise `Checksum` at the end if they changed."""
    digest, size = hashlib.sha256(), 0
    with os.fdopen(open_file(folder, file), "rb") as opened:
        for chunk in _chunks(opened):
            digest.update(chunk)
            size += len(chunk)
            task.advance(len(chunk))
            yield chunk
    if FileRecord(size, digest.hexdigest()) != record:
        path = folder / file
        raise Checksum(f"{path} has changed since it was published.", path=path, hint=VERIFY)


def _chunks(opened: IO[bytes]) -> Iterator[bytes]:
    opened.seek(0)
    while chunk := opened.read(_CHUNK_BYTES):
        yield chunk
