"""The ensemble: its members' predictions are blended, and a prompt near the blend is composed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from imprompt.core.errors import ConfigError, EncoderError, MemberUnavailable
from imprompt.core.protocols import EnsembleMember, TextEncoder
from imprompt.core.values import Phrase, Prediction, Vectors
from imprompt.encoders.class_words import NOTHING_SEEN, SeenWord, SeenWords
from imprompt.encoders.memory import out_of_memory
from imprompt.encoders.minilm import DIM
from imprompt.ensemble.blend import blend, shares
from imprompt.ensemble.blend_config import BlendConfig
from imprompt.ensemble.composer import Composer
from imprompt.ensemble.confidence import Calibration, ConfidenceFeatures, nearness
from imprompt.ensemble.knn import Knn
from imprompt.ensemble.model_members import CachedMember
from imprompt.ensemble.neighbourhood import Neighbourhood
from imprompt.ensemble.phrases import AROUND, Sources, find_candidates, shared_phrases
from imprompt.ensemble.suggestions import suggest
from imprompt.retriever.answers import Contribution, Suggestion
from imprompt.retriever.filters import PassingPrompts

if TYPE_CHECKING:
    from PIL.Image import Image

Look: TypeAlias = "Callable[[Sequence[Image]], Sequence[SeenWords]]"
"""Returns words for what each picture shows."""


@dataclass(frozen=True, slots=True)
class EnsemblePrediction:
    """The ensemble's prediction for one picture.

    `vector` (384,) is the blend, a unit vector. `prompt` is composed of `phrases` to be near it;
    `cosine` is that of the two. `shared` are phrases to choose from, see `shared_phrases`.
    `tags` are words for what it shows. `nearness` is the mean score of the ten nearest prompts in
    the index space. `suggestion` is None where no negative prompt and no setting is common around
    the picture.
    """

    vector: Vectors
    prompt: str
    phrases: tuple[Phrase, ...]
    cosine: float
    shared: tuple[Phrase, ...]
    tags: tuple[SeenWord, ...]
    contributions: tuple[Contribution, ...]
    nearness: float
    suggestion: Suggestion | None = None

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
        neighbourhood: its prompts are what an answer is composed of, with the members' texts.
        minilm: encodes the texts that may be the answer.
        left_out: members that are not available; the others share their weight.
        calibration: of the blend config for this index, if there is one.
        files: the files that each member's model was read from.
        words: names what pictures show, if an encoder can.
        judge: the text tower of the index, if it judges prompts by the picture.

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
        words: Look | None = None,
        judge: TextEncoder | None = None,
    ) -> None:
        self.shares = shares(blend_config.weights, without=[error.name for error in left_out])
        self.blend_config = blend_config
        self.left_out = tuple(left_out)
        self.neighbourhood = neighbourhood
        self.minilm = minilm
        self._composer = Composer(minilm, judge)
        self.files = dict(files)
        self.words = words
        # The calibration was measured with all members and does not hold for fewer.
        self.calibration = None if left_out else calibration
        self.members = {member.name: member for member in members if member.name in self.shares}
        if missing := [name for name in self.shares if name not in self.members]:
            raise ConfigError(
                f"The blend config gives a weight to {', '.join(missing)}, which was not loaded."
            )

    def among(self, passing: PassingPrompts) -> Ensemble:
        """Return the ensemble over the prompts that pass filters; it shares models and vectors.

        It has no calibration, which was measured among all prompts.
        """
        if passing.all_pass:
            return self
        filtered = copy(self)
        filtered.calibration = None
        filtered.neighbourhood = neighbourhood = self.neighbourhood.among(passing)
        filtered.members = {
            name: _among(member, neighbourhood) for name, member in self.members.items()
        }
        return filtered

    def blend(self, images: Sequence[Image]) -> Vectors:
        """Return (n, 384) unit rows: the blend for each upright RGB picture, without a prompt.

        Raises:
            MemberUnavailable: a member failed, or one picture does not fit in memory.
        """
        if not images:
            return np.zeros((0, DIM), dtype=np.float32)
        return self._blend(self._predictions(images))

    def predict(
        self, images: Sequence[Image], wanted: Sequence[int] | None = None
    ) -> list[EnsemblePrediction]:
        """Return one prediction for each upright RGB picture, in order.

        Args:
            images: what the caller has encoded at once, so that nothing is encoded again.
            wanted: the positions of those to predict; None for all.

        Raises:
            MemberUnavailable: a member failed, or one picture does not fit in memory.
        """
        wanted = range(len(images)) if wanted is None else wanted
        if not wanted:
            return []
        predictions = self._predictions(images)
        vectors = self._blend(predictions)
        around = self.neighbourhood.prompts(images, AROUND)
        captions = [
            prediction.texts
            for name, prediction in predictions.items()
            if prediction.texts is not None and name != "knn"  # its texts are around the picture
        ]
        words = [NOTHING_SEEN] * len(images) if self.words is None else self.words(images)
        says = self.neighbourhood.passing.says
        candidates = [
            find_candidates(
                Sources(around[row], tuple(texts[row] for texts in captions), words[row], says)
            )
            for row in wanted
        ]
        surroundings = self.neighbourhood.surroundings(images)
        rows = list(wanted)
        pictures = surroundings.pictures[rows]
        compositions = self._composer.compose(vectors[rows], candidates, pictures)
        parameters = self.neighbourhood.parameters(
            prompt for row in wanted for prompt in around[row]
        )
        scores = surroundings.hits.scores
        return [
            EnsemblePrediction(
                vector=vectors[row],
                prompt=composed.prompt,
                phrases=composed.phrases,
                cosine=composed.cosine,
                shared=shared_phrases(found),
                tags=tuple(tag for tag in words[row].tags if says(tag.text)),
                contributions=self._contributions(predictions, vectors[row], row),
                nearness=nearness(scores[row].tolist()),
                suggestion=suggest(around[row], parameters, says=says),
            )
            for row, composed, found in zip(wanted, compositions, candidates, strict=True)
        ]

    def _predictions(self, images: Sequence[Image]) -> dict[str, Prediction]:
        return {name: predict_in_memory(member, images) for name, member in self.members.items()}

    def _blend(self, predictions: Mapping[str, Prediction]) -> Vectors:
        return blend(
            {name: prediction.vectors for name, prediction in predictions.items()}, self.shares
        )

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


def _among(member: EnsembleMember, neighbourhood: Neighbourhood) -> EnsembleMember:
    """Return the member over other prompts; only knn depends on them."""
    if isinstance(member, CachedMember):
        return CachedMember(_among(member.member, neighbourhood))
    return member.among(neighbourhood) if isinstance(member, Knn) else member


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
