"""Submission files: `imgId_eId,val`, 384 rows an image; written atomically, read as a stream."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import ConfigError, SubmissionRejected, first_line
from imprompt.core.values import Vectors

DIM = 384
HEADER = ("imgId_eId", "val")
SUFFIXES = (".csv", ".parquet", ".npz")
_BLOCK_IMAGES = 256


def check_suffix(path: Path) -> None:
    """Raise `ConfigError` unless the file's suffix is that of a format: .csv, .parquet or .npz."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"{path} has an unknown suffix.", hint=f"Known formats: {', '.join(SUFFIXES)}."
        )


def write_submission(path: Path, ids: Sequence[str], vectors: Vectors) -> None:
    """Write the rows of all images in the format of the file's suffix, atomically.

    CSV and Parquet have a row for each number, `<id>_<0 to 383>` and the number; an npz holds `ids`
    (n,) and `vectors` (n, 384). Equal input gives equal bytes.

    Args:
        ids: names of the images.
        vectors: (n, 384) float32, in the order of `ids`; may be a memory map.

    Raises:
        ConfigError: no format has that suffix.
        StorageFull: the disk is full or read-only.
    """
    check_suffix(path)
    with atomic_write(path) as file:
        match path.suffix.lower():
            case ".csv":
                _write_csv(file, ids, vectors)
            case ".parquet":
                _write_parquet(file, ids, vectors)
            case _:
                np.savez(file, ids=np.array(ids, dtype=np.str_), vectors=vectors)


def _write_csv(file: IO[bytes], ids: Sequence[str], vectors: Vectors) -> None:
    file.write(f"{','.join(HEADER)}\n".encode())
    for name, row in zip(ids, vectors, strict=True):
        # numpy prints the fewest digits that give the same float32 again.
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            (f"{name}_{i}", str(value)) for i, value in enumerate(row)
        )
        file.write(text.getvalue().encode("utf-8"))


def _write_parquet(file: IO[bytes], ids: Sequence[str], vectors: Vectors) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(HEADER[0], pyarrow.string()), (HEADER[1], pyarrow.float32())])
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, len(ids), _BLOCK_IMAGES):
            block = slice(start, start + _BLOCK_IMAGES)
            names = [f"{name}_{i}" for name in ids[block] for i in range(DIM)]
            values = np.ascontiguousarray(vectors[block]).reshape(-1)
            writer.write_table(pyarrow.table([names, values], schema=schema))


def read_submission(path: Path) -> Iterator[tuple[str, float]]:
    """Yield (row id, value) of each row in order, in bounded memory; NaN for a malformed value.

    Raises:
        ConfigError: no format has that suffix.
        SubmissionRejected: the file cannot be read, or has other columns.
    """
    check_suffix(path)
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    try:
        yield from readers[path.suffix.lower()](path)
    except OSError as error:
        raise SubmissionRejected(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_csv(path: Path) -> Iterator[tuple[str, float]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        try:
            _check_columns(path, next(rows, []))
            for row in rows:
                if len(row) != len(HEADER):
                    raise SubmissionRejected(
                        f"{path}, line {rows.line_num}: {len(row)} fields, not {len(HEADER)}."
                    )
                yield row[0], _number(row[1])
        except (csv.Error, UnicodeDecodeError) as error:
            raise SubmissionRejected(f"{path}, line {rows.line_num}: {error}.") from error


def _read_parquet(path: Path) -> Iterator[tuple[str, float]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            for batch in file.iter_batches(columns=list(HEADER)):
                names, values = batch.column(0).to_pylist(), batch.column(1).to_pylist()
                for name, value in zip(names, values, strict=True):
                    yield str(name), _number(value)
    except pyarrow.ArrowException as error:
        raise SubmissionRejected(f"{path} is not a Parquet file: {first_line(error)}.") from error


def _read_npz(path: Path) -> Iterator[tuple[str, float]]:
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not {"ids", "vectors"} <= set(arrays.files):
                raise SubmissionRejected(
                    f"{path} holds {', '.join(arrays.files)}, not ids and vectors."
                )
            ids, vectors = arrays["ids"], arrays["vectors"]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SubmissionRejected(f"{path} is not an npz file: {error}.") from error
    if vectors.shape != (len(ids), DIM):
        raise SubmissionRejected(
            f"{path} holds {len(ids)} ids, and vectors of shape {vectors.shape}, "
            f"not {(len(ids), DIM)}."
        )
    for name, row in zip(ids.tolist(), vectors, strict=True):
        for i, value in enumerate(row.tolist()):
            yield f"{name}_{i}", _number(value)


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if tuple(names) != HEADER:
        raise SubmissionRejected(
            f"{path} has the columns {','.join(names) or '(none)'}, not {','.join(HEADER)}."
        )


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def image_order(sample: Path) -> list[str]:
    """Return the images of a sample submission, in order.

    Raises:
        SubmissionRejected: it cannot be read, is empty, or does not have 384 rows an image,
            numbered from 0.
    """
    rows = read_submission(sample)
    order: list[str] = []
    first_row = 2  # of the block, as an editor counts lines
    while block := list(islice(rows, DIM)):
        name = block[0][0].rpartition("_")[0]
        for i, (row_id, _) in enumerate(block):
            if not name or row_id != f"{name}_{i}":
                raise SubmissionRejected(
                    f"{sample}, row {first_row + i}: {row_id!r} instead of {name}_{i}."
                )
        if len(block) != DIM:
            raise SubmissionRejected(f"{sample}: {name} has {len(block)} rows, not {DIM}.")
        order.append(name)
        first_row += DIM
    if len(set(order)) != len(order):
        raise SubmissionRejected(f"{sample} names an image twice.")
    if not order:
        raise SubmissionRejected(f"{sample} has no rows.")
    return order
