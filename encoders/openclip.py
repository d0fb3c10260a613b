"""CLIP and its relatives through open_clip: published names, hub repositories, folders and files.

CLIP's text tower is causal and pools at the end-of-text token (Radford et al. 2021,
arXiv:2103.00020, section 2.4), so nothing after that token can change the result, and a batch may
be cut at its longest text. Towers that see both ways or pool elsewhere get their full context.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import ConfigError, EncoderError, WeightsRejected
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.lookahead import side_by_side
from imprompt.core.pip_lines import install_extra
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.batches import IMAGES_A_BATCH, TEXTS_A_BATCH, Batches, limited_text
from imprompt.encoders.caching import token_cache
from imprompt.encoders.checkpoints import load_checked, read_tensors, tensors_sha256
from imprompt.encoders.foreign import built_openclip, openclip_tokenizer, refusal
from imprompt.encoders.openclip_source import (
    LONG_POSITIONS,
    OpenClipSource,
    find_source,
    import_open_clip,
)
from imprompt.encoders.torch_devices import (
    choose_device,
    choose_dtype,
    normalized,
    torch_provenance,
)
from imprompt.encoders.weights import cached_sha256, file_sha256

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_DEFAULT_CONTEXT = 77
_KEPT_POSITIONS = 20
"""Positions that LongCLIP keeps from CLIP's table."""
_NOT_OF_THE_SPACE = frozenset(
    {"hf_model_name", "hf_tokenizer_name", "hf_model_pretrained", "timm_model_pretrained"}
)
"""Fields that only name sources of files; the digest of the weights identifies their content."""


class OpenClipTexts:
    """The text tower, an `imprompt.core.protocols.TextEncoder`."""

    def __init__(self, model: OpenClipModel) -> None:
        self._model = model
        self._batches = Batches(TEXTS_A_BATCH, announce=model.announce)
        self._tokens = token_cache(self._tokenized)
        # A tokenizer of Hugging Face holds its truncation, which the two calls set differently.
        self._tokenizing = threading.Lock()

    def encode(self, items: Sequence[str]) -> Vectors:
        """Return (n, dim) float32 unit rows in the order given; texts are cut at `max_tokens`."""
        if not items:
            return np.empty((0, self._model.spec.dim), dtype=np.float32)
        tokens = self._tokens(items)
        tower = self._model.cut_tower
        if tower is None:
            lengths, encode = np.full(len(items), tokens.shape[1]), self._encode_whole
        else:
            lengths, encode = (_pool_positions(tower, tokens) + 1).numpy(), self._encode_cut
        return self._batches.encode_by_length(
            list(tokens),
            lengths,
            keys=[row.tobytes() for row in tokens.numpy()],
            dim=self._model.spec.dim,
            encode_batch=encode,
        )

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) tokens of each text before truncation, start and end included.

        Only the first 5,000 characters of a text are counted.
        """
        tokenizer = self._model.tokenizer
        if not hasattr(tokenizer, "encode"):  # a tokenizer of Hugging Face
            with self._tokenizing:
                sequences = [
                    tokenizer.tokenizer(tokenizer.clean_fn(limited_text(text))) for text in texts
                ]
            return np.array([len(tokens.input_ids) for tokens in sequences], dtype=np.int64)
        if not texts:
            return np.empty(0, dtype=np.int64)
        ends = self._tokens(texts).numpy() == tokenizer.eot_token_id
        context = ends.shape[1]
        counts: NDArray[np.int64] = context - np.argmax(ends[:, ::-1], axis=1).astype(np.int64)
        for row in np.flatnonzero(counts == context).tolist():  # it may have been cut
            counts[row] = len(tokenizer.encode(limited_text(texts[row]))) + 2
        return counts

    def provenance(self) -> dict[str, str | int]:
        """Return how the vectors are computed, with the batch size that memory allowed."""
        model = self._model
        return torch_provenance(
            model.device, dtype=model.dtype_name, batch_size=self._batches.batch_size
        )

    def _tokenized(self, texts: Sequence[str]) -> Tensor:
        with self._tokenizing:
            tokens: Tensor = self._model.tokenizer([limited_text(text) for text in texts])
        return tokens

    def _encode_whole(self, rows: list[Tensor]) -> Vectors:
        import torch

        with torch.inference_mode():
            return normalized(
                self._model.network.encode_text(torch.stack(rows).to(self._model.device))
            )

    def _encode_cut(self, rows: list[Tensor]) -> Vectors:
        """Do what open_clip's `encode_text` does, up to the last end-of-text token of the batch."""
        import torch

        tower = self._model.cut_tower
        tokens = torch.stack(rows)
        positions = _pool_positions(tower, tokens)
        length = int(positions.max()) + 1
        tokens = tokens[:, :length].to(self._model.device)
        with torch.inference_mode():
            dtype = tower.transformer.get_cast_dtype()
            words, positions_embedded = tower.token_embedding(tokens), tower.positional_embedding
            hidden = words.to(dtype) + positions_embedded[:length].to(dtype)
            hidden = tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length])
            row_numbers = torch.arange(len(rows), device=hidden.device)
            pooled = tower.ln_final(hidden)[row_numbers, positions.to(hidden.device)]
            projection = tower.text_projection
            if isinstance(projection, torch.nn.Linear):
                pooled = projection(pooled)
            elif projection is not None:
                pooled = pooled @ projection
            return normalized(pooled)


class OpenClipImages:
    """The image tower, for upright RGB images of any size."""

    def __init__(self, model: OpenClipModel) -> None:
        self._model = model
        self._batches = Batches(IMAGES_A_BATCH, announce=model.announce)

    def encode(self, items: Sequence[Image]) -> Vectors:
        """Return (n, dim) float32 unit rows in the order given, with the model's preprocessing."""
        return self._batches.encode(
            items, dim=self._model.spec.dim, encode_batch=self._encode_batch
        )

    def _encode_batch(self, images: list[Image]) -> Vectors:
        import torch

        model = self._model
        transform = model.transform  # made here, once, before threads ask for it
        pixels = torch.stack(list(side_by_side(transform, images)))
        pixels = pixels.to(device=model.device, dtype=getattr(torch, model.dtype_name))
        with torch.inference_mode():
            return normalized(model.network.encode_image(pixels))


class OpenClipEncoder:
    """Both towers of one model, which is read at the first use of either."""

    def __init__(self, model: OpenClipModel) -> None:
        self.model = model
        self.spec = model.spec

    @cached_property
    def texts(self) -> OpenClipTexts:
        return OpenClipTexts(self.model)

    @cached_property
    def images(self) -> OpenClipImages:
        return OpenClipImages(self.model)


class OpenClipModel:
    """The network, its tokenizer and its image transform, each made at its first use."""

    def __init__(
        self, source: OpenClipSource, spec: EncoderSpec, *, device: str, announce: Announce
    ) -> None:
        """Keep the device as the user named it; `spec.dtype` is the type to compute in."""
        self.spec = spec
        self.announce = announce
        self.source = source
        self._device = device

    @cached_property
    def device(self) -> str:
        return choose_device(self._device)

    @property
    def dtype_name(self) -> str:
        """Return float32 also on CUDA for the architectures that open_clip cannot halve."""
        if self.source.has_single_precision:
            return "float32"
        return choose_dtype(self.device, self.spec.dtype or "auto")

    @cached_property
    def network(self) -> Any:
        """Return the model in evaluation mode with the checkpoint's weights.

        Raises:
            WeightsRejected: the file is not a checkpoint, or of another architecture.
        """
        tensors = read_tensors(self.source.weights)
        network = _build(self.source, dtype=self.dtype_name)
        _load(network, tensors, self.source)
        return network.to(self.device).eval()

    @cached_property
    def cut_tower(self) -> Any:
        """Return the module whose texts may be cut, or None where they may not be."""
        return _cut_tower(self.network)

    @cached_property
    def tokenizer(self) -> Any:
        """Return a function from texts to (n, context) int64 tokens, cut and padded.

        Raises:
            EncoderError: a package is missing, or the model drops words of long texts.
            WeightsRejected: the folder holds no usable tokenizer.
        """
        import_open_clip()
        text = self.source.config["text_cfg"]
        if mask := (text.get("tokenizer_kwargs") or {}).get("reduction_mask"):
            raise EncoderError(
                f"{self.source.name} drops words of long texts ({mask}), which is not supported.",
                hint="Choose a model that cuts long texts at their end.",
            )
        try:
            return openclip_tokenizer(
                self.source.tokenizer, text, context_length=self.spec.max_tokens
            )
        except ImportError as error:
            raise EncoderError(
                f"{self.source.name} needs a package: {error}.", hint=install_extra("clip")
            ) from error
        except Exception as error:  # transformers and tokenizers raise errors of many kinds
            folder = self.source.tokenizer or self.source.weights
            raise WeightsRejected(
                f"{folder} holds no tokenizer: {refusal(error)}.",
                path=folder,
                hint="It needs tokenizer.json.",
            ) from error

    @cached_property
    def transform(self) -> Any:
        """Return open_clip's evaluation transform: an image to a (3, height, width) tensor."""
        from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

        fields = merge_preprocess_dict(PreprocessCfg(), dict(self.source.preprocess))
        fields = {**fields, "size": self.network.visual.image_size}
        return image_transform_v2(PreprocessCfg(**fields), is_train=False)


def load_openclip(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    announce: Announce = silent,
    weights: Path | None = None,
    digests: Iterable[str] = (),
) -> OpenClipEncoder:
    """Return the encoder of a name; see `imprompt.encoders.registry.load_encoder`.

    Args:
        name: any but those of `lite`.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "auto", "float32" or "bfloat16"; "auto" is float16 on CUDA, where open_clip can
            compute in it, else float32.
        offline: fetch nothing.
        announce: takes a line for the user.
        weights: for `ARCH/PRETRAINED`, a local file in place of the published one.
        digests: see `imprompt.encoders.registry.load_encoder`.

    Raises:
        ConfigError: unknown name, device or type, or a type that the device lacks.
        EncoderError: open_clip is not installed, or cannot build the model.
        WeightsMissing: a file is not on this machine and cannot be fetched.
        WeightsRejected: a file has wrong contents.
    """
    choose_dtype(choose_device(device), dtype)
    import_open_clip()
    source = find_source(name, offline=offline, announce=announce, weights=weights, digests=digests)
    if dtype == "bfloat16" and source.has_single_precision:
        raise ConfigError(f"open_clip computes {name} in float32 only.", hint="Leave --dtype out.")
    spec = replace(_spec(source), dtype="" if dtype == "auto" else dtype)
    return OpenClipEncoder(OpenClipModel(source, spec, device=device, announce=announce))


def _spec(source: OpenClipSource) -> EncoderSpec:
    config = _full_config(source)
    weights = cached_sha256(source.weights, "tensors", tensors_sha256)
    identity = json.dumps([config, weights], sort_keys=True)
    return EncoderSpec(
        name=source.name,
        space=f"clip-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
        dim=config["embed_dim"],
        max_tokens=config["text_cfg"]["context_length"] or _DEFAULT_CONTEXT,
        weights_sha256={"model": file_sha256(source.weights)},
        preprocessing=json.dumps(
            {"tokenizer": source.config["text_cfg"].get("tokenizer_kwargs"), **_preprocess(source)},
            sort_keys=True,
        ),
        batch_size=TEXTS_A_BATCH,
    )


def _preprocess(source: OpenClipSource) -> dict[str, Any]:
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    merged: dict[str, Any] = merge_preprocess_dict(PreprocessCfg(), dict(source.preprocess))
    return {**merged, "size": source.config["vision_cfg"].get("image_size", 224)}


def _full_config(source: OpenClipSource) -> dict[str, Any]:
    """Return the configuration with open_clip's defaults, so that spelling makes no difference.

    Raises:
        WeightsRejected: it lacks a part, or has one that open_clip does not know.
    """
    open_clip = import_open_clip()
    config = {"quick_gelu": False, **source.config}
    try:
        towers = {
            "vision_cfg": asdict(open_clip.CLIPVisionCfg(**config["vision_cfg"])),
            "text_cfg": asdict(open_clip.CLIPTextCfg(**config["text_cfg"])),
        }
        kept = {
            part: {key: value for key, value in tower.items() if key not in _NOT_OF_THE_SPACE}
            for part, tower in towers.items()
        }
        return {**config, "embed_dim": int(config["embed_dim"]), **kept}
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsRejected(
            f"open_clip {open_clip.__version__} does not know the configuration of {source.name}: "
            f"{error}.",
            path=source.weights,
            hint="A newer open_clip_torch may know it.",
        ) from error


def _build(source: OpenClipSource, *, dtype: str) -> Any:
    """Build the network with random weights, as open_clip's `create_model`, without downloads."""
    import torch

    half = getattr(torch, dtype) if dtype != "float32" else None
    open_clip = import_open_clip()
    vision = {**source.config["vision_cfg"], "timm_model_pretrained": False}
    text = {**source.config["text_cfg"], "hf_model_pretrained": False}
    config = {**source.config, "vision_cfg": vision, "text_cfg": text}
    if not (config.pop("custom_text", False) or text.get("hf_model_name")):
        kind = open_clip.CLIP
    elif "multimodal_cfg" in config:
        kind = open_clip.CoCa
    else:
        kind = open_clip.CustomTextCLIP
    try:
        network = built_openclip(kind, config, cast_dtype=half)
    except Exception as error:  # open_clip, timm and transformers raise errors of many kinds
        raise EncoderError(
            f"open_clip cannot build {source.name}: {refusal(error)}.",
            hint="A newer open_clip_torch or timm may know it.",
        ) from error
    if half is not None:
        _halve_precision(network, half, timm_tower="timm_model_name" in vision)
    return network


def _halve_precision(network: Any, half: Any, *, timm_tower: bool) -> None:
    """Convert all but layer norms and embeddings, as open_clip's precisions "fp16" and "bf16"."""
    open_clip = import_open_clip()
    from open_clip.transformer import LayerNormFp32

    if not timm_tower:
        open_clip.convert_weights_to_lp(network, dtype=half)
        return
    network.to(half)
    for module in network.modules():
        if isinstance(module, LayerNormFp32):
            module.float()


def _load(network: Any, tensors: dict[str, Tensor], source: OpenClipSource) -> None:
    """Load a checkpoint, renamed as by open_clip's `load_checkpoint`; no tensor is resized."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    tensors = _with_one_position_table(tensors)
    try:
        tensors = convert_state_dict(network, tensors)
        if "positional_embedding" in tensors and not hasattr(network, "positional_embedding"):
            tensors = convert_to_custom_text_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise WeightsRejected(
            f"{source.weights} does not fit {source.architecture}: {error}.",
            path=source.weights,
            hint="Name the architecture of these weights.",
        ) from error
    expected = network.state_dict()
    for scalar in ("logit_scale", "logit_bias"):  # for training; no vector depends on them
        tensors.pop(scalar, None)
        if scalar in expected:
            tensors[scalar] = expected[scalar]
    load_checked(network, tensors, architecture=source.architecture, path=source.weights)


def _with_one_position_table(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return LongCLIP's tensors with one table of positions, as a CLIP has.

    LongCLIP takes its first 20 positions from CLIP's table and the others from its own: Zhang et
    al. 2024, arXiv:2403.15378, section 3.1, and `mask1`, `mask2` in model/model_longclip.py of
    https://github.com/beichenzbc/Long-CLIP.
    """
    import torch

    own = tensors.get(LONG_POSITIONS)
    kept = tensors.get("positional_embedding")
    if own is None or kept is None or own.shape != kept.shape:
        return tensors
    merged = torch.cat([kept[:_KEPT_POSITIONS], own[_KEPT_POSITIONS:]])
    rest = {name: tensor for name, tensor in tensors.items() if name != LONG_POSITIONS}
    return {**rest, "positional_embedding": merged}


def _cut_tower(network: Any) -> Any:
    """Return the module with the parts of a causal text tower, or None for any other tower."""
    import torch

    open_clip = import_open_clip()
    from open_clip.transformer import TextTransformer

    if type(network) is open_clip.CLIP:
        tower, pool = network, network.text_pool_type
    elif (
        type(network) is open_clip.CustomTextCLIP
        and type(network.text) is TextTransformer
        and network.text.cls_emb is None
    ):
        tower, pool = network.text, network.text.pool_type
    else:
        return None
    mask = tower.attn_mask
    causal = mask is not None and bool(
        torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1))
    )
    return tower if causal and pool in ("argmax", "eos") else None


def _pool_positions(tower: Any, tokens: Tensor) -> Tensor:
    """Return the (n,) positions of the end-of-text tokens, where the tower pools."""
    pool = getattr(tower, "text_pool_type", None) or tower.pool_type
    eos = tower.text_eos_id if hasattr(tower, "text_eos_id") else tower.eos_id
    # CLIP's end-of-text token has the highest id; the configuration names that of other tokenizers.
    marked = tokens if pool == "argmax" else (tokens == eos).int()
    return marked.argmax(dim=-1)
