"""A word for how near a neighbour is, on one scale for every encoder.

Cosines of the index's space cannot be compared between encoders, nor between images and texts as
queries. So the word goes by MiniLM's cosine of the neighbour with what is known of the question: a
text, the prompt in a file, or the ensemble's estimate. docs/evaluation.md has the measurements.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Closeness: TypeAlias = Literal["close", "related", "far"]

CLOSE_FROM, RELATED_FROM = 0.6, 0.4
"""Of texts: as for a prompt that is close to the true one, see `imprompt.ensemble.confidence`."""
CLOSE_TO_ESTIMATE, RELATED_TO_ESTIMATE = 0.8, 0.65
"""Of estimates, which are themselves some way from the true prompt."""


def closeness(cosine: float, *, estimated: bool) -> Closeness:
    """Return the word for a cosine in MiniLM's space.

    Args:
        estimated: it is the cosine with an estimate, not with a text.
    """
    close, related = (
        (CLOSE_TO_ESTIMATE, RELATED_TO_ESTIMATE) if estimated else (CLOSE_FROM, RELATED_FROM)
    )
    if cosine >= close:
        return "close"
    return "related" if cosine >= related else "far"
