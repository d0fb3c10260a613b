"""The composer: grammar of a prompt, its nearness to the target, and what changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imprompt.core.protocols import TextEncoder
from imprompt.core.values import Vectors, unit_rows
from imprompt.encoders.class_words import SeenWord, SeenWords
from imprompt.encoders.lite import prompt_mean
from imprompt.encoders.minilm import SPACE, load_minilm
from imprompt.ensemble.composer import (
    CENTRED_SHARE,
    LEAST_GAIN,
    MOST_OF_ROLE,
    MOST_PHRASES,
    MOST_WORDS,
    PICTURE_SHARE,
    Composer,
    Composition,
)
from imprompt.ensemble.phrases import (
    LONGEST_SUBJECT,
    Sources,
    content_words,
    find_candidates,
    repeats,
    words,
)
from tests.ensemble.builders import WORDS, prompts_of, prompts_with_phrases
from tests.indexer.doubles import BagOfWords

AROUND = (
    "a lighthouse on a cliff at dusk, oil painting, warm light, by greg rutkowski",
    "a lighthouse in a storm, oil painting, dramatic lighting, highly detailed",
    "a stone tower by the sea, oil on canvas, warm light, highly detailed, calm sea",
    "a harbour at night, watercolor, calm sea, wide shot, muted colors",
    "a ship in a storm, wide shot, dramatic lighting, by greg rutkowski, muted colors",
    "a cat on a sofa, macro photograph, sharp focus, close up, 35mm lens",
    "a cat, macro photograph, sharp focus, close up, studio portrait",
)


@pytest.fixture(scope="module")
def minilm() -> Iterator[TextEncoder]:
    yield load_minilm()


def compose(
    targets: Vectors, sources: Sequence[Sources], *, minilm: TextEncoder
) -> list[Composition]:
    return Composer(minilm).compose(targets, [find_candidates(each) for each in sources])


def composed(target: str | Vectors, sources: Sources, minilm: TextEncoder = WORDS) -> Composition:
    """Return the prompt that is composed to be near a text or a (384,) row."""
    row = minilm.encode([target])[0] if isinstance(target, str) else target
    (found,) = compose(row[None], [sources], minilm=minilm)
    return found


def score(text: str, target: Vectors, minilm: TextEncoder = WORDS) -> float:
    """What the composer judges by: a mix of the plain and the centred cosine."""
    row = minilm.encode([text])[0]
    centred = unit_rows(np.array([row, target]) - prompt_mean())
    plain = float(row @ target)
    return (1 - CENTRED_SHARE) * plain + CENTRED_SHARE * float(centred[0] @ centred[1])


def check_grammar(found: Composition, sources: Sources) -> None:
    """One subject first, then details, of each role and in all not too many, nothing twice."""
    texts = [phrase.text for phrase in found.phrases]
    assert found.prompt == ", ".join(texts)
    candidates = find_candidates(sources)
    assert bool(candidates.subjects) == bool(texts)
    if not texts:
        assert found == Composition("", (), 0.0)
        return
    assert found.phrases[0] in candidates.subjects
    assert set(found.phrases[1:]) <= set(candidates.details)
    roles = Counter(phrase.role for phrase in found.phrases)
    assert all(n <= MOST_OF_ROLE[name] for name, n in roles.items())
    assert len(texts) <= MOST_PHRASES
    assert len(found.prompt.split()) <= MOST_WORDS
    assert len(words(texts[0])) <= LONGEST_SUBJECT
    for place in range(1, len(texts)):
        assert not repeats(content_words(", ".join(texts[:place])), texts[place])


def test_a_prompt_is_a_subject_and_what_brings_it_nearer(minilm: TextEncoder) -> None:
    """By the real MiniLM; the cosine is that of the prompt."""
    sources = Sources(prompts_of(AROUND))
    wanted = "oil painting of a lighthouse in dramatic lighting, stormy calm sea, by greg rutkowski"
    found = composed(wanted, sources, minilm)
    check_grammar(found, sources)
    assert found.phrases[0].text.startswith("a lighthouse")
    assert len(found.phrases) > 2
    assert {"oil painting", "by greg rutkowski"} <= {phrase.text for phrase in found.phrases}
    assert not {"macro photograph", "sharp focus"} & {phrase.text for phrase in found.phrases}
    target = minilm.encode([wanted])[0]
    assert found.cosine == pytest.approx(float(minilm.encode([found.prompt])[0] @ target), abs=1e-4)
    (alone,) = minilm.encode([found.phrases[0].text]) @ target[:, None]
    assert found.cosine > float(alone[0]) + 0.1


@pytest.mark.parametrize("target", ["a cat up close, macro photograph", "a harbour, watercolor"])
def test_every_phrase_helps(minilm: TextEncoder, target: str) -> None:
    """Each adds something to the score of those before it."""
    found = composed(target, Sources(prompts_of(AROUND)), minilm)
    row = minilm.encode([target])[0]
    texts = [phrase.text for phrase in found.phrases]
    scores = [score(", ".join(texts[: n + 1]), row, minilm) for n in range(len(texts))]
    assert len(scores) > 1
    assert (np.diff(scores) >= LEAST_GAIN - 1e-4).all()


def test_no_role_is_overdone() -> None:
    """Three artists fit the target, and two are taken; of colours one."""
    target = "a fox, by wlop, by mucha, by artgerm, vivid colors, muted tones"
    sources = Sources(prompts_of([target] * 2))
    found = composed(target, sources)
    check_grammar(found, sources)
    roles = Counter(phrase.role for phrase in found.phrases)
    assert (roles["artist"], roles["colour"]) == (2, 1)


def test_a_prompt_ends_before_it_is_too_long() -> None:
    """However many phrases of five words would bring it nearer."""
    details = [" ".join(f"{letter}{n}word" for n in range(5)) for letter in "abcdefgh"]
    subject = " ".join(f"s{n}word" for n in range(LONGEST_SUBJECT))
    details = [
        f"{text.replace('0word', role)}"
        for text, role in zip(
            details,
            ("photo", "cyberpunk", "sunset", "closeup", "sepia", "elegant", "ink", "hd"),
            strict=True,
        )
    ]
    sources = Sources(prompts_of([", ".join([subject, *details])] * 2))
    found = composed(" ".join([subject, *details]), sources)
    check_grammar(found, sources)
    assert MOST_WORDS - 5 < len(found.prompt.split()) <= MOST_WORDS


def test_what_is_seen_is_preferred() -> None:
    """Of two subjects that are equally near, that which the encoder sees."""
    sources = Sources(prompts_of(["a fox", "a ship"]), words=SeenWords((SeenWord("ship", 0.9),)))
    target = unit_rows(WORDS.encode(["a fox"]) + WORDS.encode(["a ship"]))[0]
    assert composed(target, sources).prompt == "a ship"
    assert composed("a fox", sources).prompt == "a fox", "unless the other is far nearer"


def test_what_may_not_be_said_is_not_in_the_prompt() -> None:
    """However near it is."""
    sources = Sources(prompts_of(AROUND), says=lambda text: "light" not in text)
    found = composed("lighthouse, warm light, dramatic lighting, calm sea", sources)
    check_grammar(found, sources)
    assert "light" not in found.prompt
    assert "calm sea" in found.prompt


def test_nothing_to_say_is_an_empty_prompt() -> None:
    """Alone, and between pictures that have prompts, which keep their places."""
    empty, silent = Sources(()), Sources(prompts_of(AROUND), says=lambda _text: False)
    full = Sources(prompts_of(AROUND))
    nothing = Composition("", (), 0.0)
    targets = WORDS.encode(["a cat", "a ship", "a harbour at night", "a cat", "a cat"])
    assert compose(targets[:1], [empty], minilm=WORDS) == [nothing]
    assert compose(targets[:0], [], minilm=WORDS) == []
    found = compose(targets, [empty, full, full, silent, full], minilm=WORDS)
    assert found[0] == found[3] == nothing
    assert [each.phrases[0].text for each in (found[1], found[2], found[4])] == [
        *("a ship", "a harbour at night", "a cat")
    ]
    caption = Sources((), captions=("a lone tower",))
    assert composed("a cat", caption).prompt == "a lone tower"


def same(left: Sequence[Composition], right: Sequence[Composition]) -> None:
    """The same phrases; the cosines may differ by rounding."""
    assert [found.phrases for found in left] == [found.phrases for found in right]
    np.testing.assert_allclose(
        [found.cosine for found in left], [found.cosine for found in right], atol=1e-5
    )


def test_a_batch_changes_no_answer(minilm: TextEncoder) -> None:
    """Each picture has the prompt that it has alone, and again."""
    wanted = ["a cat, close up", "a lighthouse, oil painting", "a storm at sea, dark"]
    sources = [
        Sources(prompts_of(AROUND[:4])),
        Sources(prompts_of(AROUND), words=SeenWords((SeenWord("castle", 0.8),))),
        Sources(prompts_of(AROUND[2:], first_row=9), captions=("waves and rain",)),
    ]
    targets = minilm.encode(wanted)
    batch = compose(targets, sources, minilm=minilm)
    alone = [
        compose(target[None], [each], minilm=minilm)[0]
        for target, each in zip(targets, sources, strict=True)
    ]
    same(batch, alone)
    same(batch, compose(targets, sources, minilm=minilm))
    same(batch[::-1], compose(targets[::-1], sources[::-1], minilm=minilm))


class WordsAlone(BagOfWords):
    """A bag of words to which "cat," and "cat" are the same."""

    def encode(self, items: Sequence[str]) -> Vectors:
        return super().encode([text.replace(",", "") for text in items])


BLEND = WordsAlone(SPACE, dim=384)
TOWER = WordsAlone("pictures", dim=250)
"""Stand for MiniLM and the text tower of an index: another space, with another dimension."""


def judged(target: str, picture: str, sources: Sources) -> Composition:
    """Return the prompt by a blend that is near to one text and a picture that shows another."""
    (found,) = Composer(BLEND, TOWER).compose(
        BLEND.encode([target]), [find_candidates(sources)], TOWER.encode([picture])
    )
    return found


def test_the_picture_judges_beside_the_blend() -> None:
    """What the tower sees in the picture comes first where the blend is near to both."""
    sources = Sources(prompts_of(AROUND))
    blend = "a cat, macro photograph, a harbour at night, watercolor"
    cat, harbour = (
        judged(blend, picture, sources)
        for picture in ("a cat, sharp focus, macro photograph", "a harbour at night, watercolor")
    )
    for found in (cat, harbour):
        check_grammar(found, sources)
    assert cat.phrases[0].text == "a cat"
    assert harbour.phrases[0].text == "a harbour at night"
    assert "macro photograph" in cat.prompt
    assert "macro photograph" not in harbour.prompt
    target = BLEND.encode([blend])[0]
    for found in (cat, harbour):  # still that with the blend, whoever judged
        assert found.cosine == pytest.approx(float(BLEND.encode([found.prompt])[0] @ target))


def test_both_judges_weigh_the_same() -> None:
    """Each phrase is the best continuation by the mean of both scores, on the blend's scale.

    The formula is written out once more here, over all candidates, of which there are few enough
    for the search to judge every one.
    """
    sources = Sources(prompts_of(AROUND))
    candidates = find_candidates(sources)
    blend = "a ship in a storm, wide shot, oil painting, muted colors, dramatic lighting"
    picture = "a stone tower, calm sea, warm light, oil painting, by greg rutkowski"
    target, seen = BLEND.encode([blend])[0], TOWER.encode([picture])[0]

    def both(texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.array([score(text, target, BLEND) for text in texts]), TOWER.encode(texts) @ seen

    phrases = [phrase.text for phrase in (*candidates.subjects, *candidates.details)]
    spread = [values.std() for values in both(phrases)]

    def mixed(texts: Sequence[str]) -> NDArray[np.float64]:
        by_blend, by_picture = both(texts)
        scaled = by_picture * spread[0] / spread[1]
        return np.asarray((1 - PICTURE_SHARE) * by_blend + PICTURE_SHARE * scaled)

    found = judged(blend, picture, sources)
    texts = [phrase.text for phrase in found.phrases]
    firsts = [phrase.text for phrase in candidates.subjects]
    assert texts[0] == firsts[int(mixed(firsts).argmax())]
    assert len(texts) > 2
    for n, taken in enumerate(found.phrases[1:], 1):
        before = ", ".join(texts[:n])
        others = [  # of the same role, so that the grammar allows them as well
            f"{before}, {phrase.text}"
            for phrase in candidates.details
            if phrase.role == taken.role and not repeats(content_words(before), phrase.text)
        ]
        reached = mixed([f"{before}, {taken.text}"])[0]
        assert reached >= mixed(others).max() - 1e-5
        assert reached >= mixed([before])[0] + LEAST_GAIN - 1e-5


def test_a_tower_that_sees_nothing_changes_nothing() -> None:
    """A picture at a right angle to every phrase leaves the prompt to the blend."""
    sources = Sources(prompts_of(AROUND))
    candidates = [find_candidates(sources)]
    target = BLEND.encode(["a cat on a sofa, studio portrait"])
    nothing = np.zeros((1, 250), dtype=np.float32)
    (blind,) = Composer(BLEND, TOWER).compose(target, candidates, nothing)
    (alone,) = Composer(BLEND).compose(target, candidates)
    assert blind == alone


def test_the_tower_encodes_a_phrase_once() -> None:
    """A second picture with the same prompts around it costs its continuations alone."""
    tower = WordsAlone("pictures", dim=250)
    composer, sources = Composer(BLEND, tower), [find_candidates(Sources(prompts_of(AROUND)))]
    target, picture = BLEND.encode(["a cat, close up"]), tower.encode(["a cat"])
    n_phrases = len({phrase.text for phrase in (*sources[0].subjects, *sources[0].details)})
    tower.seen.clear()
    first = composer.compose(target, sources, picture)
    assert tower.seen[0] == n_phrases
    n_calls = len(tower.seen)
    assert composer.compose(target, sources, picture) == first
    assert len(tower.seen) == 2 * n_calls - 1


PICTURE = st.tuples(
    prompts_with_phrases(),
    st.sampled_from(["a red fox, warm light", "a lake at night, oil painting, 35mm lens", "snow"]),
    st.lists(st.sampled_from(["fox", "lakeside", "wolf", "castle"]), max_size=3, unique=True),
    st.lists(st.sampled_from(["A fox at night.", "two wolves", ""]), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PICTURE, max_size=3))
def test_any_neighbours_give_a_prompt_of_the_grammar(
    pictures: list[tuple[list[str], str, list[str], list[str]]],
) -> None:
    """Whatever they say; each is no farther than its subject, and the batch changes nothing."""
    sources = [
        Sources(
            prompts_of(texts),
            tuple(captions),
            SeenWords(tuple(SeenWord(noun, 0.5) for noun in nouns)),
        )
        for texts, _, nouns, captions in pictures
    ]
    targets = WORDS.encode([wanted for _, wanted, _, _ in pictures]).reshape(-1, 384)
    found = compose(targets, sources, minilm=WORDS)
    assert len(found) == len(pictures)
    for each, source, target in zip(found, sources, targets, strict=True):
        check_grammar(each, source)
        if each.phrases:
            assert score(each.prompt, target) >= score(each.phrases[0].text, target) - 1e-5
            same([each], compose(target[None], [source], minilm=WORDS))
