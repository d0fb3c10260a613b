"""What a blend config, a member, a corpus or an encoder needs: packages, files that came with them, files of the hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.environment.presets import PRESETS, Preset

if TYPE_CHECKING:
    from imprompt.core.hub.fetch import Wanted
    from imprompt.ensemble.blend_config import BlendConfig

MINILM = ("minilm", "minilm-tokenizer")
LITE = (*MINILM, "efficientnet-lite2", "efficientnet-lite0")


def _nothing() -> Sequence[Wanted]:
    return ()


@dataclass(frozen=True, slots=True)
class Need:
    """One part of a blend config.

    `extra` is the one of the project's that brings its packages ("" for none), `packaged` are roles
    of `imprompt.encoders.weights`, `local` are files of the user or of the project, `wanted` says
    what the hub has to give, as far as what lies here tells.
    """

    what: str
    extra: str = ""
    packaged: tuple[str, ...] = ()
    local: tuple[Path, ...] = ()
    wanted: Callable[[], Sequence[Wanted]] = _nothing


def needs_of(name: str) -> list[Need]:
    """The parts behind a name: a blend config (`lite`, `clip`), a blend (`default`, `notebook`, a JSON file), a member, a corpus, an encoder.

    Raises:
        ConfigError: nothing is called so.
    """
    from imprompt.core.errors import ConfigError
    from imprompt.ensemble.blend_config import BLEND_CONFIGS, BlendConfig, load_blend_config
    from imprompt.ensemble.members import LOADERS
    from imprompt.indexer.readers.hub_datasets import HUB
    from imprompt.indexer.readers.sources import PRESETS as CORPORA

    if name in list(Preset):
        parts = PRESETS[Preset(name)]
        return [
            encoder_need(parts.encoder),
            Need("output space MiniLM", packaged=MINILM),
            corpus_need(parts.corpus),
        ]
    if name in BLEND_CONFIGS or name.endswith(".json"):
        return blend_needs(load_blend_config(name))
    if name in LOADERS:
        return blend_needs(BlendConfig(name=name, weights={name: 1.0}))
    if name in CORPORA:
        return [corpus_need(name)]
    if name.startswith(HUB):
        raise ConfigError(
            f"which files {name} has is known when it is read.",
            hint=f"build-index --corpus {name} fetches them.",
        )
    if "/" in name or ":" in name or Path(name).is_dir():
        return [encoder_need(name)]
    if _is_backbone(name):
        from imprompt.ensemble.vit.backbones import wanted_files

        return [Need(f"backbone {name}", extra="vit", wanted=lambda: wanted_files(name))]
    raise ConfigError(
        f"nothing is called {name!r}.",
        hint=f"Name a blend config ({', '.join(Preset)}), a blend ({', '.join(BLEND_CONFIGS)}, or a JSON file), a member "
        f"({', '.join(LOADERS)}), a corpus ({', '.join(CORPORA)}), an encoder such as ViT-L-14/openai, or a backbone of timm.",
    )


def _is_backbone(name: str) -> bool:
    """Whether timm, which takes seconds to import, has an architecture of that name."""
    if importlib.util.find_spec("timm") is None:
        return False
    import timm

    return bool(timm.is_model(name))


def blend_needs(blend_config: BlendConfig) -> list[Need]:
    """What the members that vote need; the encoder of the index comes on top."""
    voting = [name for name, weight in blend_config.weights.items() if weight > 0]
    captioners = list(blend_config.knn.captions_of) if "knn" in voting else []
    if "interrogator" in voting and "caption" in blend_config.sources:
        captioners.append("caption")  # its prompts begin with a caption, but for `lite`
    asked = dict.fromkeys((*voting, *captioners))
    second = (
        [encoder_need(blend_config.knn.rescore)]
        if "knn" in voting and blend_config.knn.rescore
        else []
    )
    return [
        Need("output space MiniLM", packaged=MINILM),
        *(_member_need(name, blend_config) for name in asked),
        *second,
    ]


def encoder_need(name: str) -> Need:
    """What `--encoder NAME` needs."""
    from imprompt.encoders.lite import HEAD_PATH
    from imprompt.encoders.openclip_source import wanted_files

    what = f"encoder {name}"
    if name == "lite" or name.startswith("lite:"):
        head = name.partition(":")[2]
        return Need(what, packaged=LITE, local=(Path(head).expanduser() if head else HEAD_PATH,))
    if Path(name).is_dir():
        return Need(what, extra="clip", local=(Path(name),), wanted=lambda: wanted_files(name))
    architecture, _, file = name.partition("//")
    if file and ":" not in architecture:
        path = next((path for path in (Path(file), Path("/", file)) if path.is_file()), Path(file))
        return Need(what, extra="clip", local=(path,), wanted=lambda: wanted_files(name))
    return Need(what, extra="clip", wanted=lambda: wanted_files(name))


def corpus_need(spec: str) -> Need:
    """What `--corpus SPEC` needs."""
    from imprompt.core.hub.fetch import HubFile, Wanted
    from imprompt.indexer.readers.sources import PRESETS, STARTER

    if (preset := PRESETS.get(spec)) is not None:
        files = [
            HubFile(preset.repo, name, preset.revision, "dataset") for name in preset.filenames
        ]
        return Need(f"corpus {spec}", wanted=lambda: [Wanted((file,)) for file in files])
    return Need(f"corpus {spec}", local=() if spec == STARTER else (Path(spec).expanduser(),))


def _member_need(name: str, blend_config: BlendConfig) -> Need:
    from imprompt.encoders.lite import HEAD_PATH
    from imprompt.ensemble.blend_config import CAPTION_SOURCE
    from imprompt.ensemble.members import OFA_SOURCE

    what = f"member {name}"
    if name == "vit":
        if (source := blend_config.sources.get(name)) is None:
            return Need(what, packaged=LITE, local=(HEAD_PATH,))
        from imprompt.ensemble.vit.vit_checkpoint import source_path

        return Need(what, extra="vit", local=(source_path(source),))
    if name == "ofa":
        from imprompt.ensemble.ofa.captioner import wanted_files as ofa_files

        return _model_need(what, blend_config.sources.get(name, OFA_SOURCE), ofa_files)
    if name == "caption":
        from imprompt.ensemble.image_to_text import wanted_files as caption_files

        return _model_need(what, blend_config.sources.get(name, CAPTION_SOURCE), caption_files)
    if name == "interrogator":
        return Need(what, extra="interrogator")
    return Need(what)  # knn reads the index, and nothing else


def _model_need(what: str, source: str, files: Callable[[str], Sequence[Wanted]]) -> Need:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Need(what, extra="ofa", local=(folder,))
    return Need(what, extra="ofa", wanted=lambda: files(source))
