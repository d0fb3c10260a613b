"""Confidence: for what it holds, and that it is not claimed where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from imprompt.core.errors import ConfigError, MemberUnavailable
from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.ensemble.blend_config import BlendConfig, load_blend_config, write_blend_config
from imprompt.ensemble.confidence import Calibration, ConfidenceFeatures, find_calibration, nearness
from imprompt.ensemble.ensemble import Ensemble
from imprompt.ensemble.estimates import ask
from imprompt.ensemble.members import load_ensemble
from imprompt.retriever import Answer, Filters, Question, Retriever
from imprompt.store.index_version import IndexVersion, open_version
from tests.conftest import Imprompt


def calibration(pair: LiteEncoder, *, rows: int = 3, intercept: float = 0.0) -> Calibration:
    return Calibration(
        encoder=pair.spec.name,
        space=pair.spec.space,
        rows=rows,
        close=0.6,
        intercept=intercept,
        nearness=1.0,
        wording=0.0,
        agreement=0.0,
        pairs=100,
        base_rate=0.1,
        ece=0.01,
        auroc=0.8,
    )


@pytest.fixture(scope="module")
def pair() -> LiteEncoder:
    return load_lite()


@pytest.fixture(scope="module")
def lite(lite_index: Path) -> Iterator[IndexVersion]:
    with open_version(lite_index) as opened:
        yield opened


@pytest.fixture
def red(tmp_path: Path) -> Path:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def answered(
    ensemble: Ensemble,
    pair: LiteEncoder,
    lite: IndexVersion,
    image: Path,
    filters: Filters | None = None,
) -> Answer:
    (answer,) = ask(
        [Question(image)],
        3,
        retriever=Retriever(lite, pair),
        ensemble=ensemble,
        filters=filters or Filters(),
    )
    assert isinstance(answer, Answer)
    return answer


def test_confidence_rises_with_the_signs() -> None:
    """It is the logistic of the signs, from 0 to 1, however large they are."""
    made = calibration(load_lite(), intercept=-1.0)
    sure, unsure = (
        ConfidenceFeatures(nearness=value, wording=0, agreement=0) for value in (1.0, -1.0)
    )
    assert made.probability(sure) == pytest.approx(0.5)
    assert 0 < made.probability(unsure) < made.probability(sure)
    steep = msgspec.structs.replace(made, nearness=1e9)
    assert [steep.probability(sign) for sign in (unsure, sure)] == pytest.approx([0, 1])


def test_a_calibration_holds_for_its_encoder_and_size(pair: LiteEncoder) -> None:
    """Half to twice the corpus, the same encoder; of several the nearest in size."""
    made = [calibration(pair, rows=rows) for rows in (1000, 1500, 100_000)]
    spec = pair.spec

    def rows_of(rows: int, *, encoder: str = spec.name, space: str = spec.space) -> int | None:
        found = find_calibration(made, encoder=encoder, space=space, rows=rows)
        return None if found is None else found.rows

    assert [rows_of(rows) for rows in (1000, 1400, 3000, 3001, 50_000, 200_001)] == [
        1000,
        1500,
        1500,
        None,
        100_000,
        None,
    ]
    assert rows_of(1000, encoder="another") is None
    assert rows_of(1000, space="another") is None


def test_nearness_is_the_mean_of_the_nearest() -> None:
    """Ten at most, fewer where there are fewer, and the lowest cosine where there are none."""
    assert nearness([0.5] * 10 + [0.0] * 90) == pytest.approx(0.5)
    assert nearness([0.4, 0.2, float("-inf")]) == pytest.approx(0.3)
    assert nearness([float("-inf")]) == -1


def test_a_calibrated_blend_config_tells_its_confidence(
    lite: IndexVersion, pair: LiteEncoder, red: Path
) -> None:
    """Below a confidence of 0.1 nothing is close, and the best guess is still shown."""
    for intercept, close in ((3.0, True), (-9.0, False)):
        made = calibration(pair, intercept=intercept)
        blend_config = BlendConfig(name="mine", weights={"vit": 1, "knn": 1}, calibrations=(made,))
        ensemble = load_ensemble(blend_config, lite, pair, offline=True)
        answer = answered(ensemble, pair, lite, red)
        assert answer.estimate is not None
        (prediction,) = ensemble.predict([Image.open(red).convert("RGB")])
        assert answer.estimate.confidence == pytest.approx(
            made.probability(prediction.confidence_features), abs=1e-6
        )
        assert answer.estimate.close is close
        assert answer.prompt == prediction.prompt != ""
        told = answer.to_json()
        assert (told["confidence"], told["close"]) == (answer.estimate.confidence, close)
        filtered = answered(ensemble, pair, lite, red, Filters(exclude=("lake",)))
        assert filtered.to_json()["confidence"] is None, "it was measured among all prompts"


def test_without_calibration_there_is_no_confidence(
    lite: IndexVersion, pair: LiteEncoder, red: Path
) -> None:
    """Another size of corpus, or a member that was left out, and nothing is claimed."""
    other = BlendConfig(
        name="mine", weights={"vit": 1, "knn": 1}, calibrations=(calibration(pair, rows=100_000),)
    )
    answer = answered(load_ensemble(other, lite, pair, offline=True), pair, lite, red)
    told = answer.to_json()
    assert (told["confidence"], told["close"]) == (None, None)
    degraded = BlendConfig(
        name="mine", weights={"vit": 1, "caption": 1}, calibrations=(calibration(pair),)
    )
    with pytest.raises(MemberUnavailable):
        load_ensemble(degraded, lite, pair, offline=True)
    assert load_ensemble(degraded, lite, pair, offline=True, degrade=True).calibration is None


def test_a_blend_config_keeps_its_calibrations(pair: LiteEncoder, tmp_path: Path) -> None:
    """They are in the file; one with a field that is not known is refused."""
    blend_config = BlendConfig(name="mine", weights={"vit": 1}, calibrations=(calibration(pair),))
    write_blend_config(tmp_path / "mine.json", blend_config)
    assert load_blend_config(str(tmp_path / "mine.json")) == blend_config
    (tmp_path / "odd.json").write_text(
        (tmp_path / "mine.json").read_text().replace('"ece"', '"luck"')
    )
    with pytest.raises(ConfigError, match="not a blend config"):
        load_blend_config(str(tmp_path / "odd.json"))


def test_query_says_that_nothing_is_close(
    imprompt: Imprompt, pair: LiteEncoder, lite_index: Path, red: Path, tmp_path: Path
) -> None:
    """With the best guess beside it, and what the prompts around the image share, if anything."""
    blend_config = BlendConfig(
        name="mine", weights={"vit": 1, "knn": 1}, calibrations=(calibration(pair, intercept=-9.0),)
    )
    write_blend_config(tmp_path / "mine.json", blend_config)
    asked = ("query", red, "--blend", tmp_path / "mine.json", "--index", lite_index)
    (answer,) = imprompt(*asked, "--json").lines
    done = imprompt(*asked)
    assert done.code == 0
    assert "Nothing in the corpus is close to this image." in done.out
    assert f"best guess: {answer['prompt']}\n" in done.out
    assert "estimated:" not in done.out
    assert "0% likely to be close to the true prompt" in done.out
    assert "Phrases\n" not in done.out, "those of a guess are not what it is about"
