"""Untrusted checkpoints: read as tensors, never as code, and compared with the intended network."""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import WeightsMissing, WeightsRejected, first_line

if TYPE_CHECKING:
    from torch import Tensor

_SAFE_HINT = (
    "Use the model's safetensors file, or convert it where you trust it: "
    "a checkpoint may hold code that runs when it is loaded."
)
_MAX_PICKLE_BYTES = 1 << 20
"""Names and shapes of 1,000 tensors take 150 KB; a list of 5 MB took torch 5 seconds."""
_LEGACY_PICKLES = 5
"""A magic number, the protocol, the machine, the tensors, and the keys of their storages."""
_DERIVED_SUFFIXES = ("num_batches_tracked", "position_ids")
"""Tensors that only some versions of a library store, without any effect on a result."""


def read_tensors(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """Return the tensors by name, on the CPU, of a .safetensors file or a pickle of tensors alone.

    Of a training checkpoint, the `state_dict` is read; the prefix `module.` of parallel training is
    dropped. With `mapped`, the tensors of a zipped pickle are memory-mapped, not read.

    Raises:
        WeightsMissing: the file does not exist.
        WeightsRejected: it is damaged, a TorchScript archive, or holds more than tensors.
    """
    if not path.is_file():
        raise WeightsMissing(f"there is no weight file {path}.", path=path, hint="Check the path.")
    content: object
    if path.suffix == ".safetensors":
        content = _read_safetensors(path)
    else:
        content = read_pickle(path, mapped=mapped and zipfile.is_zipfile(path))
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    return _named_tensors(content, path)


def tensor_shape(path: Path, name: str) -> tuple[int, ...] | None:
    """Return the shape of a tensor in a checkpoint, or None if there is no tensor of that name.

    The tensors themselves are not read, unless the file is a pickle of torch before 1.6.

    Raises:
        WeightsMissing, WeightsRejected: see `read_tensors`.
    """
    if path.suffix != ".safetensors":
        tensor = read_tensors(path, mapped=True).get(name)
        return None if tensor is None else tuple(tensor.shape)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return tuple(file.get_slice(name).get_shape()) if name in file.keys() else None  # noqa: SIM118 no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsRejected(
            f"{path} is not a safetensors file: {error}.", path=path, hint="Fetch it again."
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsRejected(
            f"{path} is not a safetensors file: {error}.", path=path, hint="Fetch it again."
        ) from error


def read_pickle(path: Path, *, mapped: bool = False) -> object:
    """Return what `torch.save` wrote, if it is tensors and plain values; no code of it is run.

    With `mapped`, the file must be a zip archive, and its tensors are memory-mapped, not read.

    Raises:
        WeightsRejected: it is damaged, or holds anything else.
    """
    import torch

    _check_pickle(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a TorchScript archive, then refuses it
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise _rejected(
            f"{path} holds more than tensors, or is damaged; it is not loaded: {_reason(error)}.",
            path,
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:  # damaged, TorchScript
        raise _rejected(
            f"{path} is not a checkpoint of tensors: {_reason(error)}.", path
        ) from error


def _rejected(message: str, path: Path, hint: str = _SAFE_HINT) -> WeightsRejected:
    return WeightsRejected(message, path=path, hint=hint)


def _check_pickle(path: Path) -> None:
    """Bound the work of unpickling; torch unpacks archives and runs pickles of any length."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            lists = [entry for entry in entries if entry.filename.endswith("data.pkl")]
            longest = max((entry.file_size for entry in lists), default=0)
            unpacked = sum(entry.file_size for entry in entries)
            bomb = unpacked > path.stat().st_size
            reason = "it unpacks to more than the file's length" if bomb else ""
        else:
            with path.open("rb") as file:
                longest, reason = _legacy_pickle_bytes(file.read(_MAX_PICKLE_BYTES + 1)), ""
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _rejected(
            f"{path} is not a checkpoint of tensors: {first_line(error)}.", path
        ) from error
    if longest > _MAX_PICKLE_BYTES:
        reason = f"its list of tensors has more than {_MAX_PICKLE_BYTES:,} bytes"
    if reason:
        raise _rejected(f"{path} is not loaded: {reason}.", path)


def _legacy_pickle_bytes(head: bytes) -> int:
    """Return the length of the pickles before the tensors' bytes in a checkpoint of torch < 1.6."""
    stream = io.BytesIO(head)
    for _ in range(_LEGACY_PICKLES):
        try:
            for _ in pickletools.genops(stream):
                pass
        except Exception:  # noqa: BLE001 genops raises errors of many kinds; torch reports short files
            return len(head)
    return stream.tell()


def _reason(error: Exception) -> str:
    """Return the reason from torch's long message, without its advice to load the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = next(
        (line for line in lines if "WeightsUnpickler error" in line or "TorchScript" in line),
        lines[0] if lines else "",
    )
    return (why or type(error).__name__).rstrip(".")[:200]


def _named_tensors(content: object, path: Path) -> dict[str, Tensor]:
    import torch

    if not isinstance(content, Mapping) or not content:
        raise _rejected(f"{path} holds {type(content).__name__}, not named tensors.", path)
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise _rejected(f"{path}: {name} is {type(value).__name__}, not a tensor.", path)
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise WeightsRejected(
                f"{path}: {name} is a sparse, quantized or empty tensor.",
                path=path,
                hint="Use the plain weights.",
            )
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)


def tensors_sha256(path: Path) -> str:
    """Return the sha256 of a checkpoint's names, dtypes, shapes and values, in any file format."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(read_tensors(path).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, architecture: str, path: Path
) -> None:
    """Compare a checkpoint's names and shapes with those of the intended network.

    Raises:
        WeightsRejected: they differ; the message has the first tensor that differs and both shapes.
    """
    for name in [*expected, *(name for name in tensors if name not in expected)]:
        if name.endswith(_DERIVED_SUFFIXES):
            continue
        shape, wanted = (
            str(tuple(side[name].shape)) if name in side else "missing"
            for side in (tensors, expected)
        )
        if shape != wanted:
            raise WeightsRejected(
                f"{path} does not fit {architecture}: its {name} is {shape}, "
                f"that of {architecture} is {wanted}.",
                path=path,
                hint="Name the architecture that these weights were trained as.",
            )


def load_checked(
    network: Any, tensors: Mapping[str, Tensor], *, architecture: str, path: Path
) -> None:
    """Give a network a checkpoint's weights.

    Raises:
        WeightsRejected: see `check_tensors`.
    """
    expected = network.state_dict()
    check_tensors(tensors, expected, architecture=architecture, path=path)
    network.load_state_dict(
        {name: tensor for name, tensor in tensors.items() if name in expected}, strict=False
    )
