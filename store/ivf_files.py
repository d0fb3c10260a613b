"""An inverted file on disk, in one file or in several: trained, filled, written, and checked before FAISS reads it.

Many rows are cut into parts of consecutive rows, each a file, so that building takes memory for one part and a question is looked
up in all of them at once. The centroids are the same for all and stand in the first file alone, so the parts together hold what one
file would, and propose the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import Checksum
from core.files import atomic_write, sha256_file
from core.progress import Silent
from core.protocols import Progress
from store import layout
from store.faiss_index import faiss_errors
from store.gpu import Gpu
from store.gpu_lists import Filler, train
from store.index_plan import ID_BYTES, PART_ROWS, TRAINING_ROWS_A_LIST, code_bytes, part_bounds, read_factory, training_rows
from store.manifest import IndexInfo, IndexPart
from store.shards import ShardedVectors

_BLOCK_ROWS = 65_536
_TRAINING_ROUNDS = 10
_HINT = "Build the index again."
_SILENT = Silent()


def build_ivf_index(
    folder: Path,
    file: str,
    vectors: ShardedVectors,
    *,
    factory: str,
    seed: int = 0,
    part_rows: int = PART_ROWS,
    gpu: Gpu | None = None,
    progress: Progress = _SILENT,
) -> IndexInfo:
    """Train an inverted file on a sample of `vectors`, put all rows in by their codes, and write it.

    It takes memory for the sample, or for the codes of one part and one block. The same vectors, seed and machine give the same
    bytes.

    Args:
        folder: the staging folder.
        file: relative path inside of it, from `layout.index_file`; where there are several parts, they are called after it.
        factory: such as "IVF512,RaBitQ"; see `store.index_plan.read_factory`. There are at most as many lists as rows.
        seed: of the sample and of its clustering.
        part_rows: rows of a part at most.
        gpu: where the lists are made and chosen; None for the processor.

    Returns:
        The index's record; effort and recall are for the caller to measure and still 0.

    Raises:
        ConfigError: another factory string, or a GPU that is required refuses.
        StorageFull: the disk is full or may not be written.
    """
    factory = _at_most(factory, rows=len(vectors))
    index = _trained(vectors, factory, seed=seed, gpu=gpu, progress=progress)
    bounds = part_bounds(len(vectors), part_rows)
    parts = []
    with progress.start("Filling the index", len(vectors)) as task, closing(Filler(index, gpu)) as filler:
        for number, (start, stop) in enumerate(bounds):
            index.reset()
            for begin in range(start, stop, _BLOCK_ROWS):
                block = vectors.block(begin, min(begin + _BLOCK_ROWS, stop))
                filler.add(block, np.arange(begin, begin + len(block)))
                task.advance(len(block))
            name = file if len(bounds) == 1 else layout.index_part_file(file, number)
            parts.append(_write(index, folder, name, with_centroids=number == 0))
    first = parts[0]
    return IndexInfo(
        file=first.file,
        factory=factory,
        effort=0.0,
        recall_at_10=0.0,
        header_bytes=first.header_bytes,
        header_sha256=first.header_sha256,
        parts=parts if len(parts) > 1 else [],
    )


def open_ivf(folder: Path, info: IndexInfo, *, rows: int, dim: int, mapped: bool) -> list[Any]:
    """The parts, mapped or in memory, in row order, all with the centroids of the first, which must live as long as the others.

    Everything that FAISS interprets (all but codes and ids) is compared by hash before it reads it.

    Raises:
        Checksum: a file is missing or is not the one that was recorded.
    """
    parts = info.parts or [IndexPart(info.file, rows, info.header_bytes, info.header_sha256)]
    if sum(part.rows for part in parts) != rows:
        raise Checksum(f"{folder}: the parts of the index do not hold {rows} rows.", path=folder / info.file, hint=_HINT)
    opened = [_open_part(folder / part.file, part, info.factory, dim=dim, mapped=mapped) for part in parts]
    if opened[0].quantizer is None:
        path = folder / parts[0].file
        raise Checksum(f"{path} is not the first part of an index: it has no centroids.", path=path, hint=_HINT)
    for part in opened[1:]:
        part.own_fields = False
        part.quantizer = opened[0].quantizer
    return opened


def _at_most(factory: str, *, rows: int) -> str:
    """The factory string with at most as many lists as rows: FAISS refuses to find more."""
    n_lists = read_factory(factory).n_lists
    return factory.replace(f"IVF{n_lists}", f"IVF{min(n_lists, rows)}", 1)


def _trained(vectors: ShardedVectors, factory: str, *, seed: int, gpu: Gpu | None, progress: Progress) -> Any:
    """An empty index whose lists and codes are fitted to a sample of the rows."""
    import faiss

    size = min(len(vectors), training_rows(read_factory(factory).n_lists))
    row_ids = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:size])
    index = faiss.index_factory(vectors.dim, factory, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed % (1 << 31)
    index.cp.niter = _TRAINING_ROUNDS
    index.cp.min_points_per_centroid = 1  # FAISS warns on stderr below 39; a small corpus is no fault
    index.cp.max_points_per_centroid = TRAINING_ROWS_A_LIST
    with progress.start("Training the index", None):
        train(index, vectors.rows(row_ids), gpu)
    return index


def _write(index: Any, folder: Path, file: str, *, with_centroids: bool) -> IndexPart:
    import faiss

    path, rows = folder / file, int(index.ntotal)
    with atomic_write(path) as opened, _centroids(index, kept=with_centroids):
        faiss.write_index(index, faiss.PyCallbackIOWriter(opened.write))
    header_bytes = path.stat().st_size - rows * (index.code_size + ID_BYTES)
    return IndexPart(file, rows, header_bytes, sha256_file(path, length=header_bytes))


@contextmanager
def _centroids(index: Any, *, kept: bool) -> Iterator[None]:
    """Take the centroids out of the index for a while, unless they are `kept`: FAISS then writes that there are none."""
    centroids, owned = index.quantizer, index.own_fields
    try:
        if not kept:
            index.own_fields = False
            index.quantizer = None
        yield
    finally:
        index.quantizer = centroids
        index.own_fields = owned


def _open_part(path: Path, part: IndexPart, factory: str, *, dim: int, mapped: bool) -> Any:
    import faiss

    parsed = read_factory(factory)
    expected = part.header_bytes + part.rows * (code_bytes(parsed.codes, dim) + ID_BYTES)
    try:
        size = path.stat().st_size
        header_sha256 = sha256_file(path, length=min(part.header_bytes, size))
    except OSError as error:
        raise Checksum(f"{path} cannot be read: {error.strerror}.", path=path, hint=_HINT) from error
    if size != expected or header_sha256 != part.header_sha256:
        raise Checksum(
            f"{path} is not the {factory} index of {part.rows} rows that was recorded ({size} bytes).", path=path, hint=_HINT
        )
    with faiss_errors(path):
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    if index.ntotal != part.rows or index.d != dim or index.nlist != parsed.n_lists:
        raise Checksum(f"{path} holds {index.ntotal} rows of {index.d}, not {part.rows} of {dim}.", path=path, hint=_HINT)
    return index
