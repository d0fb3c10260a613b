"""Untrusted model files: the only module that passes them to open_clip, timm and transformers.

A model repository holds JSON and weights. The libraries let that JSON name Python files to run,
other repositories to fetch, and sizes that no memory holds. Here only known keys pass, names are
plain, numbers are bounded by the weight file, and the libraries run in a block in which they can
neither import a repository's code nor reach the hub. Weights are read by
`imprompt.encoders.checkpoints`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from imprompt.core.errors import EncoderError, WeightsRejected, first_line
from imprompt.core.pip_lines import install_extra

_TOKENIZER_KEYS = {
    "additional_special_tokens",
    "clean",
    "language",
    "reduction_mask",
    "strip_sep_token",
}
"""Arguments of open_clip's tokenizers, except those that name a file (`bpe_path`, `cache_dir`)."""
_TIMM_FILE_KEYS = frozenset(
    {
        "cache_dir",
        "checkpoint_path",
        "features_only",
        "num_classes",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "scriptable",
    }
)
"""Arguments of timm's `create_model` that fetch, read files, or change the output."""
_SHARD = re.compile(r"[\w][\w.-]*\.safetensors", re.ASCII)
_REPOSITORY = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?", re.ASCII)
_ARCHITECTURE = re.compile(r"[\w][\w.-]*", re.ASCII)
_KERNEL_KEYS = ("attn_implementation", "experts_implementation")
"""transformers takes OWNER/NAME in these keys for a repository of compiled code."""

MAX_LAYERS = 1_000
MAX_SIDE_PX = 4_096
MAX_TOKENS = 8_192
"""Of a text, for open_clip, which builds a mask of the square of it: 256 MiB."""
MAX_PATCHES = 1 << 14
MAX_BEAMS = 64
_SQUARES_A_LAYER = 6
"""Half of a transformer layer, which has 4 such matrices of attention and 8 of feed-forward."""
_ALWAYS_BUILT = 1 << 25
"""Weights that are built for any file, so that a wrong architecture is reported by its tensors."""
_LARGEST = 1 << 62
NEEDS_CODE = "needs Python code of its repository, which imprompt never runs"
_MAX_JSON_BYTES = 64 << 20
_MAX_JSON_DEPTH = 64
_WIDTHS = ("width", "hidden_size", "d_model", "n_embd", "embed_dim", "hidden_dim")
_DEPTHS = (
    "layers",
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "encoder_layers",
    "depth",
    "depths",
)
_COUNTS = ("vocab_size", "num_embeddings", "max_position_embeddings", "num_patches")
"""Rows of tables that are as wide as a layer."""
_TOKENS = ("context_length", "n_ctx")
_SEARCHES = ("num_beams", "num_return_sequences", "num_beam_groups")
"""Numbers of answers that are generated at once; each takes the memory of an answer."""
_SIDES = ("image_size", "img_size", "input_size", "crop_size", "height", "shortest_edge")

_PIXEL_COUNTERS = ("Qwen2VL", "Qwen3VL")
"""Image and video processors whose `shortest_edge` is the least number of pixels."""

_TOWERS = ("text_model.", "vision_model.")
_UNUSED = ("position_ids", "token_type_ids", "pooler.dense.weight", "pooler.dense.bias")
"""Suffixes of tensors that older versions of transformers stored in towers and none uses."""

_SAFE = {"trust_remote_code": False, "local_files_only": True}

_TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"
"""transformers' key of the warning that it gives once."""

_lock = threading.RLock()


@contextmanager
def closed_libraries() -> Iterator[None]:
    """Stop the libraries from importing a repository's code, prompting, and reaching the hub.

    This is the second lock. The first is that every call below passes `trust_remote_code=False` and
    `local_files_only=True`, but open_clip and timm call transformers and the hub themselves.
    """
    with _lock, ExitStack() as stack:
        import huggingface_hub.constants

        stack.enter_context(_replaced(huggingface_hub.constants, "HF_HUB_OFFLINE", value=True))
        try:
            from transformers import dynamic_module_utils
        except ImportError:
            pass
        else:
            stack.enter_context(_quiet_transformers())
            stack.enter_context(_replaced(dynamic_module_utils, "TIME_OUT_REMOTE_CODE", value=0))
            stack.enter_context(
                _replaced(dynamic_module_utils, "get_class_in_module", value=_refuse_code)
            )
        try:
            yield
        except BaseException as error:
            # A panic of tokenizers' Rust code, whose class cannot be imported.
            if type(error).__name__ != "PanicException":
                raise
            raise ValueError(f"a library panicked: {first_line(error)}") from error


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and warnings off the terminal, which is imprompt's."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with _replaced(logging, "_tqdm_active", value=False):  # its function hides the hub's, too
            yield
    finally:
        logging.set_verbosity(level)


@contextmanager
def _replaced(owner: Any, name: str, *, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _refuse_code(*_: object, **__: object) -> NoReturn:
    raise ValueError(f"it {NEEDS_CODE}")


def check_openclip(
    config: Mapping[str, Any], *, path: Path, weights_bytes: int | None = None
) -> None:
    """Check a model configuration of open_clip before anything is fetched or built for it.

    Args:
        config: open_clip's `model_cfg`.
        path: of the configuration or the weights, for messages.
        weights_bytes: length of the weight file, which bounds all sizes; None if not fetched yet.

    Raises:
        WeightsRejected: a part is not a mapping, a name is not plain, an option of the tokenizer is
            unknown, or a size is larger than the weights can be.
    """
    rejected = _Rejection(path)
    if not isinstance(config.get("embed_dim"), int):
        raise rejected("embed_dim is not a number")
    for part in ("vision_cfg", "text_cfg"):
        if not isinstance(config.get(part), Mapping):
            raise rejected(f"{part} is missing or not a mapping")
    text = config["text_cfg"]
    for key in ("hf_model_name", "hf_tokenizer_name"):
        name = text.get(key)
        if name is None or _is_plain(_REPOSITORY, name) or _is_inside(name, path.parent):
            continue
        raise rejected(f"{key} {_shown(name)} is not a repository's name")
    options = text.get("tokenizer_kwargs") or {}
    if not isinstance(options, Mapping):
        raise rejected("tokenizer_kwargs is not a mapping")
    if unknown := sorted(map(str, options.keys() - _TOKENIZER_KEYS - {"context_length"})):
        raise rejected(f"tokenizer_kwargs has {_shown(', '.join(unknown))}, which is not passed on")
    check_tower(config, path=path, weights_bytes=weights_bytes)


def check_tower(config: Mapping[str, Any], *, path: Path, weights_bytes: int | None) -> None:
    """Check the configuration of an image tower: of open_clip, or options of timm.

    Raises:
        WeightsRejected: timm would fetch a file, or a size is larger than the weights can be.
    """
    rejected = _Rejection(path)
    vision = config.get("vision_cfg", {})
    timm_name = vision.get("timm_model_name") if isinstance(vision, Mapping) else None
    if timm_name is not None and not _is_plain(_ARCHITECTURE, timm_name):
        raise rejected(f"timm_model_name {_shown(timm_name)} is not an architecture's name")
    if wrong := sorted(_TIMM_FILE_KEYS & config.keys()):
        raise rejected(f"it has {', '.join(wrong)}, which are not passed on")
    _check_numbers(config, weights_bytes, rejected)


def openclip_tokenizer(
    folder: Path | None, text_config: Mapping[str, Any], *, context_length: int
) -> Any:
    """Return open_clip's tokenizer: CLIP's, or the Hugging Face tokenizer in a folder.

    `text_config` has passed `check_openclip`. Errors of the libraries pass through.
    """
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    kwargs = text_config.get("tokenizer_kwargs") or {}
    options = {key: value for key, value in kwargs.items() if key in _TOKENIZER_KEYS}
    options["context_length"] = context_length
    if folder is None:
        return SimpleTokenizer(**options)
    with closed_libraries():
        tokenizer = HFTokenizer(
            str(folder),
            tokenizer_mode=text_config.get("tokenizer_mode"),
            **options,
            trust_remote_code=False,
            local_files_only=True,
        )
    # It would warn of texts beyond the context, which are counted and cut here.
    tokenizer.tokenizer.deprecation_warnings[_TOO_LONG] = True
    return tokenizer


def built_openclip(kind: Any, config: Mapping[str, Any], **options: Any) -> Any:
    """Return `kind(**config)`, a model of an open_clip class with random weights.

    `config` has passed `check_openclip`. Errors of the libraries pass through.
    """
    import torch

    # The random weights are overwritten later, so they need not advance the global generator.
    with closed_libraries(), torch.random.fork_rng(devices=[]):
        # Loaded here for its errors: it fails on a configuration that needs the repository's code.
        if tower := config.get("text_cfg", {}).get("hf_model_name"):
            from transformers import AutoConfig

            AutoConfig.from_pretrained(tower, trust_remote_code=False, local_files_only=True)
        return kind(**config, **options)


def built_timm(name: str, **options: Any) -> Any:
    """Return a network of timm with random weights.

    Args:
        name: of an architecture that timm knows.
        options: of the architecture; those of an untrusted file have passed `check_tower`.

    Raises:
        EncoderError: unknown name. Errors of timm about an option pass through.
    """
    import timm

    if not _is_plain(_ARCHITECTURE, name) or not timm.is_model(name):
        raise EncoderError(
            f"timm has no architecture {_shown(name)}.", hint="Choose one of timm.list_models()."
        )
    with closed_libraries():
        return timm.create_model(name, pretrained=False, **options)


def image_to_text(folder: Path, *, dtype: str, hint: str) -> tuple[Any, Any]:
    """Return (model, processor) from a folder with an image-to-text model of transformers, on CPU.

    `dtype` is torch's name of the weights' type.

    Raises:
        ImportError: transformers is not installed.
        WeightsRejected: a file is damaged or of another model, or requests code, another
            repository, or sizes that its weights do not have.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    check_transformers_folder(folder, hint=hint)
    with _loading(folder, hint), _smolvlm_without_num2words():
        processor = AutoProcessor.from_pretrained(folder, **_SAFE)
    network, _ = _loaded(AutoModelForImageTextToText, folder, dtype=dtype, hint=hint)
    return network, processor


def transformers_config(folder: Path, *, hint: str) -> Any:
    """Return the PreTrainedConfig of a folder, with the defaults of transformers.

    The folder has passed `check_transformers_folder`; so it has for the functions below.

    Raises:
        ImportError: transformers is not installed.
        WeightsRejected: it is damaged, or requests code.
    """
    from transformers import AutoConfig

    with _loading(folder, hint):
        return AutoConfig.from_pretrained(folder, **_SAFE)


def dual_network(folder: Path, *, config: Any, dtype: str, hint: str) -> Any:
    """Return the network with both towers, on the CPU, of the folder's PreTrainedConfig.

    Raises:
        ImportError: transformers is not installed.
        WeightsRejected: see `image_to_text`, or its towers have tensors that no class of
            transformers knows, so that their vectors would be those of another model.
    """
    from transformers import AutoModel

    network, loading = _loaded(AutoModel, folder, dtype=dtype, hint=hint, config=config)
    unknown = sorted(
        name
        for name in loading["unexpected_keys"]
        if name.startswith(_TOWERS) and not name.endswith(_UNUSED)
    )
    if unknown:
        raise WeightsRejected(
            f"{folder} has {len(unknown)} tensors that {type(network).__name__} of transformers "
            f"does not use, the first is {unknown[0]}.",
            path=folder,
            hint=hint,
        )
    return network


def text_tokenizer(folder: Path, *, hint: str, lower_case: bool = False) -> Any:
    """Return the tokenizer of a folder; with `lower_case`, one that ignores capitals.

    Raises:
        ImportError: transformers is not installed.
        EncoderError: the package that reads it is missing, such as sentencepiece.
        WeightsRejected: there is none, it is damaged, or it requests code.
    """
    from transformers import AutoTokenizer

    with _loading(folder, hint):
        tokenizer = AutoTokenizer.from_pretrained(folder, **_SAFE)
        # SigLIP's own tokenizer, in Python, does so itself. The repositories of SigLIP 2 name
        # Gemma's, which does not: https://github.com/huggingface/transformers/pull/43101.
        if lower_case and tokenizer.is_fast:
            _ignore_capitals(tokenizer.backend_tokenizer)
    tokenizer.deprecation_warnings[_TOO_LONG] = True
    return tokenizer


def _ignore_capitals(backend: Any) -> None:
    from tokenizers.normalizers import Lowercase, Sequence

    others = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = Sequence([Lowercase(), *others])


def image_processor(folder: Path, *, hint: str) -> Any:
    """Return the image processor of a folder, on Pillow, as torchvision's rounds differently.

    Raises:
        ImportError: transformers is not installed.
        WeightsRejected: there is none, it is damaged, or it requests code.
    """
    from transformers import AutoImageProcessor

    with _loading(folder, hint):
        return AutoImageProcessor.from_pretrained(folder, backend="pil", **_SAFE)


def chat_processor(folder: Path, *, hint: str) -> Any:
    """Return the processor of a folder, for texts with images in them; images are on Pillow.

    Raises:
        ImportError, WeightsRejected: see `image_processor`.
    """
    from transformers import AutoProcessor

    images = image_processor(folder, hint=hint)
    with _loading(folder, hint):
        processor = AutoProcessor.from_pretrained(folder, **_SAFE)
    processor.image_processor = images
    return processor


def _loaded(
    kind: Any, folder: Path, *, dtype: str, hint: str, config: Any = None
) -> tuple[Any, Mapping[str, Any]]:
    """Return (network, transformers' record of missing and unexpected tensors)."""
    with _loading(folder, hint):
        network, loading = kind.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **_SAFE,
        )
    if missing := sorted(loading["missing_keys"]):
        raise WeightsRejected(
            f"{folder} lacks {len(missing)} tensors of its model, the first is {missing[0]}.",
            path=folder,
            hint=hint,
        )
    return network, loading


@contextmanager
def _loading(folder: Path, hint: str) -> Iterator[None]:
    """Close the libraries, and raise `WeightsRejected` for what they raise about a folder.

    Raises:
        EncoderError: the files need a package that is not installed.
    """
    try:
        with closed_libraries():
            yield
    except ImportError as error:
        reason, _, _ = first_line(error).partition(" but it was not found")
        raise EncoderError(
            f"{folder} needs a package that is not installed: {reason}.",
            hint=f"Install it: {install_extra('clip')}",
        ) from error
    except Exception as error:  # transformers, safetensors and torch raise errors of many kinds
        raise WeightsRejected(
            f"{folder} cannot be loaded: {refusal(error)}.", path=folder, hint=hint
        ) from error


@contextmanager
def _smolvlm_without_num2words() -> Iterator[None]:
    """Let SmolVLM's processor be built without num2words, a package that only videos need."""
    from transformers.models.smolvlm import processing_smolvlm

    present = getattr(processing_smolvlm, "num2words", None)
    with _replaced(processing_smolvlm, "num2words", value=present or str):
        yield


def read_json(path: Path, *, hint: str = "Fetch the file again.") -> Any:
    """Return the content of an untrusted JSON file.

    Raises:
        WeightsRejected: it cannot be read, is not JSON, or is too large or too deep.
    """
    try:
        if not path.is_file():
            raise WeightsRejected(f"{path} is not a regular file.", path=path, hint=hint)
        if (size := path.stat().st_size) > _MAX_JSON_BYTES:
            raise WeightsRejected(
                f"{path} has {size:,} bytes, more than {_MAX_JSON_BYTES:,}.", path=path, hint=hint
            )
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WeightsRejected(
            f"{path} is not JSON: {first_line(error)}.", path=path, hint=hint
        ) from error


def refusal(error: Exception) -> str:
    """Return a library's reason to refuse a model, without advice to trust the model's code."""
    return f"it {NEEDS_CODE}" if "trust_remote_code" in str(error) else first_line(error)


def shard_names(index: Path, *, hint: str) -> list[str]:
    """Return the names of the files that a `model.safetensors.index.json` lists, sorted.

    Raises:
        WeightsRejected: it is not such an index, or a name is not that of a file in its folder.
    """
    try:
        names = set(read_json(index, hint=hint)["weight_map"].values())
    except (KeyError, TypeError, AttributeError) as error:
        raise _Rejection(index, hint)("it is not an index of shards") from error
    if wrong := next((name for name in names if not _is_plain(_SHARD, name)), None):
        raise _Rejection(index, hint)(f"{_shown(wrong)} is not a shard's name")
    return sorted(names)


def check_transformers_folder(folder: Path, *, hint: str) -> None:
    """Check the JSON files of a folder before transformers reads any.

    Raises:
        WeightsRejected: one requests another repository or code, or sizes that the weights of the
            folder do not have.
    """
    if (adapter := folder / "adapter_config.json").exists():
        raise WeightsRejected(
            f"{adapter} points to another model, which is not read.", path=adapter, hint=hint
        )
    if (index := folder / "model.safetensors.index.json").exists():
        shard_names(index, hint=hint)
    weights_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    for path in sorted(folder.glob("*.json")):
        content, rejected = read_json(path, hint=hint), _Rejection(path, hint)
        if path.name in ("config.json", "generation_config.json"):
            _check_transformers_config(content, rejected)
            _check_numbers(content, weights_bytes, rejected)
        elif path.name.endswith("processor_config.json"):
            inside = list(_mappings(content, rejected))
            pixel_counts = [inner.get("size") for inner in inside if _counts_pixels(inner)]
            for inner in inside:
                counts = _counts_pixels(inner) or any(inner is size for size in pixel_counts)
                _check_sides(inner, rejected, counts_pixels=counts)


def _check_transformers_config(config: Any, rejected: _Rejection) -> None:
    """Check names of timm models and compiled kernels, which transformers fetches from the hub."""
    for inner in _mappings(config, rejected):
        for key, value in inner.items():
            if str(key).lstrip("_").removesuffix("_internal") in _KERNEL_KEYS and "/" in str(value):
                raise rejected(f"{key} {_shown(value)} names a repository of code")
        if inner.get("model_type") in ("timm_wrapper", "timm_backbone") or inner.get(
            "use_timm_backbone"
        ):
            for key in ("architecture", "backbone"):
                if inner.get(key) is not None and not _is_plain(_ARCHITECTURE, inner[key]):
                    raise rejected(f"{key} {_shown(inner[key])} is not an architecture's name")
        if (beams := max(_numbers(inner, _SEARCHES), default=0)) > MAX_BEAMS:
            raise rejected(f"{beams:,} beams are more than {MAX_BEAMS}")
        if inner.get("use_pretrained_backbone"):
            raise rejected("use_pretrained_backbone fetches another model")


def _check_numbers(config: Any, weights_bytes: int | None, rejected: _Rejection) -> None:
    """Compare a configuration's sizes with its weight file: a weight takes a byte or more."""
    for inner in _mappings(config, rejected):
        width = max(_numbers(inner, _WIDTHS), default=0)
        shared = _numbers(inner, ("num_hidden_groups",))  # ALBERT's layers share their weights
        depth = max(shared or _numbers(inner, _DEPTHS), default=0)
        if depth > MAX_LAYERS:
            raise rejected(f"{depth:,} layers are more than {MAX_LAYERS:,}")
        rows = max(_numbers(inner, _COUNTS), default=0)
        parameters = max(_SQUARES_A_LAYER * depth * width**2, rows * width)
        if weights_bytes is not None and parameters > max(weights_bytes, _ALWAYS_BUILT):
            raise rejected(
                f"it claims {parameters:,} weights, more than fit into {weights_bytes:,} bytes"
            )
        if (tokens := max(_numbers(inner, _TOKENS), default=0)) > MAX_TOKENS:
            raise rejected(f"a context of {tokens:,} tokens is more than {MAX_TOKENS:,}")
        _check_sides(inner, rejected)


def _counts_pixels(processor: Mapping[str, Any]) -> bool:
    """Return whether `shortest_edge` of this image processor is a number of pixels, not a side."""
    return any(
        str(processor.get(key)).startswith(_PIXEL_COUNTERS)
        for key in ("image_processor_type", "video_processor_type")
    )


def _check_sides(
    inner: Mapping[str, Any], rejected: _Rejection, *, counts_pixels: bool = False
) -> None:
    """Check the sides in pixels that images are scaled to."""
    for key in (*_SIDES, "width") if "height" in inner else _SIDES:
        side = max(_numbers(inner, (key,)), default=0)
        limit = MAX_SIDE_PX**2 if counts_pixels and key == "shortest_edge" else MAX_SIDE_PX
        if side > limit:
            raise rejected(f"{key} {side:,} is more than {limit:,} pixels")
    if (patches := max(_numbers(inner, ("max_num_patches",)), default=0)) > MAX_PATCHES:
        raise rejected(f"max_num_patches {patches:,} is more than {MAX_PATCHES:,}")
    if (pixels := max(_numbers(inner, ("min_pixels",)), default=0)) > MAX_SIDE_PX**2:
        raise rejected(f"min_pixels {pixels:,} is more than {MAX_SIDE_PX**2:,} pixels")


def _numbers(inner: Mapping[str, Any], keys: tuple[str, ...]) -> list[int]:
    """Return the numbers under these keys, also from lists, as integers.

    Infinity and NaN become a number larger than every limit.
    """
    numbers: list[object] = []
    for value in map(inner.get, keys):
        numbers += value if isinstance(value, list) else [value]
    return [
        int(number) if abs(number) < _LARGEST else _LARGEST
        for number in numbers
        if isinstance(number, int | float) and not isinstance(number, bool)
    ]


def _mappings(value: Any, rejected: _Rejection) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping in a JSON value, from the outside in."""
    waiting = [(value, 0)]
    while waiting:
        inner, depth = waiting.pop()
        if depth > _MAX_JSON_DEPTH:
            raise rejected(f"it is nested deeper than {_MAX_JSON_DEPTH} levels")
        if isinstance(inner, Mapping):
            yield inner
            waiting += [(item, depth + 1) for item in inner.values()]
        elif isinstance(inner, list):
            waiting += [(item, depth + 1) for item in inner]


def _is_plain(form: re.Pattern[str], name: object) -> bool:
    return (
        isinstance(name, str)
        and len(name) <= 200
        and form.fullmatch(name) is not None
        and ".." not in name
    )


def _is_inside(name: object, folder: Path) -> bool:
    """Return whether it is a path inside a folder, as open_clip writes for parts of a model."""
    return (
        isinstance(name, str)
        and "\0" not in name
        and Path(name).resolve().is_relative_to(folder.resolve())
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


class _Rejection:
    """A function from a reason to the error for one file."""

    def __init__(self, path: Path, hint: str = "") -> None:
        self._path = path
        self._hint = hint or "Use a model whose files say only what its library defines."

    def __call__(self, reason: str) -> WeightsRejected:
        return WeightsRejected(
            f"{self._path} is refused: {reason}.", path=self._path, hint=self._hint
        )
