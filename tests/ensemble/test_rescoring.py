"""A second encoder's opinion of the neighbours: its formula, what it changes, and an index that has none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL.Image import Image

from imprompt.core.errors import ConfigError, MemberUnavailable
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.caching import CachedEncoder
from imprompt.ensemble.blend_config import (
    BlendConfig,
    KnnSettings,
    check_blend_config,
    write_blend_config,
)
from imprompt.ensemble.knn import Knn, regress
from imprompt.ensemble.neighbourhood import Neighbourhood
from imprompt.ensemble.rescoring import SecondLook, rescored
from imprompt.indexer.build import build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.index_version import open_version
from tests.conftest import Imprompt
from tests.ensemble.worlds import WORDS, Sayer, picture
from tests.retriever.colours import PROMPTS, ColourPair, ColourPictures, ColourTexts

cosines_of = arrays(np.float32, (3, 6), elements=st.floats(-1, 1, width=32))


class TurnedTexts(ColourTexts):
    """Reads "green" as what others call "blue", and the other way round."""

    def encode(self, items: Sequence[str]) -> Vectors:
        turned = {"green": "blue", "blue": "green"}
        return super().encode(
            [" ".join(turned.get(word, word) for word in text.split()) for text in items]
        )


class TurnedPictures(ColourPictures):
    """Sees green where others see red."""

    def encode(self, items: Sequence[Image]) -> Vectors:
        return np.ascontiguousarray(super().encode(items)[:, [1, 0, 2, 3]])


def turned_pair() -> ColourPair:
    return ColourPair(EncoderSpec("turned", "turned-space", 4, 77), TurnedTexts(), TurnedPictures())


def build_world(folder: Path) -> Path:
    (folder / "colours.txt").write_text("\n".join(PROMPTS), "utf-8")
    corpus = parse_corpus(str(folder / "colours.txt"))
    build_index(folder / "index", [corpus], ColourPair(), extra=[WORDS], also=[turned_pair()])
    return folder / "index"


def test_the_formula_by_hand() -> None:
    """Standard scores of each encoder among the neighbours, mixed, on the scale of the first."""
    first = np.array([[0.9, 0.6, 0.3, -np.inf]], np.float32)
    second = np.array([[0.21, 0.25, 0.2, -np.inf]], np.float32)
    z_first = (first[0, :3] - 0.6) / np.std([0.9, 0.6, 0.3])
    z_second = (second[0, :3] - 0.22) / np.std([0.21, 0.25, 0.2])
    expected = 0.6 + np.std([0.9, 0.6, 0.3]) * (0.75 * z_first + 0.25 * z_second)
    found = rescored(first, second, share=0.25)
    np.testing.assert_allclose(found[0, :3], np.minimum(expected, 1), atol=1e-6)
    assert found[0, 3] == -np.inf


@settings(max_examples=60, deadline=None)
@given(cosines_of, cosines_of, st.floats(0, 1))
def test_shares_go_from_the_first_to_the_second(
    first: NDArray[np.float32], second: NDArray[np.float32], share: float
) -> None:
    """With none the cosines stay; with all, a prompt that the second puts before another is not put behind it; never above 1."""
    np.testing.assert_allclose(rescored(first, second, share=0), first, atol=1e-5)
    assert (rescored(first, second, share=share) <= 1).all()
    assert np.isfinite(rescored(first, second, share=share)).all()
    for row, by in zip(rescored(first, second, share=1), second, strict=True):
        assert (np.diff(row[np.argsort(by, kind="stable")]) >= -1e-5).all()


def test_knn_rescores_prompts_and_captions(tmp_path: Path) -> None:
    """Cosines of the stored vectors, and of the texts of others, in the second space; computed here from the encoders at once."""
    captioner = Sayer("sayer", "blue castle")
    chosen = KnnSettings(rescore="turned", rescore_share=0.7)
    with open_version(build_world(tmp_path)) as version:
        around = Neighbourhood(version, CachedEncoder(ColourPair()), k=len(PROMPTS))
        second = SecondLook(version, turned_pair())
        knn = Knn(around, settings=chosen, captioners=[captioner], minilm=WORDS, second=second)
        images = [picture("red"), picture("blue"), picture("lime")]
        said = knn.predict(images).vectors
        plain = (
            Knn(around, settings=KnnSettings(), captioners=[captioner], minilm=WORDS)
            .predict(images)
            .vectors
        )
        assert knn.predict([]).vectors.shape == (0, 384)
    texts = [*PROMPTS, "blue castle"]
    cosines = [
        pair.images.encode(images) @ pair.texts.encode(texts).T
        for pair in (ColourPair(), turned_pair())
    ]
    mixed = rescored(cosines[0], cosines[1], share=0.7)
    expected = regress(mixed, np.repeat(WORDS.encode(texts)[None], 3, axis=0), power=6)
    np.testing.assert_allclose(said, expected, atol=5e-3)  # stored as float16
    assert np.abs(said - plain).max() > 0.05


def test_an_index_without_the_second_space_names_the_command(lite_index: Path) -> None:
    """What is missing, and how to get it."""
    from imprompt.encoders.lite import load_lite
    from imprompt.ensemble.members import load_ensemble

    blend_config = BlendConfig(
        name="x", weights={"knn": 1}, knn=KnnSettings(rescore="ViT-L-14/openai")
    )
    with (
        open_version(lite_index) as version,
        pytest.raises(
            MemberUnavailable,
            match=r"no vectors of ViT-L-14/openai.*build-index --also ViT-L-14/openai --replace",
        ),
    ):
        load_ensemble(blend_config, version, load_lite(), offline=True)
    with pytest.raises(ConfigError, match="rescore_share"):
        check_blend_config(
            msgspec.structs.replace(blend_config, knn=KnnSettings(rescore_share=1.5))
        )


def test_an_index_of_two_encoders_from_the_command_line(
    tmp_path: Path, tiny_clip: Path, imprompt: Imprompt
) -> None:
    """`build-index --also` stores the second encoder's vectors, a blend config rescores with them, and `add` makes more."""
    (tmp_path / "p.txt").write_text("a red circle\na blue square\na green ring\n", "utf-8")
    index = tmp_path / "index"
    built = imprompt(
        "build-index",
        "--corpus",
        tmp_path / "p.txt",
        "--also",
        tiny_clip,
        "--index",
        index,
        "--json",
    )
    assert built.code == 0, built.err
    names = [encoder["name"] for encoder in built.lines[0]["encoders"]]
    assert names == ["lite", "minilm", str(tiny_clip)]
    picture("red").save(tmp_path / "red.png")
    vectors = []
    for number, chosen in enumerate(
        (KnnSettings(), KnnSettings(rescore=str(tiny_clip), rescore_share=1))
    ):
        write_blend_config(
            tmp_path / f"{number}.json", BlendConfig(name="r", weights={"knn": 1}, knn=chosen)
        )
        asked = imprompt(
            "query",
            tmp_path / "red.png",
            "--explain",
            "--blend",
            tmp_path / f"{number}.json",
            "--index",
            index,
            "--json",
        )
        assert asked.code == 0, asked.err
        vectors.append(asked.lines[0]["explanation"]["vector"])
    assert vectors[0] != vectors[1]
    (tmp_path / "more.txt").write_text("a green cross\n", "utf-8")
    added = imprompt("add", tmp_path / "more.txt", "--index", index, "--json")
    assert added.code == 0, added.err
    assert {
        space: sum(shard["rows"] for shard in shards)
        for space, shards in added.lines[0]["manifest"]["shards"].items()
    } == {encoder["space"]: 4 for encoder in built.lines[0]["encoders"]}
