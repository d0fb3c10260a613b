"""A program: change the header of a FAISS file, repair all hashes, print outcomes as JSON lines.

    python mutate_headers.py ROOT COUNT SEED

It runs in a process of its own because what it proves is that the process neither dies nor asks for
memory.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from imprompt.core.errors import StoreError
from imprompt.store.index_version import open_version
from imprompt.store.manifest import decode_manifest
from tests.hostile.indexes import plain_manifest, seal, version


def said(root: Path) -> str:
    try:
        with open_version(root) as opened:
            index = opened.index(opened.space)
            index.search(opened.vectors(opened.space).block(0, 3), 10)
    except StoreError as error:
        return type(error).__name__
    return "fine"


def main() -> None:
    root, count, rng = Path(sys.argv[1]), int(sys.argv[2]), np.random.default_rng(int(sys.argv[3]))
    manifest = plain_manifest(root)
    info = next(iter(manifest["indexes"].values()))
    path = version(root) / info["file"]
    good = path.read_bytes()
    path.chmod(0o644)
    for number in range(count):
        content, at = bytearray(good), int(rng.integers(info["header_bytes"]))
        if number % 2:
            at = min(at // 4 * 4, info["header_bytes"] - 8)
            claims = [-1, 0, 1, 1 << 31, 1 << 33, 1 << 39, (1 << 63) - 1, -(1 << 63)]
            content[at : at + 8] = int(rng.choice(claims)).to_bytes(8, "little", signed=True)
        else:
            content[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        seal(root, plain_manifest(root), files=[info["file"]])
        sys.stdout.write(json.dumps({"at": at, "said": said(root)}) + "\n")
        sys.stdout.flush()
    decode_manifest((version(root) / "MANIFEST.json").read_bytes(), path=path)
    peak = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    sys.stdout.write(json.dumps({"peak_bytes": int(peak.split()[1]) * 1024}) + "\n")


if __name__ == "__main__":
    main()
