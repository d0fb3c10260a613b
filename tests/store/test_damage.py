"""Damaged files: `verify` finds every flipped byte, opening most, and the process never dies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imprompt.core.errors import Checksum, StoreError
from imprompt.store import layout
from imprompt.store.faiss_index import FaissIndex
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.ivf.ivf_files import CheckedLists
from imprompt.store.manifest import Manifest
from tests.store.builders import DIM, SPACE, build, random_vectors
from tests.store.flip_bytes import SECTOR, answers

NPY_HEADER_BYTES = 128
Flip = tuple[str, int, int]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    root = tmp_path_factory.mktemp("damaged")
    return root, build(root, rows=400)


@pytest.fixture(scope="module", params=["IVF8,RaBitQ", "IVF8,SQ8", "IVF8x2,PQ4x4fs"])
def index_in_parts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Manifest]:
    """So many rows that a question is asked of the codes; fewer would be looked at all."""
    root = tmp_path_factory.mktemp("parts")
    return root, build(root, rows=600, factory=request.param, part_rows=250)


def flip(root: Path, flips: list[Flip], *, questions: int = 0) -> list[dict[str, Any]]:
    """The outcome of opening, using and verifying with each byte flipped; no process dies."""
    program = Path(__file__).with_name("flip_bytes.py")
    done = subprocess.run(
        [sys.executable, program, root, str(questions)],
        input=json.dumps(flips),
        capture_output=True,
        text=True,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"died at {flips[len(found)]}: {done.stderr[-2000:]}"
    assert [(one["file"], one["position"]) for one in found] == [
        (file, position) for file, position, _ in flips
    ]
    return found


def files(root: Path) -> list[str]:
    """Every file of the index, the lock left out: its content means nothing."""
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and path.name != "LOCK"
    )


def random_flips(root: Path, rng: np.random.Generator, *, each: int, header: int) -> list[Flip]:
    """In every file `each` bytes anywhere and `header` among the first 128, one bit each."""
    flips: list[Flip] = []
    for file in files(root):
        size = (root / file).stat().st_size
        positions = {
            *rng.integers(0, size, each).tolist(),
            *rng.integers(0, min(size, NPY_HEADER_BYTES), header).tolist(),
        }
        flips += [(file, position, 1 << int(rng.integers(8))) for position in sorted(positions)]
    return flips


def hold(found: list[dict[str, Any]]) -> None:
    """Assert what holds for every flipped byte: opening notices it in whatever is structure."""
    for one in found:
        assert one["verified"] != "0", one
        assert one["used"] in ("fine", "Checksum"), one
        name = one["file"].rsplit("/", 1)[-1]
        structure = name in (layout.MANIFEST, "CURRENT") or (
            name.endswith(".faiss") and one["position"] < 81
        )
        assert not structure or one["used"] == "Checksum", one


def test_flipped_bytes(index: tuple[Path, Manifest]) -> None:
    """A few bytes of every file."""
    root, _ = index
    hold(flip(root, random_flips(root, np.random.default_rng(0), each=3, header=5)))


def test_flipped_bytes_of_parts(index_in_parts: tuple[Path, Manifest]) -> None:
    """A flipped byte in what FAISS interprets is found before FAISS reads it, in every part.

    In codes and ids it does no harm.
    """
    root, manifest = index_in_parts
    info, rng = manifest.indexes[SPACE], np.random.default_rng(3)
    assert len(info.files) == 3
    flips: list[Flip] = []
    for part in info.parts:
        file = f"versions/{manifest.version}/{part.file}"
        headers = rng.integers(0, part.header_bytes, 6).tolist()
        rest = rng.integers(part.header_bytes, (root / file).stat().st_size, 10).tolist()
        flips += [(file, position, 1 << int(rng.integers(8))) for position in headers + rest]
    found = flip(root, flips)
    headers_of = {
        f"versions/{manifest.version}/{part.file}": part.header_bytes for part in info.parts
    }
    for one in found:
        assert one["verified"] == "1", one
        if one["position"] < headers_of[one["file"]]:
            assert one["used"] == "Checksum", one
        assert one["used"] in ("fine", "Checksum"), one


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_flipped_bytes(index: tuple[Path, Manifest]) -> None:
    """Every byte of the FAISS header, and hundreds of every file."""
    root, manifest = index
    faiss_file = f"versions/{manifest.version}/index/{SPACE}.faiss"
    flips = [(faiss_file, position, 1 << (position * 3 % 8)) for position in range(81)]
    hold(flip(root, flips + random_flips(root, np.random.default_rng(1), each=200, header=100)))


def hold_answers(found: list[dict[str, Any]]) -> None:
    """Damage either changes no answer or is refused, and `verify` finds it whatever it is."""
    for one in found:
        assert one.get("answers") != "changed", one
        assert one["used"] in ("fine", "Checksum"), one
        assert one["verified"] != "0" or (one["bits"] == SECTOR and one["zero"]), one


def flips_of(root: Path, rng: np.random.Generator, count: int) -> list[Flip]:
    """Flips of single bits and, each tenth, of sectors, as many in each kind of file, anywhere."""
    kinds: dict[str, list[str]] = {}
    for file in files(root):
        name = file.rsplit("/", 1)[-1]
        kinds.setdefault(
            name if name.isupper() or "." not in name else file.rsplit(".", 1)[-1], []
        ).append(file)
    flips: list[Flip] = []
    for number in range(count):
        file = str(rng.choice(list(kinds.values())[number % len(kinds)]))
        position = int(rng.integers((root / file).stat().st_size))
        flips.append((file, position, SECTOR if number % 10 == 9 else 1 << int(rng.integers(8))))
    return flips


def test_no_flip_changes_an_answer(tmp_path: Path) -> None:
    """A few of those of the next test."""
    build(tmp_path, rows=700)
    hold_answers(flip(tmp_path, flips_of(tmp_path, np.random.default_rng(10), 60), questions=10))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factory", "part_rows", "count"),
    [
        ("SQfp16", 1 << 20, 500),
        ("IVF16x2,PQ4x4fs", 1 << 20, 300),
        ("IVF16,RaBitQ", 800, 200),
        ("IVF16,SQ8", 800, 100),
    ],
)
def test_no_flip_of_a_thousand_changes_an_answer(
    tmp_path: Path, factory: str, part_rows: int, count: int
) -> None:
    """Forty questions, one and ten answers each, over flat, inverted and partitioned indexes."""
    build(tmp_path, rows=2000, factory=factory, part_rows=part_rows)
    found = flip(tmp_path, flips_of(tmp_path, np.random.default_rng(count), count), questions=40)
    hold_answers(found)
    assert sum(one["used"] == "Checksum" for one in found) > count // 4


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["SQfp16", "IVF16x2,PQ4x4fs"])
def test_flips_aimed_at_the_answers(tmp_path: Path, factory: str) -> None:
    """Bits of the rows that are answered, in the vectors and in a flat index: each is refused."""
    manifest = build(tmp_path, rows=2000, factory=factory)
    folder, rng = f"versions/{manifest.version}", np.random.default_rng(12)
    answered = sorted({row for ids in answers(tmp_path, 40)[3] for row in ids})
    flips: list[Flip] = []
    for row in rng.permutation(answered)[:40].tolist():
        inside = row * DIM * 2 + int(rng.integers(DIM * 2))
        shard = manifest.shards[SPACE][row // 64].file
        flips.append(
            (
                f"{folder}/{shard}",
                NPY_HEADER_BYTES + inside - row // 64 * 64 * DIM * 2,
                1 << int(rng.integers(8)),
            )
        )
        if factory == "SQfp16":
            info = manifest.indexes[SPACE]
            flips.append(
                (f"{folder}/{info.file}", info.header_bytes + inside, 1 << int(rng.integers(8)))
            )
    found = flip(tmp_path, flips, questions=40)
    hold_answers(found)
    assert {one["used"] for one in found} == {"Checksum"}


def test_a_flat_index_is_compared_with_the_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sums do not tell, a row whose code became huge is: it does not score as its vector."""
    manifest = build(tmp_path, rows=600)
    monkeypatch.setattr(FaissIndex, "_check_codes", lambda _: None)
    path = layout.version_folder(tmp_path, manifest.version) / manifest.indexes[SPACE].file
    path.chmod(0o644)
    with path.open("r+b") as opened:
        opened.seek(manifest.indexes[SPACE].header_bytes + 300 * DIM * 2)
        opened.write(np.full(DIM, 30_000, dtype="<f2").tobytes())
    queries = np.abs(random_vectors(1, seed=3))
    with open_version(tmp_path) as version, pytest.raises(Checksum, match="scores a row otherwise"):
        version.index(SPACE).search(queries, 1)


def test_opening_finds_what_the_check_queries_see(index: tuple[Path, Manifest]) -> None:
    """A changed exponent in a check query's vector or FAISS code is found without hashing."""
    root, manifest = index
    row = manifest.check_queries[SPACE][0].row_id
    shard, start = next(
        (record.file, sum(before.rows for before in manifest.shards[SPACE][:number]))
        for number, record in reversed(list(enumerate(manifest.shards[SPACE])))
        if sum(before.rows for before in manifest.shards[SPACE][:number]) <= row
    )
    folder = f"versions/{manifest.version}"
    header = manifest.indexes[SPACE].header_bytes
    found = flip(
        root,
        [
            (f"{folder}/{shard}", NPY_HEADER_BYTES + (row - start) * DIM * 2 + 1, 0x40),
            (f"{folder}/index/{SPACE}.faiss", header + row * DIM * 2 + 1, 0x40),
        ],
    )
    assert [one["used"] for one in found] == ["Checksum", "Checksum"]


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("damage", ["zeros", "ids"])
def test_opening_finds_codes_that_find_nothing(
    index_in_parts: tuple[Path, Manifest],
    damage: str,
    sums: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file of the right length and header whose lists changed would answer wrong rows silently.

    The check queries find that also where sums do not tell.
    """
    root, manifest = index_in_parts
    shutil.copytree(root, tmp_path / "copy")
    info = manifest.indexes[SPACE]
    assert info.check_queries_found >= 12
    rng = np.random.default_rng(0)
    for part in info.parts:
        path = layout.version_folder(tmp_path / "copy", manifest.version) / part.file
        path.chmod(0o644)
        content = bytearray(path.read_bytes())
        lists = np.frombuffer(content, dtype=np.uint8)[part.header_bytes :]
        lists[:] = 0 if damage == "zeros" else rng.permutation(lists)
        path.write_bytes(content)
    if not sums:
        monkeypatch.setattr(CheckedLists, "check", lambda *_: None)
    says = (
        r"list \d+ is not what was written"
        if sums
        else r"rows are found by their codes|rows that do not exist"
    )
    with pytest.raises(Checksum, match=says):
        open_version(tmp_path / "copy")


def test_a_manifest_that_nothing_vouches_for(tmp_path: Path) -> None:
    """A version opened by name has no sha256 of its manifest, yet a flip raises no other error."""
    manifest = build(tmp_path, rows=20)
    path = layout.version_folder(tmp_path, manifest.version) / layout.MANIFEST
    content = path.read_bytes()
    path.chmod(0o644)
    refused = 0
    for position in np.random.default_rng(2).integers(0, len(content), 150):
        changed = bytearray(content)
        changed[position] ^= 1 << int(position) % 7
        path.write_bytes(changed)
        try:
            verify(tmp_path, name=manifest.version)
            open_version(tmp_path, manifest.version).close()
        except StoreError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("change", ["missing", "empty", "cut", "longer", "folder"])
def test_files_of_another_length(tmp_path: Path, change: str) -> None:
    """Any file that is missing, cut, longer or a folder is found by opening and by `verify`."""
    manifest = build(tmp_path, rows=20, factory="IVF4,RaBitQ", part_rows=10)
    assert sum(file.endswith(".faiss") for file in manifest.files) == 2
    for file in [*manifest.files, layout.MANIFEST]:
        path = layout.version_folder(tmp_path, manifest.version) / file
        content = path.read_bytes()
        path.unlink()
        if change == "folder":
            path.mkdir()
        elif change != "missing":
            path.write_bytes({"empty": b"", "cut": content[:-1], "longer": content + b"\0"}[change])
        with pytest.raises(Checksum, match=file):
            open_version(tmp_path)
        assert next(problem.file for problem in verify(tmp_path)).endswith(file)
        if change == "folder":
            path.rmdir()
        path.write_bytes(content)
    assert verify(tmp_path) == []


def test_every_problem_is_listed(tmp_path: Path) -> None:
    """Damaged files, a missing one and one too many are all listed, with what was expected."""
    manifest = build(tmp_path, rows=150)
    folder = layout.version_folder(tmp_path, manifest.version)
    for file in (f"vectors/{SPACE}/00000.npy", layout.PROMPTS):
        (folder / file).chmod(0o644)
        with (folder / file).open("r+b") as opened:
            opened.seek(300)
            opened.write(b"\xff\xfe\xfd\xfc")
    (folder / f"index/{SPACE}.faiss").unlink()
    (folder / "extra.txt").write_text("x")
    found = {problem.file: problem for problem in verify(tmp_path)}
    assert found.keys() == {
        f"vectors/{SPACE}/00000.npy",
        layout.PROMPTS,
        f"index/{SPACE}.faiss",
        "extra.txt",
    }
    assert found[layout.PROMPTS].expected == f"sha256 {manifest.files[layout.PROMPTS].sha256}"
    assert "No such file" in str(found[f"index/{SPACE}.faiss"])


def test_write_ahead_log(tmp_path: Path) -> None:
    """A write-ahead log beside published prompts would change what they say: it is not opened."""
    manifest = build(tmp_path, rows=20)
    log = layout.version_folder(tmp_path, manifest.version) / f"{layout.PROMPTS}.wal"
    log.write_bytes(b"anything")
    with pytest.raises(Checksum, match="wal"):
        open_version(tmp_path)
    assert [problem.file for problem in verify(tmp_path)] == [log.name]
