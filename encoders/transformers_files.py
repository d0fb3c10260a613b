"""The files of a model of transformers: in a folder, or in a repository of the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from imprompt.core.errors import WeightsMissing, WeightsRejected
from imprompt.core.hub.fetch import Announce, fetch_all, fetch_choice
from imprompt.core.hub.hub_files import HubFile, Wanted, cached_file, wanted
from imprompt.encoders.foreign import NEEDS_CODE, read_json, shard_names

CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Either is enough: transformers 5 writes the second alone, older ones wrote the first."""
_OPTIONAL = (
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_MODEL_SUFFIXES = frozenset({".jinja", ".json", ".safetensors", ".txt", ".model"})


def wanted_files(
    repo: str,
    *,
    check: Callable[[Path], object],
    hint: str,
    trusted: bool = False,
    same_weights: str = "",
) -> list[Wanted]:
    """Return the files to fetch for a model, as far as those on this machine tell.

    Its configuration comes first: nothing else is wanted of a model that `check` refuses. Its
    shards are known once their index is here.

    Args:
        repo: OWNER/NAME.
        check: raises if the model of a config.json cannot be used.
        hint: for errors, what else to name.
        same_weights: for errors, a name of the same weights in another layout, if there is one.
        trusted: the model is known to be usable, so all files are named at once.

    Raises:
        WeightsRejected: the index of its shards is not one; and what `check` raises.
    """
    configuration = wanted(repo, CONFIG, if_absent=f"It is not a model's repository. {hint}")
    config_path = cached_file(configuration.choices[0])
    if config_path is not None:
        check(config_path)
    elif not trusted:
        return [configuration]
    weights = wanted(
        repo,
        _WEIGHTS,
        _INDEX,
        if_absent="Its weights are not in safetensors, and no other form is read."
        + (f" Take {same_weights}: the same weights." if same_weights else ""),
    )
    files = [wanted(repo, name, optional=True) for name in (*_OPTIONAL, *_PROCESSORS)]
    files += [configuration, wanted(repo, *_PROCESSORS)]
    index = cached_file(HubFile(repo, _INDEX))
    if index is None or cached_file(weights.choices[0]) is not None:
        return [*files, weights]
    return [*files, weights, *(wanted(repo, shard) for shard in shard_names(index, hint=hint))]


def fetch_folder(
    repo: str,
    files: Callable[[], Sequence[Wanted]],
    *,
    offline: bool,
    announce: Announce,
    digests: Iterable[str] = (),
) -> Path:
    """Return the folder with the fetched files of a repository; see `wanted_files`.

    Raises:
        WeightsMissing: a file is not on this machine and cannot be fetched.
    """
    fetch_all(files, offline=offline, announce=announce, digests=digests)
    return fetch_choice(wanted(repo, CONFIG).choices, offline=offline, announce=announce).parent


def weight_files(folder: Path, *, hint: str) -> list[Path]:
    """Return the safetensors files with a model's weights, one or its shards in order.

    Raises:
        WeightsMissing: there are none, or not all.
        WeightsRejected: the index of the shards is not one.
    """
    if (single := folder / _WEIGHTS).is_file():
        return [single]
    if not (index := folder / _INDEX).is_file():
        raise WeightsMissing(f"{folder} has no {_WEIGHTS}.", path=folder, hint=hint)
    shards = [folder / name for name in shard_names(index, hint=hint)]
    if lacking := next((shard for shard in shards if not shard.is_file()), None):
        raise WeightsMissing(f"{folder} has no {lacking.name}.", path=lacking, hint=hint)
    return shards


def model_files(folder: Path) -> list[Path]:
    """Return the files of a folder that may belong to a model, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix in _MODEL_SUFFIXES)


def unknown_type(
    config_path: Path, config: object, *, cannot: str, known: Iterable[str]
) -> WeightsRejected:
    """Return the error for a config.json whose `model_type` is not among those that are known."""
    fields = config if isinstance(config, dict) else {}
    return WeightsRejected(
        f"{config_path} is of the model type {str(fields.get('model_type'))[:80]!r}, which "
        f"{NEEDS_CODE if 'auto_map' in fields else cannot}.",
        path=config_path,
        hint=f"These types work: {', '.join(known)}.",
    )


def float_type(config_path: Path, dtype: str) -> str:
    """Return `dtype`, but bfloat16 instead of float16 for a model that was trained in it.

    Such models, Gemma for example, overflow in float16. Types have torch's names.
    """
    if dtype != "float16":
        return dtype
    config = read_json(config_path)
    inside = (config, config.get("text_config") or {}) if isinstance(config, dict) else ()
    stored = {part.get(key) for part in inside for key in ("dtype", "torch_dtype")}
    return "bfloat16" if "bfloat16" in stored else dtype
