"""Data sets of the hub for tests: in its cache, and as `tests.core.fake_hub` serves them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from tests.core.fake_hub import COMMIT


def fill_cache(
    cache: Path, repo: str, files: Mapping[str, bytes], *, revision: str = "main"
) -> str:
    """Put a data set into the hub's cache as its client does; the commit is a content hash."""
    digest = hashlib.sha1(usedforsecurity=False)
    for name, content in sorted(files.items()):
        digest.update(repr((name, content)).encode())
    commit = digest.hexdigest()
    folder = cache / f"datasets--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(commit, "utf-8")
    (folder / "blobs").mkdir(exist_ok=True)
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
    return commit


def served(repo: str, files: Mapping[str, bytes], *, commit: str = COMMIT) -> dict[str, bytes]:
    """What a `FakeHub` has to hold to serve a data set: its files, and the list of them."""
    listing = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
    found = {f"datasets/{repo}/{name}": content for name, content in files.items()}
    return {**found, listing_of(repo): json.dumps(listing).encode()}


def listing_of(repo: str) -> str:
    """Under which name the hub is asked for the list."""
    return f"api/datasets/{repo}/revision/main"
