"""The ensemble's judgement: the blend, the words nearest to it, the votes, and members that fail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from imprompt.core.errors import ConfigError, EncoderError, MemberUnavailable
from imprompt.core.values import Prediction
from imprompt.ensemble.blend import blend
from imprompt.ensemble.blend_config import KnnSettings
from imprompt.ensemble.ensemble import predict_in_memory
from imprompt.ensemble.knn import Knn
from imprompt.store.index_version import Generation
from tests.ensemble.worlds import WORDS, Sayer, ensemble, neighbourhood, picture


class Narrow(Sayer):
    """A member whose memory holds only so many pictures."""

    def __init__(self, limit: int, error: Exception) -> None:
        super().__init__("narrow", "red")
        self.limit, self.error = limit, error

    def predict(self, images: Sequence[Image.Image]) -> Prediction:
        if len(images) > self.limit:
            raise self.error
        return super().predict(images)


def test_a_verdict_is_the_blend_and_its_nearest_words(generation: Generation) -> None:
    """The vector is the blend of the members' rows; a member's words win where they are nearer than any prompt."""
    sayer = Sayer("sayer", "purple dragon")
    weights = {"knn": 0.2, "sayer": 0.8}
    images = [picture("red"), picture("blue")]
    verdicts = ensemble(generation, sayer, weights=weights).judge(images)
    knn = Knn(neighbourhood(generation), settings=KnnSettings()).predict(images)
    expected = blend({"knn": knn.vectors, "sayer": sayer.predict(images).vectors}, weights)
    np.testing.assert_allclose([verdict.vector for verdict in verdicts], expected, atol=1e-6)
    for row, verdict in enumerate(verdicts):
        assert verdict.prompt == "purple dragon"
        assert verdict.cosine == pytest.approx(
            float(WORDS.encode(["purple dragon"])[0] @ expected[row]), abs=1e-5
        )
        assert [(vote.member, round(vote.share, 6)) for vote in verdict.votes] == [
            ("knn", 0.2),
            ("sayer", 0.8),
        ]
        assert [vote.text for vote in verdict.votes] == [(knn.texts or ())[row], "purple dragon"]
        assert verdict.votes[0].cosine == pytest.approx(
            float(knn.vectors[row] @ expected[row]), abs=1e-5
        )


def test_the_prompts_around_the_picture_are_candidates(generation: Generation) -> None:
    """Where the heaviest member has no words, the answer is the prompt nearest to the blend."""
    mute = Sayer("mute", "blue and red", mute=True)
    (verdict,) = ensemble(generation, mute, weights={"knn": 0.1, "mute": 0.9}, k=8).judge(
        [picture("blue")]
    )
    assert verdict.prompt == "blue and red"
    assert [vote.text for vote in verdict.votes][1] is None
    (verdict,) = ensemble(generation, mute, weights={"mute": 1}, k=8).judge([picture("red")])
    assert verdict.prompt == "blue and red", "also when knn does not vote"


def test_a_member_without_weight_is_not_asked(generation: Generation) -> None:
    """A weight of 0 costs nothing."""
    idle = Sayer("idle", "x")
    (verdict,) = ensemble(generation, idle, weights={"knn": 1, "idle": 0}).judge([picture("red")])
    assert idle.batches == []
    assert [vote.member for vote in verdict.votes] == ["knn"]


def test_a_weight_without_a_member_is_refused(generation: Generation) -> None:
    """Nobody's weight is passed over in silence."""
    with pytest.raises(ConfigError, match="ghost"):
        ensemble(generation, weights={"knn": 1, "ghost": 1})


def test_nothing_is_judged_as_nothing(generation: Generation) -> None:
    """No pictures, no verdicts, no member asked."""
    assert ensemble(generation, weights={"knn": 1}).judge([]) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("full"),
        RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"),
    ],
)
def test_a_batch_that_is_too_large_is_halved(error: Exception) -> None:
    """The rows are those of the whole batch, in order."""
    narrow = Narrow(2, error)
    said = predict_in_memory(narrow, [picture("red")] * 7)
    assert said.vectors.shape == (7, 384)
    assert said.texts == ("red",) * 7
    assert narrow.batches == [1, 2, 2, 2]


def test_a_member_that_cannot_hold_one_picture_fails_by_name() -> None:
    """The halving ends, and who failed is said; so it is with a damaged model.

    A fault stays a fault.
    """
    with pytest.raises(MemberUnavailable, match="narrow: the memory does not hold"):
        predict_in_memory(Narrow(0, MemoryError()), [picture("red")] * 3)
    with pytest.raises(MemberUnavailable, match="narrow: its values are not finite"):
        predict_in_memory(Narrow(0, EncoderError("its values are not finite.")), [picture("red")])
    with pytest.raises(RuntimeError, match="shape"):
        predict_in_memory(Narrow(0, RuntimeError("shape mismatch")), [picture("red")] * 2)
