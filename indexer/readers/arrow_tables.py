"""Corpora in Arrow files, as `save_to_disk` of the library datasets writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import CorpusError
from imprompt.core.text import as_utf8
from imprompt.indexer.readers.columns import file_source, judge_cells
from imprompt.indexer.readers.parquet_tables import choose_columns, pyarrow_errors, row_cells
from imprompt.indexer.readers.rows import Row, StreamedSource

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_source(path: Path, *, column: str | None) -> StreamedSource:
    """Read a stream or file of record batches; `source_key` is "row N", counted from 0.

    Raises:
        CorpusError: not an Arrow file, no such text column, or a folder that selects rows of it.
    """
    _refuse_selection(path)
    with _open_reader(path) as reader:
        columns = choose_columns(path, column, reader.schema)
    name = as_utf8(path.name)

    def rows(start: int) -> Iterator[Row]:
        number = 0
        with _open_reader(path) as reader:
            for batch in _batches(reader):
                skipped = min(max(start - number, 0), batch.num_rows)
                number += skipped
                if skipped == batch.num_rows:
                    continue
                for prompt, extra in row_cells(batch.slice(skipped).select(columns)):
                    yield judge_cells(prompt, extra, source=name, key=f"row {number}")
                    number += 1

    return file_source(path, "arrow", columns[0], rows)


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _refuse_selection(path: Path) -> None:
    """Refuse a table of which `select`, `filter` or `shuffle` of datasets chose rows.

    They leave the table unchanged and write the chosen rows to another file.
    """
    for pattern in ("indices-*.arrow", "indices.arrow"):
        for indices in sorted(path.parent.glob(pattern)):
            raise CorpusError(
                f"{path.parent} selects a subset of its table's rows, listed in {indices.name}, "
                "which is not supported.",
                path=indices,
                hint="Save it again after `flatten_indices()`.",
            )


@contextmanager
def _open_reader(path: Path) -> Iterator[Any]:
    """Open the file and map pyarrow's errors inside the block to `CorpusError`."""
    import pyarrow as pa

    with pyarrow_errors(path, "Arrow"), pa.OSFile(str(path), "rb") as file:
        magic = file.read(6)
        file.seek(0)
        open_ipc = pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream
        with open_ipc(file) as reader:
            yield reader
