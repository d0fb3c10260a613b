"""The phrase lists of the package clip-interrogator, read as files: importing it would cost seconds, and its code is not needed."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.errors import MemberUnavailable

PACKAGE = "clip-interrogator"
_FOLDER = "clip_interrogator/data"
_INSTALL = "Install it: pip install 'imprompt[interrogator]'"
_REPAIR = f"Repair it: pip install --force-reinstall --no-deps {PACKAGE}"


@dataclass(frozen=True, slots=True)
class PhraseLists:
    """Labels by kind, each non-empty, none twice (whatever its case), in the order of their files."""

    mediums: tuple[str, ...]
    movements: tuple[str, ...]
    flavors: tuple[str, ...]
    artists: tuple[str, ...]
    negative: tuple[str, ...]


def package_lists() -> PhraseLists:
    """The lists of the installed package: 95 mediums, 200 movements, 100,954 flavors, 5,265 artists in version 0.6.0.

    Raises:
        MemberUnavailable: it is not installed, or a list is not what was installed.
    """
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise MemberUnavailable(
            "interrogator",
            f"the package {PACKAGE}, which carries the phrase lists, is not installed",
            hint=_INSTALL,
        ) from error
    files = {file.as_posix(): file for file in distribution.files or ()}
    return PhraseLists(
        **{kind: _read(files.get(f"{_FOLDER}/{kind}.txt"), kind) for kind in PhraseLists.__slots__}
    )


def labels_of(lines: Iterable[str]) -> tuple[str, ...]:
    """The lines without the space around them; blank ones, and those that differ from an earlier one in case only, are left out.

    The package's flavors hold one of the former and 15 of the latter, which CLIP's tokenizer cannot
    tell apart.
    """
    labels: dict[str, str] = {}
    for line in lines:
        if label := line.strip():
            labels.setdefault(label.casefold(), label)
    return tuple(labels.values())


def _read(file: importlib.metadata.PackagePath | None, kind: str) -> tuple[str, ...]:
    if file is None:
        raise MemberUnavailable(
            "interrogator", f"the package {PACKAGE} carries no list of {kind}", hint=_REPAIR
        )
    path = Path(str(file.locate()))
    try:
        content = path.read_bytes()
        labels = labels_of(content.decode("utf-8").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise MemberUnavailable(
            "interrogator", f"{path} cannot be read: {error}", hint=_REPAIR
        ) from error
    if not labels or not _is_what_was_installed(file, content):
        raise MemberUnavailable(
            "interrogator", f"{path} is not the list that was installed", hint=_REPAIR
        )
    return labels


def _is_what_was_installed(file: importlib.metadata.PackagePath, content: bytes) -> bool:
    """The digest in the package's RECORD: sha256 in base64 for URLs without padding."""
    if file.hash is None or file.hash.mode != "sha256":
        return True
    return (
        base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        == file.hash.value
    )
