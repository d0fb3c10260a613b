"""CLIP and its relatives through open_clip, by published name, hub repository, local folder or local file.

CLIP's text tower is causal and pools at the end-of-text token (Radford et al. 2021,
arXiv:2103.00020, section 2.4), so nothing behind that token can change the result, and a batch may
be cut at its longest text. Towers that see both ways or pool elsewhere are recognised and get their
full context.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import EncoderError, WeightsRejected
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.lookahead import side_by_side
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.checkpoints import check_tensors, read_tensors, tensors_sha256
from imprompt.encoders.foreign import built_openclip, openclip_tokenizer, refusal
from imprompt.encoders.length_batches import LastTokens, LengthBatches, encodable
from imprompt.encoders.openclip_source import OpenClipSource, find_source, import_open_clip
from imprompt.encoders.torch_devices import choose_device, dtype_on, torch_provenance
from imprompt.encoders.weights import file_sha256, remembered_sha256

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TEXTS_A_BATCH = 64
IMAGES_A_BATCH = 32

_LONGEST_TEXT = 5_000
"""Characters that are tokenized.

CLIP's tokenizer takes the square of a word's length: 1.7 s for 8,000 letters.
"""

_DEFAULT_CONTEXT = 77
_NOT_OF_THE_SPACE = frozenset(
    {"hf_model_name", "hf_tokenizer_name", "hf_model_pretrained", "timm_model_pretrained"}
)
"""Fields of a configuration that say where files come from; the digest of the weights says what they are."""


class OpenClipTexts:
    """The text tower; a `imprompt.core.protocols.TextEncoder`."""

    def __init__(self, model: OpenClipModel) -> None:
        self._model = model
        self._batches = LengthBatches(TEXTS_A_BATCH, announce=model.announce)
        self._tokens = LastTokens(self._tokenized)

    def encode(self, items: Sequence[str]) -> Vectors:
        """(n, dim) float32 unit rows in the order given; a text counts up to the tower's context length."""
        if not items:
            return np.empty((0, self._model.spec.dim), dtype=np.float32)
        tokens = self._tokens(items)
        tower = self._model.cut_tower
        if tower is None:
            lengths, encode = np.full(len(items), tokens.shape[1]), self._encode_whole
        else:
            lengths, encode = (_pool_positions(tower, tokens) + 1).numpy(), self._encode_cut
        keys = [row.tobytes() for row in tokens.numpy()]
        return self._batches.encode(
            list(tokens), lengths, dim=self._model.spec.dim, encode_batch=encode, keys=keys
        )

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of each text before truncation, start and end included; characters behind the 5,000th do not count."""
        tokenizer = self._model.tokenizer
        if not hasattr(tokenizer, "encode"):
            found = [
                len(tokenizer.tokenizer(tokenizer.clean_fn(_limited(text))).input_ids)
                for text in texts
            ]
            return np.array(found, dtype=np.int64)
        if not texts:
            return np.empty(0, dtype=np.int64)
        ends = self._tokens(texts).numpy() == tokenizer.eot_token_id  # CLIP's own tokenizer
        counts: NDArray[np.int64] = ends.shape[1] - np.argmax(ends[:, ::-1], axis=1).astype(
            np.int64
        )
        for row in np.flatnonzero(counts == ends.shape[1]).tolist():  # it may have been cut
            counts[row] = len(tokenizer.encode(_limited(texts[row]))) + 2
        return counts

    def provenance(self) -> dict[str, str | int]:
        """How the vectors are computed: backend, device, dtype, threads, and the batch size that memory allowed."""
        model = self._model
        return torch_provenance(model.device, batch_size=self._batches.batch_size)

    def _tokenized(self, texts: Sequence[str]) -> Tensor:
        tokens: Tensor = self._model.tokenizer([_limited(text) for text in texts])
        return tokens

    def _encode_whole(self, rows: list[Tensor]) -> Vectors:
        import torch

        with torch.inference_mode():
            return _unit(self._model.network.encode_text(torch.stack(rows).to(self._model.device)))

    def _encode_cut(self, rows: list[Tensor]) -> Vectors:
        """What open_clip's `encode_text` does, on the columns up to the last end-of-text token of the batch."""
        import torch

        tower = self._model.cut_tower
        tokens = torch.stack(rows)
        positions = _pool_positions(tower, tokens)
        length = int(positions.max()) + 1
        tokens = tokens[:, :length].to(self._model.device)
        with torch.inference_mode():
            dtype = tower.transformer.get_cast_dtype()
            hidden = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[
                :length
            ].to(dtype)
            hidden = tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length])
            pooled = tower.ln_final(hidden)[
                torch.arange(len(rows), device=hidden.device), positions.to(hidden.device)
            ]
            projection = tower.text_projection
            if projection is not None:
                pooled = (
                    projection(pooled)
                    if isinstance(projection, torch.nn.Linear)
                    else pooled @ projection
                )
            return _unit(pooled)


class OpenClipImages:
    """The image tower; takes upright RGB pictures of any size."""

    def __init__(self, model: OpenClipModel) -> None:
        self._model = model
        self._batches = LengthBatches(IMAGES_A_BATCH, announce=model.announce)

    def encode(self, items: Sequence[Image]) -> Vectors:
        """(n, dim) float32 unit rows in the order given, through the preprocessing that the model was trained with."""
        return self._batches.encode(
            items, np.zeros(len(items)), dim=self._model.spec.dim, encode_batch=self._encode_batch
        )

    def _encode_batch(self, pictures: list[Image]) -> Vectors:
        import torch

        model = self._model
        transform = model.transform  # made here, once, before threads ask for it
        pixels = torch.stack(list(side_by_side(transform, pictures)))
        with torch.inference_mode():
            return _unit(
                model.network.encode_image(
                    pixels.to(device=model.device, dtype=getattr(torch, model.dtype_name))
                )
            )


class OpenClipEncoder:
    """Both towers of one model; it is read at the first use of either."""

    def __init__(self, model: OpenClipModel) -> None:
        self._model = model

    @property
    def spec(self) -> EncoderSpec:
        return self._model.spec

    @property
    def model(self) -> OpenClipModel:
        """What both towers are parts of, for a library that wants it whole."""
        return self._model

    @cached_property
    def texts(self) -> OpenClipTexts:
        return OpenClipTexts(self._model)

    @cached_property
    def images(self) -> OpenClipImages:
        return OpenClipImages(self._model)


class OpenClipModel:
    """The network, its tokenizer and its image transform, each made at its first use."""

    def __init__(
        self, source: OpenClipSource, spec: EncoderSpec, *, device: str, announce: Announce
    ) -> None:
        self.spec = spec
        self.announce = announce
        self.source = source
        self._device = device

    @cached_property
    def device(self) -> str:
        return choose_device(self._device)

    @property
    def dtype_name(self) -> str:
        return dtype_on(self.device)

    @cached_property
    def network(self) -> Any:
        """The model in evaluation mode with the checkpoint's weights.

        Raises:
            WeightsRejected: the checkpoint is of another architecture or shape, or no checkpoint.
        """
        tensors = read_tensors(self.source.weights)
        network = _build(self.source, half=self.dtype_name == "float16")
        _load(network, tensors, self.source)
        return network.to(self.device).eval()

    @cached_property
    def cut_tower(self) -> Any:
        return _cut_tower(self.network)

    @cached_property
    def tokenizer(self) -> Any:
        """Called with texts, it gives (n, context) int64 tokens, cut and padded."""
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
                f"{self.source.name} needs a package: {error}.", hint="pip install transformers"
            ) from error
        except Exception as error:  # transformers and tokenizers raise what they like for files they do not understand
            folder = self.source.tokenizer or self.source.weights
            raise WeightsRejected(
                f"{folder} holds no tokenizer: {refusal(error)}.",
                path=folder,
                hint="It needs tokenizer.json.",
            ) from error

    @cached_property
    def transform(self) -> Any:
        """open_clip's own evaluation transform: a picture to a (3, height, width) tensor."""
        from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

        chosen = merge_preprocess_dict(PreprocessCfg(), dict(self.source.preprocess))
        return image_transform_v2(
            PreprocessCfg(**{**chosen, "size": self.network.visual.image_size}), is_train=False
        )


def load_openclip(
    name: str,
    *,
    device: str = "auto",
    offline: bool = False,
    announce: Announce = silent,
    weights: Path | None = None,
) -> OpenClipEncoder:
    """The pair of that name.

    Args:
        name: `ARCH/PRETRAINED`, `ARCH//FILE`, `hf-hub:OWNER/NAME`, or a folder that holds
            open_clip_config.json.
        device: "auto", "cpu" or "cuda"; float16 on CUDA.
        offline: fetch nothing.
        announce: takes a line for the user.
        weights: for `ARCH/PRETRAINED`, a local file in place of the published one.

    Raises:
        ConfigError: no such name or device.
        EncoderError: open_clip is not installed, or cannot build the model.
        WeightsMissing: a file is neither here nor to be had.
        WeightsRejected: a file is not what it should be.
    """
    choose_device(device)
    import_open_clip()
    source = find_source(name, offline=offline, announce=announce, weights=weights)
    return OpenClipEncoder(OpenClipModel(source, _spec(source), device=device, announce=announce))


def _spec(source: OpenClipSource) -> EncoderSpec:
    config = _full_config(source)
    weights = remembered_sha256(source.weights, "tensors", tensors_sha256)
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
    """The configuration with open_clip's defaults written out, so that two ways of writing one model are equal.

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
            f"the configuration of {source.name} is none of open_clip {open_clip.__version__}: {error}.",
            path=source.weights,
            hint="A newer open_clip_torch may know it.",
        ) from error


def _build(source: OpenClipSource, *, half: bool) -> Any:
    """The network with random weights, as open_clip's `create_model` makes it, without its log lines and its downloads."""
    import torch

    open_clip = import_open_clip()
    config = {
        **source.config,
        "vision_cfg": dict(source.config["vision_cfg"]),
        "text_cfg": dict(source.config["text_cfg"]),
    }
    config["vision_cfg"]["timm_model_pretrained"] = False
    config["text_cfg"]["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or bool(config["text_cfg"].get("hf_model_name"))
    kind = (
        (open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP)
        if custom
        else open_clip.CLIP
    )
    try:
        network = built_openclip(kind, config, cast_dtype=torch.float16 if half else None)
    except Exception as error:  # open_clip, timm and transformers raise what they like for a configuration they cannot build
        raise EncoderError(
            f"open_clip cannot build {source.name}: {refusal(error)}.",
            hint="A newer open_clip_torch or timm may know it.",
        ) from error
    if half:
        _halve_precision(network, timm_tower="timm_model_name" in config["vision_cfg"])
    return network


def _halve_precision(network: Any, *, timm_tower: bool) -> None:
    """float16 where open_clip's precision "fp16" has it: everything but layer norms (and, in native towers, embeddings)."""
    import torch

    open_clip = import_open_clip()
    from open_clip.transformer import LayerNormFp32

    if not timm_tower:
        open_clip.convert_weights_to_lp(network, dtype=torch.float16)
        return
    network.half()
    for module in network.modules():
        if isinstance(module, LayerNormFp32):
            module.float()


def _load(network: Any, tensors: dict[str, Tensor], source: OpenClipSource) -> None:
    """Put a checkpoint into the network, after the renamings that open_clip's `load_checkpoint` does; it resizes nothing."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    try:
        tensors = convert_state_dict(network, tensors)
        if "positional_embedding" in tensors and not hasattr(network, "positional_embedding"):
            tensors = convert_to_custom_text_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise WeightsRejected(
            f"{source.weights} is no {source.architecture}: {error}.",
            path=source.weights,
            hint="Name the architecture of these weights.",
        ) from error
    expected = network.state_dict()
    for scalar in (
        "logit_scale",
        "logit_bias",
    ):  # they scale scores in training; no vector depends on them
        tensors.pop(scalar, None)
        if scalar in expected:
            tensors[scalar] = expected[scalar]
    check_tensors(tensors, expected, architecture=source.architecture, path=source.weights)
    network.load_state_dict(
        {name: tensor for name, tensor in tensors.items() if name in expected}, strict=False
    )


def _cut_tower(network: Any) -> Any:
    """The module that holds the parts of a text tower that may be cut, or None where it may not be."""
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
    """(n,) where the tower pools:

    CLIP's end-of-text token has the highest id, other tokenizers' is named.
    """
    pool = getattr(tower, "text_pool_type", None) or tower.pool_type
    eos = tower.text_eos_id if hasattr(tower, "text_eos_id") else tower.eos_id
    marked = tokens if pool == "argmax" else (tokens == eos).int()
    return marked.argmax(dim=-1)


def _limited(text: str) -> str:
    folded = (
        " ".join(text.split()) if len(text) > _LONGEST_TEXT else text
    )  # open_clip's tokenizers fold white space themselves
    return encodable(folded[:_LONGEST_TEXT])


def _unit(features: Tensor) -> Vectors:
    from torch.nn.functional import normalize

    return normalize(features.float(), dim=-1).cpu().numpy()
