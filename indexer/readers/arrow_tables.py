"""Corpora in Arrow files, as `save_to_disk` of the library datasets writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import CorpusError, first_line
from imprompt.core.text import as_utf8
from imprompt.indexer.readers.columns import BESIDE_COLUMNS, choose_column, file_digest, remembered
from imprompt.indexer.readers.parquet_tables import batch_cells, is_text, judge_cells
from imprompt.indexer.readers.rows import Row, StreamedSource, count_rows

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_source(path: Path, *, column: str | None) -> StreamedSource:
    """A stream or file of record batches; `source_key` is "row N", counted from 0.

    Raises:
        CorpusError: no Arrow file, no such column of text, or a folder that selects rows of it.
    """
    _refuse_selection(path)
    with _opened(path) as reader:
        schema = reader.schema
    chosen = choose_column(
        path, column, schema.names, texts=[field.name for field in schema if is_text(field.type)]
    )
    beside = [name for name in BESIDE_COLUMNS if name in schema.names and name != chosen]
    name = as_utf8(path.name)

    def rows(start: int) -> Iterator[Row]:
        number = 0
        with _opened(path) as reader:
            for batch in _batches(reader):
                end = number + batch.num_rows
                for cells in (
                    batch_cells(batch.slice(max(start - number, 0)).select([chosen, *beside]))
                    if end > start
                    else ()
                ):
                    number = max(number, start)
                    yield judge_cells(cells, beside, source=name, key=f"row {number}")
                    number += 1
                number = end

    digest = remembered([path], lambda: file_digest(path, "arrow", chosen))
    return StreamedSource(name, False, rows, digest, lambda: count_rows(rows))


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(place) for place in range(reader.num_record_batches))
    return iter(reader)


def _refuse_selection(path: Path) -> None:
    """`select`, `filter` and `shuffle` of datasets leave the table as it was, and write the chosen rows beside it."""
    if beside := sorted(path.parent.glob("indices-*.arrow")) or sorted(
        path.parent.glob("indices.arrow")
    ):
        raise CorpusError(
            f"{path.parent} keeps some rows of its table, as {beside[0].name} says, which is not read.",
            path=beside[0],
            hint="Save it again after `flatten_indices()`.",
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A reader of the file, and whatever pyarrow refuses inside the block as `CorpusError`."""
    import pyarrow as pa

    try:
        with pa.OSFile(str(path), "rb") as file:
            magic = file.read(6)
            file.seek(0)
            with (
                pa.ipc.open_file(file) if magic == b"ARROW1" else pa.ipc.open_stream(file) as reader
            ):
                yield reader
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise CorpusError(
            f"{path} cannot be read as Arrow: {first_line(error)}.",
            path=path,
            hint="Write the file anew or leave it out.",
        ) from error
