"""The ensemble: its members' predictions are blended, and the nearest text becomes the prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from imprompt.core.errors import ConfigError, EncoderError, MemberUnavailable
from imprompt.core.protocols import EnsembleMember, TextEncoder
from imprompt.core.values import Prediction, Vectors
from imprompt.encoders.memory import out_of_memory
from imprompt.ensemble.blend import blend, shares
from imprompt.ensemble.blend_config import BlendConfig
from imprompt.ensemble.confidence import Calibration, ConfidenceFeatures, nearness
from imprompt.ensemble.neighbourhood import Neighbourhood

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Contribution:
    """One member's part in a prediction.

    `share` is its part of the total weight, `cosine` that of its vector with the blend, `text` its
    text, if it writes any.
    """

    member: str
    share: float
    cosine: float
    text: str | None


@dataclass(frozen=True, slots=True)
class EnsemblePrediction:
    """The ensemble's prediction for one picture.

    `vector` (384,) is the blend, a unit vector; `prompt` is the text nearest to it, `cosine` their
    cosine. `nearness` is the mean score of the ten nearest prompts in the index space.
    """

    vector: Vectors
    prompt: str
    cosine: float
    contributions: tuple[Contribution, ...]
    nearness: float

    @property
    def confidence_features(self) -> ConfidenceFeatures:
        """Return what the confidence is computed from."""
        agreement = math.fsum(part.share * part.cosine for part in self.contributions)
        return ConfidenceFeatures(nearness=self.nearness, wording=self.cosine, agreement=agreement)


class Ensemble:
    """Members that are weighted by a blend config.

    Args:
        members: at least all that have a weight.
        blend_config: the weights; only their ratios count.
        neighbourhood: its prompts are candidates for the answer, as are the members' texts.
        minilm: encodes the members' texts.
        left_out: members that are not available; the others share their weight.
        calibration: of the blend config for this index, if there is one.
        files: the files that each member's model was read from.

    Raises:
        ConfigError: the weights are not valid, or a weighted member is neither given nor left out.
    """

    def __init__(
        self,
        members: Sequence[EnsembleMember],
        blend_config: BlendConfig,
        *,
        neighbourhood: Neighbourhood,
        minilm: TextEncoder,
        left_out: Sequence[MemberUnavailable] = (),
        calibration: Calibration | None = None,
        files: Mapping[str, Sequence[Path]] = MappingProxyType({}),
    ) -> None:
        self.shares = shares(blend_config.weights, without=[error.name for error in left_out])
        self.blend_config = blend_config
        self.left_out = tuple(left_out)
        self.neighbourhood = neighbourhood
        self.minilm = minilm
        self.files = dict(files)
        # The calibration was measured with all members and does not hold for fewer.
        self.calibration = None if left_out else calibration
        self.members = {member.name: member for member in members if member.name in self.shares}
        if missing := [name for name in self.shares if name not in self.members]:
            raise ConfigError(
                f"The blend config gives a weight to {', '.join(missing)}, which was not loaded."
            )

    def predict(self, images: Sequence[Image]) -> list[EnsemblePrediction]:
        """Return one prediction for each upright RGB picture, in order.

        Raises:
            MemberUnavailable: a member failed, or one picture does not fit in memory.
        """
        if not images:
            return []
        predictions = {
            name: predict_in_memory(member, images) for name, member in self.members.items()
        }
        vectors = blend(
            {name: prediction.vectors for name, prediction in predictions.items()}, self.shares
        )
        scores = self.neighbourhood.surroundings(images).hits.scores
        return [
            EnsemblePrediction(
                vector=vectors[row],
                prompt=prompt,
                cosine=cosine,
                contributions=self._contributions(predictions, vectors[row], row),
                nearness=nearness(scores[row].tolist()),
            )
            for row, (prompt, cosine) in enumerate(
                self._nearest_texts(images, vectors, predictions)
            )
        ]

    def _contributions(
        self, predictions: Mapping[str, Prediction], vector: Vectors, row: int
    ) -> tuple[Contribution, ...]:
        return tuple(
            Contribution(
                member=name,
                share=share,
                cosine=float(predictions[name].vectors[row] @ vector),
                text=None if (texts := predictions[name].texts) is None else texts[row],
            )
            for name, share in self.shares.items()
        )

    def _nearest_texts(
        self, images: Sequence[Image], vectors: Vectors, predictions: Mapping[str, Prediction]
    ) -> list[tuple[str, float]]:
        """Return, for each picture, the candidate text nearest to its vector, and their cosine."""
        row_ids, cosines = self.neighbourhood.nearest(images, vectors)
        nearest = list(zip(self.neighbourhood.texts(row_ids), cosines.tolist(), strict=True))
        for name, prediction in predictions.items():
            if prediction.texts is None or name == "knn":  # knn's texts are in the neighbourhood
                continue
            cosines = np.einsum("nd,nd->n", self.minilm.encode(prediction.texts), vectors)
            texts = zip(prediction.texts, cosines.tolist(), strict=True)
            for row, (text, cosine) in enumerate(texts):
                if text and cosine > nearest[row][1]:
                    nearest[row] = (text, cosine)
        return nearest


def predict_in_memory(member: EnsembleMember, images: Sequence[Image]) -> Prediction:
    """Return the member's prediction, in halves where the batch does not fit in memory.

    Raises:
        MemberUnavailable: its model fails, or one picture does not fit in memory.
    """
    try:
        return member.predict(images)
    except EncoderError as error:
        raise unavailable(member.name, error) from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if len(images) == 1:
            raise MemberUnavailable(
                member.name,
                "its model and one picture do not fit in memory",
                hint="Use --device cpu, a smaller model, or a blend config without it.",
            ) from error
    half = len(images) // 2
    parts = [predict_in_memory(member, images[:half]), predict_in_memory(member, images[half:])]
    texts = tuple(text for part in parts for text in part.texts or ())
    return Prediction(
        np.concatenate([part.vectors for part in parts]), None if parts[0].texts is None else texts
    )


def unavailable(name: str, error: MemberUnavailable | EncoderError) -> MemberUnavailable:
    """Return the failure of a member's model as that of the member; one of a member stays."""
    if isinstance(error, MemberUnavailable):
        return error
    return MemberUnavailable(name, error.message.rstrip("."), hint=error.hint)
