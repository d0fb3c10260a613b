"""Where an open_clip model lies: from the name that a user types to its configuration, its weight file and its tokenizer.

Names are those that CLIP Interrogator's users know, and the layouts are open_clip's own. open_clip fetches nothing itself: every
file from outside comes through `core.fetch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from core.errors import ConfigError, EncoderError, WeightsMissing, WeightsRejected
from core.fetch import Announce, HubFile, cached_file, fetch

HUB_PREFIX = "hf-hub:"
FOLDER_PREFIX = "local-dir:"
CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""In the order in which open_clip prefers them."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_TOKENIZER_EXTRAS = ("special_tokens_map.json", "config.json")


@dataclass(frozen=True, slots=True)
class OpenClipSource:
    """Everything that a model is made from.

    `config` is open_clip's model configuration, `preprocess` the fields of its PreprocessCfg that differ from the default,
    `tokenizer` the folder of a Hugging Face tokenizer, or None where the model takes CLIP's own.
    """

    name: str
    architecture: str
    config: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    weights: Path
    tokenizer: Path | None = None


class _FolderConfig(msgspec.Struct, frozen=True):
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any] = {}


def import_open_clip() -> Any:
    """The library, untyped as it is.

    Raises:
        EncoderError: it is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise EncoderError(
            f"CLIP models need a package that is not installed: {error}.", hint="pip install '.[cpu,clip]'"
        ) from error
    return open_clip


def find_source(name: str, *, offline: bool, announce: Announce) -> OpenClipSource:
    """Resolve a name; fetches what it names and the hub's cache lacks, unless `offline`.

    Raises:
        ConfigError: no such architecture, tag or form of name.
        EncoderError: open_clip is not installed.
        WeightsMissing: a file is neither here nor to be had.
        WeightsRejected: a configuration file is not what it should be.
    """

    def get(repo: str, filename: str) -> Path:
        return fetch(HubFile(repo, filename), offline=offline, announce=announce)

    if name.startswith(HUB_PREFIX):
        source = _from_hub(name.removeprefix(HUB_PREFIX), get)
    elif name.startswith(FOLDER_PREFIX) or (Path(name) / CONFIG_FILE).is_file() or Path(name).is_absolute():
        source = _from_folder(Path(name.removeprefix(FOLDER_PREFIX)).absolute())
    elif "//" in name:
        source = _from_file(name)
    else:
        source = _from_tag(name, get)
    return _with_text_files(source, get)


def _from_hub(repo: str, get: Callable[[str, str], Path]) -> OpenClipSource:
    if repo.count("/") != 1:
        raise ConfigError(f"{repo!r} is no hub repository.", hint="Write hf-hub:OWNER/NAME.")
    held = _read_config(get(repo, CONFIG_FILE))
    weights = _first_of(repo, (WEIGHT_FILES[0], WEIGHT_FILES[2]), get)
    return OpenClipSource(f"{HUB_PREFIX}{repo}", repo, held.model_cfg, held.preprocess_cfg, weights)


def _from_folder(folder: Path) -> OpenClipSource:
    config = folder / CONFIG_FILE
    if not config.is_file():
        raise WeightsMissing(f"there is no {config}.", path=config, hint="Name a folder as open_clip writes it for the hub.")
    held = _read_config(config)
    weights = next((folder / file for file in WEIGHT_FILES if (folder / file).is_file()), None)
    if weights is None:
        raise WeightsMissing(
            f"{folder} holds none of {', '.join(WEIGHT_FILES)}.", path=folder, hint="Put the weights beside the configuration."
        )
    tokenizer = folder if held.model_cfg.get("text_cfg", {}).get("hf_tokenizer_name") else None
    return OpenClipSource(str(folder), folder.name, held.model_cfg, held.preprocess_cfg, weights, tokenizer)


def _from_file(name: str) -> OpenClipSource:
    architecture, _, file = name.partition("//")
    config = _built_in(architecture)
    # Everything behind the second slash is a path, so `ARCH//x/y.pt` is relative; people write `ARCH//x/y.pt` for /x/y.pt as well.
    path = next((path for path in (Path(file), Path("/", file)) if path.is_file()), None)
    if path is None:
        raise WeightsMissing(
            f"there is no weight file {file}.", path=file, hint="Write ARCH//FILE, such as ViT-B-32//weights.safetensors."
        )
    path = path.absolute()
    return OpenClipSource(f"{architecture}//{path}", architecture, config, _agreed_preprocess(architecture), path)


def _from_tag(name: str, get: Callable[[str, str], Path]) -> OpenClipSource:
    open_clip = import_open_clip()
    architecture, _, tag = name.partition("/")
    config = _built_in(architecture)
    pretrained = open_clip.get_pretrained_cfg(architecture, tag)
    if not pretrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ConfigError(
            f"open_clip knows no weights {tag!r} of {architecture}.", hint=f"It knows {tags}; a local file is {architecture}//FILE."
        )
    repo, _, filename = pretrained.get("hf_hub", "").rpartition("/")
    if not repo:
        raise WeightsMissing(
            f"{name} is published outside of the hub only.",
            path=name,
            hint=f"Fetch {pretrained.get('url')} yourself and name {architecture}//FILE.",
        )
    # Weights trained with QuickGELU give other vectors without it; open_clip warns of the mismatch and goes on.
    config = {**config, "quick_gelu": pretrained.get("quick_gelu", False) or config.get("quick_gelu", False)}
    weights = _first_of(repo, _alternatives(filename), get)
    return OpenClipSource(name, architecture, config, pretrained, weights)


def _alternatives(filename: str) -> tuple[str, ...]:
    """The safetensors file that open_clip looks for first, then the one that is named."""
    if not filename:
        return (WEIGHT_FILES[0], WEIGHT_FILES[2])
    stem, _, suffix = filename.rpartition(".")
    return (f"{stem}.safetensors", filename) if suffix in ("bin", "pth") else (filename,)


def _first_of(repo: str, names: tuple[str, ...], get: Callable[[str, str], Path]) -> Path:
    for name in names:
        if (found := cached_file(HubFile(repo, name))) is not None:
            return found
    for name in names[:-1]:
        try:
            return get(repo, name)
        except WeightsMissing:  # many repositories have the older file only; the last name's error is the one to show
            continue
    return get(repo, names[-1])


def _built_in(architecture: str) -> dict[str, Any]:
    open_clip = import_open_clip()
    config: dict[str, Any] | None = open_clip.get_model_config(architecture) if ":" not in architecture else None
    if config is None:
        near = get_close_matches(architecture, open_clip.list_models(), n=5)
        hint = f"Names like it: {', '.join(near)}." if near else "Names look like ViT-L-14, RN50, convnext_base_w."
        raise ConfigError(f"open_clip has no architecture {architecture!r}.", hint=hint)
    return config


def _agreed_preprocess(architecture: str) -> dict[str, Any]:
    """What all published weights of the architecture were trained with, where they agree: a local file does not say it."""
    open_clip = import_open_clip()
    from open_clip.transform import PreprocessCfg

    known = [
        {field: pretrained[field] for field in asdict(PreprocessCfg()) if pretrained.get(field) is not None}
        for pretrained in (
            open_clip.get_pretrained_cfg(architecture, tag) for tag in open_clip.list_pretrained_tags_by_model(architecture)
        )
    ]
    return known[0] if known and all(each == known[0] for each in known) else {}


def _read_config(path: Path) -> _FolderConfig:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_FolderConfig)
    except (OSError, msgspec.MsgspecError) as error:
        raise WeightsRejected(f"{path} is no open_clip configuration: {error}.", path=path, hint="It needs model_cfg.") from error


def _with_text_files(source: OpenClipSource, get: Callable[[str, str], Path]) -> OpenClipSource:
    """Bring in the files of a Hugging Face tokenizer and of a Hugging Face text tower, which live in repositories of their own."""
    text = dict(source.config.get("text_cfg", {}))
    tokenizer = source.tokenizer
    if (repo := text.get("hf_tokenizer_name")) and tokenizer is None:
        for file in _TOKENIZER_FILES:
            tokenizer = get(repo, file).parent
        for file in _TOKENIZER_EXTRAS:
            try:
                get(repo, file)
            except WeightsMissing:  # what these hold stands in tokenizer_config.json in all but old repositories
                continue
    if tower := text.get("hf_model_name"):
        beside = source.weights.parent / tower
        text["hf_model_name"] = str(beside if beside.is_dir() else get(tower, "config.json").parent)
    return replace(source, config={**source.config, "text_cfg": text}, tokenizer=tokenizer)
