"""The search around pictures: among all prompts, and among those that pass filters."""

from __future__ import annotations

import numpy as np
import pytest

from imprompt.core.values import NO_HIT, Selection
from imprompt.encoders.caching import CachedEncoder
from imprompt.encoders.lite import prompt_mean
from imprompt.ensemble.blend_config import KnnSettings
from imprompt.ensemble.knn import Knn, neighbour_weights
from imprompt.ensemble.neighbourhood import Neighbourhood
from imprompt.retriever.filters import PassingPrompts
from imprompt.store.index_version import IndexVersion
from tests.ensemble.builders import WORDS, neighbourhood, picture
from tests.retriever.colours import PROMPTS, ColourPair

PICTURES = [picture("red"), picture("lime"), picture("blue"), picture("yellow")]


def texts(around: Neighbourhood, k: int = 8) -> list[list[str]]:
    """Return the prompts around each picture."""
    return [[prompt.text for prompt in found] for found in around.prompts(PICTURES, k)]


def test_prompts_come_nearest_first(version: IndexVersion) -> None:
    """At most k of them and at most those that were searched for."""
    found = texts(neighbourhood(version, k=8))
    assert [some[0] for some in found] == ["red", "green", "blue", "red and green"]
    assert all(sorted(some) == sorted(PROMPTS) for some in found)
    assert texts(neighbourhood(version, k=8), 3) == [some[:3] for some in found]
    assert texts(neighbourhood(version, k=3)) == [some[:3] for some in found]


@pytest.mark.parametrize("word", ["red", "and", "green"])
def test_what_a_filter_refuses_is_not_around(version: IndexVersion, word: str) -> None:
    """By their rows or by their texts, the rest keeps its order, and empty places have no row."""
    everything = texts(neighbourhood(version, k=8))
    wanted = [[text for text in some if word not in text] for some in everything]
    rows = Selection(np.array([row for row, text in enumerate(PROMPTS) if word not in text]))
    for passing in (
        PassingPrompts(rows),
        PassingPrompts(accepts=lambda text: word not in text),
        PassingPrompts(rows, accepts=lambda text: text != ""),
    ):
        around = neighbourhood(version, k=8).among(passing)
        assert texts(around) == wanted
        hits = around.surroundings(PICTURES).hits
        assert ((hits.ids == NO_HIT) == np.isneginf(hits.scores)).all()
        assert (np.diff(hits.scores[:, : len(rows.row_ids)], axis=1) <= 0).all()
    near = neighbourhood(version, k=2).among(PassingPrompts(accepts=lambda text: word not in text))
    assert texts(near) == [some[:2] for some in wanted], "refused ones cost no place"


def test_a_picture_without_prompts_gets_the_mean_of_real_ones(version: IndexVersion) -> None:
    """Of knn; a picture beside it is answered as ever."""
    none = neighbourhood(version).among(PassingPrompts(accepts=lambda _text: False))
    said = Knn(none, settings=KnnSettings()).predict(PICTURES)
    assert said.texts == ("",) * 4
    mean = prompt_mean() / np.linalg.norm(prompt_mean())
    np.testing.assert_allclose(said.vectors, np.tile(mean, (4, 1)), atol=1e-6)
    row_ids, cosines = none.nearest(PICTURES, WORDS.encode(["red"] * 4))
    assert (row_ids == NO_HIT).all()
    assert np.isneginf(cosines).all()
    cosines = np.array([[0.9, -np.inf], [-np.inf, -np.inf]], np.float32)
    for floor in (-1.0, 0.95):
        weights = neighbour_weights(cosines, power=0, floor=floor)
        np.testing.assert_array_equal(weights, [[1, 0], [0, 0]])


def test_the_effort_is_that_of_the_search(
    version: IndexVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without a filter."""
    asked: list[object] = []
    index = version.index(version.space)
    search = index.search

    def noting(*words: object, **options: object) -> object:
        asked.append(options["effort"])
        return search(*words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(index, "search", noting)
    monkeypatch.setattr(type(version), "index", lambda _version, _space: index)
    around = Neighbourhood(version, CachedEncoder(ColourPair()), k=3, effort=0.25)
    around.surroundings(PICTURES)
    around.among(PassingPrompts(accepts=lambda _text: True)).surroundings(PICTURES)
    assert asked == [0.25, 0.25]
