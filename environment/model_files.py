"""What a preset, blend config, member, corpus or encoder needs: packages and model files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.environment.presets import PRESETS, Preset

if TYPE_CHECKING:
    from imprompt.core.hub.hub_files import Wanted
    from imprompt.ensemble.blend_config import BlendConfig

PACK_SUFFIX = ".imprompt"
MINILM = ("minilm", "minilm-tokenizer")
LITE = (*MINILM, "efficientnet-lite2", "efficientnet-lite0")


def _nothing() -> Sequence[Wanted]:
    return ()


@dataclass(frozen=True, slots=True)
class Need:
    """One part, such as an encoder, a member or a corpus, and the files that it needs.

    `extra` is the project's extra with its packages ("" for none), `pinned` are roles of
    `imprompt.encoders.weights`, `local` are files of the user or of the project. `wanted` returns
    what the hub has to provide, as far as the files on this machine tell.
    """

    name: str
    extra: str = ""
    pinned: tuple[str, ...] = ()
    local: tuple[Path, ...] = ()
    wanted: Callable[[], Sequence[Wanted]] = _nothing

    def settled(self) -> Sequence[Wanted]:
        """Return what is wanted, after choosing the commits on this machine that have all of it."""
        from imprompt.core.hub.hub_files import settle

        settle(self.wanted())
        return self.wanted()


def minilm_need() -> Need:
    """Return what the output space needs: MiniLM from its package, or else from the hub."""
    return _pinned_need("output space MiniLM", MINILM)


def _pinned_need(title: str, roles: tuple[str, ...], *local: Path) -> Need:
    from imprompt.encoders.weights import wanted_files

    return Need(title, pinned=roles, local=local, wanted=lambda: wanted_files(roles))


def needs_of(name: str) -> list[Need]:
    """Return the parts of a preset, blend config, member, corpus, encoder or backbone.

    Raises:
        ConfigError: nothing has that name.
    """
    from imprompt.core.errors import ConfigError
    from imprompt.ensemble.blend_config import BLEND_CONFIGS, BlendConfig, load_blend_config
    from imprompt.ensemble.members import LOADERS
    from imprompt.indexer.readers.sources import NAMED_CORPORA

    if name in list(Preset):
        parts = PRESETS[Preset(name)]
        return [encoder_need(parts.encoder), minilm_need(), corpus_need(parts.corpus)]
    if name in BLEND_CONFIGS or name.endswith(".json"):
        return blend_needs(load_blend_config(name))
    if name in LOADERS:
        return blend_needs(BlendConfig(name=name, weights={name: 1.0}))
    if name in NAMED_CORPORA:
        return [corpus_need(name)]
    if name.endswith(PACK_SUFFIX) and Path(name).is_file():
        from imprompt.environment.pack_files import pack_needs

        return pack_needs(Path(name))
    if "/" in name or ":" in name or Path(name).is_dir():
        return [encoder_need(name)]
    if _is_backbone(name):
        from imprompt.ensemble.vit.backbones import wanted_files

        return [Need(f"backbone {name}", extra="vit", wanted=lambda: wanted_files(name))]
    raise ConfigError(
        f"Nothing is called {name!r}.",
        hint=f"Name a preset ({', '.join(Preset)}), a blend config ({', '.join(BLEND_CONFIGS)}, "
        f"or a JSON file), a member ({', '.join(LOADERS)}), a corpus ({', '.join(NAMED_CORPORA)}), "
        "an encoder such as ViT-L-14/openai, or a backbone of timm.",
    )


def _is_backbone(name: str) -> bool:
    """Return whether timm has an architecture of that name; importing timm takes seconds."""
    if importlib.util.find_spec("timm") is None:
        return False
    import timm

    return bool(timm.is_model(name))


def blend_needs(blend_config: BlendConfig) -> list[Need]:
    """Return what the members of a blend config need, without the encoder of the index."""
    members = [name for name, weight in blend_config.weights.items() if weight > 0]
    captioners = list(blend_config.knn.captions_of) if "knn" in members else []
    if "interrogator" in members and "caption" in blend_config.sources:
        captioners.append("caption")  # prompts begin with a caption, except over `lite`
    needs = [minilm_need()]
    needs += [_member_need(name, blend_config) for name in dict.fromkeys((*members, *captioners))]
    if "knn" in members and blend_config.knn.rescore:
        needs.append(encoder_need(blend_config.knn.rescore))
    return needs


def encoder_need(name: str) -> Need:
    """Return what `--encoder NAME` needs."""
    from imprompt.core.weight_names import split_weights
    from imprompt.encoders import openclip_source, transformers_encoder
    from imprompt.encoders.lite import HEAD_PATH

    title = f"encoder {name}"
    if name == "lite" or name.startswith("lite:"):
        head = name.partition(":")[2]
        path = Path(head).expanduser() if head else HEAD_PATH
        return _pinned_need(title, LITE, path)
    local: tuple[Path, ...] = ()
    if Path(name).is_dir() or Path(name).is_absolute():
        local = (Path(name),)
    elif (split := split_weights(name)) is not None and ":" not in split[0]:
        local = (split[1],)
    layout = transformers_encoder if transformers_encoder.is_transformers(name) else openclip_source
    return Need(title, extra="clip", local=local, wanted=lambda: layout.wanted_files(name))


def corpus_need(spec: str) -> Need:
    """Return what `--corpus SPEC` needs."""
    from imprompt.core.hub.hub_files import HubFile, Wanted
    from imprompt.indexer.readers.sources import NAMED_CORPORA, STARTER

    if (corpus := NAMED_CORPORA.get(spec)) is not None:
        files = [
            HubFile(corpus.repo, name, corpus.revision, "dataset") for name in corpus.filenames
        ]
        return Need(f"corpus {spec}", wanted=lambda: [Wanted((file,)) for file in files])
    return Need(f"corpus {spec}", local=() if spec == STARTER else (Path(spec).expanduser(),))


def _member_need(name: str, blend_config: BlendConfig) -> Need:
    from imprompt.encoders.lite import HEAD_PATH
    from imprompt.ensemble.blend_config import CAPTION_SOURCE
    from imprompt.ensemble.members import OFA_SOURCE

    title = f"member {name}"
    if name == "vit":
        if (source := blend_config.sources.get(name)) is None:
            return _pinned_need(title, LITE, HEAD_PATH)
        from imprompt.ensemble.vit.vit_checkpoint import source_path

        return Need(title, extra="vit", local=(source_path(source),))
    if name == "ofa":
        from imprompt.ensemble.ofa.captioner import wanted_files as ofa_files

        return _model_need(title, blend_config.sources.get(name, OFA_SOURCE), ofa_files)
    if name == "caption":
        from imprompt.ensemble.caption_sources import wanted_files as caption_files
        from imprompt.ensemble.chat_completions import CHAT_PREFIX
        from imprompt.ensemble.tagger import is_tagger

        source = blend_config.sources.get(name, CAPTION_SOURCE)
        if source.startswith(CHAT_PREFIX):  # a server has the model
            return Need(title)
        files = partial(caption_files, style=blend_config.caption_style)
        return _model_need(title, source, files, extra="" if is_tagger(source) else "ofa")
    if name == "interrogator":
        return Need(title, extra="interrogator")
    if name != "knn":  # which reads only the index
        raise ValueError(f"nothing says which files the member {name} needs")
    return Need(title)


def _model_need(
    title: str, source: str, files: Callable[[str], Sequence[Wanted]], *, extra: str = "ofa"
) -> Need:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Need(title, extra=extra, local=(folder,))
    return Need(title, extra=extra, wanted=lambda: files(source))
