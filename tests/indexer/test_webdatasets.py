"""WebDatasets: tar archives of samples, as a file, in a folder, and what is refused in them."""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from imprompt.core.errors import CorpusError
from imprompt.indexer.readers import webdatasets
from imprompt.indexer.readers.sources import parse_corpus
from tests.indexer.archives import Members, picture, samples, tar
from tests.indexer.corpus_rows import reasons, rows_of, texts


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[Members], Path]:
    def write(members: Members) -> Path:
        path = tmp_path / "shard.tar"
        path.write_bytes(tar(members))
        return path

    return write


Archive = Callable[[Members], Path]


class TestRows:
    def test_are_the_texts_beside_the_pictures(self, archive: Archive) -> None:
        """In the archive's order; a bad one costs itself, and reading goes on from any row."""
        path = archive(samples([b"a fox", b"bad \xff", b"", b"a lake"]))
        rows = rows_of(path)
        assert texts(rows) == ["a fox", "a lake"]
        assert reasons(rows) == {"row 1": "bad UTF-8", "row 2": "empty"}
        source = parse_corpus(str(path))
        assert list(source.open_rows(2)) == list(source.open_rows(0))[2:]
        assert list(source.open_rows(4)) == []
        assert source.count() == 4

    def test_pictures_are_not_decoded(
        self, archive: Archive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nor any other member, whatever it is called."""
        monkeypatch.setattr(Image, "open", None)
        odd = [(f"0.{kind}", b"nonsense") for kind in ("jpg", "npy", "npz", "pth", "pyd", "cls")]
        assert texts(rows_of(archive([*odd, ("0.txt", b"a fox")]))) == ["a fox"]

    def test_a_sample_may_lack_members_and_have_others(self, archive: Archive) -> None:
        """It is an empty row; hidden files and files without a suffix are no members."""
        path = archive(
            [
                *(("README", b"no sample"), ("._0.txt", b"hidden"), ("__1.txt", b"hidden")),
                *(("0.txt", b"a fox"), ("0.json", b"{}"), ("1.png", b""), ("2.png", b"")),
                *(("2.txt", b"a lake"), ("2.mask.png", b"")),
            ]
        )
        rows = rows_of(path)
        assert texts(rows) == ["a fox", "a lake"]
        assert reasons(rows) == {"row 1": "empty"}

    def test_json(self, archive: Archive) -> None:
        """A field, by its own name or with its member's; rows that are not objects are rejected."""
        objects = [{"caption": "a fox", "n_submitted": 3}, {"caption": "a lake"}, {"other": 1}]
        contents = [*(json.dumps(item).encode() for item in objects), b"{", b"[" * 100_000]
        path = archive(samples(contents, member="json"))
        for column in (None, "caption", "json.caption"):
            rows = rows_of(path, column=column)
            assert texts(rows) == ["a fox", "a lake"]
            assert reasons(rows) == {"row 2": "empty", "row 3": "not JSON", "row 4": "not JSON"}
        assert [getattr(row, "n_submitted", None) for row in rows] == [3, 1, None, None, None]


class TestColumn:
    @pytest.mark.parametrize(
        ("members", "found"),
        [
            ({"prompt": b"P", "txt": b"T", "json": b'{"prompt": "J"}'}, "P"),
            ({"txt": b"T", "json": b'{"prompt": "J", "url": "U"}'}, "J"),
            ({"txt": b"T", "json": b'{"caption": "J", "url": "U"}'}, "T"),
            ({"caption.txt": b"T", "json": b"[]"}, "T"),
            ({"caption": b"C", "png": b""}, "C"),
            ({"json": b'{"text": "J", "width": 4}'}, "J"),
        ],
    )
    def test_is_guessed(self, members: dict[str, bytes], found: str, archive: Archive) -> None:
        """`prompt`, a field `prompt`, the only text, the only field of text."""
        path = archive([(f"0.{name}", content) for name, content in members.items()])
        assert texts(rows_of(path)) == [found]

    @pytest.mark.parametrize(
        ("column", "problem"),
        [
            (None, "no single text column to use instead; it has: a.txt, b.txt, json, json.n, png"),
            ("n", "no column 'n'; it has: a.txt"),
            ("png", "'png' .* does not hold text"),
            ("json", "'json' .* does not hold text"),
            ("json.n", "'json.n' .* does not hold text"),
        ],
    )
    def test_that_is_ambiguous_or_wrong_is_refused(
        self, column: str | None, problem: str, archive: Archive
    ) -> None:
        """And the error lists all columns."""
        path = archive(
            [("0.a.txt", b""), ("0.b.txt", b""), ("0.json", b'{"n": 1}'), ("0.png", b"")]
        )
        with pytest.raises(CorpusError, match=problem):
            parse_corpus(str(path), column=column)

    def test_is_part_of_the_fingerprint(self, archive: Archive) -> None:
        """Another column of the same file is another corpus."""
        path = archive([("0.a.txt", b"a"), ("0.b.txt", b"b")])
        prints = {parse_corpus(str(path), column=name).fingerprint() for name in ("a.txt", "b.txt")}
        assert len(prints) == 2


class TestFolders:
    def test_of_archives(self, tmp_path: Path) -> None:
        """All of them by name, without the counts and notes beside them."""
        for number in range(2):
            (tmp_path / f"{number}.tar").write_bytes(tar(samples([b"of %d" % number])))
        (tmp_path / "sizes.json").write_text('{"0.tar": 1}')
        (tmp_path / "LICENSE.txt").write_text("no prompt")
        assert texts(rows_of(tmp_path)) == ["of 0", "of 1"]

    def test_of_a_table_and_pictures(self, tmp_path: Path) -> None:
        """Beside a table, archives are its pictures, and need no package."""
        (tmp_path / "images.tar").write_bytes(tar([("0.png", picture())]))
        (tmp_path / "prompts.csv").write_text("prompt,id\na fox,1\n")
        assert texts(rows_of(tmp_path)) == ["a fox"]

    def test_with_a_damaged_one(self, tmp_path: Path) -> None:
        """Its rows are lost and counted; the others are read."""
        whole = tar(samples([b"lost", b"lost"]))
        (tmp_path / "0.tar").write_bytes(whole[: len(whole) // 3])
        (tmp_path / "1.tar").write_bytes(tar(samples([b"kept"])))
        rows = rows_of(tmp_path)
        assert texts(rows) == ["kept"]
        assert ["unreadable file" in reason for reason in reasons(rows).values()] == [True]


def header(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def of_headers(*headers: tarfile.TarInfo) -> bytes:
    """A good sample, then headers that say anything."""
    blocks = b"".join(made.tobuf(tarfile.GNU_FORMAT) for made in headers)
    return tar([("0.txt", b"a fox")])[:1024] + blocks + bytes(1024)


HOSTILE = {
    "outside": (tar([("../0.txt", b"a fox")]), "leads outside"),
    "absolute": (tar([("/etc/0.txt", b"a fox")]), "leads outside"),
    "link": (of_headers(header("1.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd")), "a link"),
    "hard link": (of_headers(header("1.txt", type=tarfile.LNKTYPE, linkname="0.txt")), "a link"),
    "device": (of_headers(header("1.txt", type=tarfile.CHRTYPE)), "a device"),
    "controls": (tar([("0\x1b[31m.txt", b"a fox")]), "control characters"),
    "long name": (tar([("a/" * 2000 + "0.txt", b"a fox")]), "too long"),
    "huge name": (tar([("a/" * 50_000 + "0.txt", b"a fox")]), "declares"),
    "huge": (of_headers(header("1.png", size=1 << 40)), "more than 64 MiB"),
    "attribute": (
        of_headers(header("x", type=tarfile.XHDTYPE, size=1 << 33)),
        "declares 8,589,934,592 bytes",
    ),
    "many members": (tar([(f"0.{n}", b"") for n in range(1001)]), "or 1,000 members"),
    "twice": (tar([("0.txt", b"a"), ("0.txt", b"b")]), "0.txt twice"),
    "key": (tar([("0.txt", b"a"), ("0.__key__", b"b")]), "__key__ twice"),
    "compressed member": (
        tar([("0.txt", b"a"), ("0.json.gz", gzip.compress(bytes(1 << 20)))]),
        "0.json.gz is compressed",
    ),
    "compressed": (gzip.compress(tar([("0.txt", b"a fox")])), "it is compressed"),
    "polyglot": (tar([("BZh91AY&SY.txt", b"a fox")]), "it is compressed"),
    "damaged": (tar([("0.txt", b"a"), ("1.txt", b"b")]).replace(b"1.txt", b"1.tyt"), "damaged"),
    "no archive": (b"a red fox" * 1000, "a header is damaged"),
    "empty": (b"", "empty"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(name: str, tmp_path: Path) -> None:
    """In one line with the reason, before the library sees it, in little memory."""
    content, reason = HOSTILE[name]
    path = tmp_path / "evil.tar"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(CorpusError, match=reason) as caught:
        rows_of(path)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    """A terabyte of nothing in a few bytes: GNU's form, by attributes of POSIX."""
    path = tmp_path / "sparse.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = header("0.txt", size=2)
        member.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.name": "0.txt",
            "GNU.sparse.size": str(1 << 40),
            "GNU.sparse.map": "0,2",
        }
        archive.addfile(member, io.BytesIO(b"ab"))
    with pytest.raises(CorpusError, match="sparse file"):
        rows_of(path)


def test_a_path_that_looks_like_a_url(tmp_path: Path) -> None:
    """The library would open another file, or ask a server."""
    path = tmp_path / "a::http:" / "localhost" / "x.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(tar([("0.txt", b"a fox")]))
    with pytest.raises(CorpusError, match="for a URL"):
        rows_of(path)


def test_without_the_package(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the layout and what to install."""
    monkeypatch.setattr(webdatasets, "EXTRA", "no-such-package")
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("no-such-package")
    with pytest.raises(CorpusError, match="is read as a WebDataset, which needs") as caught:
        rows_of(archive([("0.txt", b"a fox")]))
    assert "pip install" in caught.value.hint


READ = """
import sys
def watch(event, args):
    if event.startswith("socket.") and (event != "socket.__new__" or int(args[1]) in (2, 10)):
        raise SystemExit(f"{event} {args}")
sys.addaudithook(watch)
from imprompt.indexer.readers.sources import parse_corpus
source = parse_corpus(sys.argv[1])
print([row.text for batch in source.batches(9) for row in batch.prompts])
print("torch" in sys.modules)
"""


def test_reading_makes_no_request(archive: Archive, tmp_path: Path) -> None:
    """The library opens no socket, imports no torch, and leaves no file behind."""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", READ, str(archive([("0.txt", b"a fox")]))],
        env={
            **os.environ,
            **dict.fromkeys(("HOME", "HF_HOME", "TMPDIR"), str(home)),
            "HF_HUB_OFFLINE": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['a fox']", "False"]
    assert done.stderr == ""
    assert not list(home.rglob("*"))


def test_with_a_broken_installation(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing package and does not blame the archive."""
    monkeypatch.setitem(sys.modules, "datasets.data_files", None)
    with pytest.raises(CorpusError, match=r"needs the package datasets\.data_files"):
        rows_of(archive([("0.txt", b"a fox")]))


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The archive with a few fields of headers changed, mostly under a right checksum."""
    blocks = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = tarfile.BLOCKSIZE * rng.randrange(len(blocks) // tarfile.BLOCKSIZE)
        field, length = rng.choice(
            [(0, 100), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)]
        )
        place = at + field + rng.randrange(length)
        blocks[place] = rng.choice([*b"\0 /.017xgLKS\x80\xff", rng.randrange(256)])
        if rng.random() < 0.8:
            blocks[at + 148 : at + 156] = b" " * 8
            total = sum(blocks[at : at + tarfile.BLOCKSIZE])
            blocks[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_random_damage(form: int, tmp_path: Path) -> None:
    """A damaged archive is refused, or the library finds the samples that the check counts."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as whole:
        for name, content in samples([b"a fox", b"a lake", b"the sea"]):
            made = header(f"{'f/' * 45}{name}", size=len(content))
            whole.addfile(made, io.BytesIO(content))
    rng, path, refused = random.Random(form), tmp_path / "shard.tar", 0  # noqa: S311 no secret
    for _ in range(600):
        path.write_bytes(damaged(sink.getvalue(), rng))
        try:
            source = webdatasets.webdataset_source(path, column=None)
            assert len(list(source.open_rows(0))) == source.count()
        except CorpusError:
            refused += 1
    assert 60 < refused < 600
