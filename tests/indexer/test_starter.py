"""The starter corpus: varied, sensible in form, without names, and the same everywhere."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from imprompt.core.values import normalize_text
from imprompt.indexer.readers.starter import ROWS, expand, load_vocabulary, starter_source

DATA = Path(
    os.environ.get("IMPROMPT_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return [prompt.text for batch in starter_source().batches(1000) for prompt in batch.prompts]


def test_has_5000_different_prompts(prompts: list[str]) -> None:
    """No two are alike, even without their capitals."""
    assert len(prompts) == ROWS == 5000
    assert len({prompt.lower() for prompt in prompts}) == ROWS


def test_is_the_same_everywhere(prompts: list[str]) -> None:
    """These prompts come out on every machine and version: indexes are compared by them.

    A deliberate change of the vocabularies or of the grammar changes the digest; then write the new
    one here.
    """
    assert (
        hashlib.sha256("\n".join(prompts).encode()).hexdigest()
        == "7ee8b80aed79a37eb3e321ef0780016a77d9404d72159cd53a2b944a139b4338"
    )


def test_is_normalized_text(prompts: list[str]) -> None:
    """Each prompt is already clean, begins and ends well, and lacks no word."""
    for prompt in prompts:
        assert prompt == normalize_text(prompt)
        assert not re.search(r" ,|,,|\.\.|  |\{|\}|^,|,$", prompt), prompt
        assert 4 <= len(prompt.split()) <= 77
        assert prompt.isascii()


def test_has_the_lengths_of_real_ones(prompts: list[str]) -> None:
    """Lengths are like real prompts: a quarter has no comma, half have 10 to 33 words."""
    words = np.quantile([len(prompt.split()) for prompt in prompts], [0.25, 0.5, 0.75])
    assert 9 <= words[0] <= 13
    assert 13 <= words[1] <= 22
    assert 19 <= words[2] <= 33
    assert 0.15 < np.mean(["," not in prompt for prompt in prompts]) < 0.35


def test_is_varied(prompts: list[str]) -> None:
    """Many words, no overused opening, and every subject of every theme occurs."""
    words = Counter(word for prompt in prompts for word in re.findall(r"[a-z]+", prompt.lower()))
    assert len(words) > 1500
    openings = Counter(" ".join(prompt.lower().split()[:4]) for prompt in prompts)
    assert openings.most_common(1)[0][1] < 50
    everything = "\n".join(prompts).lower()
    subjects = [subject for theme in load_vocabulary().theme for subject in theme.subjects]
    assert len(set(subjects)) > 650
    missing = [subject for subject in subjects if subject.lower() not in everything]
    assert len(missing) < 0.02 * len(subjects), missing


def test_keeps_subjects_in_their_places() -> None:
    """What stands in one prompt comes from one theme: no whale in a bakery window."""
    vocabulary = load_vocabulary()
    marked = [
        msgspec.structs.replace(
            theme,
            subjects=[f"subject {i} of theme{number}" for i in range(20)],
            places=[f"place {i} of theme{number}" for i in range(20)],
            actions=[f"action {i} of theme{number}" for i in range(5)],
        )
        for number, theme in enumerate(vocabulary.theme)
    ]
    for prompt in expand(msgspec.structs.replace(vocabulary, theme=marked), 1000, seed=1):
        assert len(set(re.findall(r"theme\d+", prompt))) == 1, prompt


def test_names_only_what_its_vocabularies_list() -> None:
    """Every light and medium of a theme exists, lists have no duplicates, themes are wide."""
    vocabulary = load_vocabulary()
    assert len(vocabulary.theme) >= 40
    for theme in vocabulary.theme:
        assert set(theme.light) <= set(vocabulary.light)
        assert set(theme.media) <= set(vocabulary.media)
        assert len(theme.subjects) >= 10
        assert len(theme.places) >= 7
        for words in (theme.subjects, theme.places, theme.actions):
            assert len(words) == len(set(words)), theme.name


def test_has_no_capitals_within() -> None:
    """All is lower-case, so that names of people or brands would stand out in review."""
    vocabulary = load_vocabulary()
    words = [*itertools.chain(*vocabulary.media.values(), *vocabulary.light.values())]
    words += [
        *itertools.chain(
            *((*theme.subjects, *theme.places, *theme.actions) for theme in vocabulary.theme)
        )
    ]
    assert all(word == word.lower() for word in words)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    """The seed decides the prompts one after the other, and another seed gives others."""
    vocabulary = load_vocabulary()
    short, long, other = (
        list(expand(vocabulary, n, seed=seed)) for n, seed in ((50, 1), (200, 1), (200, 2))
    )
    assert long[:50] == short
    assert len(set(long) & set(other)) < 5


@pytest.mark.slow
def test_copies_no_real_prompt(prompts: list[str]) -> None:
    """None was typed into the Stable Diffusion beta; needs the private test data."""
    path = DATA / "prompts" / "sd-user-prompts.parquet"
    if not path.exists():
        pytest.skip(f"the private prompts are not at {path}")
    ours = {prompt.lower() for prompt in prompts}
    for batch in pq.ParquetFile(path).iter_batches(columns=["prompt"]):
        copied = ours & {normalize_text(text).lower() for text in batch.column(0).to_pylist()}
        assert not copied
