"""Builders for the ensemble's tests: an index of colours, and a bag of words instead of MiniLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st
from PIL import Image

from imprompt.core.protocols import EnsembleMember
from imprompt.core.values import Prediction, Prompt, prompt_key
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


def build_colour_index(folder: Path, *, with_words: bool = True) -> Path:
    """Build an index of prompts about colours, with or without the ensemble's vectors."""
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
    """Return a picture of one colour."""
    return Image.new("RGB", (20, 20), colour)


def prompts_of(
    texts: Sequence[str], *, shown: Sequence[str] | None = None, first_row: int = 0
) -> list[Prompt]:
    """Return prompts with consecutive row ids; `shown` is what the encoder read."""
    return [
        Prompt(row, prompt_key(text), text, read, "p.txt", str(row), 1, row)
        for row, (text, read) in enumerate(zip(texts, shown or texts, strict=True), first_row)
    ]


_PARTS = (
    *("a red fox", "a red fox in the snow", "two foxes", "a wolf by a lake", "a lake at night"),
    *("oil painting", "oil on canvas", "painting", "photograph", "by greg rutkowski", "snow"),
    *("greg rutkowski", "by alphonse mucha and wlop", "warm light", "golden hour", "night"),
    *("soft light", "wide shot", "close up", "35mm lens", "teal and orange", "vivid colors"),
    *("sharp focus", "highly detailed", "8k", "award - winning", "cyberpunk", "retro style"),
    *("a very long phrase of words that nobody could want to read again", "of the", "...", "lake"),
)


def prompts_with_phrases() -> st.SearchStrategy[list[str]]:
    """Draw texts of prompts that share phrases, among some that are anything."""
    part = st.sampled_from(_PARTS) | st.text(max_size=12)
    text = st.lists(part, max_size=8).map(", ".join)
    return st.lists(text, max_size=12)


class FixedMember:
    """A member with the same text for every picture; it records the sizes of batches."""

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
    """Return an ensemble of `knn` over the index, and other members."""
    around = neighbourhood(version, k=k)
    blend_config = BlendConfig(name="test", weights=weights)
    return Ensemble(
        [Knn(around, settings=KnnSettings()), *others],
        blend_config,
        neighbourhood=around,
        minilm=WORDS,
    )


def save_pictures(folder: Path, n: int) -> list[str]:
    """Save `n` pictures of different colours; return their ids, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"{(number * 7919) % 1000:03d}x" for number in range(n)]
    for number, name in enumerate(ids):
        colour = (255 * (number % 3 == 0) + number, 40 * (number % 5), 255 * (number % 3 == 1))
        Image.new("RGB", (24, 24), tuple(min(part, 255) for part in colour)).save(
            folder / f"{name}.png"
        )
    return sorted(ids)
