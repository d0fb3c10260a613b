"""kNN regression: its formula, its neighbours, and captions among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from imprompt.core.errors import MemberUnavailable
from imprompt.core.values import Vectors, unit_rows
from imprompt.ensemble.blend_config import KnnSettings
from imprompt.ensemble.knn import Knn, neighbour_weights, regress
from imprompt.ensemble.neighbourhood import Neighbourhood, output_vectors
from imprompt.store.index_version import IndexVersion, open_version
from tests.ensemble.worlds import WORDS, Sayer, build_world, neighbourhood, picture
from tests.retriever.colours import PROMPTS, ColourPair

cosines_of = arrays(np.float32, (3, 6), elements=st.floats(-1, 1, width=32))


def test_the_formula_of_the_notebook() -> None:
    """Weights 1 / (d^6 + 1e-4), computed here one by one, then a mean of length 1."""
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-0.2, 1, (4, 7)).astype(np.float32)
    vectors = rng.normal(size=(4, 7, 384)).astype(np.float32)
    for row in range(4):
        total = sum(vectors[row, i] / ((1 - float(cosines[row, i])) ** 6 + 1e-4) for i in range(7))
        np.testing.assert_allclose(
            regress(cosines, vectors, power=6)[row], total / np.linalg.norm(total), atol=1e-5
        )


@settings(max_examples=60, deadline=None)
@given(cosines_of, st.floats(0, 12), st.floats(-1, 1))
def test_weights_are_shares_that_grow_with_the_cosine(
    cosines: NDArray[np.float32], power: float, floor: float
) -> None:
    """They add up to 1, a nearer neighbour never weighs less, and what lies below the floor weighs nothing."""
    weights = neighbour_weights(cosines, power=power, floor=floor)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-9)
    for row, shares in zip(cosines, weights, strict=True):
        below = row < floor
        if below.all():
            assert shares[row.argmax()] == 1
        else:
            assert not shares[below].any()
            assert (np.diff(shares[np.argsort(row, kind="stable")]) >= -1e-12).all()


def test_places_without_a_neighbour_weigh_nothing() -> None:
    """An index smaller than k pads its hits; the padding has no say."""
    cosines = np.array([[0.9, 0.5, -np.inf]], np.float32)
    weights = neighbour_weights(cosines, power=6)
    assert weights[0, 2] == 0
    np.testing.assert_array_equal(weights[:, :2], neighbour_weights(cosines[:, :2], power=6))


def test_predicts_from_the_prompts_of_the_index(version: IndexVersion) -> None:
    """The vector is the weighted mean of the prompts' stored vectors; the text is the prompt nearest to it."""
    images = [picture("red"), picture("blue")]
    said = Knn(neighbourhood(version, k=len(PROMPTS)), settings=KnnSettings()).predict(images)
    cosines = np.array(
        [ColourPair().texts.encode(PROMPTS) @ row for row in ColourPair().images.encode(images)]
    )
    expected = regress(cosines, np.array([WORDS.encode(PROMPTS)] * 2), power=6)
    np.testing.assert_allclose(said.vectors, expected, atol=2e-3)  # stored as float16
    assert said.texts == tuple(
        PROMPTS[best] for best in (expected @ WORDS.encode(PROMPTS).T).argmax(axis=1)
    )


def test_k_bounds_the_neighbours(version: IndexVersion) -> None:
    """With k = 1 the answer is the nearest prompt's own vector; a k beyond the index is cut."""
    one = Knn(neighbourhood(version, k=1), settings=KnnSettings()).predict([picture("lime")])
    np.testing.assert_allclose(one.vectors, WORDS.encode(["green"]), atol=1e-3)
    assert neighbourhood(version, k=1000).surroundings([picture("lime")]).hits.ids.shape == (
        1,
        len(PROMPTS),
    )


def test_captions_of_others_join_the_prompts(version: IndexVersion) -> None:
    """A caption that fits the picture pulls the mean towards itself; one that does not is all but ignored."""
    images = [picture("red")]
    around = neighbourhood(version)
    pair = ColourPair()

    def said(*captioners: Sayer) -> Vectors:
        vectors = (
            Knn(around, settings=KnnSettings(), captioners=captioners, minilm=WORDS)
            .predict(images)
            .vectors
        )
        row: Vectors = vectors[0]
        return row

    fitting, wrong, silent = (
        Sayer("a", "red castle"),
        Sayer("b", "blue castle"),
        Sayer("c", "x", mute=True),
    )
    castle = WORDS.encode(["castle"])[0]
    assert said(fitting) @ castle > said() @ castle + 0.2
    assert said(wrong) @ castle < said() @ castle + 0.01
    np.testing.assert_array_equal(said(silent), said())
    found = around.surroundings(images)
    cosines = np.append(
        found.hits.scores[0], pair.texts.encode(["red castle"])[0] @ found.pictures[0]
    )[None]
    vectors = np.concatenate([found.vectors, WORDS.encode(["red castle"])[None]], axis=1)
    np.testing.assert_allclose(said(fitting), regress(cosines, vectors, power=6)[0], atol=1e-6)


def test_no_pictures_give_no_rows(version: IndexVersion) -> None:
    """An empty batch is answered by (0, 384)."""
    assert Knn(neighbourhood(version), settings=KnnSettings()).predict([]).vectors.shape == (0, 384)


def test_the_mean_of_the_corpus(version: IndexVersion) -> None:
    """The direction of the mean of all prompts' vectors, of length 1."""
    expected = unit_rows(WORDS.encode(PROMPTS).mean(axis=0, keepdims=True))[0]
    np.testing.assert_allclose(neighbourhood(version).mean, expected, atol=1e-3)


def test_an_index_without_minilm_vectors_is_refused(tmp_path: Path) -> None:
    """The message says what is missing and how to get it."""
    with open_version(build_world(tmp_path, with_words=False)) as old:
        with pytest.raises(MemberUnavailable, match=r"no MiniLM vectors.*build-index --replace"):
            output_vectors(old)
        with pytest.raises(MemberUnavailable):
            Neighbourhood(old, ColourPair(), k=5)
