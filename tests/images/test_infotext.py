"""AUTOMATIC1111's text is read back unchanged, by our reader and by sd-parsers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
from imprompt.images.prompts.infotext import infotext
from imprompt.images.prompts.parameters import read_parameters

FOUND = EmbeddedPrompt(
    "a brass teapot, morning light\nsecond line",
    "smudged",
    "ComfyUI",
    {
        "seed": "7",
        "steps": "20",
        "sampler": "euler",
        "cfg_scale": "6.5",
        "width": "512",
        "height": "768",
        "lora_hashes": "a: 1, b: 2",
    },
)


def test_the_text_is_the_webuis() -> None:
    """Its names, its order, its quotes."""
    assert infotext(FOUND) == (
        "a brass teapot, morning light\nsecond line\nNegative prompt: smudged\n"
        "Steps: 20, Sampler: euler, CFG scale: 6.5, Seed: 7, Size: 512x768, "
        'Lora hashes: "a: 1, b: 2"'
    )


def test_what_is_not_there_is_left_out() -> None:
    """A prompt alone is a prompt alone."""
    assert infotext(EmbeddedPrompt("a teapot", "", "x")) == "a teapot"


WORDS = (
    st.text("abcdefgh ,.()", min_size=1)
    .map(str.strip)
    .filter(lambda text: bool(text.strip(" ,.()")))
)
VALUES = st.text('abc123:,"\\', min_size=1).filter(lambda text: text == text.strip())


@given(prompt=WORDS, negative=st.just("") | WORDS, seed=st.integers(0, 2**64), model=VALUES)
def test_it_is_read_back(prompt: str, negative: str, seed: int, model: str) -> None:
    """Prompt, negative prompt and settings, whatever signs a model's name has."""
    settings = {
        "steps": "20",
        "sampler": "Euler a",
        "seed": str(seed),
        "size": "8x8",
        "model": model,
    }
    read = read_parameters(infotext(EmbeddedPrompt(prompt, negative, "x", settings)))
    assert read is not None
    assert (read.prompt, read.negative, read.settings) == (prompt, negative, settings)
