"""From a blend config to its members: the one place that knows which members there are and what each is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.core.errors import ConfigError, EncoderError, MemberUnavailable
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.protocols import DualEncoder, EnsembleMember, TextEncoder
from imprompt.core.values import Ids, Prediction
from imprompt.encoders.caching import LastPictures
from imprompt.encoders.registry import load_index_encoder, output_encoder
from imprompt.ensemble.blend_config import CAPTION_SOURCE, BlendConfig, check_blend_config
from imprompt.ensemble.confidence import find_calibration
from imprompt.ensemble.ensemble import Ensemble, unavailable
from imprompt.ensemble.knn import Knn
from imprompt.ensemble.model_members import CaptionMember, Regressor
from imprompt.ensemble.neighbourhood import Neighbourhood, SharedPair
from imprompt.ensemble.rescoring import Rescorer

if TYPE_CHECKING:
    from PIL.Image import Image

    from imprompt.ensemble.interrogator.library_modes import LibraryModes
    from imprompt.ensemble.interrogator.phrase_lists import PhraseLists
    from imprompt.store.open_index import OpenIndex

OFA_SOURCE = "OFA-Sys/ofa-large-caption"


@dataclass(frozen=True, slots=True)
class MemberPool:
    """What members are made of.

    `version` is the index, `pair` its encoder, `minilm` the output space, `neighbourhood` the
    prompts around a picture, `loaded` the members that were made before, `files` what models were
    read from, by member.
    """

    blend_config: BlendConfig
    version: OpenIndex
    pair: DualEncoder
    minilm: TextEncoder
    neighbourhood: Neighbourhood
    device: str
    offline: bool
    announce: Announce
    loaded: dict[str, EnsembleMember] = field(default_factory=dict)
    files: dict[str, tuple[Path, ...]] = field(default_factory=dict)


class CachingMember:
    """A member that is asked by several and works once."""

    def __init__(self, member: EnsembleMember) -> None:
        self.name = member.name
        self._predict = LastPictures(member.predict)

    def predict(self, images: Sequence[Image]) -> Prediction:
        """What the member says; not to be changed."""
        return self._predict(images)


def load_ensemble(
    blend_config: BlendConfig,
    version: OpenIndex,
    pair: DualEncoder,
    *,
    degrade: bool = False,
    device: str = "auto",
    offline: bool = False,
    announce: Announce = silent,
    allowed: Ids | None = None,
    ready: Sequence[EnsembleMember] = (),
) -> Ensemble:
    """The ensemble of a blend config over one version.

    Args:
        version: stays open as long as the ensemble is used.
        pair: the version's encoder; its features are shared with `SharedPair` by all that ask
            it.
        degrade: leave out a member that cannot vote and share its weight among the others;
            `Ensemble.left_out` tells.
        device: "auto", "cpu" or "cuda".
        offline: fetch nothing.
        announce: takes a line for the user, such as what is about to be fetched.
        allowed: the only rows of the index that are found; None for all.
        ready: members that need not be loaded.

    Raises:
        ConfigError: the blend config names a member that is not known, or its weights cannot be used.
        SpaceMismatch: the pair is of another space than the index.
        MemberUnavailable: a member cannot vote, and `degrade` is not set; the hint says what to
            fetch. Also with `degrade` where none is left, and where the index holds no MiniLM
            vectors.
    """
    check_blend_config(blend_config)
    asked = {
        *(name for name, weight in blend_config.weights.items() if weight > 0),
        *_captioners(blend_config),
    }
    if unknown := sorted({*blend_config.weights, *_captioners(blend_config)} - LOADERS.keys()):
        raise ConfigError(
            f"No member is called {', '.join(unknown)}.",
            hint=f"Known members: {', '.join(LOADERS)}.",
        )
    minilm = output_encoder(pair, device=device, announce=announce)
    neighbourhood = Neighbourhood(version, SharedPair(pair), k=blend_config.knn.k, allowed=allowed)
    bench = MemberPool(
        blend_config, version, pair, minilm, neighbourhood, device, offline, announce
    )
    left_out: dict[str, MemberUnavailable] = {}
    made = {member.name: member for member in ready}
    for name in sorted(
        asked, key=lambda name: (name == "knn", name == "interrogator", name)
    ):  # these two read captions of others
        try:
            bench.loaded[name] = CachingMember(made[name] if name in made else LOADERS[name](bench))
        except (MemberUnavailable, EncoderError) as error:
            missing = error if isinstance(error, MemberUnavailable) else unavailable(name, error)
            if not degrade:
                raise missing from error
            left_out[name] = missing
    if not bench.loaded:
        raise next(iter(left_out.values()))
    return Ensemble(
        list(bench.loaded.values()),
        blend_config,
        neighbourhood=neighbourhood,
        minilm=minilm,
        left_out=list(left_out.values()),
        files=bench.files,
        calibration=find_calibration(
            blend_config.calibrations,
            encoder=pair.spec.name,
            space=pair.spec.space,
            rows=version.manifest.rows,
        ),
    )


def _captioners(blend_config: BlendConfig) -> tuple[str, ...]:
    return blend_config.knn.captions_of if blend_config.weights.get("knn", 0) > 0 else ()


def _load_knn(bench: MemberPool) -> EnsembleMember:
    captioners = [
        bench.loaded[name] for name in bench.blend_config.knn.captions_of if name in bench.loaded
    ]
    return Knn(
        bench.neighbourhood,
        settings=bench.blend_config.knn,
        captioners=captioners,
        minilm=bench.minilm,
        rescorer=_load_second(bench) if bench.blend_config.knn.rescore else None,
    )


def _load_second(bench: MemberPool) -> Rescorer:
    """The encoder that the blend config rescores with, by its name or its space."""
    name = bench.blend_config.knn.rescore
    manifest = bench.version.manifest
    spec = next((spec for spec in manifest.encoders if name in (spec.name, spec.space)), None)
    if spec is None:
        raise MemberUnavailable(
            "knn",
            f"the index {manifest.version} holds no vectors of {name} to rescore with",
            hint=f"Build it again with them: python cli.py build-index --also {name} --replace",
        )
    pair = load_index_encoder(
        spec.name, device=bench.device, offline=bench.offline, announce=bench.announce
    )
    return Rescorer(bench.version, pair)


def _load_regressor(bench: MemberPool) -> EnsembleMember:
    if (source := bench.blend_config.sources.get("vit")) is not None:
        from imprompt.ensemble.vit.inference import TrainedTower

        tower = TrainedTower.load(source, device=bench.device, announce=bench.announce)
        bench.files["vit"] = tower.files
        return Regressor(tower)
    from imprompt.encoders.lite import LiteEncoder, load_lite

    pair = (
        bench.pair
        if isinstance(bench.pair, LiteEncoder)
        else load_lite(device=bench.device, announce=bench.announce)
    )
    return Regressor(pair.images)


def _load_ofa(bench: MemberPool) -> EnsembleMember:
    from imprompt.ensemble.ofa.captioner import OfaCaptioner

    source = bench.blend_config.sources.get("ofa", OFA_SOURCE)
    captioner = OfaCaptioner.load(
        source, device=bench.device, offline=bench.offline, announce=bench.announce
    )
    bench.files["ofa"] = captioner.files
    return CaptionMember(
        "ofa", captioner, minilm=bench.minilm, suffix=bench.blend_config.suffixes.get("ofa", "")
    )


def _load_caption(bench: MemberPool) -> EnsembleMember:
    from imprompt.ensemble.image_to_text import ImageToText

    source = bench.blend_config.sources.get("caption", CAPTION_SOURCE)
    captioner = ImageToText.load(
        source, device=bench.device, offline=bench.offline, announce=bench.announce
    )
    bench.files["caption"] = captioner.files
    return CaptionMember(
        "caption",
        captioner,
        minilm=bench.minilm,
        suffix=bench.blend_config.suffixes.get("caption", ""),
    )


def _load_interrogator(bench: MemberPool) -> EnsembleMember:
    from imprompt.ensemble.interrogator.corpus_phrases import corpus_phrases
    from imprompt.ensemble.interrogator.interrogator_member import Interrogator
    from imprompt.ensemble.interrogator.phrase_lists import package_lists

    chosen = bench.blend_config.interrogator
    lists = package_lists()
    if chosen.phrases == "corpus":
        flavors = corpus_phrases(bench.version, lists.artists, announce=bench.announce)
        lists = dataclasses.replace(lists, flavors=flavors)
    return Interrogator(
        lists,
        settings=chosen,
        encoder=bench.pair,
        neighbourhood=bench.neighbourhood,
        minilm=bench.minilm,
        library=None if chosen.mode == "classic" else _library_mode(bench, lists),
        captioner=None if chosen.mode == "negative" else _captioner_of_interrogator(bench),
        announce=bench.announce,
    )


def _library_mode(bench: MemberPool, lists: PhraseLists) -> LibraryModes:
    from imprompt.encoders.openclip import OpenClipEncoder
    from imprompt.ensemble.interrogator.library_modes import LibraryModes

    mode = bench.blend_config.interrogator.mode
    if not isinstance(bench.pair, OpenClipEncoder):
        raise MemberUnavailable(
            "interrogator",
            f"the mode {mode!r} is the library's own, which needs a CLIP model, and the index is made with {bench.pair.spec.name}",
            hint='Use the mode "classic", or an index of a CLIP model: build-index --encoder ViT-L-14/openai',
        )
    return LibraryModes(bench.pair, lists, mode, announce=bench.announce)


def _captioner_of_interrogator(bench: MemberPool) -> EnsembleMember | None:
    """The blend config's member `caption`; else the model that its `sources` name as "caption", which nobody loads for `lite`."""
    from imprompt.encoders.lite import LiteEncoder

    if "caption" in bench.loaded:
        return bench.loaded["caption"]
    lite = isinstance(bench.pair, LiteEncoder)
    if lite or "caption" not in bench.blend_config.sources:
        why = (
            "with lite it has no captioner"
            if lite
            else 'the blend config names no captioner (sources: {"caption": ...})'
        )
        bench.announce(f"interrogator works on its phrase lists alone: {why}.")
        return None
    try:
        return _load_caption(bench)
    except (MemberUnavailable, EncoderError) as error:
        reason = error.reason if isinstance(error, MemberUnavailable) else error.message.rstrip(".")
        raise MemberUnavailable(
            "interrogator", f"its captioner cannot be used: {reason}", hint=error.hint
        ) from error


LOADERS: dict[str, Callable[[MemberPool], EnsembleMember]] = {
    "knn": _load_knn,
    "vit": _load_regressor,
    "interrogator": _load_interrogator,
    "caption": _load_caption,
    "ofa": _load_ofa,
}
"""Every member by name. A new one is a line here."""
