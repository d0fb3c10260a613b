"""An inverted file on disk: trained, filled, written, and checked before FAISS reads it.

A file is a header and the lists. The header is what FAISS writes of an index without lists, zeros
up to a multiple of 64 bytes, the rotation of the rows (dim x dim float32) where rows are coded in
pieces, and the number of rows of each list (int64). A list is its codes, in whole blocks, and their
row ids (int64), padded with zeros to a whole block. A row stands in one list or in two. So FAISS
reads the lists in the map of the file, at addresses that suit its block-wise comparison, for which
its file format has no room.

Many rows are cut into parts of consecutive rows, each a file, so that building takes memory for one
part and a query searches all of them at once. Centroids and rotation are shared and stand in the
first file alone, so the parts together hold what one file would, and propose the same rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import Checksum
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.core.values import Vectors
from imprompt.store import layout
from imprompt.store.checksums import read_sums, sum_of, write_sums
from imprompt.store.faiss_index import faiss_errors, read_header
from imprompt.store.gpu import Gpu
from imprompt.store.index_plan import (
    FAST_SCAN_ROWS,
    ID_BYTES,
    PART_ROWS,
    TRAINING_ROWS_A_LIST,
    Factory,
    code_bytes,
    part_bounds,
    read_factory,
    training_rows,
)
from imprompt.store.ivf.ivf_lists import Filler, rotation_for, train
from imprompt.store.layout import REBUILD, VERIFY
from imprompt.store.manifest import IndexInfo, IndexPart, sha256_bytes
from imprompt.store.mapping import address_of
from imprompt.store.paths import open_file
from imprompt.store.shards import ShardedVectors

_BLOCK_ROWS = 65_536
_TRAINING_ROUNDS = 10
_LEAST_TRAINED_CODES = 16  # rows that FAISS wants for codes of 4 bits
# FAISS's default of 256, or rows that are not turned, find .007 fewer of the ten nearest.
_TRAINING_ROWS_A_CODE = 4096
_ALIGNED_BYTES = 64
_F32 = np.dtype("<f4")
_TABLE_BYTES_A_PIECE = 16 * 4  # a product for each of 16 codes
_QUERY_BY_QUERY = 11  # FAISS's quickest way through blocks that answers queries one by one
_LIMITING = Lock()  # FAISS has one limit for the whole process


class _Places(NamedTuple):
    """A part's bytes, and (lists, 2) where each of its lists begins and ends in them."""

    content: NDArray[np.uint8]
    bounds: NDArray[np.int64]


def build_ivf_index(
    folder: Path,
    file: str,
    vectors: ShardedVectors,
    *,
    factory: str,
    seed: int = 0,
    part_rows: int = PART_ROWS,
    gpu: Gpu | None = None,
    progress: Progress = SILENT,
) -> IndexInfo:
    """Train an inverted file on a sample of the vectors, add all rows by their codes, and write it.

    It takes memory for the sample, or for the codes of one part and one block. The same vectors,
    seed and machine give the same bytes.

    Args:
        folder: the staging folder.
        file: relative path inside of it, from `layout.index_file`; several parts are named after
            it.
        factory: such as "IVF512x2,PQ96x4fs"; see `imprompt.store.index_plan.read_factory`. There
            are at most as many lists as rows.
        seed: of the sample and of its clustering.

    Returns:
        The index's record; effort and recall are for the caller to measure and still 0.

    Raises:
        ConfigError, StorageFull: as `imprompt.store.indexes.build_index_file`.
    """
    factory = _at_most(factory, rows=len(vectors))
    index, rotation = _trained(vectors, factory, seed=seed, gpu=gpu, progress=progress)
    parts, sums = [], []
    with (
        progress.start("Filling the index", len(vectors)) as task,
        closing(Filler(index, gpu, read_factory(factory).lists_a_row)) as filler,
    ):
        for name, (start, stop) in _part_files(file, len(vectors), part_rows).items():
            index.reset()
            for begin in range(start, stop, _BLOCK_ROWS):
                block = turned(vectors.block(begin, min(begin + _BLOCK_ROWS, stop)), rotation)
                filler.add(block, np.arange(begin, begin + len(block)))
                task.advance(len(block))
            written = _write(index, rotation, folder, name, rows=stop - start, first=start == 0)
            parts.append(written[0])
            sums.append(written[1])
    write_sums(folder, layout.list_sums_file(file), sums)
    return _index_info(parts, factory=factory, sums=layout.list_sums_file(file))


def _part_files(file: str, rows: int, part_rows: int) -> dict[str, tuple[int, int]]:
    """Return the bounds of each part by the name of its file."""
    bounds = part_bounds(rows, part_rows)
    if len(bounds) == 1:
        return {file: bounds[0]}
    return {layout.index_part_file(file, number): part for number, part in enumerate(bounds)}


def _index_info(parts: list[IndexPart], *, factory: str, sums: str) -> IndexInfo:
    first = parts[0]
    return IndexInfo(
        file=first.file,
        factory=factory,
        effort=0.0,
        recall_at_10=0.0,
        header_bytes=first.header_bytes,
        header_sha256=first.header_sha256,
        parts=parts if len(parts) > 1 else [],
        sums=sums,
    )


class CheckedLists:
    """The lists of all parts, each compared with its sum before its first use. Safe for threads.

    Args:
        folder: of the version.
        info: the index's record.
        places: for each part its bytes and where its lists begin and end in them, (lists, 2).
    """

    def __init__(
        self, folder: Path, info: IndexInfo, places: Sequence[_Places], *, mapped: bool
    ) -> None:
        n_lists = len(places[0].bounds)
        self._places = places
        self._files = [folder / file for file in info.files]
        self._left = np.ones(n_lists, dtype=np.bool_)
        sums = read_sums(folder, info.sums, count=n_lists * len(places), mapped=mapped)
        self._sums = sums.reshape(len(places), n_lists)

    def check(self, lists: NDArray[np.int64]) -> None:
        """Compare these lists, unless that was done already; -1 stands for none.

        Raises:
            Checksum: one is not what was written.
        """
        for number in sorted({*lists[(lists >= 0) & self._left[lists]].tolist()}):
            for place, sums, path in zip(self._places, self._sums, self._files, strict=False):
                begin, end = place.bounds[number]
                if sum_of(place.content[begin:end], number) != sums[number]:
                    raise Checksum(
                        f"{path} is damaged: list {number} is not what was written.",
                        path=path,
                        hint=VERIFY,
                    )
            self._left[number] = False


def open_ivf(
    folder: Path, info: IndexInfo, *, rows: int, dim: int, mapped: bool
) -> tuple[list[Any], Vectors | None, CheckedLists]:
    """Return the parts in row order, the rotation of queries (see `turned`), and the checked lists.

    The parts are mapped or in memory. All have the centroids of the first, which must live as long
    as the others. The lists are to be checked before they are visited, while the parts live.
    Everything that FAISS interprets (all but codes and ids) is compared by hash before it reads it.

    Raises:
        Checksum: a file is missing or is not the one that was recorded.
    """
    parts = info.parts or [IndexPart(info.file, rows, info.header_bytes, info.header_sha256)]
    if sum(part.rows for part in parts) != rows:
        raise Checksum(
            f"{folder}: the parts of the index do not hold {rows} rows.",
            path=folder / info.file,
            hint=REBUILD,
        )
    opened, rotations, places = zip(
        *(
            _open_part(folder, part, info.factory, dim=dim, mapped=mapped, first=part is parts[0])
            for part in parts
        ),
        strict=True,
    )
    if opened[0].quantizer.ntotal == 0:
        path = folder / parts[0].file
        raise Checksum(
            f"{path} is not the first part of an index: it has no centroids.",
            path=path,
            hint=REBUILD,
        )
    for part in opened[1:]:
        part.quantizer.this.acquire()  # frees the placeholder
        part.own_fields = False
        part.quantizer = opened[0].quantizer
    return list(opened), rotations[0], CheckedLists(folder, info, places, mapped=mapped)


def turned(rows: Vectors, rotation: Vectors | None) -> Vectors:
    """Return (n, dim) rows or queries as the index has them."""
    return rows if rotation is None else np.ascontiguousarray(rows @ rotation)


def _at_most(factory: str, *, rows: int) -> str:
    """Return the factory string with at most as many lists as rows: FAISS refuses to find more."""
    parsed = read_factory(factory)
    n_lists = min(parsed.n_lists, rows)
    return f"IVF{n_lists}{'x2' if min(parsed.lists_a_row, n_lists) == 2 else ''},{parsed.codes}"


def _trained(
    vectors: ShardedVectors, factory: str, *, seed: int, gpu: Gpu | None, progress: Progress
) -> tuple[Any, Vectors | None]:
    """Return an empty index, fitted to a sample of the rows, and the rotation of its rows."""
    import faiss

    parsed = read_factory(factory, dim=vectors.dim)
    size = min(len(vectors), training_rows(parsed.n_lists))
    row_ids = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:size])
    index = faiss.index_factory(vectors.dim, parsed.for_faiss, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed % (1 << 31)
    index.cp.niter = _TRAINING_ROUNDS
    # Below 39 FAISS warns, even if the corpus is just small.
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = TRAINING_ROWS_A_LIST
    if parsed.pieces:
        # One table of products serves all lists, and codes of residuals find fewer rows.
        index.by_residual = False
        # It orders codes for Hamming distances, which nothing here computes, in 10 s a core.
        index.do_polysemous_training = False
        index.pq.cp.min_points_per_centroid = 1
        index.pq.cp.max_points_per_centroid = _TRAINING_ROWS_A_CODE
        row_ids = np.resize(row_ids, max(size, _LEAST_TRAINED_CODES))
    with progress.start("Training the index", None):
        sample = vectors.rows(row_ids)
        rotation = rotation_for(sample, parsed.pieces) if parsed.pieces else None
        sample = turned(sample, rotation)
        train(index, sample, gpu)
    return index, rotation


def _write(
    index: Any, rotation: Vectors | None, folder: Path, file: str, *, rows: int, first: bool
) -> tuple[IndexPart, NDArray[np.uint32]]:
    import faiss

    path = folder / file
    packed = (
        faiss.IndexIVFPQFastScan(index, FAST_SCAN_ROWS)
        if isinstance(index, faiss.IndexIVFPQ)
        else index
    )
    lists, block_rows = packed.invlists, FAST_SCAN_ROWS if packed is not index else 1
    lengths = np.array([lists.list_size(number) for number in range(packed.nlist)], dtype="<i8")
    header = _header(packed, rotation, lengths, first=first)
    sums = np.empty(packed.nlist, dtype=np.uint32)
    with atomic_write(path) as opened:
        opened.write(header)
        for number, length in enumerate(lengths.tolist()):
            whole, content = _in_blocks(length, block_rows), b""
            if length:
                codes = faiss.rev_swig_ptr(
                    lists.get_codes(number), whole * packed.code_size
                ).tobytes()
                content = (
                    codes
                    + faiss.rev_swig_ptr(lists.get_ids(number), length).tobytes()
                    + bytes((whole - length) * ID_BYTES)
                )
                opened.write(content)
            sums[number] = sum_of(content, number)
    return IndexPart(file, rows, len(header), sha256_bytes(header)), sums


def _header(
    index: Any, rotation: Vectors | None, lengths: NDArray[np.int64], *, first: bool
) -> bytes:
    import faiss

    none, no_centroids = (
        faiss.ArrayInvertedLists(index.nlist, index.code_size),
        faiss.IndexFlatIP(index.d),
    )
    with ExitStack() as stack:
        stack.enter_context(_instead(index, "invlists", "own_invlists", none))
        if not first:
            stack.enter_context(_instead(index, "quantizer", "own_fields", no_centroids))
        written = faiss.serialize_index(index).tobytes()
    after = (
        b"" if rotation is None or not first else rotation.astype(_F32).tobytes()
    ) + lengths.tobytes()
    return bytes(written + bytes(-(len(written) + len(after)) % _ALIGNED_BYTES) + after)


def _in_blocks(rows: Any, block_rows: int) -> Any:
    """Return a number of rows, or an array of such, rounded up to whole blocks."""
    return -(-rows // block_rows) * block_rows


@contextmanager
def _instead(index: Any, part: str, owned: str, other: Any) -> Iterator[None]:
    """Exchange a part of the index for a while."""
    kept = getattr(index, part), getattr(index, owned)
    setattr(index, owned, False)
    setattr(index, part, other)
    try:
        yield
    finally:
        setattr(index, part, kept[0])
        setattr(index, owned, kept[1])


def _open_part(
    folder: Path, part: IndexPart, factory: str, *, dim: int, mapped: bool, first: bool
) -> tuple[Any, Vectors | None, _Places]:
    """Open a part once its header and length are those recorded; see `open_ivf`."""
    parsed = read_factory(factory, dim=dim)
    row_bytes = code_bytes(parsed, dim) + ID_BYTES
    path = folder / part.file
    header, size = read_header(folder, part.file, part.header_bytes)
    rotation_bytes = dim * dim * _F32.itemsize if parsed.pieces and first else 0
    whole = (
        sha256_bytes(header) == part.header_sha256
        and len(header) >= parsed.n_lists * 8 + rotation_bytes
    )
    lengths = np.frombuffer(header[-parsed.n_lists * 8 :] if whole else b"", dtype="<i8")
    capacities = _in_blocks(lengths, parsed.block_rows)
    entries = part.rows * parsed.lists_a_row
    if (
        not whole
        or not _add_up(lengths, entries)
        or size != part.header_bytes + int(capacities.sum()) * row_bytes
        or not _has_form(header, parsed, dim=dim, entries=entries, first=first)
    ):
        raise Checksum(
            f"{path} is not the {factory} index of {part.rows} rows that was recorded "
            f"({size} bytes).",
            path=path,
            hint=REBUILD,
        )
    # Also FAISS looks whether tables that it may compute would be within the limit.
    index = _deserialized(
        header, path, most_bytes=len(header) + parsed.n_lists * parsed.pieces * _TABLE_BYTES_A_PIECE
    )
    if parsed.pieces:
        index.implem = _QUERY_BY_QUERY
    begins = part.header_bytes + (np.cumsum(capacities) - capacities) * row_bytes
    places = np.stack([lengths, capacities, begins], axis=1).astype(np.int64)
    content = _attach(index, folder, part.file, places, size=size, mapped=mapped)
    bounds = np.stack([begins, begins + capacities * row_bytes], axis=1).astype(np.int64)
    after = np.frombuffer(
        header[-parsed.n_lists * 8 - rotation_bytes : -parsed.n_lists * 8], dtype=_F32
    )
    return index, after.reshape(dim, dim) if rotation_bytes else None, _Places(content, bounds)


def _add_up(lengths: NDArray[np.int64], entries: int) -> bool:
    return bool(((lengths >= 0) & (lengths <= entries)).all()) and sum(lengths.tolist()) == entries


def _deserialized(header: bytes, path: Path, *, most_bytes: int) -> Any:
    """Return what FAISS makes of a header, with a limit on each piece of memory."""
    import faiss

    with _LIMITING, faiss_errors(path):
        if not hasattr(faiss, "set_deserialization_vector_byte_limit"):  # before faiss 1.14
            return faiss.deserialize_index(np.frombuffer(header, dtype=np.uint8))
        before = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(most_bytes)
        try:
            return faiss.deserialize_index(np.frombuffer(header, dtype=np.uint8))
        finally:
            faiss.set_deserialization_vector_byte_limit(before)


def _has_form(header: bytes, parsed: Factory, *, dim: int, entries: int, first: bool) -> bool:
    """Return whether a header is the one that FAISS writes of such an index.

    Only the values of centroids and codes' tables are free: from the rest FAISS computes sizes and
    addresses, so a file may not choose it.
    """
    n_centroids = parsed.n_lists if first else 0
    before, after, free = _form(dim, parsed.n_lists, parsed.codes, n_centroids, entries)
    start = len(before) + n_centroids * dim * _F32.itemsize
    rest = np.frombuffer(header[start : start + len(after)], dtype=np.uint8)
    return (
        header.startswith(before)
        and len(rest) == len(after)
        and bool(((rest == after) | free).all())
    )


@lru_cache(maxsize=16)
def _form(
    dim: int, n_lists: int, codes: str, n_centroids: int, entries: int
) -> tuple[bytes, NDArray[np.uint8], NDArray[np.bool_]]:
    """Return what FAISS writes before and after the centroids, and which bytes after are values."""
    import faiss

    index = faiss.index_factory(dim, f"IVF{n_lists},{codes}", faiss.METRIC_INNER_PRODUCT)
    index.is_trained, index.ntotal = True, entries
    tables = (
        index.pq.centroids
        if codes.startswith("PQ")
        else index.sq.trained
        if codes in ("SQ4", "SQ8")
        else None
    )
    if codes.startswith("PQ"):
        index.by_residual = False
    centroids = faiss.downcast_index(index.quantizer)
    centroids.ntotal = n_centroids  # it holds none, and would say so where its values follow
    held, found = faiss.serialize_index(centroids).tobytes(), []
    with _instead(
        index, "invlists", "own_invlists", faiss.ArrayInvertedLists(n_lists, index.code_size)
    ):
        for value in (0.0, np.frombuffer(b"\xff" * 4, dtype=_F32)[0]):
            if tables is not None:
                n_values = tables.size() if codes.startswith("PQ") else 2 * dim
                faiss.copy_array_to_vector(np.full(n_values, value, dtype=np.float32), tables)
            found.append(faiss.serialize_index(index).tobytes())
    start = found[0].index(held)
    before = found[0][:start] + held[:-8] + (n_centroids * dim).to_bytes(8, "little")
    after, other = (np.frombuffer(one[start + len(held) :], dtype=np.uint8) for one in found)
    return before, after, after != other


def _attach(
    index: Any, folder: Path, file: str, places: NDArray[np.int64], *, size: int, mapped: bool
) -> NDArray[np.uint8]:
    """Give the index its lists, mapped or in memory, and return all bytes of the file.

    The index unmaps them when it is freed.

    Args:
        places: (lists, 3) rows, room for rows, and first byte of each list, as FAISS's
            `OnDiskOneList` has them.
        size: of the file, in bytes; the places lie within.
    """
    import faiss

    lists = faiss.OnDiskInvertedLists()
    lists.nlist, lists.code_size, lists.read_only = index.nlist, index.code_size, True
    lists.prefetch_nthread = 0  # threads that would touch pages ahead, were they asked to
    lists.lists.resize(index.nlist)
    faiss.memcpy(lists.lists.data(), faiss.swig_ptr(places), places.nbytes)
    path, descriptor = folder / file, -1
    try:
        descriptor = open_file(folder, file)
        content, lists.totsize = address_of(descriptor, mapped=mapped)
    except OSError as error:
        raise Checksum(
            f"{path} cannot be read: {error.strerror or error}.", path=path, hint=REBUILD
        ) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    if lists.totsize != size:
        raise Checksum(
            f"{path} has {lists.totsize} bytes, not {size}, since it was looked at.",
            path=path,
            hint=REBUILD,
        )
    held = np.frombuffer(content, dtype=np.uint8)
    lists.ptr = faiss.swig_ptr(held)
    index.replace_invlists(lists, True)
    lists.this.disown()
    return held
