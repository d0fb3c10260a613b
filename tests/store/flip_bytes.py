"""A program that flips bytes of an index one at a time and prints, as JSON lines, what noticed.

Run by test_damage.py.

    python flip_bytes.py ROOT [QUESTIONS] < [[path below ROOT, position, bits to flip], …]

Bits of 256 stand for a sector: from the position on, up to 4 KiB become zeros. With QUESTIONS, so
many questions are asked, for one answer and for ten, and "answers" says whether ids, scores and
texts are what they were; without, everything in the index is touched. It runs in a process of its
own because what it proves is that the process does not die.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from imprompt.core.errors import StoreError
from imprompt.core.values import unit_rows
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify

SECTOR = 256
_SECTOR_BYTES = 4096


def use(root: Path) -> None:
    """Open the index and touch everything in it."""
    with open_version(root) as version:
        for space in version.manifest.indexes:
            vectors = version.vectors(space)
            version.index(space).search(vectors.block(0, 1), min(len(vectors), 50))
            vectors.block(0, len(vectors))
        version.prompts.get_many(range(len(version.prompts)))
        version.prompts.digest()


def answers(root: Path, questions: int) -> list[Any]:
    """Ids, scores and texts of questions that no stored row answers exactly, for k = 1 and 10."""
    with open_version(root) as version:
        index = version.index(version.space)
        queries = unit_rows(np.random.default_rng(5).standard_normal((questions, index.dim)))
        found: list[Any] = []
        for k in (1, 10):
            hits = index.search(queries, k)
            found += [
                hits.ids.tolist(),
                hits.scores.tobytes(),
                version.prompts.get_many(hits.ids[hits.ids >= 0]),
            ]
    return found


def outcome(root: Path, questions: int, right: list[Any]) -> dict[str, str]:
    """Return what using and verifying said: an error's name, "fine", or the number of problems."""
    said = {}
    try:
        if questions:
            said["answers"] = "same" if answers(root, questions) == right else "changed"
        else:
            use(root)
        used = "fine"
    except StoreError as error:
        used = type(error).__name__
    try:
        verified = str(len(verify(root)))
    except StoreError as error:
        verified = type(error).__name__
    return {**said, "used": used, "verified": verified}


def main() -> None:
    root, questions = Path(sys.argv[1]), int((*sys.argv, "0")[2])
    right = answers(root, questions) if questions else []
    for file, position, bits in json.load(sys.stdin):
        path = root / file
        path.chmod(0o644)
        with path.open("r+b") as opened:
            opened.seek(position)
            old = opened.read(_SECTOR_BYTES if bits == SECTOR else 1)
            opened.seek(position)
            opened.write(bytes(len(old)) if bits == SECTOR else bytes([old[0] ^ bits]))
            opened.flush()
            said = {
                "file": file,
                "position": position,
                "bits": bits,
                "zero": not any(old),
            } | outcome(root, questions, right)
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()
            opened.seek(position)
            opened.write(old)


if __name__ == "__main__":
    main()
