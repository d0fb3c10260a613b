"""From a blend config to an ensemble: shared work, unknown and unavailable members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imprompt.core.articles import with_article
from imprompt.core.errors import ConfigError, MemberUnavailable, SpaceMismatch
from imprompt.encoders.efficientnet import EfficientNetLite
from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.ensemble.blend_config import BlendConfig, KnnSettings, load_blend_config
from imprompt.ensemble.estimates import ask
from imprompt.ensemble.members import LOADERS, load_ensemble
from imprompt.retriever import Answer, Question, Retriever
from imprompt.store.index_version import IndexVersion, open_version
from tests.ensemble.builders import FixedMember, picture
from tests.retriever.colours import ColourPair


@pytest.fixture(scope="module")
def encoder() -> LiteEncoder:
    return load_lite()


@pytest.fixture(scope="module")
def lite(lite_index: Path) -> Iterator[IndexVersion]:
    with open_version(lite_index) as opened:
        yield opened


def blend_config(**weights: float) -> BlendConfig:
    return BlendConfig(name="test", weights=weights)


def test_the_default_blend_runs_on_packaged_files(lite: IndexVersion, encoder: LiteEncoder) -> None:
    """Nothing has to be fetched for it, and every member contributes."""
    (prediction,) = load_ensemble(
        load_blend_config("default"), lite, encoder, offline=True
    ).predict([picture("red")])
    assert {part.member for part in prediction.contributions} == set(
        load_blend_config("default").weights
    )
    assert prediction.prompt == ", ".join(phrase.text for phrase in prediction.phrases)
    subject = prediction.phrases[0]
    said = {"a red fox", "a blue lake", "a green hill"}
    said |= {with_article(word.text) for word in encoder.images.words([picture("red")])[0].nouns}
    assert subject.text in said
    regressor = next(part for part in prediction.contributions if part.member == "vit")
    expected = encoder.images.output([picture("red")])[0] @ prediction.vector
    assert regressor.cosine == pytest.approx(float(expected), abs=1e-5)


def test_a_picture_is_seen_once(
    lite: IndexVersion, encoder: LiteEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Search, knn, the embedded regressor and the words share one pass of the image trunk."""
    looks: list[EfficientNetLite] = []
    activations = EfficientNetLite.activations

    def counted(self: EfficientNetLite, images: Sequence[Image.Image]) -> object:
        looks.append(self)
        return activations(self, images)

    monkeypatch.setattr(EfficientNetLite, "activations", counted)
    monkeypatch.setattr(
        encoder, "images", load_lite().images
    )  # its trunk is bound at its first use
    ensemble = load_ensemble(blend_config(knn=1, vit=1), lite, encoder)
    questions = []
    for colour in ("red", "blue"):
        picture(colour).save(tmp_path / f"{colour}.png")
        questions.append(Question(image=tmp_path / f"{colour}.png"))
    retriever = Retriever(lite, ensemble.neighbourhood.encoder)
    answers = list(ask(questions, 2, retriever=retriever, ensemble=ensemble))
    assert all(isinstance(answer, Answer) and answer.estimate for answer in answers)
    assert looks
    assert len(looks) == len(set(looks)), "each trunk looks once"


def test_unknown_members_are_refused(lite: IndexVersion, encoder: LiteEncoder) -> None:
    """The message lists those that there are."""
    with pytest.raises(ConfigError, match="knn"):
        load_ensemble(blend_config(oracle=1, vit=1), lite, encoder, degrade=True)


def test_a_missing_member_is_an_error_or_left_out(
    lite: IndexVersion, encoder: LiteEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing member is an error; with --degrade the others take its weight, if there are any."""

    def missing(_pool: object) -> FixedMember:
        raise MemberUnavailable(
            "ofa", "its weights are not here", hint="Fetch OFA-Sys/ofa-large-caption."
        )

    monkeypatch.setitem(LOADERS, "ofa", missing)
    mixed = BlendConfig(name="mixed", weights={"vit": 1, "ofa": 3})
    with pytest.raises(MemberUnavailable, match=r"ofa: its weights.*Fetch OFA"):
        load_ensemble(mixed, lite, encoder)
    ensemble = load_ensemble(mixed, lite, encoder, degrade=True)
    assert ensemble.shares == {"vit": 1}
    assert [error.name for error in ensemble.left_out] == ["ofa"]
    with pytest.raises(MemberUnavailable, match="ofa"):
        load_ensemble(BlendConfig(name="alone", weights={"ofa": 1}), lite, encoder, degrade=True)


def test_the_real_ofa_says_what_to_fetch(lite: IndexVersion, encoder: LiteEncoder) -> None:
    """Its weights are missing and the network is shut: the error names the member and the file."""
    with pytest.raises(MemberUnavailable, match=r"ofa: OFA-Sys/ofa-large-caption/.*Fetch"):
        load_ensemble(BlendConfig(name="ofa", weights={"ofa": 1}), lite, encoder, offline=True)


def test_captions_reach_knn_and_are_made_once(
    lite: IndexVersion, encoder: LiteEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member whose texts join the prompts predicts once for both uses, even without a weight."""
    sayer = FixedMember("ofa", "a violet sea")
    monkeypatch.setitem(LOADERS, "ofa", lambda _pool: sayer)
    plain = load_ensemble(BlendConfig(name="x", weights={"knn": 1}), lite, encoder).predict(
        [picture("red")]
    )[0]
    settings = KnnSettings(captions_of=("ofa",))
    for weights in ({"knn": 1.0, "ofa": 1.0}, {"knn": 1.0}):
        sayer.batches.clear()
        (prediction,) = load_ensemble(
            BlendConfig(name="x", weights=weights, knn=settings), lite, encoder
        ).predict([picture("red")])
        assert sayer.batches == [1]
        assert np.abs(prediction.vector - plain.vector).max() > 1e-3


def test_another_encoder_than_the_indexs_is_refused(lite: IndexVersion) -> None:
    """Vectors of two spaces never meet."""
    with pytest.raises(SpaceMismatch):
        load_ensemble(blend_config(knn=1, vit=1), lite, ColourPair())
