"""A program: flips bytes of a published index one at a time and tells, a JSON object a line, what noticed. Run by test_damage.py.

    python flip_bytes.py ROOT < [[path below ROOT, position, bits to flip], …]

It runs in a process of its own because what it proves is that the process does not die.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from core.errors import StoreError
from store.generation import open_generation
from store.verify import verify


def use(root: Path) -> None:
    """Open the index and touch everything in it."""
    with open_generation(root) as generation:
        for space in generation.manifest.indexes:
            vectors = generation.vectors(space)
            generation.index(space).search(vectors.block(0, 1), min(len(vectors), 50))
            vectors.block(0, len(vectors))
        generation.prompts.get_many(range(len(generation.prompts)))
        generation.prompts.digest()


def outcome(root: Path) -> dict[str, str]:
    """What using and what verifying the index said: an error's name, "fine", or how many problems."""
    try:
        use(root)
        used = "fine"
    except StoreError as error:
        used = type(error).__name__
    try:
        verified = str(len(verify(root)))
    except StoreError as error:
        verified = type(error).__name__
    return {"used": used, "verified": verified}


def main() -> None:
    root = Path(sys.argv[1])
    for file, position, bits in json.load(sys.stdin):
        path = root / file
        path.chmod(0o644)
        with path.open("r+b") as opened:
            opened.seek(position)
            byte = opened.read(1)[0]
            opened.seek(position)
            opened.write(bytes([byte ^ bits]))
            opened.flush()
            sys.stdout.write(json.dumps({"file": file, "position": position, "bits": bits} | outcome(root)) + "\n")
            sys.stdout.flush()
            opened.seek(position)
            opened.write(bytes([byte]))


if __name__ == "__main__":
    main()
