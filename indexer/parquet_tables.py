"""Corpora in Parquet, streamed by pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import CorpusError
from indexer.columns import BESIDE_COLUMNS, NSFW_COLUMN, SUBMITTED_COLUMN, choose_column, file_digest
from indexer.rows import Row, StreamedSource, judge

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_STREAMED_ROWS = 4096


def parquet_source(path: Path, *, column: str | None, name: str | None = None) -> StreamedSource:
    """A table of any size; `source_key` is "row N", counted from 0 as data frames do. `name` stands for the file's own.

    Raises:
        CorpusError: not a Parquet file, or no such column of text.
    """
    with _opened(path) as file:
        schema, total = file.schema_arrow, file.metadata.num_rows
    chosen = choose_column(path, column, schema.names, texts=[field.name for field in schema if _is_text(field.type)])
    beside = [name for name in BESIDE_COLUMNS if name in schema.names and name != chosen]

    def rows(start: int) -> Iterator[Row]:
        for number, (value, *cells) in enumerate(_cells(path, [chosen, *beside], start), start):
            told = dict(zip(beside, cells, strict=True))
            submitted, nsfw = told.get(SUBMITTED_COLUMN, 1), told.get(NSFW_COLUMN)
            yield judge(value, source=name or path.name, key=f"row {number}", n_submitted=submitted, nsfw=nsfw)

    return StreamedSource(name or path.name, False, rows, lambda: file_digest(path, "parquet", chosen), lambda: int(total))


def _cells(path: Path, columns: list[str], start: int) -> Iterator[tuple[Any, ...]]:
    """The cells of each row from `start` on, texts as bytes; row groups before it are not read."""
    with _opened(path) as file:
        groups = list(range(file.metadata.num_row_groups))
        while groups and start >= (size := file.metadata.row_group(groups[0]).num_rows):
            start -= size
            groups.pop(0)
        for batch in file.iter_batches(_STREAMED_ROWS, row_groups=groups, columns=columns):
            if start >= batch.num_rows:
                start -= batch.num_rows
                continue
            part = batch.slice(start)
            start = 0
            yield from zip(_texts(part.column(columns[0])), *(part.column(name).to_pylist() for name in columns[1:]), strict=True)


def _texts(array: pa.Array) -> list[bytes | None]:
    """Texts as the bytes that the file holds: pyarrow checks UTF-8 late, and would refuse a whole batch for one bad row."""
    import pyarrow as pa

    plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    found: list[bytes | None] = plain.cast(pa.large_binary()).to_pylist()
    return found


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """The file, and whatever pyarrow refuses inside the block as `CorpusError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CorpusError(
            f"{path} cannot be read as Parquet: {reason}", path=path, hint="Write the file anew or leave it out."
        ) from error
