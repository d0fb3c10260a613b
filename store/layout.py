"""The layout of an index below its root.

    ROOT/CURRENT                     "<version> <sha256 of its MANIFEST.json>"
    ROOT/LOCK                        locked by the one writer
    ROOT/versions/<utc>-<plan8>/     MANIFEST.json  PLAN.json  prompts.duckdb
                                     vectors/<space>/00000.npy  index/<space>.faiss
                                     (many rows: index/<space>-00000.faiss, -00001.faiss, …)
                                     vectors/<space>/rows.crc32  index/<space>.crc32: see
                                     `imprompt.store.checksums`
    ROOT/staging/<plan sha>/         the same tree, growing, and what only the build needs

Paths inside of a version are kept relative to its folder, with "/" between their parts.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from imprompt.core.errors import ConfigError

REBUILD = "Build the index again."
"""The remedy for a damaged file, as a hint."""

VERIFY = "Run `imprompt verify` for the whole damage, then build the index again."
"""The remedy where more may be damaged."""

MANIFEST = "MANIFEST.json"
PLAN = "PLAN.json"
JOURNAL = "journal.jsonl"
PROMPTS = "prompts.duckdb"
STAGED = "staged.duckdb"
SPILLED = "duckdb-spilled"
DROPPED = "dropped.jsonl"


def current_path(root: Path) -> Path:
    return root / "CURRENT"


def lock_path(root: Path) -> Path:
    return root / "LOCK"


def versions_folder(root: Path) -> Path:
    return root / "versions"


def older_versions_folder(root: Path) -> Path:
    """Return the folder of the versions in formats before 3.0."""
    return root / "generations"


def version_folder(root: Path, name: str) -> Path:
    return versions_folder(root) / name


def staging_root(root: Path) -> Path:
    return root / "staging"


def staging_folder(root: Path, plan_sha256: str) -> Path:
    """Return the folder in which the build of this plan grows and resumes."""
    return staging_root(root) / plan_sha256


def shard_file(space: str, number: int) -> str:
    """Return the relative path of a space's shard, numbered from 0 in row order."""
    return f"vectors/{_folder_name(space)}/{number:05d}.npy"


def row_sums_file(space: str) -> str:
    """Return the relative path of the sums of a space's rows."""
    return f"vectors/{_folder_name(space)}/rows.crc32"


def list_sums_file(file: str) -> str:
    """Return the relative path of the sums of an index whose only file would be `file`."""
    return f"{file.removesuffix('.faiss')}.crc32"


def index_file(space: str) -> str:
    """Return the relative path of a space's FAISS index."""
    return f"index/{_folder_name(space)}.faiss"


def index_part_file(file: str, number: int) -> str:
    """Return the relative path of a part of an index whose only file would be `file`."""
    return f"{file.removesuffix('.faiss')}-{number:05d}.faiss"


def _folder_name(space: str) -> str:
    """Return a space's name as one path component; different spaces give different ones."""
    if not space or space.startswith("."):
        raise ConfigError(
            f"{space!r} cannot name a vector space: it is empty or starts with a dot."
        )
    return quote(space, safe="")
