"""The index types of Milvus, and what effort means to each.

See https://milvus.io/docs/index-explained.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imprompt.core.errors import ConfigError
from imprompt.store.ranking import CAPS

POOL = CAPS.steady_k
"""Rows that Milvus proposes to a query, to be scored again from their vectors."""

_FLAT_ROWS = 100_000

METRIC = "IP"
"""Of unit rows the inner product is the cosine, and every index type takes it."""


@dataclass(frozen=True, slots=True)
class IndexType:
    """An index type: the defaults of its build, and the search parameter that effort sets.

    `dial` goes from `low` to `high` by equal factors; a name instead of a number is that parameter
    of the build. `exhaustive`: every row is compared, and its score is exact but for rounding.
    """

    build: dict[str, Any] = field(default_factory=dict)
    dial: str = ""
    low: int = 1
    high: int | str = 1
    search: dict[str, Any] = field(default_factory=dict)
    exhaustive: bool = False


INDEX_TYPES: Mapping[str, IndexType] = {
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


@dataclass(frozen=True, slots=True)
class IndexChoice:
    """The index of the searched space: a name of `INDEX_TYPES`, and its build parameters."""

    kind: str
    params: dict[str, Any]

    @property
    def has_dial(self) -> bool:
        """Whether effort changes which rows are compared."""
        return bool(INDEX_TYPES[self.kind].dial)

    def search_params(self, effort: float, *, limit: int) -> dict[str, Any]:
        """Return the parameters of a search for `limit` rows with this effort, 0 to 1."""
        index_type = INDEX_TYPES[self.kind]
        if not index_type.dial:
            return {}
        low, high = self._range()
        value = round(low * math.exp(min(max(effort, 0), 1) * math.log(high / low)))
        return {**index_type.search, index_type.dial: value if low == 1 else max(value, limit)}

    def wider(self, effort: float, *, factor: float = 4.0) -> float:
        """Return the effort that turns the dial `factor` times as far, at most 1."""
        low, high = self._range()
        return min(1.0, effort + math.log(factor) / math.log(high / low)) if high > low else 1.0

    def efforts(self) -> list[float]:
        """Return efforts to try for the default one, rising; the dial doubles at each.

        The last turns it nearly to its end: 1 itself asks for the exact answer, which may take all
        vectors over the network.
        """
        if not self.has_dial:
            return [1.0]
        efforts = [0.0]
        while efforts[-1] < _ALMOST:
            efforts.append(min(self.wider(efforts[-1], factor=2.0), _ALMOST))
        return efforts

    def _range(self) -> tuple[int, int]:
        index_type = INDEX_TYPES[self.kind]
        high = index_type.high
        high = high if isinstance(high, int) else int(self.params[high])
        return index_type.low, max(high, index_type.low)


def choose_index(name: str | None, params: Mapping[str, Any] | None, *, rows: int) -> IndexChoice:
    """Return the index of this name; by default FLAT up to 100,000 rows and HNSW above.

    Raises:
        ConfigError: the name is not known, or a parameter is not a number, text or truth value.
    """
    name = (name or ("FLAT" if rows <= _FLAT_ROWS else "HNSW")).upper()
    if name not in INDEX_TYPES:
        raise ConfigError(
            f"There is no index type {name!r}.", hint=f"There are {', '.join(INDEX_TYPES)}."
        )
    chosen = {**INDEX_TYPES[name].build, **(params or {})}
    for key, value in chosen.items():
        if not isinstance(value, str | int | float):
            raise ConfigError(
                f"The parameter {key!r} of the index is {value!r}.",
                hint="A parameter is a number, a text or a truth value.",
            )
    high = INDEX_TYPES[name].high
    if isinstance(high, str):
        value = chosen[high]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(
                f"The parameter {high!r} of the index is {value!r}; it must be a whole number, "
                "at least 1."
            )
    return IndexChoice(name, chosen)
