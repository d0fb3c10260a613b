"""A thousand flipped bytes over every kind of file of a version, and of a pack: each is found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from imprompt.core.errors import Checksum, FormatVersion
from imprompt.indexer.installing import install_pack
from imprompt.store.index_version import open_version
from imprompt.store.packs.packing import pack_version
from imprompt.store.publish import current_name
from tests.indexer.small_index import IVF, build_small
from tests.store.test_damage import Flip, files, flip, hold_answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COUNTS = {
    "CURRENT": 60,
    "MANIFEST.json": 140,
    "PLAN.json": 80,
    "journal.jsonl": 120,
    "duckdb": 150,
    "npy": 150,
    "crc32": 100,
    "faiss": 100,
}
IN_A_PACK = 100
ALWAYS_NOTICED = {"CURRENT", "MANIFEST.json"}
"""By opening alone, whatever the byte; of the others, what an answer is made of is."""


def kind_of(file: str) -> str:
    name = file.rsplit("/", 1)[-1]
    return name if name in COUNTS else name.rsplit(".", 1)[-1]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inverted file over 300 prompts in two spaces, some with generation parameters."""
    return build_small(tmp_path_factory.mktemp("flips"), index_factory=IVF)


def test_of_every_kind_of_file(root: Path) -> None:
    """`verify` finds each of the 900; none changes an answer: it is the same, or refused."""
    rng = np.random.default_rng(11)
    by_kind: dict[str, list[str]] = {}
    for file in files(root):
        by_kind.setdefault(kind_of(file), []).append(file)
    assert by_kind.keys() == COUNTS.keys()
    flips: list[Flip] = []
    for kind, count in COUNTS.items():
        for _ in range(count):
            file = str(rng.choice(by_kind[kind]))
            position = int(rng.integers((root / file).stat().st_size))
            flips.append((file, position, 1 << int(rng.integers(8))))
    found = flip(root, flips, questions=3)
    hold_answers(found)
    assert Counter(kind_of(one["file"]) for one in found) == COUNTS
    noticed = Counter(kind_of(one["file"]) for one in found if one["used"] == "Checksum")
    for kind in ALWAYS_NOTICED:
        assert noticed[kind] == COUNTS[kind]
    assert sum(COUNTS.values()) + IN_A_PACK == 1000


def test_of_a_pack(root: Path, tmp_path: Path) -> None:
    """Each of 100 is refused, and no index appears."""
    pack, copy, target = tmp_path / "a.imprompt", tmp_path / "b.imprompt", tmp_path / "new"
    with open_version(root) as version:
        pack_version(version, pack)
    content = pack.read_bytes()
    rng = np.random.default_rng(12)
    for position in rng.integers(0, len(content), IN_A_PACK).tolist():
        changed = bytearray(content)
        changed[position] ^= 1 << int(rng.integers(8))
        copy.write_bytes(changed)
        with pytest.raises((Checksum, FormatVersion)):
            install_pack(target, copy)
        assert current_name(target) is None
