"""Index plans: which index suits a number of rows, a dimension and a memory budget, and why.

Pure arithmetic. Byte counts are those of the files that are then written; the benchmark of the
index compares them.
"""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass
from itertools import pairwise

from imprompt.core.errors import ConfigError

FLAT = "SQfp16"
RABITQ = "RaBitQ"
FAST_SCAN_ROWS = 32
"""Rows whose 4-bit codes FAISS compares at once; a list is filled up to whole blocks of them."""

DEFAULT_BUDGET_BYTES = 4 << 30
"""What a laptop can spare. A constant, so that one command builds one index on every machine."""

CODED_ROWS = 20_000
"""Of fewer rows all are scanned: that is exact, and takes a millisecond at most (384 dimensions,
one core)."""

SCANNED_ROWS = 100_000
"""Up to here a system whose FAISS cannot open inverted files gets a flat index unasked."""

ONE_LIST_ROWS = 200_000
"""Up to here each row stands in one list: for the recall that is wanted of so few rows, most lists
are visited, and a second place for each row doubles the file and saves no time."""

MANY_ROWS = 1_000_000
"""From here on an index is content with less recall."""

PART_ROWS = 2_500_000
"""More rows are cut into parts, each a file: one is built in less than a gigabyte, and two cores
share a query."""

TRAINING_ROWS_A_LIST = 64
ID_BYTES = 8
_MOST_TRAINING_ROWS = 1 << 19
# 32 training rows a list. From 100 million rows on, more lists could not be filled in a night.
_MOST_PLANNED_LISTS = 1 << 14
_CODE_BYTES = 2  # float16
_FACTOR_BYTES = 8  # RaBitQ's two float32 a row
_PROMPT_BYTES = 220  # a row of prompts.duckdb: 20 MB for 100,000 real prompts
_STAGING_BYTES = 520  # a row read: benchmarks/results/near_duplicates.md
_MOST_LISTS = 1 << 20
_FACTORY = re.compile(
    r"IVF(?P<lists>[1-9][0-9]{0,6})(?P<twice>x2)?,(?P<codes>RaBitQ|SQ4|SQ8|SQfp16|PQ(?P<pieces>[1-9][0-9]{0,3})x4fs)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Factory:
    """A factory string's parts: lists of an inverted file (0: there are none), and the rows' codes.

    `pieces` is into how many a row is cut where each has a code of 4 bits (product quantisation,
    scanned in blocks), else 0. `lists_a_row` is in how many lists each row stands, 1 or 2.
    """

    n_lists: int
    codes: str
    pieces: int = 0
    lists_a_row: int = 1

    @property
    def for_faiss(self) -> str:
        """The factory string of FAISS's index that is filled.

        The rows' lists are chosen, and codes put into blocks, outside of it.
        """
        return f"IVF{self.n_lists},{self.codes.removesuffix('fs')}"

    @property
    def block_rows(self) -> int:
        """Rows in a block of codes."""
        return FAST_SCAN_ROWS if self.pieces else 1


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """An index that was chosen, and what it will cost.

    `factory` is as `read_factory` reads it, `parts` the number of files that the rows are cut into.
    `memory_bytes` is what must stay in memory to answer quickly: the index, which is mapped from
    its files, and where `vectors_in_memory` the stored vectors too. `index_bytes` are the index's
    files, `disk_bytes` a whole version, `staging_bytes` the temporary files of a build that reads
    as many rows, `build_memory_bytes` what making the index takes beside the program itself, and
    `gpu_bytes` what a GPU has to hold that answers. `query_ms` and `build_s` are ranges for one
    query and for making the index, on one and on two cores of a server of 2020 or later; encoding
    the prompts comes on top.
    """

    rows: int
    dim: int
    factory: str
    n_lists: int
    parts: int
    memory_bytes: int
    build_memory_bytes: int
    index_bytes: int
    disk_bytes: int
    staging_bytes: int
    gpu_bytes: int
    vectors_in_memory: bool
    query_ms: tuple[float, float]
    build_s: tuple[float, float]
    reasons: tuple[str, ...]


def plan_index(
    *, rows: int, dim: int, budget_bytes: int = DEFAULT_BUDGET_BYTES, spaces: int = 2
) -> IndexPlan:
    """Choose the fastest index that fits into the budget.

    It is the same with and without a GPU, so that an index answers on every machine: a GPU compares
    a query with the stored vectors themselves.

    Args:
        rows: prompts, at least 1.
        dim: of their vectors in the space that is searched.
        budget_bytes: memory that the index may take while it answers.
        spaces: how many a version stores; the second is MiniLM's, of 384 dimensions.

    Raises:
        ConfigError: rows or dim below 1, or no index is small enough (the smallest is named).
    """
    if rows < 1 or dim < 1:
        raise ConfigError(
            f"An index of {rows} rows of {dim} dimensions cannot be planned.",
            hint="Both are at least 1.",
        )
    vectors = rows * dim * _CODE_BYTES
    if rows < CODED_ROWS and vectors <= budget_bytes:
        reason = (
            f"{rows:,} rows are fewer than {CODED_ROWS:,}: a scan of everything is exact and quick."
        )
        return _plan(rows, dim, FLAT, spaces=spaces, reasons=(reason,))
    why = f"From {CODED_ROWS:,} rows on codes answer sooner than a scan of all vectors."
    if rows < CODED_ROWS:
        why = f"The vectors take {_size(vectors)}, more than the budget of {_size(budget_bytes)}."
    for factory, in_memory, kind in _inverted_files(rows, dim):
        size = index_bytes(factory, rows=rows, dim=dim)
        if size + (vectors if in_memory else 0) > budget_bytes:
            continue
        reason = (
            f"{kind} ({_size(size)}), and the vectors to score again ({_size(vectors)}), "
            "fit into memory."
        )
        if not in_memory:
            together = vectors + index_bytes(_one_bit(rows, dim), rows=rows, dim=dim)
            reason = (
                f"Codes and vectors together ({_size(together)}) are more than the budget of "
                f"{_size(budget_bytes)}. {kind} ({_size(size)}) fit, and the vectors to score "
                "again are read from disk."
            )
        return _plan(
            rows, dim, factory, spaces=spaces, vectors_in_memory=in_memory, reasons=(why, reason)
        )
    raise _does_not_fit(rows, dim, budget_bytes)


def _inverted_files(rows: int, dim: int) -> list[tuple[str, bool, str]]:
    """Return (factory, whether the vectors must fit too, its codes in words), best first."""
    one_bit, words = _one_bit(rows, dim), "Codes of one bit a value"
    lists, codes = one_bit.split(",")
    in_two = f"{words} in two lists for each row"
    chosen = [
        (f"{lists}x2,{codes}", True, f"{in_two}, so that fewer are looked into"),
        (one_bit, True, words),
        (f"{lists},SQ8", False, "Codes of 8 bits a value"),
        (f"{lists}x2,{codes}", False, in_two),
        (one_bit, False, words),
    ]
    return [each for each in chosen if rows > ONE_LIST_ROWS or "x2" not in each[0]]


def _one_bit(rows: int, dim: int) -> str:
    return f"IVF{number_of_lists(rows)},{short_codes(dim)}"


def _does_not_fit(rows: int, dim: int, budget_bytes: int) -> ConfigError:
    small, fitting = _least_bytes(rows, dim), _most_rows(rows, dim, budget_bytes)
    unit, unit_bytes = ("kB", 1e3) if small < 1e7 else ("MB", 1e6)
    fewer = f", or take at most about {fitting:,} rows" if fitting else ""
    return ConfigError(
        f"No index of {rows:,} rows of {dim} dimensions fits into {_size(budget_bytes)}; "
        f"the smallest needs {_size(small)}.",
        hint=f"Say --memory-budget {math.ceil(small / unit_bytes)}{unit} or more{fewer}.",
    )


def _least_bytes(rows: int, dim: int) -> int:
    """Return the memory of the smallest index that is planned for so many rows."""
    factories = [f"IVF{number_of_lists(rows)},{codes}" for codes in (short_codes(dim), "SQ8")]
    sizes = [index_bytes(factory, rows=rows, dim=dim) for factory in (*factories, FLAT)]
    return min(sizes if rows < CODED_ROWS else sizes[:-1])


def _most_rows(rows: int, dim: int, budget_bytes: int) -> int:
    """Return about how many rows, to two digits, have an index that fits; 0 if not even one."""
    fitting = bisect.bisect_right(
        range(1, rows), budget_bytes, key=lambda fewer: _least_bytes(fewer, dim)
    )
    fitting -= fitting % 10 ** max(len(str(fitting)) - 2, 0)
    return fitting if fitting and _least_bytes(fitting, dim) <= budget_bytes else 0


def number_of_lists(rows: int) -> int:
    """Return how many lists an inverted file of so many rows has.

    It is the power of two nearest to sqrt(rows), from 16 to 16,384. At a million rows 1,024 lists
    find as many in 1 ms as 2,048 do in 1.2, where codes are compared in blocks.
    """
    return min(max(16, 1 << round(math.log2(math.sqrt(rows)))), _MOST_PLANNED_LISTS)


def short_codes(dim: int) -> str:
    """Return the fastest codes of one bit a value.

    4 bits for 4 values, or RaBitQ where blocks would not be aligned.
    """
    return f"PQ{dim // 4}x4fs" if dim % 8 == 0 else RABITQ


def training_rows(n_lists: int) -> int:
    """Return how many rows the centroids of so many lists are fitted to."""
    return min(TRAINING_ROWS_A_LIST * n_lists, max(_MOST_TRAINING_ROWS, n_lists))


def part_bounds(rows: int, part_rows: int = PART_ROWS) -> list[tuple[int, int]]:
    """Return (first row, row after the last) of the fewest equal parts of at most `part_rows`."""
    parts = max(math.ceil(rows / part_rows), 1)
    starts = [rows * number // parts for number in range(parts + 1)]
    return list(pairwise(starts))


def index_bytes(factory: str, *, rows: int, dim: int, part_rows: int = PART_ROWS) -> int:
    """Return the total length of the index's files.

    Raises:
        ConfigError: the factory string is not one that `plan_index` chooses.
    """
    parsed = read_factory(factory)
    if parsed.n_lists == 0:
        return rows * dim * _CODE_BYTES
    n_lists = min(parsed.n_lists, rows)
    lists = len(part_bounds(rows, part_rows)) * n_lists
    padded = rows * parsed.lists_a_row + lists * (parsed.block_rows - 1) / 2
    codebook = (16 + dim) * dim * 4 if parsed.pieces else 0  # and the rotation before it
    return (
        round(padded * (code_bytes(parsed, dim) + ID_BYTES))
        + n_lists * dim * 4
        + lists * 8
        + codebook
    )


def code_bytes(factory: Factory, dim: int) -> int:
    """Return the bytes of a row in an inverted list, without its id of 8 bytes."""
    if factory.pieces:
        return factory.pieces // 2
    if factory.codes == RABITQ:
        return math.ceil(dim / 8) + _FACTOR_BYTES
    return {"SQfp16": 2 * dim, "SQ8": dim, "SQ4": (dim + 1) // 2}[factory.codes]


def read_factory(factory: str, *, dim: int | None = None) -> Factory:
    """Parse a supported factory string of FAISS, or one with "x2" after the number of lists.

    Args:
        dim: of the vectors; None where it does not matter yet.

    Raises:
        ConfigError: it is not supported, or not for vectors of `dim` values.
    """
    found = _FACTORY.fullmatch(factory)
    if factory == FLAT:
        return Factory(0, FLAT)
    if found is None or not 1 <= int(found["lists"]) <= _MOST_LISTS:
        raise ConfigError(
            f"The index factory {factory!r} is not known.",
            hint=f"Use {FLAT}, IVF<lists>,<codes>, or IVF<lists>x2,<codes>, in which each row "
            "stands in two lists; the codes are PQ<pieces>x4fs, RaBitQ, SQ4, SQ8 or SQfp16.",
        )
    pieces = int(found["pieces"] or 0)
    if pieces % 2 or (dim is not None and pieces and dim % pieces):
        raise ConfigError(
            f"The index factory {factory!r} cuts vectors into {pieces} pieces, which does not suit "
            f"{dim or 'any'} dimensions.",
            hint="The number of pieces must be even and divide the dimensions; "
            f"{short_codes(dim or 384)} suits {dim or 384}.",
        )
    return Factory(int(found["lists"]), found["codes"], pieces, 2 if found["twice"] else 1)


def _plan(
    rows: int,
    dim: int,
    factory: str,
    *,
    spaces: int,
    reasons: tuple[str, ...],
    vectors_in_memory: bool = False,
) -> IndexPlan:
    file = index_bytes(factory, rows=rows, dim=dim)
    vectors = rows * _CODE_BYTES * (dim + 384 * (spaces - 1))
    parsed = read_factory(factory)
    parts = len(part_bounds(rows)) if parsed.n_lists else 1
    return IndexPlan(
        rows=rows,
        dim=dim,
        factory=factory,
        n_lists=parsed.n_lists,
        parts=parts,
        memory_bytes=file + (rows * dim * _CODE_BYTES if vectors_in_memory else 0),
        build_memory_bytes=_build_memory_bytes(math.ceil(rows / parts), dim, parsed),
        index_bytes=file,
        disk_bytes=file + vectors + rows * _PROMPT_BYTES,
        staging_bytes=rows * _STAGING_BYTES,
        gpu_bytes=rows * dim * _CODE_BYTES,
        vectors_in_memory=vectors_in_memory,
        query_ms=_query_ms(rows, dim, parsed, cached=vectors_in_memory),
        build_s=_build_s(rows, dim, parsed),
        reasons=reasons,
    )


def _query_ms(rows: int, dim: int, parsed: Factory, *, cached: bool) -> tuple[float, float]:
    """Estimate one query on one core, from measurements with some room to both sides.

    Flat: 3 to 33 GB/s. Else the 0.45th to the 0.8th power of the number of lists is visited, or the
    0.3rd to the 0.7th where rows stand in two, and more for the recall that is wanted below a
    million rows; at 4 to 8 ns a code where they are compared in blocks, 16 to 50 ns for one of one
    bit and twice that for 8 bits; and candidates are scored again from memory or from disk. See
    benchmarks/results/search.md and search_small.md.
    """
    if not parsed.n_lists:
        scanned_mb = rows * dim * _CODE_BYTES / 1e6
        return 0.03 * scanned_mb, 0.3 * scanned_mb
    one_list = parsed.lists_a_row == 1
    if rows < MANY_ROWS:
        powers = (0.8, 1.0) if one_list else (0.5, 0.9)
    else:
        powers = (0.45, 0.8) if one_list else (0.3, 0.7)
    fewest, most = (
        rows * parsed.lists_a_row / parsed.n_lists * parsed.n_lists**power for power in powers
    )
    fast_ns, slow_ns = (
        (4, 8) if parsed.pieces else (16, 50) if parsed.codes == RABITQ else (32, 100)
    )
    return 0.1 + fewest * fast_ns / 1e6, (1.3 if cached else 21.0) + most * slow_ns / 1e6


def _build_memory_bytes(part_rows: int, dim: int, parsed: Factory) -> int:
    """Estimate from measurements (benchmarks/results/growth.md) the memory of a build.

    It is the larger of two: the training rows with their distances from the centroids, or the codes
    of a part, whose lists grow by doubling, with a block of rows, or with a copy where they are put
    into blocks in the end.
    """
    block_rows = min(part_rows, 65_536)
    if parsed.n_lists == 0:
        return block_rows * dim * 3
    turned = 4 if parsed.pieces else 0  # float32 values beside those that were turned
    block = block_rows * dim * (12 + turned)
    training = training_rows(parsed.n_lists) * dim * (9 + turned)
    codes = part_rows * parsed.lists_a_row * (code_bytes(parsed, dim) + ID_BYTES)
    return (
        max(training, codes * 3 // 2 + max(block, codes if parsed.pieces else 0))
        + parsed.n_lists * dim * 4
    )


def _build_s(rows: int, dim: int, parsed: Factory) -> tuple[float, float]:
    """Estimate training (ten rounds), assigning, coding and writing, in seconds.

    Training and assigning take 20 to 100 billion multiplications a second, codes 15 to 200 million
    values a second.
    """
    multiplied = (training_rows(parsed.n_lists) * 10 + rows) * parsed.n_lists * dim
    coded = rows * dim * parsed.lists_a_row if parsed.n_lists else 0
    copied = rows * dim * _CODE_BYTES
    return (
        multiplied / 100e9 + coded / 200e6 + copied / 1e9,
        multiplied / 20e9 + coded / 15e6 + copied / 100e6,
    )


def _size(size: float) -> str:
    for unit, bytes_of_unit in (("bytes", 1), ("kB", 1e3), ("MB", 1e6)):
        if size < 10_000 * bytes_of_unit:
            return f"{size / bytes_of_unit:,.0f} {unit}"
    return f"{size / 1e9:,.1f} GB"
