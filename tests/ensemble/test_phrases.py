"""Phrases: how prompts fall into parts, what a part is about, and what a prompt may be made of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings

from imprompt.core.values import Phrase
from imprompt.encoders.class_words import SeenWord, SeenWords
from imprompt.ensemble.phrases import (
    LEAST_SUPPORT,
    LONGEST_DETAIL,
    LONGEST_SUBJECT,
    MOST_SHARED,
    Sources,
    content_words,
    contradicts,
    credited,
    find_candidates,
    repeats,
    role,
    shared_phrases,
    split,
    subjects,
    words,
)
from tests.ensemble.builders import prompts_of, prompts_with_phrases

FOXES = (
    "a red fox in the snow, oil painting, by Greg Rutkowski, warm light",
    "a red fox, warm light, oil painting, Greg Rutkowski",
    "a wolf, Warm Light, oil painting, oil painting",
    "a red fox in the snow, sharp focus",
)


def by_text(phrases: Sequence[Phrase]) -> dict[str, Phrase]:
    """Return the phrases by their text, of which none comes twice."""
    found = {phrase.text: phrase for phrase in phrases}
    assert len(found) == len(phrases)
    return found


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("A Red Fox, oil painting", ["a red fox", "oil painting"]),
        ("a fox by Greg Rutkowski", ["a fox", "by greg rutkowski"]),
        ("a cat - a dog \u2013 a cow \u2014 a hen", ["a cat", "a dog", "a cow", "a hen"]),
        ("one;two words|three\nfour • five", ["one", "two words", "three", "four", "five"]),
        ("a cat. A dog! what? Version 1.5 look", ["a cat", "a dog", "what", "version 1.5 look"]),
        ("award - winning photo, sci - fi", ["award-winning photo", "sci-fi"]),
        ("a well-lit room, 'quoted', (round)", ["a well-lit room", "quoted", "round"]),
        ("16:9, --, …, a, 1234 b, 8", []),
        ("", []),
    ],
)
def test_a_prompt_falls_into_phrases(text: str, parts: list[str]) -> None:
    """At commas, sentences, dashes and credits; in lower case, without what holds no word."""
    assert split(text) == parts


@pytest.mark.parametrize(
    ("first", "found"),
    [
        ("a red fox", ["a red fox"]),
        ("portrait of a man with a hat", ["portrait of a man with a hat", "portrait of a man"]),
        ("fox in snow", ["fox in snow"]),
        ("a view of in the snow", ["a view of in the snow"]),
        (
            "a quiet street in kyoto at night with rain over the old wooden houses of the city",
            ["a quiet street"],
        ),
        (" ".join(["castle"] * (LONGEST_SUBJECT + 1)), []),
    ],
)
def test_a_subject_is_the_first_phrase_or_its_beginning(first: str, found: list[str]) -> None:
    """A beginning ends before the first clause that two words precede; none is too long."""
    assert subjects([first, "oil painting"]) == found
    assert all(len(words(subject)) <= LONGEST_SUBJECT for subject in found)


def test_no_phrase_no_subject() -> None:
    """A prompt of signs alone has none."""
    assert subjects([]) == []


@pytest.mark.parametrize(
    ("phrase", "about"),
    [
        ("a red fox", "subject"),
        ("inkwell", "subject"),
        ("oil painting", "medium"),
        ("highly detailed oil painting", "medium"),
        ("by someone", "artist"),
        ("in the style of mucha", "artist"),
        ("trending on artstation", "artist"),
        ("photography of light", "medium"),
        ("golden hour", "light"),
        ("Warm Light", "light"),
        ("wide shot", "composition"),
        ("35mm lens", "composition"),
        ("teal and orange", "colour"),
        ("sharp focus", "quality"),
        ("cyberpunk", "style"),
    ],
)
def test_the_words_tell_the_role(phrase: str, about: str) -> None:
    """Whole words count, and the first list that holds one."""
    assert role(phrase) == about


def test_credits_are_names() -> None:
    """Of one or of several artists; a phrase without "by" has none."""
    assert credited("by greg rutkowski and alphonse mucha") == ["greg rutkowski", "alphonse mucha"]
    assert credited("art by wlop") == ["wlop"]
    assert credited("a bypass") == credited("standby") == []


def test_words_that_carry_meaning() -> None:
    """In the singular where that is plain, without function words."""
    assert content_words("The cats of a glass bus, in their hats") == {
        *("cat", "glass", "bus", "hat")
    }
    assert content_words("of the") == frozenset()


@pytest.mark.parametrize(
    ("said", "phrase", "expected"),
    [
        ("a fox in snow", "snow", True),
        ("cats", "a cat", True),
        ("a fox", "red fox", True),
        ("a fox", "a big red fox", False),
        ("a fox", "of the", True),
        ("", "red", False),
    ],
)
def test_half_of_the_words_make_a_repetition(said: str, phrase: str, expected: bool) -> None:
    """And a phrase without words of its own always is one."""
    assert repeats(content_words(said), phrase) is expected


def test_support_is_the_prompts_that_hold_a_phrase() -> None:
    """Nearest first, each once; what one prompt alone holds is no detail."""
    found = find_candidates(Sources(prompts_of(FOXES, first_row=7)))
    assert by_text(found.subjects) == {
        "a red fox in the snow": Phrase("a red fox in the snow", "subject", 2, (7, 10)),
        "a red fox": Phrase("a red fox", "subject", 3, (7, 8, 10)),
        "a wolf": Phrase("a wolf", "subject", 1, (9,)),
    }
    assert by_text(found.details) == {
        "oil painting": Phrase("oil painting", "medium", 3, (7, 8, 9)),
        "warm light": Phrase("warm light", "light", 3, (7, 8, 9)),
    }
    assert not found.seen.any()


def test_an_artist_who_is_credited_once_is_one_everywhere() -> None:
    """ "Greg Rutkowski" alone says nothing; another prompt's "by" does."""
    asked = ["a fox, greg rutkowski", "a wolf, greg rutkowski", "a cow, by greg rutkowski"]
    assert by_text(find_candidates(Sources(prompts_of(asked))).details) == {
        "greg rutkowski": Phrase("greg rutkowski", "artist", 2, (0, 1))
    }
    (unknown,) = find_candidates(Sources(prompts_of(asked[:2]))).details
    assert unknown.role == "subject"


def test_the_text_without_weights_and_flags_is_read() -> None:
    """What a person typed stays in `text`; phrases come of what is shown."""
    prompts = prompts_of(["(a fox:1.2), --ar 3:2"], shown=["a fox, warm light"])
    assert by_text(find_candidates(Sources(prompts)).subjects) == {
        "a fox": Phrase("a fox", "subject", 1, (0,))
    }


def test_what_is_seen_and_what_is_written_are_subjects() -> None:
    """Without support, unless a prompt begins so; a noun gets its article."""
    found = find_candidates(
        Sources(
            prompts_of(FOXES),
            captions=(" a lake at  night. ", "...", ""),
            words=SeenWords((SeenWord("fox", 0.9), SeenWord("owl", 0.5), SeenWord("bread", 0.4))),
        )
    )
    subjects = by_text(found.subjects)
    for text in ("a fox", "an owl", "bread", "a lake at night", "a lake"):
        assert subjects[text] == Phrase(text, "subject")
    assert len(subjects) == 3 + 5
    seen = {phrase.text for phrase, sees in zip(found.subjects, found.seen, strict=True) if sees}
    assert seen == {"a red fox", "a red fox in the snow", "a fox", "an owl", "bread"}
    begun = find_candidates(Sources(prompts_of(FOXES), words=SeenWords((SeenWord("wolf", 0.9),))))
    assert by_text(begun.subjects)["a wolf"] == Phrase("a wolf", "subject", 1, (2,))


def test_tags_are_details_with_the_prompts_that_hold_them() -> None:
    """Anywhere in a prompt, as whole words; a tag that no prompt holds has no support."""
    tags = (SeenWord("snow", 0.8), SeenWord("pixel art", 0.3), SeenWord("no", 0.2))
    found = find_candidates(Sources(prompts_of(FOXES), words=SeenWords(tags=tags)))
    details = by_text(found.details)
    holding = tuple(row for row, text in enumerate(FOXES) if "snow" in text)
    assert holding
    assert details["snow"] == Phrase("snow", "subject", len(holding), holding)
    assert details["pixel art"] == Phrase("pixel art", "medium")
    assert details["no"].support == 0
    silent = Sources(
        prompts_of(FOXES), words=SeenWords(tags=tags), says=lambda phrase: phrase != "snow"
    )
    assert "snow" not in by_text(find_candidates(silent).details)


def test_what_may_not_be_said_is_not_said() -> None:
    """No subject, detail, caption or noun."""
    sources = Sources(
        prompts_of(FOXES),
        captions=("a fox at night",),
        words=SeenWords((SeenWord("fox", 0.9), SeenWord("owl", 0.5))),
        says=lambda phrase: not {"fox", "light"} & set(phrase.split()),
    )
    found = find_candidates(sources)
    assert by_text(found.subjects).keys() == {"a wolf", "an owl"}
    assert by_text(found.details).keys() == {"oil painting"}
    assert by_text(shared_phrases(found)).keys() == {"a wolf", "oil painting"}
    silent = find_candidates(Sources(prompts_of(FOXES), says=lambda _phrase: False))
    assert (silent.subjects, silent.details, len(silent.seen)) == ((), (), 0)


def test_shared_phrases_are_the_most_frequent_of_each_role() -> None:
    """By role; details of two prompts at least, the beginnings of the nearest, eight at most."""
    assert [
        (phrase.role, phrase.text, phrase.support)
        for phrase in shared_phrases(find_candidates(Sources(prompts_of(FOXES))))
    ] == [
        ("subject", "a red fox", 3),
        ("subject", "a wolf", 1),
        ("medium", "oil painting", 3),
        ("light", "warm light", 3),
    ]
    many = ", ".join(f"phrase{chr(97 + number)}" for number in range(12))
    lit = ", ".join(f"light{chr(97 + number)} light" for number in range(12))
    beginnings = [f"{chr(97 + number) * 3} animal{number}, {many}, {lit}" for number in range(12)]
    found = shared_phrases(find_candidates(Sources(prompts_of([*beginnings, "a cow, phrasel"]))))
    about = [phrase.text for phrase in found if phrase.role == "subject"]
    assert len(about) == MOST_SHARED
    assert about[: MOST_SHARED // 2] == [
        f"{chr(97 + number) * 3} animal{number}" for number in range(MOST_SHARED // 2)
    ]
    assert about[MOST_SHARED // 2] == "phrasel"
    assert len([phrase for phrase in found if phrase.role == "light"]) == MOST_SHARED
    assert shared_phrases(find_candidates(Sources(()))) == ()


def test_of_shared_phrases_that_say_the_same_the_commoner_stays() -> None:
    """One with all words of the other takes no second place."""
    texts = [
        "a fox, detailed",
        "a fox, highly detailed",
        "a hen, detailed",
        "a hen, highly detailed",
    ]
    found = shared_phrases(find_candidates(Sources(prompts_of([*texts, "a cow, detailed"]))))
    assert [(phrase.text, phrase.support) for phrase in found if phrase.role == "quality"] == [
        ("detailed", 3)
    ]


@settings(max_examples=60, deadline=None)
@given(prompts_with_phrases())
def test_candidates_are_what_the_prompts_hold(texts: list[str]) -> None:
    """Each with exactly the prompts that hold it, whatever these say."""
    prompts = prompts_of(texts, first_row=3)
    found = find_candidates(Sources(prompts))
    parts = {prompt.row_id: split(prompt.shown) for prompt in prompts}
    for phrase in found.subjects:
        assert phrase.row_ids == tuple(
            row_id for row_id, said in parts.items() if phrase.text in subjects(said)
        )
        assert phrase.support == len(phrase.row_ids) >= 1
        assert (phrase.role, len(words(phrase.text)) <= LONGEST_SUBJECT) == ("subject", True)
    for phrase in found.details:
        assert phrase.row_ids == tuple(
            row_id for row_id, said in parts.items() if phrase.text in said[1:]
        )
        assert phrase.support == len(phrase.row_ids) >= LEAST_SUPPORT
        assert len(phrase.text.split()) <= LONGEST_DETAIL
    by_text(found.subjects)
    by_text(found.details)
    shared = shared_phrases(find_candidates(Sources(prompts)))
    assert all(phrase.support >= 1 for phrase in shared)
    assert all(phrase.support >= LEAST_SUPPORT for phrase in {*shared} - {*found.subjects})
    assert set(shared) <= {*found.subjects, *found.details}


def test_phrases_that_contradict_each_other() -> None:
    """A photo is no painting, and night no sunset; what says neither contradicts nothing."""
    said = frozenset(words("photo of a castle at night"))
    for phrase in ("oil painting", "sunset", "by an illustration"):
        assert contradicts(said, phrase)
    for phrase in ("photograph", "starry sky", "highly detailed", ""):
        assert not contradicts(said, phrase)
    assert contradicts(frozenset({"painting"}), "polaroid photo")


def test_a_name_that_a_prompt_credits_is_an_artist() -> None:
    """Bare, too, in the other prompts; who surrounds or illuminates is none."""
    texts = [
        "a house surrounded by bamboo, by ann lee and bo hale",
        "a hut, ann lee, art deco",
        "a cabin, ann lee, bo hale",
        "a shed, bo hale, art deco",
    ]
    roles = {
        phrase.text: phrase.role for phrase in find_candidates(Sources(prompts_of(texts))).details
    }
    assert roles == {"ann lee": "artist", "bo hale": "artist", "art deco": "style"}


def test_a_captions_phrases_need_no_support() -> None:
    """A caption of several phrases gives a subject and details."""
    found = find_candidates(Sources((), captions=("A red fox in the snow, oil painting",)))
    assert [phrase.text for phrase in found.subjects] == ["a red fox in the snow", "a red fox"]
    assert found.details == (Phrase("oil painting", "medium"),)
