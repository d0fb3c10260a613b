"""The phrase lists of the package clip-interrogator, read as files: an import takes seconds."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.errors import MemberUnavailable
from imprompt.core.pip_lines import install_extra, pip_install

PACKAGE = "clip-interrogator"
_FOLDER = "clip_interrogator/data"


@dataclass(frozen=True, slots=True)
class PhraseLists:
    """Labels by kind, non-empty and distinct (ignoring case), in the order of their files."""

    mediums: tuple[str, ...]
    movements: tuple[str, ...]
    flavors: tuple[str, ...]
    artists: tuple[str, ...]
    negative: tuple[str, ...]


def package_lists() -> PhraseLists:
    """Return the lists of the installed package.

    Version 0.6.0 has 95 mediums, 200 movements, 100,954 flavors and 5,265 artists.

    Raises:
        MemberUnavailable: it is not installed, or a list was changed since.
    """
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise MemberUnavailable(
            "interrogator",
            f"the package {PACKAGE}, which has the phrase lists, is not installed",
            hint=f"Install it: {install_extra('interrogator')}",
        ) from error
    files = {file.as_posix(): file for file in distribution.files or ()}
    return PhraseLists(
        **{kind: _read(files.get(f"{_FOLDER}/{kind}.txt"), kind) for kind in PhraseLists.__slots__}
    )


def labels_of(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the stripped lines, without blank ones and repetitions (ignoring case).

    The package's flavors have one blank line and 15 repetitions, which CLIP's tokenizer cannot tell
    apart.
    """
    labels: dict[str, str] = {}
    for line in lines:
        if label := line.strip():
            labels.setdefault(label.casefold(), label)
    return tuple(labels.values())


def _read(file: importlib.metadata.PackagePath | None, kind: str) -> tuple[str, ...]:
    if file is None:
        raise MemberUnavailable(
            "interrogator", f"the package {PACKAGE} has no list of {kind}", hint=_repair()
        )
    path = Path(str(file.locate()))
    try:
        content = path.read_bytes()
        labels = labels_of(content.decode("utf-8").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise MemberUnavailable(
            "interrogator", f"{path} cannot be read: {error}", hint=_repair()
        ) from error
    if not labels or not _is_unchanged(file, content):
        raise MemberUnavailable(
            "interrogator", f"{path} has changed since it was installed", hint=_repair()
        )
    return labels


def _is_unchanged(file: importlib.metadata.PackagePath, content: bytes) -> bool:
    """Compare with the package's RECORD: the sha256 in URL-safe base64 without padding."""
    if file.hash is None or file.hash.mode != "sha256":
        return True
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return digest.decode().rstrip("=") == file.hash.value


def _repair() -> str:
    return f"Repair it: {pip_install(f'--force-reinstall --no-deps {PACKAGE}')}"
