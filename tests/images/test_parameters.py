"""AUTOMATIC1111's text as the webui, its forks, extensions and imitators write it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_parsers.parsers import AUTOMATIC1111Parser

from imprompt.images.prompts.parameters import read_parameters

LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x512, Model: own"

CASES: dict[str, tuple[str, str, str]] = {
    "plain": (f"a fox\nNegative prompt: blur\n{LINE}", "a fox", "blur"),
    "no negative prompt": (f"a fox\n{LINE}", "a fox", ""),
    "empty negative prompt": (f"a fox\nNegative prompt: \n{LINE}", "a fox", ""),
    "empty prompt": (f"Negative prompt: blur\n{LINE}", "", "blur"),
    "several lines on both sides": (
        f"a fox,\nBREAK\nsnow\n\nNegative prompt: blur,\nnoise\n\n{LINE}",
        "a fox,\nBREAK\nsnow",
        "blur,\nnoise",
    ),
    "two negative prompts": (
        f"a fox\nNegative prompt: blur\nNegative prompt: noise\n{LINE}",
        "a fox",
        "blur\nnoise",
    ),
    "the mark inside a prompt": (
        f"a sign that says Negative prompt: none\nNegative prompt: blur\n{LINE}",
        "a sign that says Negative prompt: none",
        "blur",
    ),
    "line ends lost": (f"a fox Negative prompt: blur {LINE}", "a fox", "blur"),
    "line ends of Windows": (f"a fox\r\nNegative prompt: blur\r\n{LINE}\r\n", "a fox", "blur"),
    "settings in the prompt's own words": (
        f"a poster, title: Steps, subtitle: none\nNegative prompt: blur\n{LINE}",
        "a poster, title: Steps, subtitle: none",
        "blur",
    ),
    "a template behind the settings": (
        f"a red fox\nNegative prompt: blur\n{LINE}\n"
        "Template: a {red|blue} fox, snow\nNegative Template: blur",
        "a red fox",
        "blur",
    ),
    "a wildcard in braces first": (
        f"{{red|blue}} fox\nNegative prompt: blur\n{LINE}",
        "{red|blue} fox",
        "blur",
    ),
    "the mark inside a prompt without a negative one": (
        f"a sign that says Negative prompt: none\n{LINE}",
        "a sign that says Negative prompt: none",
        "",
    ),
    "the mark in other capitals": (f"a fox\nNegative Prompt: blur\n{LINE}", "a fox", "blur"),
    "settings inside the prompt": (
        f"Steps: 5, Sampler: none, Seed: 1\na fox\nNegative prompt: blur\n{LINE}",
        "Steps: 5, Sampler: none, Seed: 1\na fox",
        "blur",
    ),
    "a template that looks like settings": (
        f"a fox\nNegative prompt: blur\n{LINE}\n"
        "Template: a {red|blue} fox,\nSeed: any, Size: big, Model: old\n\nNegative Template: blur",
        "a fox",
        "blur",
    ),
    "a template of several prompts": (
        f"a fox\nNegative prompt: blur\n{LINE}\nTemplate: a fox\n"
        "Negative prompt: other\nSteps: 9, Sampler: none, Seed: 1",
        "a fox",
        "blur",
    ),
    "line ends of old Macs": (f"a fox\rNegative prompt: blur\r{LINE}", "a fox", "blur"),
    "a byte-order mark first": (f"\ufeffNegative prompt: blur\n{LINE}", "", "blur"),
    "an empty prompt and an empty line": (f"\n\nNegative prompt: blur\n{LINE}", "", "blur"),
    "neither prompt nor negative prompt": (f"\n{LINE}", "", ""),
    "marks in small letters": (f"a fox\nnegative prompt: blur\n{LINE.lower()}", "a fox", "blur"),
    "bars between the settings": (
        f'a fox | a hen\nNegative prompt: blur\n{LINE.replace(",", "|")}| Note: "a | b"',
        "a fox | a hen",
        "blur",
    ),
    "no settings": ("a fox\nNegative prompt: blur", "a fox", "blur"),
}


@pytest.mark.parametrize("case", CASES)
def test_prompt_and_negative_prompt_are_told_apart(case: str) -> None:
    """Each with its lines as they were."""
    text, prompt, negative = CASES[case]
    found = read_parameters(text)
    assert found is not None
    assert (found.prompt, found.negative) == (prompt, negative)
    assert found.settings.get("seed") == (None if case == "no settings" else "42")


def test_settings_keep_what_is_quoted_or_in_brackets() -> None:
    """Commas and colons in quotes, JSON objects and lists belong to the value without quotes."""
    found = read_parameters(
        "a fox\nSteps: 20, Sampler: Euler a, Schedule type: Karras, Seed: 42, "
        'Lora hashes: "one: 11aa, two: 22bb", '
        'Hashes: {"vae": "1", "model": "2"}, Civitai resources: [{"type":"lora","weight":0.8}], '
        'ADetailer prompt: "a \\"face\\",\\nsmiling", Script: X/Y/Z plot, Hires upscale: 2, '
        "Version: v1.10.1"
    )
    assert found is not None
    assert found.settings == {
        "steps": "20",
        "sampler": "Euler a",
        "scheduler": "Karras",
        "seed": "42",
        "lora_hashes": "one: 11aa, two: 22bb",
        "hashes": '{"vae": "1", "model": "2"}',
        "civitai_resources": '[{"type":"lora","weight":0.8}]',
        "adetailer_prompt": 'a "face",\nsmiling',
        "script": "X/Y/Z plot",
        "hires_upscale": "2",
        "version": "v1.10.1",
    }


@pytest.mark.parametrize("broken", ['Note: "open', "Hashes: {open", "Note: close]"])
def test_settings_whose_quotes_do_not_pair_up_are_still_read(broken: str) -> None:
    """Then every comma parts them."""
    found = read_parameters(f"a fox\n{broken}, {LINE}")
    assert found is not None
    assert found.settings["seed"] == "42"
    assert found.prompt == "a fox"


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace("Sampler: Euler a, ", ""),
        "Steps: 20, Seed: 42",
        "Sampler: Euler, Seed: 42, Model: own",
    ],
)
def test_settings_without_a_sampler_or_nearly_empty_are_read(line: str) -> None:
    """Forks leave out what they do not know."""
    found = read_parameters(f"a fox\nNegative prompt: blur\n{line}")
    assert found is not None
    assert (found.prompt, found.negative, found.settings["seed"]) == ("a fox", "blur", "42")


def test_a_last_line_of_steps_alone_is_a_setting() -> None:
    """In the middle of a text, with more behind it, or as all there is, it is one of its lines."""
    found = read_parameters("a fox\nin snow\nSteps: 20\n")
    assert found is not None
    assert (found.prompt, found.settings) == ("a fox\nin snow", {"steps": "20"})
    assert read_parameters("a recipe\nSteps: 3\nstir") is None
    assert read_parameters("a poster\nSteps: of stone") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "size: a, model: b, seed: c",
        "a fox | seed: 1 | size: 2 | model: 3",
        "holiday",
        "a fox, 8k",
        "title: a, subtitle: b, seed: 1",
        "Steps: 1, " * 1000,
        "Hashes:{" * 1000,
    ],
)
def test_other_texts_are_none_of_it(text: str) -> None:
    """A camera's comment, a bare prompt, words before colons."""
    assert read_parameters(text) is None


words = (
    st.text(st.sampled_from("abc ,.()<>éß灯"), min_size=1, max_size=20).map(str.strip).filter(bool)
)


@given(
    prompt=words,
    negative=words,
    seed=st.integers(0, 2**32),
    model=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
)
def test_the_same_as_sd_parsers_where_it_answers(
    prompt: str, negative: str, seed: int, model: str
) -> None:
    """The plain form, by a second route."""
    line = (
        f"Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: {seed}, "
        f"Size: 512x512, Model: {model}"
    )
    text = f"{prompt}\nNegative prompt: {negative}\n{line}"
    found, theirs = read_parameters(text), AUTOMATIC1111Parser().parse({"parameters": text})
    assert found is not None
    assert (found.prompt, found.negative) == (theirs.full_prompt, theirs.full_negative_prompt)
    (sampler,) = theirs.samplers
    assert sampler.model is not None
    assert (
        found.settings.items()
        >= {"sampler": sampler.name, "model": sampler.model.name, **sampler.parameters}.items()
    )


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "piece",
    [
        "a fox, ",
        "Hashes:{",
        '"',
        "a: b, ",
        "\n",
        "Steps: 1, ",
        "Negative prompt:",
        "Template:\n",
        "Steps: 1\nTemplate: a\n",
        "x",
        " ",
        "[{",
    ],
)
def test_long_texts_take_linear_time(piece: str) -> None:
    """A prompt of a million characters is read, whatever it is made of."""
    long = piece * (1_000_000 // len(piece))
    begun = time.process_time()
    found = read_parameters(f"a fox\n{long}\nNegative prompt: blur\n{LINE}")
    assert time.process_time() - begun < 2
    assert found is not None
    assert found.settings["seed"] == "42"
    assert found.prompt.startswith("a fox")
    read_parameters(long)
