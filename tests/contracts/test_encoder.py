"""The contract of `imprompt.core.protocols.Encoder` and `DualEncoder`, held by every encoder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imprompt.core.protocols import DualEncoder, Encoder, TextEncoder
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.minilm import MiniLM
from imprompt.encoders.registry import load_encoder, load_minilm
from tests.encoders.clip_models import TEXTS, random_pictures, write_model
from tests.encoders.transformers_models import make_clip, make_siglip

ROUNDING = 1e-5
LONG = "a very long prompt about castles, " * 100
MORE_TEXTS = [*TEXTS, "broken \udcff name", *(f"prompt {n} " * (n % 5) for n in range(60))]


@dataclass(frozen=True, slots=True)
class Case:
    """A tower, its spec, items for it (texts: more than one batch), and their rows."""

    tower: Encoder[Any]
    spec: EncoderSpec
    items: Sequence[Any]
    rows: Vectors


def clip(architecture: str, folder: Path) -> DualEncoder:
    return load_encoder(str(write_model(folder / architecture, architecture)), device="cpu")


def of_transformers(make: Callable[[Path], Path], folder: Path) -> DualEncoder:
    (model := folder / make.__name__).mkdir()
    return load_encoder(str(make(model)), device="cpu")


PAIRS: dict[str, Callable[[Path], DualEncoder]] = {
    "lite": lambda folder: load_encoder("lite", device="cpu"),
    "open_clip, cut": functools.partial(clip, "vit"),
    "open_clip, whole": functools.partial(clip, "siglip"),
    "transformers, cut": functools.partial(of_transformers, make_clip),
    "transformers, padded": functools.partial(of_transformers, make_siglip),
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], DualEncoder]:
    folder = tmp_path_factory.mktemp("models")
    return functools.cache(lambda name: PAIRS[name](folder))


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return load_minilm(device="cpu")


def make_case(tower: Encoder[Any], spec: EncoderSpec, items: Sequence[Any]) -> Case:
    return Case(tower, spec, items, tower.encode(items))


@pytest.fixture(
    scope="module",
    params=["minilm", *(f"{name}: {tower}" for name in PAIRS for tower in ("texts", "images"))],
)
def case(
    request: pytest.FixtureRequest, pairs: Callable[[str], DualEncoder], minilm: MiniLM
) -> Case:
    if request.param == "minilm":
        return make_case(minilm, minilm.spec, MORE_TEXTS)
    name, _, tower = str(request.param).partition(": ")
    pair = pairs(name)
    return (
        make_case(pair.texts, pair.spec, MORE_TEXTS)
        if tower == "texts"
        else make_case(pair.images, pair.spec, random_pictures())
    )


def test_rows_are_unit_vectors(case: Case) -> None:
    """(n, dim) float32, C-order, finite, of length 1, one row an item."""
    assert case.rows.shape == (len(case.items), case.spec.dim)
    assert case.rows.dtype == np.float32
    assert case.rows.flags.c_contiguous
    assert np.abs(np.linalg.norm(case.rows, axis=1) - 1).max() < ROUNDING


def test_nothing_gives_no_rows(case: Case) -> None:
    """An empty sequence is a batch like any other."""
    rows = case.tower.encode([])
    assert rows.shape == (0, case.spec.dim)
    assert rows.dtype == np.float32


def test_a_row_does_not_depend_on_the_others(case: Case) -> None:
    """In another order or alone: the same row, but for rounding."""
    assert np.abs(case.rows - case.tower.encode(case.items[::-1])[::-1]).max() < ROUNDING
    for position in range(4):
        assert (
            np.abs(case.rows[position] - case.tower.encode([case.items[position]])[0]).max()
            < ROUNDING
        )


def test_the_same_items_give_the_same_bits(case: Case) -> None:
    """Twice the same call is the same answer: no dropout, no batch statistics, no random choice."""
    assert np.array_equal(case.rows, case.tower.encode(tuple(case.items)))


def test_different_items_give_different_rows(case: Case) -> None:
    """The first two items differ: a tower that ignores its input would pass all other tests."""
    assert np.abs(case.rows[0] - case.rows[1]).max() > 100 * ROUNDING


@pytest.fixture(params=["minilm", *PAIRS])
def texts(
    request: pytest.FixtureRequest, pairs: Callable[[str], DualEncoder], minilm: MiniLM
) -> tuple[TextEncoder, EncoderSpec]:
    if request.param == "minilm":
        return minilm, minilm.spec
    return pairs(request.param).texts, pairs(request.param).spec


def test_token_lengths_tell_what_is_cut(texts: tuple[TextEncoder, EncoderSpec]) -> None:
    """Lengths count every token; beyond `max_tokens` only the beginning of a text counts."""
    tower, spec = texts
    lengths = tower.token_lengths(["", "cat", "cat cat", LONG])
    assert lengths.dtype == np.int64
    assert (np.diff(lengths) > 0).all()
    assert lengths[0] >= 1
    assert lengths[-1] > spec.max_tokens
    assert tower.token_lengths([]).shape == (0,)
    begun_alike = tower.encode([LONG, LONG + "zebra"])
    assert np.abs(begun_alike[0] - begun_alike[1]).max() < ROUNDING


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_is_a_pair(name: str, pairs: Callable[[str], DualEncoder]) -> None:
    """It satisfies the protocol, keeps its towers, and says of its space what can name a folder."""
    pair = pairs(name)
    assert isinstance(pair, DualEncoder)
    assert pair.texts is pair.texts
    assert pair.images is pair.images
    assert pair.spec.space == Path(pair.spec.space).name
    assert pair.spec.dim > 0
    assert pair.spec.batch_size > 0
    assert all(len(digest) == 64 for digest in pair.spec.weights_sha256.values())
    assert load_encoder(pair.spec.name, device="cpu").spec == pair.spec
