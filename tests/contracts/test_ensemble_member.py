"""What every member of the ensemble promises, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imprompt.core.hub.fetch import silent
from imprompt.core.protocols import EnsembleMember
from imprompt.encoders.lite import load_lite
from imprompt.ensemble.blend_config import InterrogatorSettings, KnnSettings
from imprompt.ensemble.captions import CaptionMember
from imprompt.ensemble.interrogator.member import Interrogator
from imprompt.ensemble.knn import Knn
from imprompt.ensemble.regressor import Regressor
from imprompt.store.index_version import open_version
from tests.ensemble.interrogator.lists import COLOURS as COLOURED
from tests.ensemble.worlds import WORDS, build_world, neighbourhood, picture
from tests.retriever.colours import ColourPair

COLOURS = ("red", "lime", "blue", "yellow", "teal")


class NamesColours:
    """A captioner that says the colour of a picture's first pixel."""

    def captions(self, images: Sequence[Image.Image]) -> list[str]:
        return [f"a picture of {image.getpixel((0, 0))}" for image in images]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EnsembleMember]]:
    root: Path = build_world(tmp_path_factory.mktemp("world"))
    with open_version(root) as version:
        yield {
            "knn": Knn(neighbourhood(version), settings=KnnSettings()),
            "vit": Regressor(load_lite().images),
            "interrogator": Interrogator(
                COLOURED,
                settings=InterrogatorSettings(),
                pair=ColourPair(),
                neighbourhood=neighbourhood(version),
                minilm=WORDS,
                announce=silent,
            ),
            "ofa": CaptionMember("ofa", NamesColours(), minilm=WORDS, suffix=", fine details"),
        }


@pytest.fixture(params=["knn", "vit", "interrogator", "ofa"])
def member(request: pytest.FixtureRequest, members: dict[str, EnsembleMember]) -> EnsembleMember:
    found = members[request.param]
    assert found.name == request.param
    return found


def test_rows_are_unit_vectors_of_minilm_space(member: EnsembleMember) -> None:
    """A row of 384 float32 for each picture, of length 1.

    Texts, where there are any, one each and none empty.
    """
    said = member.predict([picture(colour) for colour in COLOURS])
    assert said.vectors.shape == (len(COLOURS), 384)
    assert said.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(said.vectors, axis=1), 1, atol=1e-5)
    if said.texts is not None:
        assert len(said.texts) == len(COLOURS)
        assert all(said.texts)


def test_nothing_gives_no_rows(member: EnsembleMember) -> None:
    """An empty batch is answered by (0, 384), and by no texts."""
    said = member.predict([])
    assert said.vectors.shape == (0, 384)
    assert not said.texts


def test_a_picture_is_answered_alike_alone_and_among_others(member: EnsembleMember) -> None:
    """A row depends on its picture alone, in whatever order and company it comes."""
    images = [picture(colour) for colour in COLOURS]
    together, turned = member.predict(images), member.predict(images[::-1])
    np.testing.assert_allclose(turned.vectors[::-1], together.vectors, atol=1e-5)
    for row, image in enumerate(images):
        alone = member.predict([image])
        np.testing.assert_allclose(alone.vectors[0], together.vectors[row], atol=1e-5)
        if together.texts is not None:
            assert (alone.texts or ())[0] == together.texts[row]


def test_asking_twice_gives_the_same(member: EnsembleMember) -> None:
    """What is remembered of pictures is what was said of them."""
    images = [picture(colour) for colour in COLOURS[:2]]
    first = member.predict(images).vectors.copy()
    np.testing.assert_array_equal(member.predict(images).vectors, first)
    np.testing.assert_allclose(
        member.predict([image.copy() for image in images]).vectors, first, atol=1e-6
    )
