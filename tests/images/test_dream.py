"""read_dream: what was typed for InvokeAI's first generations, switches glued to their values."""

from __future__ import annotations

import pytest

from imprompt.images.prompts.dream import read_dream
from imprompt.images.prompts.prompt_parts import PromptParts

FULL = {
    "steps": "50",
    "width": "512",
    "height": "640",
    "cfg_scale": "7.5",
    "sampler": "k_lms",
    "seed": "42",
}

CASES: dict[str, tuple[str, PromptParts]] = {
    "glued": ('"a fox" -s50 -W512 -H640 -C7.5 -Ak_lms -F -S42', PromptParts("a fox", "", FULL)),
    "apart": ('"a fox" -s 50 -W 512 -H 640 -C 7.5 -A k_lms -S 42', PromptParts("a fox", "", FULL)),
    "long": (
        '"a fox" --steps 50 --width=512 --height 640 --cfg_scale 7.5 --sampler k_lms --seed 42',
        PromptParts("a fox", "", FULL),
    ),
    "brackets": (
        '"a fox [blur], snow, [noise, text]" -s50',
        PromptParts("a fox, snow", "blur, noise, text", {"steps": "50"}),
    ),
    "quotes inside": (
        '"a fox named "Rex" - alone" -s50',
        PromptParts('a fox named "Rex" - alone', "", {"steps": "50"}),
    ),
    "escaped quotes": (r'"a \"fox\"" -s50', PromptParts('a "fox"', "", {"steps": "50"})),
    "no switches": ('"a fox"', PromptParts("a fox", "", {})),
    "no quotes": ("a fox -s50 -S42", PromptParts("a fox", "", {"steps": "50", "seed": "42"})),
    "a negative number": (
        '"a fox" -S42 -f -0.5',
        PromptParts("a fox", "", {"seed": "42", "strength": "-0.5"}),
    ),
    "line ends": ('"a fox\nin snow" -s50', PromptParts("a fox\nin snow", "", {"steps": "50"})),
}


@pytest.mark.parametrize("case", CASES)
def test_a_typed_prompt_is_read(case: str) -> None:
    """Prompt, unwanted parts, switches by their long names."""
    text, wanted = CASES[case]
    assert read_dream(text) == wanted


@pytest.mark.parametrize("text", ["", '"', '"a fox', '""', '"[blur]" -s50', " -s50"])
def test_without_a_prompt_there_is_nothing(text: str) -> None:
    """An empty or broken text."""
    assert read_dream(text) is None


@pytest.mark.timeout(10)
@pytest.mark.parametrize("piece", ['"', '" ', "[", "[a", " -", "-s", "-s1 ", '\\"', " "])
def test_long_texts_end(piece: str) -> None:
    """A million characters made to be slow."""
    read_dream('"a fox' + piece * (1_000_000 // len(piece)))
    read_dream(piece * (1_000_000 // len(piece)))
