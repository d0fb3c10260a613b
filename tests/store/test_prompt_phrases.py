"""What prompts are put together from, counted in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.core.values import prompt_key
from imprompt.store import layout
from imprompt.store.prompts import DuckPrompts
from imprompt.store.staged_prompts import CleanPrompt, CorpusState, StagedPrompts


def counted(
    folder: Path, prompts: list[str] | list[tuple[str, int]], limit: int = 100
) -> list[tuple[str, int]]:
    """The phrases of these prompts, each submitted once where no number says otherwise."""
    pairs = [prompt if isinstance(prompt, tuple) else (prompt, 1) for prompt in prompts]
    with StagedPrompts(folder) as staged:
        rows = [
            CleanPrompt(prompt_key(text), text, text, "toy.txt", str(i), n)
            for i, (text, n) in enumerate(pairs)
        ]
        staged.add(rows, corpus=0, state=CorpusState(len(rows), finished=True))
        staged.number()
    with DuckPrompts(folder / layout.PROMPTS) as opened:
        return opened.frequent_phrases(limit)


def three(phrase: str) -> list[str]:
    """Three prompts of different beginnings that hold a phrase."""
    return [f"{animal}, {phrase}" for animal in ("a fox", "an owl", "a lynx")]


@pytest.mark.parametrize(
    ("written", "phrase"),
    [
        ("Oil  Painting.", "oil painting"),
        ("(oil painting:1.3)", "oil painting"),
        ("((oil painting))", "oil painting"),
        ("[oil painting::-0.5]", "oil painting"),
        ("oil painting::2", "oil painting"),
        ("oil painting --ar 3:2 --v 5", "oil painting"),
        ("<lora:thing_v1:0.8> oil painting", "oil painting"),
        ("oil painting! Then", "oil painting"),
        ("oil\npainting", "oil"),
        ("油画", "油画"),
        ("8k", "8k"),
        ("unreal engine 5", "unreal engine 5"),
        ("d & d", "d & d"),
    ],
)
def test_phrases_are_what_stands_between_commas_and_weights(
    tmp_path: Path, written: str, phrase: str
) -> None:
    """Case, spaces, brackets, weights, flags and tags do not count."""
    assert (phrase, 3) in counted(tmp_path, three(written))


@pytest.mark.parametrize(
    "written",
    ["x", "1920", "2048 x 2048", "a b c d e f g h", "y" * 61, "🎨🖌", "((()))", "--", "..."],
)
def test_what_is_no_phrase_is_left_out(tmp_path: Path, written: str) -> None:
    """Too short, too long, too many words, more digits than letters, no letters."""
    assert counted(tmp_path, three(written)) == []


def test_a_phrase_stands_in_prompts_of_three_beginnings(tmp_path: Path) -> None:
    """Variations of one picture make no phrase, nor does the subject that they begin with."""
    prompts = [
        (f"a cat on a sofa, purple haze, {word}", 50) for word in ("dusk", "dawn", "noon", "night")
    ]
    assert counted(tmp_path, prompts) == []
    assert counted(
        tmp_path / "more", [*prompts, *[(text, 1) for text in three("purple haze")[:2]]]
    ) == [("purple haze", 202)]


def test_the_most_submitted_come_first_and_ties_by_name(tmp_path: Path) -> None:
    """Each prompt counts a phrase once, with its weight; the limit cuts the end."""
    prompts = [
        (f"{text}, {text.split(', ')[1]}", n)
        for phrase, n in (("wet", 1), ("dry", 1), ("hot", 5))
        for text in three(phrase)
    ]
    assert counted(tmp_path, prompts) == [("hot", 15), ("dry", 3), ("wet", 3)]
    assert counted(tmp_path / "cut", prompts, limit=2) == [("hot", 15), ("dry", 3)]
