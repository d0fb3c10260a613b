"""Sources of open_clip models: from a user's name to configuration, weight file and tokenizer.

Names are those of CLIP Interrogator, and layouts those of open_clip. open_clip fetches nothing
itself: every remote file comes through `imprompt.core.hub.fetch`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from imprompt.core.errors import ConfigError, EncoderError, WeightsMissing, WeightsRejected
from imprompt.core.hub.fetch import Announce, fetch_all, fetch_choice
from imprompt.core.hub.hub_files import HubFile, Wanted, cached_choice, wanted
from imprompt.core.pip_lines import install_extra
from imprompt.core.weight_names import HUB_PREFIX, TRANSFORMERS_PREFIX, split_weights
from imprompt.encoders.checkpoints import tensor_shape
from imprompt.encoders.foreign import check_openclip, read_json

FOLDER_PREFIX = "local-dir:"
CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""In the order in which open_clip prefers them."""

PUBLISHED = {
    "ViT-B-16/openai": "timm/vit_base_patch16_clip_224.openai",
    "ViT-B-32/laion2b_s34b_b79k": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "ViT-B-32/openai": "timm/vit_base_patch32_clip_224.openai",
    "ViT-H-14/laion2b_s32b_b79k": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "ViT-L-14-336/openai": "timm/vit_large_patch14_clip_336.openai",
    "ViT-L-14/laion2b_s32b_b82k": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "ViT-L-14/openai": "timm/vit_large_patch14_clip_224.openai",
    "ViT-bigG-14/laion2b_s39b_b160k": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
}
"""Repositories of the most used names, from open_clip's table, which takes seconds to import. All
use CLIP's tokenizer."""

SAME_WEIGHTS = {
    "openai/clip-vit-base-patch16": "ViT-B-16/openai",
    "openai/clip-vit-base-patch32": "ViT-B-32/openai",
    "openai/clip-vit-large-patch14": "ViT-L-14/openai",
    "openai/clip-vit-large-patch14-336": "ViT-L-14-336/openai",
    "google/siglip-base-patch16-224": "ViT-B-16-SigLIP/webli",
    "google/siglip-so400m-patch14-384": "ViT-SO400M-14-SigLIP-384/webli",
    "google/siglip2-base-patch16-224": "ViT-B-16-SigLIP2/webli",
    "google/siglip2-large-patch16-256": "ViT-L-16-SigLIP2-256/webli",
}
"""Repositories for transformers, and the names of the same weights for open_clip."""

LONG_POSITIONS = "positional_embedding_res"
"""A tensor that only LongCLIP has: its table of positions for long texts."""

_HUB_WEIGHTS = (WEIGHT_FILES[0], WEIGHT_FILES[2])
_ADDRESS = re.compile(r"https?://[^/]+/([^/?#]+/[^/?#]+).*")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_TOKENIZER_EXTRAS = ("special_tokens_map.json", "config.json")


@dataclass(frozen=True, slots=True)
class OpenClipSource:
    """The files and settings of a model.

    `config` is open_clip's model configuration, `preprocess` the fields of its PreprocessCfg that
    differ from the default, `tokenizer` the folder of a Hugging Face tokenizer, or None for CLIP's.
    """

    name: str
    architecture: str
    config: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    weights: Path
    tokenizer: Path | None = None

    @property
    def has_single_precision(self) -> bool:
        """Return whether float16 fails: in CoCa, and beside a ViT in some text towers.

        open_clip converts every linear layer, but not the embeddings of a Hugging Face tower, and
        it fails at a projection with a bias.
        """
        text, vision = self.config.get("text_cfg", {}), self.config.get("vision_cfg", {})
        native = "timm_model_name" not in vision
        unusual = bool(text.get("hf_model_name") or text.get("proj_bias"))
        return "multimodal_cfg" in self.config or (native and unusual)


class _FolderConfig(msgspec.Struct, frozen=True):
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any] = {}


def import_open_clip() -> Any:
    """Return the library, which has no types.

    Raises:
        EncoderError: it is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise EncoderError(
            f"CLIP models need a package that is not installed: {error}.",
            hint=install_extra("clip"),
        ) from error
    return open_clip


def find_source(
    name: str,
    *,
    offline: bool,
    announce: Announce,
    weights: Path | None = None,
    digests: Iterable[str] = (),
) -> OpenClipSource:
    """Return the source of a name; files missing in the hub's cache are fetched unless `offline`.

    Args:
        name: see `imprompt.encoders.registry.load_encoder`.
        offline: fetch nothing.
        announce: takes a line for the user.
        weights: for `ARCH/PRETRAINED`, a local file in place of the published one.
        digests: see `imprompt.encoders.registry.load_encoder`.

    Raises:
        ConfigError: unknown architecture, tag or form of name, or `weights` with another form than
            `ARCH/PRETRAINED`.
        EncoderError: open_clip is not installed.
        WeightsMissing: a file is not on this machine and cannot be fetched.
        WeightsRejected: a configuration file has wrong contents.
    """

    def get(repo: str, *filenames: str) -> Path:
        return fetch_choice(
            [HubFile(repo, filename) for filename in filenames], offline=offline, announce=announce
        )

    if weights is not None:
        return _with_text_files(_from_tag(name, lambda *_: weights.absolute()), get)
    fetch_all(lambda: wanted_files(name), offline=offline, announce=announce, digests=digests)
    if name.startswith(HUB_PREFIX):
        source = _from_hub(name.removeprefix(HUB_PREFIX), get)
    elif _is_folder(name):
        source = _from_folder(_folder(name))
    elif "//" in name:
        source = _from_file(name, announce=announce)
    else:
        source = _from_tag(name, get)
    return _with_text_files(source, get)


def wanted_files(name: str) -> list[Wanted]:
    """Return the hub files of a model, as far as known without any request.

    A repository's configuration may name more files once it is fetched. Names in `PUBLISHED` need
    no import of open_clip.

    Raises:
        ConfigError, EncoderError, WeightsMissing, WeightsRejected: see `find_source`.
    """
    if name in PUBLISHED:
        return [wanted(PUBLISHED[name], *_HUB_WEIGHTS)]
    refuse_other_forms(name)
    if name.startswith(HUB_PREFIX):
        repo = name.removeprefix(HUB_PREFIX)
        config = wanted(repo, CONFIG_FILE, if_absent=_instead_of(repo))
        path = cached_choice(config.choices)
        return [
            config,
            *(_text_files(_read_config(path).model_cfg) if path else ()),
            wanted(repo, *_HUB_WEIGHTS),
        ]
    if _is_folder(name):
        source = _from_folder(_folder(name))
        return _text_files(source.config, has_tokenizer=True, folder=source.weights.parent)
    architecture, _, tag = name.partition("/")
    if "//" in name:
        return _text_files(_built_in(architecture))
    repo, filenames, _ = _published(architecture, tag)
    return [*_text_files(_built_in(architecture)), wanted(repo, *filenames)]


def refuse_other_forms(name: str) -> None:
    """Raise `ConfigError` for a repository's other names, with the one that is meant."""
    if name in SAME_WEIGHTS:
        raise ConfigError(
            f"{name} is a repository for transformers.",
            hint=f"Write {TRANSFORMERS_PREFIX}{name}, or for open_clip {SAME_WEIGHTS[name]}.",
        )
    if (address := _ADDRESS.fullmatch(name)) is not None:
        repo = address[1]
        meant = SAME_WEIGHTS.get(repo, f"{HUB_PREFIX}{repo}")
        raise ConfigError(f"{name} is an address.", hint=f"Write {meant}.")
    for prefix in (HUB_PREFIX, TRANSFORMERS_PREFIX):
        repo = name.removeprefix(prefix)
        if repo != name and repo.count("/") != 1:
            raise ConfigError(
                f"{repo!r} is not a hub repository.", hint=f"Write {prefix}OWNER/NAME."
            )


def _instead_of(repo: str) -> str:
    """Return what to name in place of a repository that is not in open_clip's layout."""
    if repo in SAME_WEIGHTS:
        return (
            f"It is a repository for transformers: write {TRANSFORMERS_PREFIX}{repo}, or for "
            f"open_clip {SAME_WEIGHTS[repo]}."
        )
    return (
        "It is not in the layout of open_clip. If it is in that of transformers: "
        f"{TRANSFORMERS_PREFIX}{repo}"
    )


def _text_files(
    config: Mapping[str, Any], *, has_tokenizer: bool = False, folder: Path | None = None
) -> list[Wanted]:
    """Return the files of a Hugging Face tokenizer and text tower, of other repositories."""
    text = config["text_cfg"]
    files = []
    if (repo := text.get("hf_tokenizer_name")) and not has_tokenizer:
        # Only old repositories need the optional ones; newer ones have it in tokenizer_config.json.
        files += [wanted(repo, file, optional=True) for file in _TOKENIZER_EXTRAS]
        files += [wanted(repo, file) for file in _TOKENIZER_FILES]
    if (tower := text.get("hf_model_name")) and not (folder and (folder / tower).is_dir()):
        files.append(wanted(tower, "config.json"))
    return files


def _is_folder(name: str) -> bool:
    return (
        name.startswith(FOLDER_PREFIX)
        or (Path(name) / CONFIG_FILE).is_file()
        or Path(name).is_absolute()
    )


def _folder(name: str) -> Path:
    return Path(name.removeprefix(FOLDER_PREFIX)).absolute()


def _from_hub(repo: str, get: Callable[..., Path]) -> OpenClipSource:
    config = _read_config(get(repo, CONFIG_FILE))
    weights = get(repo, *_HUB_WEIGHTS)
    name = f"{HUB_PREFIX}{repo}"
    return OpenClipSource(name, repo, config.model_cfg, config.preprocess_cfg, weights)


def _from_folder(folder: Path) -> OpenClipSource:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise WeightsMissing(
            f"there is no {path}.",
            path=path,
            hint="Name a folder as open_clip writes it for the hub.",
        )
    config = _read_config(path)
    weights = next((folder / file for file in WEIGHT_FILES if (folder / file).is_file()), None)
    if weights is None:
        raise WeightsMissing(
            f"{folder} holds none of {', '.join(WEIGHT_FILES)}.",
            path=folder,
            hint="Put the weights into the folder of the configuration.",
        )
    tokenizer = folder if config.model_cfg.get("text_cfg", {}).get("hf_tokenizer_name") else None
    return OpenClipSource(
        str(folder), folder.name, config.model_cfg, config.preprocess_cfg, weights, tokenizer
    )


def _from_file(name: str, *, announce: Announce) -> OpenClipSource:
    named, path = split_weights(name) or ("", Path(name))
    architecture, _, tag = named.partition("/")
    config = _built_in(architecture)
    if not path.is_file():
        raise WeightsMissing(
            f"there is no weight file {path}.",
            path=path,
            hint="Write ARCH/TAG//FILE, such as ViT-B-32/openai//weights.safetensors.",
        )
    path = path.absolute()
    record = _published(architecture, tag)[2] if tag else _agreed_record(architecture, path)
    model = _with_activation(config, record)
    if not tag and model["quick_gelu"] != config.get("quick_gelu", False):
        announce(
            f"{name} is taken for weights with QuickGELU, as all published ones of {architecture}. "
            "For others, name a folder with an open_clip_config.json."
        )
    if shape := tensor_shape(path, LONG_POSITIONS):  # a number alone has the shape ()
        model["text_cfg"] = {**model["text_cfg"], "context_length": shape[0]}
    return OpenClipSource(f"{named}//{path}", architecture, model, record, path)


def _from_tag(name: str, get: Callable[..., Path]) -> OpenClipSource:
    if _is_folder(name) or name.startswith(HUB_PREFIX) or "//" in name:
        raise ConfigError(
            f"{name} already names its weights.", hint="Give a name or a weight file, not both."
        )
    architecture, _, tag = name.partition("/")
    config = _built_in(architecture)
    repo, filenames, pretrained = _published(architecture, tag)
    config = _with_activation(config, pretrained)
    return OpenClipSource(name, architecture, config, pretrained, get(repo, *filenames))


def _with_activation(config: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with QuickGELU where the weights were trained with it.

    They give other vectors without it; open_clip would only warn.
    """
    quick_gelu = record.get("quick_gelu", False) or config.get("quick_gelu", False)
    return {**config, "quick_gelu": quick_gelu}


def _published(architecture: str, tag: str) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """Return (repository, names of the weight file, the preferred first, open_clip's record)."""
    open_clip = import_open_clip()
    _built_in(architecture)
    pretrained: dict[str, Any] = open_clip.get_pretrained_cfg(architecture, tag)
    if not pretrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ConfigError(
            f"open_clip knows no weights {tag!r} of {architecture}.",
            hint=f"It knows {tags}; a local file is {architecture}//FILE.",
        )
    repo, _, filename = pretrained.get("hf_hub", "").rpartition("/")
    if not repo:
        raise WeightsMissing(
            f"{architecture}/{tag} is published only outside the hub.",
            path=f"{architecture}/{tag}",
            hint=f"Download {pretrained.get('url')} and name {architecture}//FILE.",
        )
    return repo, _alternatives(filename), pretrained


def _alternatives(filename: str) -> tuple[str, ...]:
    """Return the names to try: the safetensors file first, as in open_clip, then the given one."""
    if not filename:
        return _HUB_WEIGHTS
    stem, _, suffix = filename.rpartition(".")
    return (f"{stem}.safetensors", filename) if suffix in ("bin", "pth") else (filename,)


def _built_in(architecture: str) -> dict[str, Any]:
    open_clip = import_open_clip()
    config: dict[str, Any] | None = (
        open_clip.get_model_config(architecture) if ":" not in architecture else None
    )
    if config is None:
        near = get_close_matches(architecture, open_clip.list_models(), n=5)
        hint = (
            f"Similar names: {', '.join(near)}."
            if near
            else "Names look like ViT-L-14/openai; a repository of the hub is hf-hub:OWNER/NAME."
        )
        raise ConfigError(f"open_clip has no architecture {architecture!r}.", hint=hint)
    return config


def _agreed_record(architecture: str, path: Path) -> dict[str, Any]:
    """Return the activation and preprocessing of all published weights of an architecture.

    Raises:
        ConfigError: they differ, so that nothing tells which of them a weight file needs.
    """
    open_clip = import_open_clip()
    from open_clip.transform import PreprocessCfg

    tags = open_clip.list_pretrained_tags_by_model(architecture)
    fields = ("quick_gelu", *asdict(PreprocessCfg()))
    kinds: dict[str, dict[str, Any]] = {}  # by the first tag of each kind
    for tag in tags:
        pretrained = open_clip.get_pretrained_cfg(architecture, tag)
        record = {name: pretrained[name] for name in fields if pretrained.get(name) is not None}
        if record not in kinds.values():
            kinds[tag] = record
    if len(kinds) > 1:
        raise ConfigError(
            f"Published weights of {architecture} differ in activation or preprocessing, and "
            f"{path.name} does not say which it needs.",
            hint="Name a published tag of the same kind: "
            + " or ".join(f"{architecture}/{tag}//{path.name}" for tag in kinds)
            + ".",
        )
    return next(iter(kinds.values()), {})


def _read_config(path: Path) -> _FolderConfig:
    """Read and check an untrusted configuration before anything else is fetched for it."""
    try:
        config = msgspec.convert(read_json(path, hint="It needs model_cfg."), _FolderConfig)
    except msgspec.MsgspecError as error:
        raise WeightsRejected(
            f"{path} is not an open_clip configuration: {error}.",
            path=path,
            hint="It needs model_cfg.",
        ) from error
    check_openclip(config.model_cfg, path=path)
    return config


def _with_text_files(source: OpenClipSource, get: Callable[..., Path]) -> OpenClipSource:
    """Return the source with the folders of its text files, once its sizes are checked."""
    check_openclip(source.config, path=source.weights, weights_bytes=source.weights.stat().st_size)
    text = dict(source.config.get("text_cfg", {}))
    tokenizer = source.tokenizer
    if (repo := text.get("hf_tokenizer_name")) and tokenizer is None:
        tokenizer = get(repo, _TOKENIZER_FILES[0]).parent
    if tower := text.get("hf_model_name"):
        folder = source.weights.parent / tower
        text["hf_model_name"] = str(folder if folder.is_dir() else get(tower, "config.json").parent)
    return replace(source, config={**source.config, "text_cfg": text}, tokenizer=tokenizer)
