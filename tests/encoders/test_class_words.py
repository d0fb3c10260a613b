"""Words for what the trunks see, from made logits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from imprompt.core.articles import with_article
from imprompt.core.errors import WeightsRejected
from imprompt.encoders import class_words as module
from imprompt.encoders.class_words import SeenWord, class_words, vocabulary
from imprompt.encoders.efficientnet import CLASSES, POOLED_DIM, STAGES_DIM, Activations
from imprompt.encoders.lite import HEAD_PATH, LiteImages
from imprompt.encoders.lite_head import TRUNKS, read_head
from imprompt.evaluation.cached_members import CachedLiteImages, CachedTrunk, pair_pictures

NAMES = vocabulary().names
PARENTS = vocabulary().parents


def logits(chances: dict[str, float]) -> NDArray[np.float32]:
    """Return (1, 1000) logits with these probabilities; the other classes share the rest."""
    rest = (1 - sum(chances.values())) / (CLASSES - len(chances))
    row = [chances.get(name, rest) for name in NAMES]
    return np.log(np.array([row], np.float32))


def said(chances: dict[str, float]) -> list[str]:
    """Return the words for a picture on which both trunks agree."""
    (words,) = class_words([logits(chances)] * 2)
    return [word.text for word in words]


def test_the_file_names_each_class_and_its_parents_are_valid() -> None:
    """1,000 different plain names; a parent has several classes and a threshold."""
    assert len(NAMES) == len(set(NAMES)) == CLASSES
    assert not [
        name for name in NAMES if not name or set(name) & set("(),;:") or name != name.strip()
    ]
    assert vocabulary().unsaid <= set(NAMES) - set(PARENTS)
    for word, parent in PARENTS.items():
        assert 1 < len(set(parent.classes)) == len(parent.classes), word
        assert all(0 <= index < CLASSES for index in parent.classes), word
        assert 0 < parent.least < 1, word
        assert word not in NAMES or NAMES.index(word) in parent.classes, word


def test_known_classes_stand_at_their_numbers() -> None:
    """The order is ImageNet's; the parents hold what WordNet puts below them."""
    assert [NAMES[index] for index in (0, 207, 817, 963, 999)] == [
        "tench",
        "golden retriever",
        "sports car",
        "pizza",
        "toilet paper",
    ]
    assert PARENTS["dog"].classes == tuple(range(151, 269))
    assert len(PARENTS["bird"].classes) == 59
    assert {"castle", "church", "lighthouse"} <= {NAMES[at] for at in PARENTS["building"].classes}


def test_a_sure_class_is_named() -> None:
    """Its probability is the mean of the trunks'."""
    trunks = [logits({"golden retriever": 0.9}), logits({"golden retriever": 0.7})]
    (words,) = class_words(trunks)
    assert words == (SeenWord("golden retriever", words[0].probability),)
    assert words[0].probability == pytest.approx(0.8, abs=1e-4)


def test_twelve_breeds_make_a_dog() -> None:
    """Classes that are each unsure add up to their parent."""
    breeds = [NAMES[index] for index in PARENTS["dog"].classes[::10]][:12]
    (words,) = class_words([logits(dict.fromkeys(breeds, 0.07))] * 2)
    assert [word.text for word in words] == ["dog"]
    assert words[0].probability == pytest.approx(0.84, abs=0.02)


def test_the_most_specific_sure_word_is_said() -> None:
    """A parent is said where a smaller one is unsure, and a class that leads but poorly is not."""
    assert said({"Irish terrier": 0.2, "Border terrier": 0.2}) == ["terrier"]
    assert said({"Irish terrier": 0.2, "pug": 0.2}) == ["dog"]
    assert said({"pug": 0.32, "beagle": 0.28, "whippet": 0.28}) == ["dog"]


def test_nothing_is_said_of_flat_logits() -> None:
    """All unsure, no word; no picture, no answer."""
    assert class_words([np.zeros((2, CLASSES), np.float32)] * 2) == [(), ()]
    assert said({"golden retriever": 0.1, "pizza": 0.2}) == []
    assert class_words([np.zeros((0, CLASSES), np.float32)] * 2) == []


def test_unsaid_classes_are_never_said() -> None:
    """However sure the trunks are, not even those that fill a page."""
    for name in sorted(vocabulary().unsaid):
        assert name not in said({name: 0.99})
    assert said({"comic book": 0.6, "castle": 0.35}) == ["castle"]


def test_no_words_of_a_picture_share_a_class() -> None:
    """Never a word and its parent, never more than three, the likeliest first."""
    rng = np.random.default_rng(0)
    several = 0
    for _ in range(300):
        row = np.zeros((1, CLASSES), np.float32)
        row[0, rng.choice(CLASSES, 3)] = rng.uniform(8, 9, 3)
        (words,) = class_words([row])
        groups = [
            set(PARENTS[word.text].classes) if word.text in PARENTS else {NAMES.index(word.text)}
            for word in words
        ]
        assert len(words) <= 3
        assert sum(map(len, groups)) == len(set().union(*groups))
        assert [word.probability for word in words] == sorted(
            (word.probability for word in words), reverse=True
        )
        several += len(words) > 1
    assert several


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("golden retriever", "a golden retriever"),
        ("owl", "an owl"),
        ("Airedale terrier", "an Airedale terrier"),
        ("unicycle", "a unicycle"),
        ("umbrella", "an umbrella"),
        ("sunglasses", "sunglasses"),
        ("food", "food"),
        ("hourglass", "an hourglass"),
        ("iPod", "an iPod"),
    ],
)
def test_articles(text: str, spoken: str) -> None:
    """By sound; plurals and substances take none."""
    assert with_article(text) == spoken


def test_a_damaged_file_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which file, and what to do."""
    monkeypatch.setattr(module, "WORDS_PATH", HEAD_PATH)
    vocabulary.cache_clear()
    try:
        with pytest.raises(WeightsRejected, match="lite_head"):
            vocabulary()
    finally:
        monkeypatch.undo()
        vocabulary.cache_clear()


class CountedTrunk(CachedTrunk):
    """A trunk that answers the first row for each picture and counts its passes."""

    passes = 0

    def activations(self, images: object) -> Activations:
        self.passes += 1
        return self.cached


def made_trunk(name: str, chances: dict[str, float]) -> Activations:
    """Return activations of one picture with these probabilities."""
    ones = np.ones((1, POOLED_DIM), np.float32), np.ones((1, STAGES_DIM[name]), np.float32)
    return Activations(*ones, logits(chances))


def test_words_and_rows_share_one_pass_of_the_trunks() -> None:
    """A picture that was encoded is not seen again for its words."""
    trunks = {name: CountedTrunk(made_trunk(name, {"pizza": 0.9})) for name in TRUNKS}
    images = LiteImages(trunks, read_head(HEAD_PATH))
    pictures = [Image.new("RGB", (8, 8), "red")]
    assert images.encode(pictures).shape == (1, 384)
    assert [word.text for word in images.words(pictures)[0].nouns] == ["pizza"]
    assert {trunk.passes for trunk in trunks.values()} == {1}


def test_cached_pictures_of_pairs_have_words_too() -> None:
    """The trunks' kept logits are enough."""
    trunks = {name: CachedTrunk(made_trunk(name, {"castle": 0.9})) for name in TRUNKS}
    images = CachedLiteImages(trunks, read_head(HEAD_PATH))
    (words,) = images.words(pair_pictures([Image.new("RGB", (8, 8))], np.array([0])))
    assert [word.text for word in words.nouns] == ["castle"]
