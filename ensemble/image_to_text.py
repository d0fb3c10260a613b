"""`caption`: BLIP or another image-to-text model of transformers, from a folder or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import MemberUnavailable, WeightsMissing
from imprompt.core.hub.fetch import Announce, fetch_all, fetch_choice
from imprompt.core.hub.hub_files import HubFile, Wanted, cached_file, wanted
from imprompt.core.pip_lines import install_extra
from imprompt.encoders.foreign import image_to_text, shard_names
from imprompt.encoders.torch_devices import choose_device

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_NEW_TOKENS = 40
_INDEX = "model.safetensors.index.json"
_OPTIONAL = (
    "processor_config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_MODEL_SUFFIXES = frozenset({".json", ".safetensors", ".txt", ".model"})
_REMEDY = (
    "Name a folder or a hub repository with an image-to-text model of transformers in safetensors."
)


class ImageToText:
    """A captioner that uses the model's own generation settings; see `load`."""

    def __init__(self, model: Any, processor: Any, *, files: Sequence[Path] = ()) -> None:
        self._model = model
        self._processor = processor
        self.files = tuple(files)

    @classmethod
    def load(cls, source: str, *, device: str, offline: bool, announce: Announce) -> ImageToText:
        """Return the model of a folder, which goes first, or of OWNER/NAME on the hub.

        Raises:
            MemberUnavailable: transformers is not installed.
            WeightsMissing: a file is missing and cannot be fetched.
            WeightsRejected: a file is damaged, or belongs to another model.
            ConfigError: no such device.
        """
        torch_device = choose_device(device)
        folder = Path(source).expanduser()
        if not folder.is_dir():
            folder = _fetch_folder(source, offline=offline, announce=announce)
        if not ((folder / "model.safetensors").is_file() or (folder / _INDEX).is_file()):
            raise WeightsMissing(f"{folder} has no model.safetensors.", path=folder, hint=_REMEDY)
        try:
            model, processor = image_to_text(folder, hint=_REMEDY)
        except ModuleNotFoundError as error:
            raise MemberUnavailable(
                "caption",
                f"the package {error.name} is not installed",
                hint=f"Install it: {install_extra('ofa')}",
            ) from error
        files = sorted(path for path in folder.iterdir() if path.suffix in _MODEL_SUFFIXES)
        return cls(model.eval().to(torch_device), processor, files=files)

    def captions(self, images: Sequence[Image]) -> list[str]:
        """Return one sentence for each upright RGB image, in order."""
        if not images:
            return []
        import torch

        inputs = self._processor(images=list(images), return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            answers = self._model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        return [
            text.strip() for text in self._processor.batch_decode(answers, skip_special_tokens=True)
        ]


def wanted_files(repo: str) -> list[Wanted]:
    """Return the files to fetch for a model; its shards are known once their index is cached.

    Raises:
        WeightsRejected: the cached index is not one.
    """
    weights = wanted(
        repo,
        "model.safetensors",
        _INDEX,
        if_absent="Its weights are not in safetensors, and no other form is read.",
    )
    files = [wanted(repo, name, optional=True) for name in _OPTIONAL]
    files += [wanted(repo, "config.json"), wanted(repo, "preprocessor_config.json")]
    index = cached_file(HubFile(repo, _INDEX))
    if index is None or cached_file(weights.choices[0]) is not None:
        return [*files, weights]
    return [*files, weights, *(wanted(repo, shard) for shard in shard_names(index, hint=_REMEDY))]


def _fetch_folder(repo: str, *, offline: bool, announce: Announce) -> Path:
    """Return the folder of the fetched files of a repository."""
    fetch_all(lambda: wanted_files(repo), offline=offline, announce=announce)
    return fetch_choice(
        wanted(repo, "config.json").choices, offline=offline, announce=announce
    ).parent
