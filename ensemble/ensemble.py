"""The ensemble: its members look at pictures, their contributions are blended, and the nearest words are the answer."""

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
    """What one member said of a picture: its `share` of the vote, its `cosine` to the blend, its words where it has any."""

    member: str
    share: float
    cosine: float
    text: str | None


@dataclass(frozen=True, slots=True)
class EnsemblePrediction:
    """The answer to one picture: `vector` (384,) unit, the words nearest to it with their `cosine`, and each member's vote.

    `nearness` is the mean score of the ten prompts nearest to the picture in the index space.
    """

    vector: Vectors
    prompt: str
    cosine: float
    contributions: tuple[Contribution, ...]
    nearness: float

    @property
    def signs(self) -> ConfidenceFeatures:
        """What the answer shows of its own quality."""
        agreement = math.fsum(vote.share * vote.cosine for vote in self.contributions)
        return ConfidenceFeatures(nearness=self.nearness, wording=self.cosine, agreement=agreement)


class Ensemble:
    """Members that vote by a blend config.

    Args:
        members: all that vote.
        blend_config: whose weights count; only their ratios do.
        neighbourhood: its prompts are candidates for the answer's words, beside those of the
            members.
        minilm: encodes the members' words.
        left_out: members of the blend config that cannot vote; the others share their weight.
        calibration: of the blend config for this index; None where there is none.
        files: what the members' models were read from, by member.

    Raises:
        ConfigError: the weights cannot be used, or a member that has one is neither here nor left
            out.
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
        self.calibration = (
            None if left_out else calibration
        )  # with fewer members it is another answer
        self.members = {member.name: member for member in members if member.name in self.shares}
        if missing := [name for name in self.shares if name not in self.members]:
            raise ConfigError(
                f"The blend config gives a weight to {', '.join(missing)}, which is not here."
            )

    def judge(self, images: Sequence[Image]) -> list[EnsemblePrediction]:
        """One prediction for each upright RGB picture, in the order given.

        Raises:
            MemberUnavailable: a member failed, or the memory does not hold one picture; it is
                named.
        """
        if not images:
            return []
        said = {name: predict_in_memory(member, images) for name, member in self.members.items()}
        vectors = blend(
            {name: prediction.vectors for name, prediction in said.items()}, self.shares
        )
        prompts = self._prompts(images, vectors, said)
        scores = self.neighbourhood.surroundings(images).hits.scores
        predictions = []
        for row, (prompt, cosine) in enumerate(prompts):
            contributions = [
                Contribution(
                    member=name,
                    share=share,
                    cosine=float(said[name].vectors[row] @ vectors[row]),
                    text=texts[row] if (texts := said[name].texts) is not None else None,
                )
                for name, share in self.shares.items()
            ]
            predictions.append(
                EnsemblePrediction(
                    vectors[row],
                    prompt,
                    cosine,
                    tuple(contributions),
                    nearness(scores[row].tolist()),
                )
            )
        return predictions

    def _prompts(
        self, images: Sequence[Image], vectors: Vectors, said: dict[str, Prediction]
    ) -> list[tuple[str, float]]:
        """For each picture the words nearest to its vector, of the prompts around it and the members' own, with their cosine."""
        row_ids, cosines = self.neighbourhood.nearest(images, vectors)
        found = list(zip(self.neighbourhood.texts(row_ids), cosines.tolist(), strict=True))
        spoken = [
            prediction.texts
            for name, prediction in said.items()
            if prediction.texts is not None and name != "knn"
        ]
        for texts in spoken:  # knn's are among the prompts around the picture
            own_cosines = np.einsum("nd,nd->n", self.minilm.encode(texts), vectors)
            for row, (text, cosine) in enumerate(zip(texts, own_cosines.tolist(), strict=True)):
                if cosine > found[row][1] and text:
                    found[row] = (text, cosine)
        return found


def predict_in_memory(member: EnsembleMember, images: Sequence[Image]) -> Prediction:
    """What the member says; where a batch does not fit into the memory, it is asked by halves.

    Raises:
        MemberUnavailable: its model fails, or the memory does not hold one picture.
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
                "the memory does not hold its model with one picture",
                hint="Use --device cpu, a smaller model, or a blend config without it.",
            ) from error
    half = len(images) // 2
    parts = [predict_in_memory(member, images[:half]), predict_in_memory(member, images[half:])]
    texts = [text for part in parts for text in part.texts or ()]
    return Prediction(
        np.concatenate([part.vectors for part in parts]),
        tuple(texts) if parts[0].texts is not None else None,
    )


def unavailable(name: str, error: EncoderError) -> MemberUnavailable:
    """The failure of a member's model as the failure of the member."""
    return MemberUnavailable(name, error.message.rstrip("."), hint=error.hint)
