"""The ensemble's prediction: the blend, the prompt, the contributions, failing members, filters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from imprompt.core.errors import ConfigError, EncoderError, MemberUnavailable
from imprompt.core.values import Phrase, Prediction
from imprompt.encoders.class_words import SeenWord, SeenWords
from imprompt.ensemble.blend import blend
from imprompt.ensemble.blend_config import KnnSettings
from imprompt.ensemble.ensemble import Ensemble, predict_in_memory
from imprompt.ensemble.knn import Knn
from imprompt.ensemble.model_members import CachedMember
from imprompt.retriever.filters import Filters, PassingPrompts, select
from imprompt.store.index_version import IndexVersion
from tests.ensemble.builders import WORDS, FixedMember, ensemble, neighbourhood, picture
from tests.retriever.colours import PROMPTS


class Narrow(FixedMember):
    """A member whose memory holds only so many pictures."""

    def __init__(self, limit: int, error: Exception) -> None:
        super().__init__("narrow", "red")
        self.limit, self.error = limit, error

    def predict(self, images: Sequence[Image.Image]) -> Prediction:
        if len(images) > self.limit:
            raise self.error
        return super().predict(images)


def test_a_prediction_is_the_blend_and_a_prompt_near_it(version: IndexVersion) -> None:
    """The vector is the blend; a member's text is the subject where it is nearer than any other."""
    sayer = FixedMember("sayer", "purple dragon")
    weights = {"knn": 0.2, "sayer": 0.8}
    images = [picture("red"), picture("blue")]
    predictions = ensemble(version, sayer, weights=weights).predict(images)
    knn = Knn(neighbourhood(version), settings=KnnSettings()).predict(images)
    expected = blend({"knn": knn.vectors, "sayer": sayer.predict(images).vectors}, weights)
    np.testing.assert_allclose(
        [prediction.vector for prediction in predictions], expected, atol=1e-6
    )
    for row, prediction in enumerate(predictions):
        assert prediction.phrases[0] == Phrase("purple dragon", "subject")
        assert prediction.prompt == ", ".join(phrase.text for phrase in prediction.phrases)
        assert prediction.cosine == pytest.approx(
            float(WORDS.encode([prediction.prompt])[0] @ expected[row]), abs=1e-5
        )
        assert [(part.member, round(part.share, 6)) for part in prediction.contributions] == [
            ("knn", 0.2),
            ("sayer", 0.8),
        ]
        assert [part.text for part in prediction.contributions] == [
            (knn.texts or ())[row],
            "purple dragon",
        ]
        assert prediction.contributions[0].cosine == pytest.approx(
            float(knn.vectors[row] @ expected[row]), abs=1e-5
        )


def test_the_prompts_around_the_picture_are_candidates(version: IndexVersion) -> None:
    """Where the heaviest member writes no text, the subject is the one of theirs near the blend."""
    mute = FixedMember("mute", "blue and red", mute=True)
    (prediction,) = ensemble(version, mute, weights={"knn": 0.1, "mute": 0.9}, k=8).predict(
        [picture("blue")]
    )
    assert prediction.phrases == (Phrase("blue and red", "subject", 1, (5,)),)
    assert [part.text for part in prediction.contributions][1] is None
    (prediction,) = ensemble(version, mute, weights={"mute": 1}, k=8).predict([picture("red")])
    assert prediction.prompt == "blue and red", "also without knn"


def test_a_member_without_weight_is_not_asked(version: IndexVersion) -> None:
    """A weight of 0 costs nothing."""
    idle = FixedMember("idle", "x")
    (prediction,) = ensemble(version, idle, weights={"knn": 1, "idle": 0}).predict([picture("red")])
    assert idle.batches == []
    assert [part.member for part in prediction.contributions] == ["knn"]


def test_a_weight_without_a_member_is_refused(version: IndexVersion) -> None:
    """Nobody's weight is passed over in silence."""
    with pytest.raises(ConfigError, match="ghost"):
        ensemble(version, weights={"knn": 1, "ghost": 1})


def test_no_pictures_no_predictions(version: IndexVersion) -> None:
    """No pictures, no predictions, no member asked."""
    members = ensemble(version, weights={"knn": 1})
    assert members.predict([]) == []
    assert members.blend([]).shape == (0, 384)


def test_blends_alone_are_those_of_the_predictions(version: IndexVersion) -> None:
    """A submission needs no prompts, and gets the same vectors."""
    members = ensemble(
        version, FixedMember("sayer", "purple dragon"), weights={"knn": 0.2, "sayer": 0.8}
    )
    images = [picture("red"), picture("blue"), picture("lime")]
    expected = [prediction.vector for prediction in members.predict(images)]
    np.testing.assert_array_equal(members.blend(images), expected)


def test_what_an_encoder_sees_may_be_the_subject(version: IndexVersion) -> None:
    """It has an article, and no prompt that would hold it."""
    plain = ensemble(version, FixedMember("sayer", "ship", mute=True), weights={"sayer": 1})
    seeing = Ensemble(
        list(plain.members.values()),
        plain.blend_config,
        neighbourhood=plain.neighbourhood,
        minilm=WORDS,
        words=lambda images: [SeenWords((SeenWord("ship", 0.9),)) for _ in images],
    )
    (prediction,) = seeing.predict([picture("red")])
    assert prediction.phrases[0] == Phrase("a ship", "subject")
    assert prediction.tags == ()


def test_tags_are_told_unless_a_filter_forbids_them(version: IndexVersion) -> None:
    """The prediction lists them, likeliest first."""
    plain = ensemble(version, FixedMember("sayer", "ship", mute=True), weights={"sayer": 1})
    tags = (SeenWord("pixel art", 0.9), SeenWord("snow", 0.2))
    seeing = Ensemble(
        list(plain.members.values()),
        plain.blend_config,
        neighbourhood=plain.neighbourhood,
        minilm=WORDS,
        words=lambda images: [SeenWords(tags=tags) for _ in images],
    )
    (prediction,) = seeing.predict([picture("red")])
    assert prediction.tags == tags
    without = seeing.among(select(Filters(exclude=("snow",)), version.prompts))
    (prediction,) = without.predict([picture("red")])
    assert prediction.tags == tags[:1]


def test_filters_reach_every_part_of_an_answer(version: IndexVersion) -> None:
    """The search, knn, also behind a cache, and the composer, whose captions they bind as well."""
    sayer = FixedMember("sayer", "green ghost")
    members = ensemble(version, sayer, weights={"knn": 1, "sayer": 1}, k=8)
    cached = Ensemble(
        [CachedMember(member) for member in members.members.values()],
        members.blend_config,
        neighbourhood=members.neighbourhood,
        minilm=WORDS,
    )
    filters = Filters(exclude=("Green",))
    passing = select(filters, version.prompts)
    among = members.among(passing)
    (prediction,) = among.predict([picture("lime")])
    (by_cache,) = cached.among(passing).predict([picture("lime")])
    (unfiltered,) = members.predict([picture("lime")])
    assert "green" in unfiltered.prompt
    assert prediction.phrases
    for phrase in prediction.phrases:
        assert "green" not in phrase.text
        assert all("green" not in PROMPTS[row_id] for row_id in phrase.row_ids)
    assert by_cache.prompt == prediction.prompt
    np.testing.assert_array_equal(by_cache.vector, prediction.vector)
    assert np.abs(prediction.vector - unfiltered.vector).max() > 1e-3, "knn was filtered"
    assert among.calibration is None
    assert members.among(PassingPrompts()) is members
    (again,) = members.predict([picture("lime")])
    assert again.prompt == unfiltered.prompt


def test_fewer_prompts_pass_a_filter_than_are_looked_for(version: IndexVersion) -> None:
    """One, or none that names no artist: what is there answers, and the rest weighs nothing."""
    members = ensemble(version, weights={"knn": 1}, k=8)
    one = select(Filters(contains=("blue and red",)), version.prompts)
    (prediction,) = members.among(one).predict([picture("lime")])
    assert prediction.prompt == "blue and red"
    np.testing.assert_allclose(prediction.vector, WORDS.encode(["blue and red"])[0], atol=1e-3)
    none = PassingPrompts(accepts=lambda _text: False)
    (prediction,) = members.among(none).predict([picture("lime")])
    assert (prediction.prompt, prediction.phrases, prediction.shared) == ("", (), ())


def test_the_nearest_prompt_to_a_vector(version: IndexVersion) -> None:
    """The prompt around the picture that has the highest cosine, the first of equals."""
    around, images = neighbourhood(version, k=8), [picture("red")]
    first = around.surroundings(images).hits.ids[0, 0]
    row_ids, cosines = around.nearest(images, WORDS.encode(["blue and red"]))
    assert (around.texts(row_ids), round(float(cosines[0]), 4)) == (["blue and red"], 1)
    row_ids, cosines = around.nearest(images, np.zeros((1, 384), np.float32))
    assert (row_ids[0], cosines[0]) == (first, 0)


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
    prediction = predict_in_memory(narrow, [picture("red")] * 7)
    assert prediction.vectors.shape == (7, 384)
    assert prediction.texts == ("red",) * 7
    assert narrow.batches == [1, 2, 2, 2]


def test_a_member_that_cannot_hold_one_picture_fails_by_name() -> None:
    """Halving ends with an error that names the member; so does a damaged model.

    A bug is not turned into that error.
    """
    with pytest.raises(MemberUnavailable, match="narrow: its model and one picture do not fit"):
        predict_in_memory(Narrow(0, MemoryError()), [picture("red")] * 3)
    with pytest.raises(MemberUnavailable, match="narrow: its values are not finite"):
        predict_in_memory(Narrow(0, EncoderError("its values are not finite.")), [picture("red")])
    with pytest.raises(RuntimeError, match="shape"):
        predict_in_memory(Narrow(0, RuntimeError("shape mismatch")), [picture("red")] * 2)
