"""Measure prompts as texts: how near the truth they are, and how they read."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from imprompt.core.metrics import row_cosines
from imprompt.core.protocols import TextEncoder
from imprompt.core.values import Vectors, unit_rows
from imprompt.encoders.lite import prompt_mean
from imprompt.ensemble.phrases import content_words
from imprompt.evaluation.pair_set import PairSet
from imprompt.evaluation.report import PromptQuality, estimate


def text_rows(texts: Sequence[str], minilm: TextEncoder) -> Vectors:
    """Return (n, 384) unit rows of n texts, each different one encoded once."""
    unique = sorted(set(texts))
    places = {text: place for place, text in enumerate(unique)}
    return minilm.encode(unique)[[places[text] for text in texts]]


def text_quality(answer: str, texts: Sequence[str], rows: Vectors, pairs: PairSet) -> PromptQuality:
    """Return the quality of n texts, one for each pair, whose `text_rows` are given."""
    recall = [
        len(content_words(text) & truth) / max(len(truth), 1)
        for text, truth in zip(
            texts, (content_words(pair.texts[0]) for pair in pairs.rows), strict=True
        )
    ]
    main = pairs.main_rows
    said = [texts[row] for row in main]
    return msgspec.structs.replace(
        vector_quality(answer, rows, pairs),
        recall=estimate(np.array(recall), pairs, main, label="recall of words"),
        words=float(np.mean([len(text.split()) for text in said])),
        distinct=len(set(said)) / len(said),
    )


def vector_quality(answer: str, rows: Vectors, pairs: PairSet) -> PromptQuality:
    """Return the quality of (n, 384) unit rows that stand for no text."""
    mean = prompt_mean()
    centred = row_cosines(unit_rows(rows - mean), unit_rows(pairs.truth - mean))
    cosines = row_cosines(rows, pairs.truth)
    main = pairs.main_rows
    return PromptQuality(
        answer=answer,
        cosine=estimate(cosines, pairs, main, label="cosine"),
        centred=estimate(centred, pairs, main, label="centred cosine"),
    )
