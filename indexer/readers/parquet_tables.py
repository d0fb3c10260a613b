"""Corpora in Parquet, streamed by pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import CorpusError, first_line
from imprompt.core.text import as_utf8
from imprompt.indexer.readers.columns import EXTRA_COLUMNS, choose_column, file_source, judge_cells
from imprompt.indexer.readers.rows import Row, StreamedSource

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Cells = tuple[bytes | None, dict[str, Any]]
"""The prompt of a row, and its cells of `EXTRA_COLUMNS`."""

_STREAMED_ROWS = 4096
_BATCH_BYTES = 32 << 20
_REPEATED_BYTES_A_ROW = 32
"""Less than different prompts take, so the column repeats a few texts.

Read as a dictionary it is small, however long they are; other columns would take twice the time and
four times the memory that way.
"""
_PAGE_BUFFER_BYTES = 1 << 20
"""With a buffer pyarrow reads page by page; without, whole row groups, and some files have one."""


def parquet_source(path: Path, *, column: str | None) -> StreamedSource:
    """Read a table of any size; `source_key` is "row N", counted from 0 as in data frames.

    Raises:
        CorpusError: not a Parquet file, or no such text column.
    """
    with _open_parquet(path) as file:
        total = int(file.metadata.num_rows)
        columns = choose_columns(path, column, file.schema_arrow)
        is_repeated = _bytes_a_row(file, columns[0]) < _REPEATED_BYTES_A_ROW
    name = as_utf8(path.name)
    dictionary = columns[:1] if is_repeated else None

    def rows(start: int) -> Iterator[Row]:
        with _open_parquet(path, dictionary=dictionary) as file:
            for number, (prompt, extra) in enumerate(_cells(file, columns, start), start):
                yield judge_cells(prompt, extra, source=name, key=f"row {number}")

    return file_source(path, "parquet", columns[0], rows, count=lambda: total)


def choose_columns(path: Path, column: str | None, schema: pa.Schema) -> list[str]:
    """Return the column of the prompts, then those of `EXTRA_COLUMNS`; see `choose_column`."""
    texts = [field.name for field in schema if _is_text(field.type)]
    chosen = choose_column(path, column, schema.names, texts=texts)
    return [chosen, *(name for name in EXTRA_COLUMNS if name in schema.names and name != chosen)]


def row_cells(batch: pa.RecordBatch) -> Iterator[Cells]:
    """Yield the cells of each row; the first column holds the prompts."""
    names = batch.schema.names[1:]
    columns = [column.to_pylist() for column in batch.columns[1:]]
    for prompt, *cells in zip(_texts(batch.column(0)), *columns, strict=True):
        yield prompt, dict(zip(names, cells, strict=True))


def _is_text(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds texts, plain or by a dictionary."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _bytes_a_row(file: pq.ParquetFile, column: str) -> float:
    """Return the bytes of a cell in the row group where it takes most, by the file's metadata."""
    metadata, names = file.metadata, file.schema_arrow.names
    if metadata.num_columns != len(names):  # nested: names and columns do not match
        return float(_BATCH_BYTES / _STREAMED_ROWS)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    at = names.index(column)
    return max(
        (group.column(at).total_uncompressed_size / max(group.num_rows, 1) for group in groups),
        default=1.0,
    )


def _cells(file: pq.ParquetFile, columns: list[str], start: int) -> Iterator[Cells]:
    """Yield the cells of each row from `start` on; row groups before it are not read."""
    batch_rows = max(
        1, min(_STREAMED_ROWS, int(_BATCH_BYTES / max(_bytes_a_row(file, columns[0]), 1)))
    )
    groups = list(range(file.metadata.num_row_groups))
    while groups and start >= (size := file.metadata.row_group(groups[0]).num_rows):
        start -= size
        groups.pop(0)
    for batch in file.iter_batches(
        batch_rows, row_groups=groups, columns=columns, use_threads=False
    ):
        if start >= batch.num_rows:
            start -= batch.num_rows
            continue
        yield from row_cells(batch.slice(start).select(columns))
        start = 0


def _texts(array: pa.Array) -> list[bytes | None]:
    """Return texts as bytes, since pyarrow would refuse a whole batch for one row of bad UTF-8.

    Equal texts of a dictionary are one object: a small file may repeat a long text a million times.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        values = _texts(array.dictionary)
        return [None if i is None else values[i] for i in array.indices.to_pylist()]
    texts: list[bytes | None] = array.cast(pa.large_binary()).to_pylist()
    return texts


@contextmanager
def pyarrow_errors(path: Path, form: str) -> Iterator[None]:
    """Map pyarrow's errors inside the block to `CorpusError`."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise CorpusError(
            f"{path} cannot be read as {form}: {first_line(error)}.",
            path=path,
            hint="Write the file again or leave it out.",
        ) from error


@contextmanager
def _open_parquet(path: Path, *, dictionary: list[str] | None = None) -> Iterator[pq.ParquetFile]:
    """Open the file, with some columns read as a `dictionary`; errors as `pyarrow_errors`."""
    import pyarrow.parquet as pq

    with (
        pyarrow_errors(path, "Parquet"),
        pq.ParquetFile(
            path, buffer_size=_PAGE_BUFFER_BYTES, pre_buffer=False, read_dictionary=dictionary
        ) as file,
    ):
        yield file
