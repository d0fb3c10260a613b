"""Corpora in Parquet, streamed by pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import CorpusError, first_line
from imprompt.core.text import as_utf8
from imprompt.indexer.readers.columns import (
    BESIDE_COLUMNS,
    NSFW_COLUMN,
    SUBMITTED_COLUMN,
    choose_column,
    file_digest,
    remembered,
)
from imprompt.indexer.readers.rows import Row, StreamedSource, judge

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_STREAMED_ROWS = 4096
_BATCH_BYTES = 32 << 20
_REPEATED_BYTES_A_ROW = 32
"""Less than any prompts that differ: the column repeats a few texts. Read as such it is small, however long they are; for others
that takes twice the time and four times the memory."""
_PAGE_BUFFER_BYTES = 1 << 20
"""With a buffer pyarrow reads a column page by page; without one it holds whole row groups, and some files have just one."""


def parquet_source(path: Path, *, column: str | None) -> StreamedSource:
    """A table of any size; `source_key` is "row N", counted from 0 as data frames do.

    Raises:
        CorpusError: not a Parquet file, or no such column of text.
    """
    with _opened(path) as file:
        schema, total = file.schema_arrow, file.metadata.num_rows
        chosen = choose_column(
            path,
            column,
            schema.names,
            texts=[field.name for field in schema if is_text(field.type)],
        )
        repeated = chosen if _bytes_a_row(file, chosen) < _REPEATED_BYTES_A_ROW else None
    beside = [name for name in BESIDE_COLUMNS if name in schema.names and name != chosen]

    def rows(start: int) -> Iterator[Row]:
        with _opened(path, repeated=repeated) as file:
            for number, cells in enumerate(_cells(file, [chosen, *beside], start), start):
                yield judge_cells(cells, beside, source=as_utf8(path.name), key=f"row {number}")

    digest = remembered([path], lambda: file_digest(path, "parquet", chosen))
    return StreamedSource(as_utf8(path.name), False, rows, digest, lambda: int(total))


def judge_cells(cells: tuple[Any, ...], beside: list[str], *, source: str, key: str) -> Row:
    """A row of a table: the prompt first, then the cells of the columns `beside` it."""
    if not beside:
        return judge(cells[0], source=source, key=key)
    told = dict(zip(beside, cells[1:], strict=True))
    return judge(
        cells[0],
        source=source,
        key=key,
        n_submitted=told.get(SUBMITTED_COLUMN, 1),
        nsfw=told.get(NSFW_COLUMN),
    )


def batch_cells(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The cells of each row, those of the first column as bytes."""
    return zip(
        _texts(batch.column(0)), *(column.to_pylist() for column in batch.columns[1:]), strict=True
    )


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts, plain or by a dictionary."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _bytes_a_row(file: pq.ParquetFile, column: str) -> float:
    """What a cell of the column takes in the row group where it takes most, by what the file says of itself."""
    metadata, names = file.metadata, file.schema_arrow.names
    if metadata.num_columns != len(names):  # nested columns: a name's place is not a column's
        return float(_BATCH_BYTES / _STREAMED_ROWS)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    place = names.index(column)
    return max(
        (group.column(place).total_uncompressed_size / max(group.num_rows, 1) for group in groups),
        default=1.0,
    )


def _cells(file: pq.ParquetFile, columns: list[str], start: int) -> Iterator[tuple[Any, ...]]:
    """The cells of each row from `start` on; row groups before it are not read."""
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
        yield from batch_cells(batch.slice(start).select(columns))
        start = 0


def _texts(array: pa.Array) -> list[bytes | None]:
    """Texts as the bytes that the file holds: pyarrow checks UTF-8 late, and would refuse a whole batch for one bad row.

    Equal texts of a dictionary are one object: a small file may repeat a long text a million times.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        values = _texts(array.dictionary)
        return [None if place is None else values[place] for place in array.indices.to_pylist()]
    found: list[bytes | None] = array.cast(pa.large_binary()).to_pylist()
    return found


@contextmanager
def _opened(path: Path, *, repeated: str | None = None) -> Iterator[pq.ParquetFile]:
    """The file, a `repeated` column of it by its dictionary, and whatever pyarrow refuses inside the block as `CorpusError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = None if repeated is None else [repeated]
        with pq.ParquetFile(
            path, buffer_size=_PAGE_BUFFER_BYTES, pre_buffer=False, read_dictionary=columns
        ) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise CorpusError(
            f"{path} cannot be read as Parquet: {first_line(error)}.",
            path=path,
            hint="Write the file anew or leave it out.",
        ) from error
