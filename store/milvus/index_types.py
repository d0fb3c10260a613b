"""The kinds of index that Milvus is asked for, and what effort means to each (https://milvus.io/docs/index-explained.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imprompt.core.errors import ConfigError

POOL = 128
"""Rows that Milvus proposes to a question and that are scored again from their vectors, as with an inverted file here."""

METRIC = "IP"
"""Of unit rows the inner product is the cosine, and every kind of index takes it."""


@dataclass(frozen=True, slots=True)
class IndexType:
    """A kind of index: how it is built unless it is said otherwise, and the parameter of a search that effort turns.

    `dial` goes from `low` to `high` by equal factors; a name instead of a number is that parameter
    of the build. `exhaustive`: every row is compared, and its score is exact but for rounding.
    """

    build: dict[str, Any] = field(default_factory=dict)
    dial: str = ""
    low: int = 1
    high: int | str = 1
    search: dict[str, Any] = field(default_factory=dict)
    exhaustive: bool = False


KINDS: Mapping[str, IndexType] = {
    "FLAT": IndexType(exhaustive=True),
    "HNSW": IndexType({"M": 32, "efConstruction": 200}, "ef", POOL, 4096),
    "IVF_FLAT": IndexType({"nlist": 1024}, "nprobe", 1, "nlist"),
    "IVF_SQ8": IndexType({"nlist": 1024}, "nprobe", 1, "nlist"),
    "IVF_RABITQ": IndexType({"nlist": 1024}, "nprobe", 1, "nlist", {"rbq_query_bits": 6}),
    "DISKANN": IndexType({}, "search_list", POOL, 4096),
    "GPU_CAGRA": IndexType(
        {"intermediate_graph_degree": 64, "graph_degree": 32}, "itopk_size", POOL, 1024
    ),
}
_ALMOST = 0.999
FLAT_ROWS = 100_000
"""Up to here every vector is looked at, as on this machine."""


@dataclass(frozen=True, slots=True)
class IndexChoice:
    """The index of the searched space: a name of `KINDS`, and the parameters that it is built with."""

    kind: str
    params: dict[str, Any]

    @property
    def has_dial(self) -> bool:
        """Whether effort changes what is looked at."""
        return bool(KINDS[self.kind].dial)

    def search_params(self, effort: float, *, limit: int) -> dict[str, Any]:
        """The parameters of a search with this effort, 0 to 1, that asks for `limit` rows."""
        kind = KINDS[self.kind]
        if not kind.dial:
            return {}
        low, high = self._range()
        value = round(low * math.exp(min(max(effort, 0), 1) * math.log(high / low)))
        return {**kind.search, kind.dial: value if low == 1 else max(value, limit)}

    def wider(self, effort: float, *, factor: float = 4.0) -> float:
        """The effort that turns the dial `factor` times as far, at most 1."""
        low, high = self._range()
        return min(1.0, effort + math.log(factor) / math.log(high / low)) if high > low else 1.0

    def efforts(self) -> list[float]:
        """Efforts to try for the default one, rising, the dial doubling from one to the next.

        The last turns it nearly to its end: 1 itself asks for the exact answer, which may be all
        vectors over the network.
        """
        if not self.has_dial:
            return [1.0]
        found = [0.0]
        while found[-1] < _ALMOST:
            found.append(min(self.wider(found[-1], factor=2.0), _ALMOST))
        return found

    def _range(self) -> tuple[int, int]:
        kind = KINDS[self.kind]
        high = kind.high if isinstance(kind.high, int) else int(self.params[kind.high])
        return kind.low, max(high, kind.low)


def choose_index(name: str | None, params: Mapping[str, Any] | None, *, rows: int) -> IndexChoice:
    """The index that was asked for; FLAT up to 100,000 rows and HNSW above where none was.

    Raises:
        ConfigError: the name is not known, or a parameter is none of numbers, texts and truths.
    """
    name = (name or ("FLAT" if rows <= FLAT_ROWS else "HNSW")).upper()
    if name not in KINDS:
        raise ConfigError(
            f"There is no index type {name!r}.", hint=f"There are {', '.join(KINDS)}."
        )
    chosen = {**KINDS[name].build, **(params or {})}
    for key, value in chosen.items():
        if not isinstance(value, str | int | float):
            raise ConfigError(
                f"The parameter {key!r} of the index is {value!r}.",
                hint="A parameter is a number, a text or a truth.",
            )
    high = KINDS[name].high
    if isinstance(high, str) and (
        isinstance(chosen[high], bool) or not isinstance(chosen[high], int) or chosen[high] < 1
    ):
        raise ConfigError(
            f"The parameter {high!r} of the index is {chosen[high]!r}; it must be a whole number from 1 on."
        )
    return IndexChoice(name, chosen)
