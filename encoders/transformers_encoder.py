"""Encoders in the layout of transformers: CLIP, SigLIP, SigLIP 2, Qwen3-VL-Embedding and others.

The networks are those of transformers. What differs from its pipelines is only that texts are
sorted by length, so that short ones are not padded to the longest.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import (
    ConfigError,
    EncoderError,
    WeightsMissing,
    WeightsRejected,
    first_line,
)
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.hub.hub_files import Wanted, cached_file, wanted
from imprompt.core.lookahead import side_by_side
from imprompt.core.pip_lines import install_extra
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.core.weight_names import TRANSFORMERS_PREFIX
from imprompt.encoders import foreign, transformers_files
from imprompt.encoders.batches import IMAGES_A_BATCH, TEXTS_A_BATCH, Batches, limited_text
from imprompt.encoders.caching import token_cache
from imprompt.encoders.checkpoints import tensor_shape, tensors_sha256
from imprompt.encoders.openclip_source import CONFIG_FILE, SAME_WEIGHTS, refuse_other_forms
from imprompt.encoders.torch_devices import (
    choose_device,
    choose_dtype,
    normalized,
    torch_provenance,
)
from imprompt.encoders.transformers_types import HINT, EncoderType, encoder_type, trained_on_english
from imprompt.encoders.weights import cached_sha256, file_sha256

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_QUESTION = (
    "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
_NO_TEXT = "NULL"
_PLACE_OF_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
"""Qwen3-VL-Embedding's prompt and instruction, in the chat template of its repository. From
https://github.com/QwenLM/Qwen3-VL-Embedding, src/models/qwen3_vl_embedding.py, as are the two
numbers below."""
_CHAT_TOKENS = 8_192
_CHAT_PIXELS = {"shortest_edge": 4 * 32 * 32, "longest_edge": 1_800 * 32 * 32}
"""Least and most pixels of an image."""
_CHAT_IMAGES = 4
"""In a batch; an image may be 1,800 tokens."""
_CLIP_POSITIONS = "text_model.embeddings.position_embedding.weight"
_WHOLE_TOKENIZERS = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_TOKENIZER_PARTS = (("vocab.json", "merges.txt"), ("vocab.txt",))
"""A complete set in each row."""
_OF_THE_LIBRARY = frozenset(
    {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"}
)
"""Fields of a config.json that do not change a vector."""


@dataclass(frozen=True, slots=True)
class TransformersSource:
    """The files of a model: a checked folder, and the type that its config.json names."""

    name: str
    folder: Path
    kind: EncoderType
    weights: tuple[Path, ...]

    @property
    def config_path(self) -> Path:
        return self.folder / transformers_files.CONFIG


class TransformersModel:
    """The network, its tokenizer and its image processor, each read at its first use."""

    def __init__(
        self, source: TransformersSource, spec: EncoderSpec, *, device: str, announce: Announce
    ) -> None:
        self.source = source
        self.spec = spec
        self.announce = announce
        self._device = device

    @cached_property
    def device(self) -> str:
        return choose_device(self._device)

    @cached_property
    def dtype_name(self) -> str:
        dtype = choose_dtype(self.device, self.spec.dtype or "auto")
        return transformers_files.float_type(self.source.config_path, dtype)

    @cached_property
    def network(self) -> Any:
        """Return the model in evaluation mode.

        Raises:
            WeightsRejected: the weights are damaged, or of another model.
        """
        network = foreign.dual_network(
            self.source.folder, config=_model_config(self.source), dtype=self.dtype_name, hint=HINT
        )
        return network.to(self.device).eval()

    @cached_property
    def tokenizer(self) -> Any:
        return foreign.text_tokenizer(
            self.source.folder, hint=HINT, lower_case=self.source.kind.lower_case
        )

    @cached_property
    def image_processor(self) -> Any:
        return foreign.image_processor(self.source.folder, hint=HINT)

    @cached_property
    def chat_processor(self) -> Any:
        return foreign.chat_processor(self.source.folder, hint=HINT)

    def on_device(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors on the model's device, those of floats in its type."""
        import torch

        dtype = getattr(torch, self.dtype_name)
        return {
            name: tensor.to(self.device, dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }

    def last_tokens(self, inputs: dict[str, Tensor]) -> Vectors:
        """Return the unit rows of a language model's last tokens that are not padding."""
        import torch

        inputs = self.on_device(inputs)
        with torch.inference_mode():
            hidden = self.network(**inputs).last_hidden_state
        lengths = inputs["attention_mask"].sum(dim=1)
        return normalized(hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1])


class TransformersTexts:
    """The text tower, an `imprompt.core.protocols.TextEncoder`."""

    def __init__(self, model: TransformersModel) -> None:
        self._model = model
        self._batches = Batches(TEXTS_A_BATCH, announce=model.announce)
        self._tokens = token_cache(self._tokenized)
        self._one_thread = threading.Lock()  # a tokenizer is changed while it truncates

    def encode(self, items: Sequence[str]) -> Vectors:
        """Return (n, dim) float32 unit rows in the order given; texts are cut at `max_tokens`."""
        rows = [row for row, _ in self._tokens(items)] if items else []
        return self._batches.encode_by_length(
            rows,
            [len(row) for row in rows],
            keys=[tuple(row) for row in rows],
            dim=self._model.spec.dim,
            encode_batch=self._encode_batch,
        )

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) tokens of each text before truncation, special tokens included.

        Only the first 5,000 characters of a text are counted.
        """
        lengths = [length for _, length in self._tokens(texts)] if texts else []
        return np.array(lengths, dtype=np.int64)

    def provenance(self) -> dict[str, str | int]:
        """Return how the vectors are computed, with the batch size that memory allowed."""
        model = self._model
        return torch_provenance(
            model.device, dtype=model.dtype_name, batch_size=self._batches.batch_size
        )

    def _tokenized(self, texts: Sequence[str]) -> list[tuple[list[int], int]]:
        """Return the tokens of each text, cut at the model's limit, and their number before."""
        most = self._model.spec.max_tokens
        texts = [limited_text(text) for text in texts]
        if self._model.source.kind.pools_last_token:
            texts = [_QUESTION.format(text or _NO_TEXT) for text in texts]
        with self._one_thread:
            rows = self._model.tokenizer(texts)["input_ids"]
            lengths = [len(row) for row in rows]
            long = [index for index, length in enumerate(lengths) if length > most]
            if long:
                cut = self._model.tokenizer(
                    [texts[index] for index in long], truncation=True, max_length=most
                )["input_ids"]
                for index, row in zip(long, cut, strict=True):
                    rows[index] = row
        return list(zip(rows, lengths, strict=True))

    def _encode_batch(self, rows: list[list[int]]) -> Vectors:
        import torch

        model = self._model
        kind, most = model.source.kind, model.spec.max_tokens
        inputs = model.tokenizer.pad(
            {"input_ids": rows},
            padding="max_length" if kind.pads_texts else "longest",
            max_length=most if kind.pads_texts else None,
            padding_side="right" if kind.pools_last_token else None,
            return_tensors="pt",
        )
        if kind.pools_last_token:
            return model.last_tokens(dict(inputs))
        with torch.inference_mode():
            return _pooled(model.network.get_text_features(**model.on_device(dict(inputs))))


class TransformersImages:
    """The image tower, for upright RGB images of any size."""

    def __init__(self, model: TransformersModel) -> None:
        self._model = model
        at_once = _CHAT_IMAGES if model.source.kind.pools_last_token else IMAGES_A_BATCH
        self._batches = Batches(at_once, announce=model.announce)

    def encode(self, items: Sequence[Image]) -> Vectors:
        """Return (n, dim) float32 unit rows in the order given, with the model's preprocessing."""
        encode = (
            self._encode_in_chat if self._model.source.kind.pools_last_token else self._encode_batch
        )
        return self._batches.encode(items, dim=self._model.spec.dim, encode_batch=encode)

    def _encode_batch(self, images: list[Image]) -> Vectors:
        import torch

        model = self._model
        process = model.image_processor  # made here, once, before threads ask for it

        def pixels(image: Image) -> dict[str, Tensor]:
            return dict(process(images=[image], return_tensors="pt"))

        parts = list(side_by_side(pixels, images))
        inputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        with torch.inference_mode():
            return _pooled(model.network.get_image_features(**model.on_device(inputs)))

    def _encode_in_chat(self, images: list[Image]) -> Vectors:
        model = self._model
        inputs = model.chat_processor(
            images=[[image] for image in images],
            text=[_QUESTION.format(_PLACE_OF_IMAGE)] * len(images),
            images_kwargs={"size": _CHAT_PIXELS},
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        return model.last_tokens(dict(inputs))


class TransformersEncoder:
    """Both towers of one model, which is read at the first use of either."""

    def __init__(self, model: TransformersModel) -> None:
        self.model = model
        self.spec = model.spec

    @cached_property
    def texts(self) -> TransformersTexts:
        return TransformersTexts(self.model)

    @cached_property
    def images(self) -> TransformersImages:
        return TransformersImages(self.model)


def is_transformers(name: str) -> bool:
    """Return whether an encoder's name is that of a model of transformers: `hf:…`, or a folder."""
    if name.startswith(TRANSFORMERS_PREFIX):
        return True
    folder = Path(name)
    # Repositories for both libraries are read by open_clip.
    return (folder / transformers_files.CONFIG).is_file() and not (folder / CONFIG_FILE).is_file()


def load_transformers(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    announce: Announce = silent,
    digests: Iterable[str] = (),
) -> TransformersEncoder:
    """Return the encoder of a name; see `imprompt.encoders.registry.load_encoder`.

    Args:
        name: `hf:OWNER/NAME`, or a folder with a config.json.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "auto", "float32" or "bfloat16"; "auto" is on CUDA float16, or bfloat16 if the
            weights were trained in it, else float32.
        offline: fetch nothing.
        announce: takes a line for the user.
        digests: see `imprompt.encoders.registry.load_encoder`.

    Raises:
        ConfigError: unknown device or type, a type that the device lacks, or a name of another
            form.
        EncoderError: transformers is not installed, or too old for the model.
        WeightsMissing: a file is not on this machine and cannot be fetched.
        WeightsRejected: a file has wrong contents, or the model cannot be an encoder.
    """
    choose_dtype(choose_device(device), dtype)
    repo = name.removeprefix(TRANSFORMERS_PREFIX)
    if repo == name:
        folder = Path(name).absolute()
        name = str(folder)
    else:
        folder = transformers_files.fetch_folder(
            repo, lambda: wanted_files(name), offline=offline, announce=announce, digests=digests
        )
    kind = _usable_type(name, folder / transformers_files.CONFIG)
    weights = tuple(transformers_files.weight_files(folder, hint=HINT))
    foreign.check_transformers_folder(folder, hint=HINT)
    source = TransformersSource(name, folder, kind, weights)
    try:
        spec = _spec(source)
    except ImportError as error:
        raise EncoderError(
            f"{name} needs a package that is not installed: {first_line(error)}.",
            hint=install_extra("clip"),
        ) from error
    spec = replace(spec, dtype="" if dtype == "auto" else dtype)
    return TransformersEncoder(TransformersModel(source, spec, device=device, announce=announce))


def wanted_files(name: str) -> list[Wanted]:
    """Return the hub files of `hf:OWNER/NAME`, as far as known without any request.

    Raises:
        ConfigError, WeightsRejected: see `load_transformers`.
    """
    repo = name.removeprefix(TRANSFORMERS_PREFIX)
    if repo == name:
        return []
    refuse_other_forms(name)
    return transformers_files.wanted_files(
        repo,
        check=lambda config: _usable_type(name, config),
        hint=f"{HINT} If it is a data set with a pack: imprompt install {name}",
        same_weights=SAME_WEIGHTS.get(repo, ""),
    )


def knows_only_english(name: str) -> bool:
    """Return whether the model of a name is here and known to be trained on English texts alone."""
    repo = name.removeprefix(TRANSFORMERS_PREFIX)
    if repo == name:
        config: Path | None = Path(name) / transformers_files.CONFIG
    else:
        config = cached_file(wanted(repo, transformers_files.CONFIG).choices[0])
    try:
        return config is not None and trained_on_english(config)
    except WeightsRejected:
        return False


def _usable_type(name: str, config_path: Path) -> EncoderType:
    """Return the type of a model, if it was trained to embed, as far as its name tells."""
    kind = encoder_type(config_path)
    if kind.pools_last_token and name.lower().endswith(("-instruct", "-thinking")):
        raise ConfigError(
            f"{name} is a chat model; its vectors are meaningless.",
            hint="Take a model that embeds: hf:Qwen/Qwen3-VL-Embedding-2B.",
        )
    return kind


def _spec(source: TransformersSource) -> EncoderSpec:
    raw = foreign.read_json(source.config_path)
    kept = {key: value for key, value in raw.items() if key not in _OF_THE_LIBRARY}
    digests = [cached_sha256(path, "tensors", tensors_sha256) for path in source.weights]
    tokens = {path.name: file_sha256(path) for path in _tokenizer_files(source.folder)}
    settings = _tokenizer_settings(source.folder)
    tokens["lower case"] = str(settings.get("do_lower_case"))
    identity = json.dumps([kept, digests, tokens], sort_keys=True)
    dim, max_tokens = _shape(_model_config(source), source.config_path)
    limit = settings.get("model_max_length")
    if raw.get("model_type") != "clip" and isinstance(limit, int) and limit > 0:
        max_tokens = min(max_tokens, limit)  # LongCLIP's repositories state CLIP's
    processors = {
        path.name: foreign.read_json(path)
        for path in sorted(source.folder.glob("*processor_config.json"))
    }
    roles = [path.name.partition(".")[0] for path in source.weights]
    return EncoderSpec(
        name=source.name,
        space=f"hf-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
        dim=dim,
        max_tokens=max_tokens,
        weights_sha256=dict(zip(roles, map(file_sha256, source.weights), strict=True)),
        preprocessing=json.dumps(processors, sort_keys=True),
        batch_size=TEXTS_A_BATCH,
    )


def _model_config(source: TransformersSource) -> Any:
    """Return the model's configuration, with as many positions as a CLIP's weights have.

    Repositories of LongCLIP have tables of 248 positions and CLIP's 77 in their config.json.
    """
    config = foreign.transformers_config(source.folder, hint=HINT)
    if config.model_type == "clip":
        shapes = (tensor_shape(path, _CLIP_POSITIONS) for path in source.weights)
        shape = next(filter(None, shapes), ())
        if shape[1:] == (config.text_config.hidden_size,):
            config.text_config.max_position_embeddings = shape[0]
    return config


def _tokenizer_files(folder: Path) -> list[Path]:
    """Return the files that hold a whole tokenizer, or else those that one is made of.

    Raises:
        WeightsMissing: there are none; transformers would make a tokenizer without any words.
    """
    # Where several are there, the class of the tokenizer decides which it reads.
    if whole := [path for name in _WHOLE_TOKENIZERS if (path := folder / name).is_file()]:
        return whole
    for names in _TOKENIZER_PARTS:
        paths = [folder / name for name in names]
        if all(path.is_file() for path in paths):
            return paths
    raise WeightsMissing(f"{folder} has no tokenizer.json.", path=folder, hint=HINT)


def _tokenizer_settings(folder: Path) -> Mapping[str, Any]:
    path = folder / "tokenizer_config.json"
    content = foreign.read_json(path) if path.is_file() else {}
    return content if isinstance(content, Mapping) else {}


def _shape(config: Any, path: Path) -> tuple[int, int]:
    """Return (dim, most tokens of a text) of a model."""
    text = config.text_config
    try:
        if config.model_type == "qwen3_vl":
            dim, most = text.hidden_size, min(_CHAT_TOKENS, text.max_position_embeddings)
        elif config.model_type in ("siglip", "siglip2"):
            dim, most = text.projection_size, text.max_position_embeddings
        else:
            dim, most = config.projection_dim, text.max_position_embeddings
        if config.model_type.startswith("siglip") and config.vision_config.hidden_size != dim:
            raise ValueError("its towers return vectors of different sizes")
        if config.model_type == "altclip":  # XLM-RoBERTa counts positions from behind the padding
            most -= text.pad_token_id + 1
        dim, most = int(dim), int(most)
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsRejected(
            f"{path} has no usable sizes: {first_line(error)}.", path=path, hint=HINT
        ) from error
    if min(dim, most) < 1:
        raise WeightsRejected(
            f"{path} claims vectors of {dim} numbers and texts of {most} tokens.",
            path=path,
            hint=HINT,
        )
    return dim, most


def _pooled(features: Any) -> Vectors:
    """Return the unit rows of what a tower of transformers 5 returns."""
    return normalized(features.pooler_output)
