"""What the head learns: from made-up pairs whose law is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imprompt.core.splits import similarity_groups
from imprompt.core.values import unit_rows
from imprompt.encoders.lite_head import FEATURE_DIM, expanded
from imprompt.ensemble.training.head_regression import (
    HeadExamples,
    class_means,
    fit_maps,
    group_weights,
    integer_codes,
    source_mean,
    within_sources,
)
from imprompt.ensemble.training.tag_words import tag_words


def made_up(*, per_source: int = 60, seed: int = 0) -> HeadExamples:
    """Make three sources of two kinds; texts follow eight hidden features and their source."""
    rng = np.random.default_rng(seed)
    sources = np.repeat(np.arange(3), per_source)
    hidden = rng.standard_normal((len(sources), 8))
    features = (hidden @ rng.standard_normal((8, FEATURE_DIM)) * 0.3).astype(np.float32)
    law = np.random.default_rng(99).standard_normal((8, 384))
    wording = np.random.default_rng(98).standard_normal((3, 384)) * 4
    prompts = unit_rows(hidden @ law + wording[sources])
    return HeadExamples(
        features,
        prompts,
        prompts,
        kinds=np.array([0, 0, 1])[sources],
        sources=sources,
        tags=np.zeros((len(sources), len(tag_words())), dtype=bool),
    )


def test_the_index_map_finds_the_right_text_among_strangers() -> None:
    """Trained on some rows, the map puts the text of an unseen row before the others'."""
    examples = made_up()
    train, test = np.flatnonzero(np.arange(180) % 3 > 0), np.flatnonzero(np.arange(180) % 3 == 0)
    test = test[examples.sources[test] == 0]
    mean = examples.prompts.mean(axis=0)
    maps = fit_maps(examples[train], prompt_mean=mean, main_kind=0)
    rows = (
        expanded((examples.features[test] - maps.centre) * maps.scale, maps.basis)
        @ maps.index_weight
    )
    texts = examples.prompts[test] - examples.prompts[test].mean(axis=0)
    scores = unit_rows(rows) @ unit_rows(texts).T
    assert (scores.argmax(axis=1) == np.arange(len(test))).mean() > 0.9


def test_the_output_is_worded_like_the_main_kind() -> None:
    """Without information the output is a mix of the mean prompts of images and of the corpus."""
    examples = made_up()
    prompt_mean = np.linspace(-1, 1, 384, dtype=np.float32)
    maps = fit_maps(examples, prompt_mean=prompt_mean, main_kind=0)
    expected = 0.4 * examples.prompts[examples.kinds == 0].mean(axis=0) + 0.6 * prompt_mean
    np.testing.assert_allclose(maps.output_bias, expected, atol=1e-5)
    captions = examples.prompts[examples.kinds == 1].mean(axis=0)
    np.testing.assert_allclose(maps.caption_bias, captions, atol=1e-5)


def test_a_picture_of_another_kind_is_told_apart() -> None:
    """The first label is that of rows that are not of the main kind, calibrated out of fold."""
    examples = made_up()
    kind = examples.kinds == 1
    shown = replace(examples, features=examples.features + 3 * kind[:, None].astype(np.float32))
    maps = fit_maps(shown, prompt_mean=np.zeros(384, np.float32), main_kind=0)
    inputs = expanded((shown.features - maps.centre) * maps.scale, maps.basis)
    logits = (inputs @ maps.label_weight)[:, 0] * maps.label_slope[0] + maps.label_intercept[0]
    assert logits[kind].min() > 0 > logits[~kind].max()


def test_one_kind_alone_has_no_photographs() -> None:
    """Then no picture is worded like a caption."""
    examples = replace(made_up(), kinds=np.zeros(180, np.int64))
    maps = fit_maps(examples, prompt_mean=np.zeros(384, np.float32), main_kind=0)
    assert (maps.label_slope[0], maps.label_intercept[0]) == (0, -50)
    np.testing.assert_array_equal(maps.caption_bias, maps.output_bias)


def test_a_tag_that_pictures_show_is_learned_and_others_are_not() -> None:
    """One that follows a feature is kept, with its words; one by chance and a rare one are not."""
    examples = made_up()
    words = tag_words()
    tags = examples.tags.copy()
    tags[:, words.index("castle")] = examples.features[:, 0] > np.median(examples.features[:, 0])
    tags[:, words.index("forest")] = np.random.default_rng(5).random(180) < 0.5
    tags[:9, words.index("snow")] = True
    maps = fit_maps(
        replace(examples, tags=tags), prompt_mean=np.zeros(384, np.float32), main_kind=0
    )
    assert maps.tags == ("castle",)
    assert maps.label_weight.shape[1] == len(maps.label_slope) == len(maps.label_intercept) == 2


def test_near_duplicates_share_their_weight() -> None:
    """Four copies of a text count like two texts."""
    texts = np.eye(6, dtype=np.float32)[[0, 0, 0, 0, 1, 2]]
    weights = group_weights(similarity_groups(texts))
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.5, 0.5, 1, 1])


def test_a_large_source_is_centred_and_a_lone_row_hardly() -> None:
    """A source's mean counts the more, the more rows it has; the rest is the kind's mean."""
    targets = np.concatenate([np.full((180, 2), 1.0), np.full((20, 2), -9.0)]).astype(np.float32)
    sources = np.concatenate([np.zeros(180, np.int64), np.arange(1, 21)])
    examples = HeadExamples(
        targets,
        targets,
        targets,
        kinds=np.zeros(200, np.int64),
        sources=sources,
        tags=np.zeros((len(sources), len(tag_words())), dtype=bool),
    )
    left = within_sources(examples)
    assert left[0, 0] == pytest.approx(1 - (0.9 * 1 + 0.1 * 0))
    assert left[-1, 0] == pytest.approx(-9 - (1 / 21) * -9)


def test_no_large_source_rules_the_mean() -> None:
    """Sources count with the square root of their rows."""
    prompts = np.concatenate([np.zeros((100, 1)), np.ones((25, 1))]).astype(np.float32)
    sources = np.repeat([0, 1], [100, 25])
    examples = HeadExamples(
        prompts,
        prompts,
        prompts,
        kinds=np.zeros(125, np.int64),
        sources=sources,
        tags=np.zeros((len(sources), len(tag_words())), dtype=bool),
    )
    assert source_mean(examples, kind=0).item() == pytest.approx(5 / 15)


def test_codes_and_means_go_together() -> None:
    """Names become the ranks that means are stored under."""
    codes = integer_codes(["b", "a", "b"])
    assert codes.tolist() == [1, 0, 1]
    np.testing.assert_allclose(
        class_means(np.array([[2.0], [5.0], [4.0]], np.float32), codes), [[5], [3]]
    )
