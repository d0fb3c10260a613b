"""Captions by OFA: a checkpoint's files are loaded, and sentences are found by beam search."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import MemberUnavailable, WeightsMissing, WeightsRejected
from imprompt.core.hub.fetch import Announce, fetch_choice
from imprompt.core.hub.hub_files import Wanted, wanted
from imprompt.core.pip_lines import install_extra
from imprompt.encoders.checkpoints import read_tensors
from imprompt.encoders.torch_devices import choose_device
from imprompt.ensemble.ofa.ofa_checkpoint import fill
from imprompt.ensemble.ofa.ofa_config import END, PAD, START, OfaConfig, read_config

if TYPE_CHECKING:
    from PIL.Image import Image
    from tokenizers import Tokenizer
    from transformers import GenerationConfig

    from imprompt.ensemble.ofa.network import Ofa

PROMPT = " what does the image describe?"
"""The question that the checkpoint was trained on; the leading blank belongs to it."""
SIDE_PX = 480
"""Images are squashed to a square of this side, as in training."""
MAX_TOKENS = 20
"""The longest caption, with start and end tokens: transformers' default at the time."""
BEAMS = 5

_CONTROL_TOKENS = {"<s>": START, "<pad>": PAD, "</s>": END}
_UNKNOWN = 3
_PACKAGES = ("timm", "transformers")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_REMEDY = "Name the folder, or the repository, of OFA-Sys/ofa-large-caption."
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class OfaCaptioner:
    """A captioner; see `load`. `files` are those that it was read from."""

    def __init__(self, network: Ofa, tokenizer: Tokenizer, *, files: Sequence[Path] = ()) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self.files = tuple(files)

    @classmethod
    def load(
        cls, source: str | Path, *, device: str, offline: bool, announce: Announce
    ) -> OfaCaptioner:
        """Return the captioner of a checkpoint in the form of OFA-Sys/ofa-large-caption.

        Args:
            source: a folder with config.json, vocab.json, merges.txt and model.safetensors or
                pytorch_model.bin, or OWNER/NAME of such a repository; a folder goes first.
            device: "auto", "cpu" or "cuda".
            offline: do not use the network.
            announce: called before files are fetched.

        Raises:
            MemberUnavailable: timm or transformers is not installed.
            WeightsMissing: a file is missing and cannot be fetched.
            WeightsRejected: a file is damaged, holds code, or belongs to another network.
            ConfigError: no such device.
        """
        torch_device = choose_device(device)
        for package in _PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise MemberUnavailable(
                    "ofa",
                    f"the package {package} is not installed",
                    hint=f"Install it: {install_extra('ofa')}",
                )
        find = partial(_find, source=source, offline=offline, announce=announce)
        files = [find("config.json"), find("vocab.json"), find("merges.txt"), find(*_WEIGHTS)]
        config = read_config(files[0])
        tokenizer = _read_tokenizer(files[1], files[2], config)
        network = _load_network(files[3], config)
        return cls(network.to(torch_device), tokenizer, files=files)

    def captions(self, images: Sequence[Image]) -> list[str]:
        """Return one English sentence for each upright RGB image, in order.

        All images are held at once, in float32: at the large size the decoder's keys and values
        take 90 MB for each, the weights 1.9 GB. A sentence does not depend on the other images,
        except for ties within rounding.
        """
        if not images:
            return []
        import torch

        device = self._network.device
        prompt_ids = torch.tensor([START, *self._tokenizer.encode(PROMPT).ids, END], device=device)
        pixels = torch.from_numpy(_pixels(images)).to(device)
        with torch.inference_mode():
            source = self._network.encode(pixels, prompt_ids.expand(len(images), -1))
            starts = torch.full((len(images), 1), START, device=device)
            answers = self._network.generate(starts, source=source, generation_config=beam_search())
        special_ids = {*_CONTROL_TOKENS.values(), _UNKNOWN}
        return [
            self._tokenizer.decode([token for token in answer if token not in special_ids]).strip()
            for answer in answers.tolist()
        ]


def wanted_files(repo: str) -> list[Wanted]:
    """Return the files of a checkpoint in the form of OFA-Sys/ofa-large-caption."""
    return [
        *(wanted(repo, name) for name in ("config.json", "vocab.json", "merges.txt")),
        wanted(repo, *_WEIGHTS),
    ]


def beam_search() -> GenerationConfig:
    """Return the generation settings.

    5 beams, no repeated bigram, no padding inside a caption, an end within `MAX_TOKENS`.
    """
    from transformers import GenerationConfig

    return GenerationConfig(
        num_beams=BEAMS,
        no_repeat_ngram_size=2,
        max_length=MAX_TOKENS,
        suppress_tokens=[PAD],
        forced_eos_token_id=END,
        bos_token_id=START,
        pad_token_id=PAD,
        eos_token_id=END,
    )


def _pixels(images: Sequence[Image]) -> NDArray[np.float32]:
    """Return (b, 3, 480, 480) pixels from -1 to 1, squashed by a bicubic filter."""
    from PIL.Image import Resampling

    squares = [
        image.convert("RGB").resize((SIDE_PX, SIDE_PX), Resampling.BICUBIC) for image in images
    ]
    values = np.stack([np.asarray(square, dtype=np.float32) for square in squares])
    scaled = values / np.float32(127.5) - np.float32(1)  # (x / 255 - 0.5) / 0.5
    return scaled.transpose(0, 3, 1, 2)


def _find(*names: str, source: str | Path, offline: bool, announce: Announce) -> Path:
    """Return the first of `names` in the folder or the hub's cache; else fetch the last."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise WeightsMissing(
            f"{folder} has no {' and no '.join(names)}.", path=folder / names[-1], hint=_REMEDY
        )
    if not _HUB_NAME.fullmatch(str(source)):
        raise WeightsMissing(
            f"{source} is neither a folder nor OWNER/NAME of a repository.",
            path=source,
            hint=_REMEDY,
        )
    return fetch_choice(wanted(str(source), *names).choices, offline=offline, announce=announce)


def _read_tokenizer(vocabulary: Path, merges: Path, config: OfaConfig) -> Tokenizer:
    """Return the byte-level BPE (Radford et al. 2019) of a checkpoint."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # tokenizers raises nothing more precise
        raise WeightsRejected(
            f"{vocabulary} and {merges.name} are not a BPE vocabulary: {error}.",
            path=vocabulary,
            hint=_REMEDY,
        ) from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    prompt_ids = tokenizer.encode(PROMPT).ids
    fits = tokenizer.decode(prompt_ids) == PROMPT and max(prompt_ids) < config.vocab_size
    if not fits or any(
        tokenizer.token_to_id(token) != number for token, number in _CONTROL_TOKENS.items()
    ):
        raise WeightsRejected(
            f"{vocabulary} is not the vocabulary of this OFA network.",
            path=vocabulary,
            hint=_REMEDY,
        )
    return tokenizer


def _load_network(weights: Path, config: OfaConfig) -> Ofa:
    import torch

    from imprompt.ensemble.ofa.network import Ofa

    # On the meta device: random weights, to be replaced, would cost seconds and 1.9 GB.
    with torch.device("meta"):
        network = Ofa(config)
    fill(network, read_tensors(weights), config=config, path=weights)
    return network
