"""Checkpoints of other people: read as tensors only, never as code, and compared with the network they are meant for."""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.core.errors import WeightsMissing, WeightsRejected, first_line

if TYPE_CHECKING:
    from torch import Tensor

_SAFE_HINT = "Use the model's safetensors file, or convert it where you trust it: a checkpoint may hold code that runs when it is loaded."
_MAX_PICKLE_BYTES = 1 << 20
"""Names and shapes of 1,000 tensors take 150 KB; a list of 5 MB took torch 5 seconds."""
_LEGACY_PICKLES = 5
"""A magic number, the protocol, the machine, the tensors, the keys of their storages."""
_DERIVED_SUFFIXES = ("num_batches_tracked", "position_ids")
"""Tensors that older or newer files hold or lack without any effect on a result."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors (on the processor) of a .safetensors file, or of a pickle that holds nothing but tensors.

    A training checkpoint's `state_dict` is taken out of it, and a `module.` before every name (of a
    parallel training) is dropped.

    Raises:
        WeightsMissing: no such file.
        WeightsRejected: the file is damaged, is a TorchScript archive, or holds anything besides
            tensors.
    """
    if not path.is_file():
        raise WeightsMissing(f"there is no weight file {path}.", path=path, hint="Check the path.")
    held: object = _read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    if isinstance(held, Mapping) and "state_dict" in held:
        held = held["state_dict"]
    return _named_tensors(held, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsRejected(
            f"{path} is not a safetensors file: {error}.", path=path, hint="Fetch it again."
        ) from error


def read_pickle(path: Path) -> object:
    """What `torch.save` wrote, where it is made of tensors and plain values alone; code in it is never run.

    Raises:
        WeightsRejected: it is damaged, or holds anything else.
    """
    import torch

    _check_pickle(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a TorchScript archive, then refuses it
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsRejected(
            f"{path} holds more than tensors, or is damaged; it is not loaded: {_reason(error)}.",
            path=path,
            hint=_SAFE_HINT,
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
    ) as error:  # a damaged or a TorchScript archive
        raise WeightsRejected(
            f"{path} is not a checkpoint of tensors: {_reason(error)}.", path=path, hint=_SAFE_HINT
        ) from error


def _check_pickle(path: Path) -> None:
    """Bound the work that the list of tensors can ask for; torch would unpack archives and run pickles of any length."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            lists = [entry for entry in entries if entry.filename.endswith("data.pkl")]
            longest = max((entry.file_size for entry in lists), default=0)
            unpacked = sum(entry.file_size for entry in entries)
            reason = (
                "it unpacks to more than its own length" if unpacked > path.stat().st_size else ""
            )
        else:
            with path.open("rb") as file:
                longest, reason = _legacy_pickle_bytes(file.read(_MAX_PICKLE_BYTES + 1)), ""
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise WeightsRejected(
            f"{path} is not a checkpoint of tensors: {first_line(error)}.",
            path=path,
            hint=_SAFE_HINT,
        ) from error
    if longest > _MAX_PICKLE_BYTES:
        reason = f"its list of tensors has more than {_MAX_PICKLE_BYTES:,} bytes"
    if reason:
        raise WeightsRejected(f"{path} is not loaded: {reason}.", path=path, hint=_SAFE_HINT)


def _legacy_pickle_bytes(head: bytes) -> int:
    """Return where the pickles end that a checkpoint of torch before 1.6 begins with; the tensors' bytes follow them."""
    stream = io.BytesIO(head)
    for _ in range(_LEGACY_PICKLES):
        try:
            for _ in pickletools.genops(stream):
                pass
        except Exception:  # noqa: BLE001 genops raises what it likes; torch says what is wrong with a short file
            return len(head)
    return stream.tell()


def _reason(error: Exception) -> str:
    """The sentence of torch's many-line message that says why, without its advice to load the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = next(
        (line for line in lines if "WeightsUnpickler error" in line or "TorchScript" in line),
        lines[0] if lines else "",
    )
    return (why or type(error).__name__).rstrip(".")[:200]


def _named_tensors(held: object, path: Path) -> dict[str, Tensor]:
    import torch

    if not isinstance(held, Mapping) or not held:
        raise WeightsRejected(
            f"{path} holds {type(held).__name__}, not named tensors.", path=path, hint=_SAFE_HINT
        )
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise WeightsRejected(
                f"{path}: {name} is {type(value).__name__}, not a tensor.",
                path=path,
                hint=_SAFE_HINT,
            )
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise WeightsRejected(
                f"{path}: {name} is a sparse, quantized or empty tensor.",
                path=path,
                hint="Use the plain weights.",
            )
    if all(name.startswith("module.") for name in held):
        return {name.removeprefix("module."): value for name, value in held.items()}
    return dict(held)


def tensors_sha256(path: Path) -> str:
    """sha256 over names, dtypes, shapes and bytes of a checkpoint's tensors: equal for one set of weights in any file format."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(read_tensors(path).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, architecture: str, path: Path
) -> None:
    """Compare a checkpoint's names and shapes with those of the network it is meant for.

    Raises:
        WeightsRejected: they differ; names the architecture and the first tensor that differs, with
            both shapes.
    """
    names = [name for name in expected if not name.endswith(_DERIVED_SUFFIXES)]
    names += [
        name for name in found if name not in expected and not name.endswith(_DERIVED_SUFFIXES)
    ]
    for name in names:
        shapes = [
            str(tuple(side[name].shape)) if name in side else "missing"
            for side in (found, expected)
        ]
        if shapes[0] != shapes[1]:
            raise WeightsRejected(
                f"{path} is no {architecture}: its {name} is {shapes[0]}, that of {architecture} is {shapes[1]}.",
                path=path,
                hint="Name the architecture that these weights were trained as.",
            )
