"""A small world for the ensemble: the colours of the retriever's tests, with a bag of words in place of MiniLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from imprompt.core.protocols import EnsembleMember
from imprompt.core.values import Prediction
from imprompt.encoders.caching import CachedEncoder
from imprompt.encoders.minilm import SPACE
from imprompt.ensemble.blend_config import BlendConfig, KnnSettings
from imprompt.ensemble.ensemble import Ensemble
from imprompt.ensemble.knn import Knn
from imprompt.ensemble.neighbourhood import Neighbourhood
from imprompt.indexer.build import build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.index_version import IndexVersion
from tests.indexer.doubles import BagOfWords
from tests.retriever.colours import PROMPTS, ColourPair

WORDS = BagOfWords(SPACE, dim=384)
"""Stands for MiniLM: 384 numbers, by words."""


def build_world(folder: Path, *, with_words: bool = True) -> Path:
    """An index of prompts about colours, with the vectors that the ensemble contributions in unless they are left out."""
    corpus = folder / "colours.txt"
    corpus.write_text("\n".join(PROMPTS), "utf-8")
    build_index(
        folder / "index",
        [parse_corpus(str(corpus))],
        ColourPair(),
        extra=[WORDS] if with_words else [],
    )
    return folder / "index"


def picture(colour: str) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (20, 20), colour)


class Sayer:
    """A member that says the same of every picture; remembers how many came at once."""

    def __init__(self, name: str, text: str, *, mute: bool = False) -> None:
        self.name = name
        self.text = text
        self.mute = mute
        self.batches: list[int] = []

    def predict(self, images: Sequence[Image.Image]) -> Prediction:
        self.batches.append(len(images))
        texts = (self.text,) * len(images)
        return Prediction(WORDS.encode(texts), None if self.mute else texts)


def neighbourhood(version: IndexVersion, *, k: int = 5) -> Neighbourhood:
    return Neighbourhood(version, CachedEncoder(ColourPair()), k=k)


def ensemble(
    version: IndexVersion, *others: EnsembleMember, weights: dict[str, float], k: int = 5
) -> Ensemble:
    """`knn` over the world, and other members."""
    around = neighbourhood(version, k=k)
    blend_config = BlendConfig(name="test", weights=weights)
    return Ensemble(
        [Knn(around, settings=KnnSettings()), *others],
        blend_config,
        neighbourhood=around,
        minilm=WORDS,
    )


def save_pictures(folder: Path, n: int) -> list[str]:
    """`n` pictures of different colours; their ids, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"{(number * 7919) % 1000:03d}x" for number in range(n)]
    for number, name in enumerate(ids):
        colour = (255 * (number % 3 == 0) + number, 40 * (number % 5), 255 * (number % 3 == 1))
        Image.new("RGB", (24, 24), tuple(min(part, 255) for part in colour)).save(
            folder / f"{name}.png"
        )
    return sorted(ids)
