"""From a blend config to its members: the only module that knows all members and their parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.core.errors import ConfigError, EncoderError, MemberUnavailable
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.protocols import DualEncoder, EnsembleMember, TextEncoder
from imprompt.encoders.caching import CachedEncoder
from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.encoders.registry import load_index_encoder, output_encoder
from imprompt.ensemble.blend_config import CAPTION_SOURCE, BlendConfig, check_blend_config
from imprompt.ensemble.confidence import Calibration, find_calibration
from imprompt.ensemble.ensemble import Ensemble, Look, unavailable
from imprompt.ensemble.knn import Knn
from imprompt.ensemble.model_members import CachedMember, CaptionMember, Regressor
from imprompt.ensemble.neighbourhood import Neighbourhood
from imprompt.ensemble.rescoring import Rescorer
from imprompt.retriever.filters import PassingPrompts

if TYPE_CHECKING:
    from imprompt.ensemble.chat_completions import ChatCaptioner
    from imprompt.ensemble.image_to_text import ImageToText
    from imprompt.ensemble.interrogator.library_modes import LibraryModes
    from imprompt.ensemble.interrogator.phrase_lists import PhraseLists
    from imprompt.ensemble.ofa.captioner import OfaCaptioner
    from imprompt.ensemble.tagger import Tagger
    from imprompt.store.open_index import OpenIndex

OFA_SOURCE = "OFA-Sys/ofa-large-caption"


@dataclass(slots=True)
class MemberPool:
    """The parts that members are made of, and the members loaded so far.

    `version` is the index, `encoder` its encoder, `minilm` that of the output space,
    `neighbourhood` the search around a picture. `loaded` and `files`, the model files of each
    member, grow as members are loaded. `words` names what pictures show, if a model can.
    """

    blend_config: BlendConfig
    version: OpenIndex
    encoder: DualEncoder
    minilm: TextEncoder
    neighbourhood: Neighbourhood
    device: str
    offline: bool
    announce: Announce
    loaded: dict[str, EnsembleMember] = field(default_factory=dict)
    files: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    words: Look | None = None


def load_ensemble(
    blend_config: BlendConfig,
    version: OpenIndex,
    encoder: DualEncoder,
    *,
    degrade: bool = False,
    device: str = "auto",
    offline: bool = False,
    announce: Announce = silent,
    passing: PassingPrompts | None = None,
    effort: float | None = None,
    ready: Sequence[EnsembleMember] = (),
) -> Ensemble:
    """Return the ensemble of a blend config over one version.

    Args:
        blend_config: names the members and their settings.
        version: stays open as long as the ensemble is used.
        encoder: the version's encoder; all members and the search share its image rows.
        degrade: leave out a member that is unavailable and share its weight among the others;
            `Ensemble.left_out` lists them.
        device: "auto", "cpu" or "cuda".
        offline: fetch nothing.
        announce: takes a line for the user, such as which files will be fetched.
        passing: the prompts to search among; None for all.
        effort: of the search, see `imprompt.core.protocols.VectorIndex.search`.
        ready: members that need not be loaded.

    Raises:
        ConfigError: the blend config has an unknown member or unusable weights.
        SpaceMismatch: the encoder is of another space than the index.
        MemberUnavailable: a member is unavailable, and `degrade` is not set or none is left; or the
            index holds no MiniLM vectors. The hint says what to fetch.
    """
    _check_members(blend_config)
    minilm = output_encoder(encoder, device=device, announce=announce)
    neighbourhood = Neighbourhood(
        version, CachedEncoder(encoder), k=blend_config.knn.k, passing=passing, effort=effort
    )
    pool = MemberPool(
        blend_config, version, encoder, minilm, neighbourhood, device, offline, announce
    )
    if isinstance(encoder, LiteEncoder):
        pool.words = lambda images: encoder.images.words(images)  # loads the trunks when first used
    left_out = _load_members(pool, degrade=degrade, ready={member.name: member for member in ready})
    return Ensemble(
        list(pool.loaded.values()),
        blend_config,
        neighbourhood=neighbourhood,
        minilm=minilm,
        left_out=left_out,
        files=pool.files,
        calibration=_calibration(blend_config, version, encoder),
        words=pool.words,
        # The rows of lite's text tower are computed from MiniLM's, which judge already.
        judge=None if isinstance(encoder, LiteEncoder) else encoder.texts,
    )


def _check_members(blend_config: BlendConfig) -> None:
    check_blend_config(blend_config)
    if unknown := sorted({*blend_config.weights, *_captioners(blend_config)} - LOADERS.keys()):
        raise ConfigError(
            f"Unknown members: {', '.join(unknown)}.", hint=f"Known members: {', '.join(LOADERS)}."
        )


def _calibration(
    blend_config: BlendConfig, version: OpenIndex, encoder: DualEncoder
) -> Calibration | None:
    return find_calibration(
        blend_config.calibrations,
        encoder=encoder.spec.name,
        space=encoder.spec.space,
        rows=version.manifest.rows,
    )


def _load_members(
    pool: MemberPool, *, degrade: bool, ready: Mapping[str, EnsembleMember]
) -> list[MemberUnavailable]:
    """Load the members into the pool, and return the errors of those that are left out."""
    weights = pool.blend_config.weights
    names = {name for name, weight in weights.items() if weight > 0}
    names.update(_captioners(pool.blend_config))
    left_out: list[MemberUnavailable] = []
    # knn and the interrogator read the captions of other members, so they come last.
    for name in sorted(names, key=lambda name: (name == "knn", name == "interrogator", name)):
        try:
            member = ready[name] if name in ready else LOADERS[name](pool)
        except (MemberUnavailable, EncoderError) as error:
            missing = unavailable(name, error)
            if not degrade:
                raise missing from error
            left_out.append(missing)
        else:
            pool.loaded[name] = CachedMember(member)
    if not pool.loaded:
        raise left_out[0]
    return left_out


def _captioners(blend_config: BlendConfig) -> tuple[str, ...]:
    """Return the members whose captions knn reads."""
    return blend_config.knn.captions_of if blend_config.weights.get("knn", 0) > 0 else ()


def _load_knn(pool: MemberPool) -> EnsembleMember:
    knn = pool.blend_config.knn
    return Knn(
        pool.neighbourhood,
        settings=knn,
        captioners=[pool.loaded[name] for name in knn.captions_of if name in pool.loaded],
        minilm=pool.minilm,
        rescorer=_load_rescorer(pool) if knn.rescore else None,
    )


def _load_rescorer(pool: MemberPool) -> Rescorer:
    """Load the encoder that the blend config rescores with, by its name or its space."""
    name = pool.blend_config.knn.rescore
    manifest = pool.version.manifest
    spec = next((spec for spec in manifest.encoders if name in (spec.name, spec.space)), None)
    if spec is None:
        raise MemberUnavailable(
            "knn",
            f"the index {manifest.version} holds no vectors of {name} to rescore with",
            hint=f"Build it again with them: imprompt build-index --also {name} --replace",
        )
    encoder = load_index_encoder(
        spec, device=pool.device, offline=pool.offline, announce=pool.announce
    )
    return Rescorer(pool.version, encoder)


def _load_regressor(pool: MemberPool) -> EnsembleMember:
    if (source := pool.blend_config.sources.get("vit")) is not None:
        from imprompt.ensemble.vit.inference import TrainedTower

        tower = TrainedTower.load(source, device=pool.device, announce=pool.announce)
        pool.files["vit"] = tower.files
        return Regressor(tower)
    if isinstance(pool.encoder, LiteEncoder):
        return Regressor(pool.encoder.images)
    images = load_lite(device=pool.device, announce=pool.announce).images
    pool.words = images.words
    return Regressor(images)


def _load_ofa(pool: MemberPool) -> EnsembleMember:
    from imprompt.ensemble.ofa.captioner import OfaCaptioner

    return _caption_member(pool, "ofa", OfaCaptioner.load, default=OFA_SOURCE)


def _load_caption(pool: MemberPool) -> EnsembleMember:
    from imprompt.ensemble.caption_sources import load_captioner

    load = partial(load_captioner, style=pool.blend_config.caption_style)
    return _caption_member(pool, "caption", load, default=CAPTION_SOURCE)


def _caption_member(
    pool: MemberPool,
    name: str,
    load: Callable[..., ChatCaptioner | ImageToText | OfaCaptioner | Tagger],
    *,
    default: str,
) -> EnsembleMember:
    captioner = load(
        pool.blend_config.sources.get(name, default),
        device=pool.device,
        offline=pool.offline,
        announce=pool.announce,
    )
    pool.files[name] = captioner.files
    suffix = pool.blend_config.suffixes.get(name, "")
    return CaptionMember(name, captioner, minilm=pool.minilm, suffix=suffix)


def _load_interrogator(pool: MemberPool) -> EnsembleMember:
    from imprompt.ensemble.interrogator.corpus_phrases import corpus_phrases
    from imprompt.ensemble.interrogator.interrogator_member import Interrogator
    from imprompt.ensemble.interrogator.phrase_lists import package_lists

    settings = pool.blend_config.interrogator
    lists = package_lists()
    if settings.phrases == "corpus":
        flavors = corpus_phrases(pool.version, lists.artists, announce=pool.announce)
        lists = dataclasses.replace(lists, flavors=flavors)
    return Interrogator(
        lists,
        settings=settings,
        encoder=pool.encoder,
        neighbourhood=pool.neighbourhood,
        minilm=pool.minilm,
        library=None if settings.mode == "classic" else _library_mode(pool, lists),
        captioner=None if settings.mode == "negative" else _captioner_of_interrogator(pool),
        announce=pool.announce,
    )


def _library_mode(pool: MemberPool, lists: PhraseLists) -> LibraryModes:
    from imprompt.encoders.openclip import OpenClipEncoder
    from imprompt.ensemble.interrogator.library_modes import LibraryModes

    mode = pool.blend_config.interrogator.mode
    if not isinstance(pool.encoder, OpenClipEncoder):
        raise MemberUnavailable(
            "interrogator",
            f"the mode {mode!r} needs a model of open_clip, "
            f"and the index is made with {pool.encoder.spec.name}",
            hint='Use the mode "classic", or an index of such a model: '
            "imprompt build-index --encoder ViT-L-14/openai",
        )
    return LibraryModes(pool.encoder, lists, mode, announce=pool.announce)


def _captioner_of_interrogator(pool: MemberPool) -> EnsembleMember | None:
    """Return the blend config's member `caption`, else the "caption" of its `sources`, if any.

    With `lite` the sources are not used.
    """
    if "caption" in pool.loaded:
        return pool.loaded["caption"]
    reason = ""
    if isinstance(pool.encoder, LiteEncoder):
        reason = "with lite it has no captioner"
    elif "caption" not in pool.blend_config.sources:
        reason = 'the blend config names no captioner (sources: {"caption": ...})'
    if reason:
        pool.announce(f"interrogator uses its phrase lists alone: {reason}.")
        return None
    try:
        return _load_caption(pool)
    except (MemberUnavailable, EncoderError) as error:
        reason = unavailable("caption", error).reason
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
"""Every member by name.

Add a new member here, and its files to `imprompt.environment.model_files`.
"""
