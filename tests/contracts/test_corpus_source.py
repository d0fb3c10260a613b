"""The contract of `imprompt.core.protocols.CorpusSource`, for every kind of file."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imprompt.core.errors import ConfigError
from imprompt.core.protocols import CorpusSource
from imprompt.core.values import RawPrompt, RejectedRow
from imprompt.indexer.readers.sources import parse_corpus
from tests.indexer.archives import samples, tar
from tests.indexer.hub_worlds import fill_cache

ROWS: tuple[bytes, ...] = (
    b"a red fox, snow",
    b"",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE} at night".encode(),
    b"broken \xff bytes",
    b"zero \x00 byte",
    b"a red fox, snow",
    b"x" * 100_001,
    b"last one",
)
"""The rows of each kind of file: five prompts, one of them twice, and four rows without one."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A writer of one kind of corpus from rows, and its spec."""

    write: Callable[[Path, tuple[bytes, ...]], Path]
    spec: str = "{path}"
    holds_bad_bytes: bool = True
    counts: frozenset[int] = frozenset({1})


def write_text(folder: Path, rows: tuple[bytes, ...]) -> Path:
    path = folder / "prompts.txt"
    path.write_bytes(b"".join(row + b"\n" for row in rows))
    return path


def write_separated(folder: Path, rows: tuple[bytes, ...], *, suffix: str, mark: bytes) -> Path:
    path = folder / f"prompts{suffix}"
    lines = [mark.join((b"id", b"prompt", b"n_submitted"))]
    lines += [mark.join((b"%d" % i, b'"' + row + b'"', b"2")) for i, row in enumerate(rows)]
    path.write_bytes(b"\r\n".join(lines) + b"\r\n")
    return path


def write_json_lines(folder: Path, rows: tuple[bytes, ...]) -> Path:
    path = folder / "prompts.jsonl"
    escaped = [row.replace(b"\x00", b"\\u0000") for row in rows]
    path.write_bytes(b"".join(b'{"id": 1, "prompt": "' + row + b'"}\n' for row in escaped))
    return path


def write_parquet(folder: Path, rows: tuple[bytes, ...]) -> Path:
    path = folder / "prompts.parquet"
    binary = pa.array(rows, type=pa.binary())
    texts = pa.Array.from_buffers(
        pa.string(), len(rows), binary.buffers()
    )  # pyarrow would refuse the bad bytes otherwise
    pq.write_table(
        pa.table({"prompt": texts, "n_submitted": [2] * len(rows)}), path, row_group_size=3
    )
    return path


def write_images(folder: Path, rows: tuple[bytes, ...]) -> Path:
    target = folder / "pictures"
    (target / "below").mkdir(parents=True)
    for i, row in enumerate(rows):
        info = PngInfo()
        if row:
            info.add_text(
                "parameters",
                f"{row.decode('latin-1')[:200]}\nSteps: 20, Sampler: Euler a, Seed: 1, Size: 4x4",
            )
        Image.new("RGB", (4, 4)).save(
            target / ("below" if i % 2 else ".") / f"{i:03d}.png", pnginfo=info
        )
    (target / "torn.png").write_text("no image at all")
    return target


def write_webdataset(folder: Path, rows: tuple[bytes, ...]) -> Path:
    path = folder / "prompts.tar"
    path.write_bytes(tar(samples(rows)))
    return path


def write_objects(folder: Path, rows: tuple[bytes, ...]) -> Path:
    path = folder / "prompts.tar"
    escaped = [row.replace(b"\x00", b"\\u0000") for row in rows]
    objects = [b'{"prompt": "' + row + b'", "n_submitted": 2}' for row in escaped]
    path.write_bytes(tar(samples(objects, member="json")))
    return path


def packed(
    write: Callable[[Path, tuple[bytes, ...]], Path], suffix: str
) -> Callable[[Path, tuple[bytes, ...]], Path]:
    """The same file, compressed."""

    def write_packed(folder: Path, rows: tuple[bytes, ...]) -> Path:
        plain = write(folder, rows)
        path = plain.with_name(plain.name + suffix)
        with pa.output_stream(
            str(path), compression={".gz": "gzip", ".zst": "zstd"}[suffix]
        ) as stream:
            stream.write(plain.read_bytes())
        plain.unlink()
        return path

    return write_packed


def write_json(folder: Path, rows: tuple[bytes, ...]) -> Path:
    path = folder / "prompts.json"
    escaped = [row.replace(b"\x00", b"\\u0000") for row in rows]
    path.write_bytes(
        b"[" + b",\n ".join(b'{"id": 1, "prompt": "' + row + b'"}' for row in escaped) + b"]\n"
    )
    return path


def write_tables(folder: Path, rows: tuple[bytes, ...]) -> Path:
    target = folder / "tables"
    (target / "below").mkdir(parents=True)
    (target / ".hidden.csv").write_text("prompt\nhidden\n")
    (target / "LICENCE.txt").write_text("no prompt\n")
    write_separated(target, rows[:3], suffix=".csv", mark=b",")
    write_parquet(target / "below", rows[3:5])
    packed(write_json_lines, ".zst")(target, rows[5:])
    return target


def write_duckdb(folder: Path, rows: tuple[bytes, ...]) -> Path:
    path = folder / "prompts.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE other (prompt VARCHAR); "
            "CREATE TABLE images (id INTEGER, prompt VARCHAR, n_submitted BIGINT)"
        )
        cells = [(row.decode("utf-8", "replace"), 2) for row in rows]
        connection.executemany("INSERT INTO images VALUES (1, ?, ?)", [("deleted", 1), *cells])
        connection.execute("DELETE FROM images WHERE prompt = 'deleted'")
    return path


def write_to_hub(folder: Path, rows: tuple[bytes, ...]) -> Path:
    from huggingface_hub import constants

    files = {
        "README.md": b"# a card without configurations",
        "data/test.csv": write_separated(folder, rows[:3], suffix=".csv", mark=b",").read_bytes(),
        "data/train-00000-of-00001.csv": write_separated(
            folder, rows[3:], suffix=".csv", mark=b","
        ).read_bytes(),
    }
    fill_cache(Path(constants.HF_HUB_CACHE), "somebody/prompts", files)
    return folder


def write_phrases(folder: Path, rows: tuple[bytes, ...]) -> Path:
    data = Path(sys.path[0]) / "clip_interrogator" / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data.parent / "__init__.py").write_text("raise ImportError('the package is only to be found')")
    for place, name in enumerate(("mediums", "movements", "flavors")):
        (data / f"{name}.txt").write_bytes(b"".join(row + b"\n" for row in rows[place::3]))
    (data / "artists.txt").write_text("a person\n")
    importlib.invalidate_caches()
    return folder


def write_nothing(folder: Path, rows: tuple[bytes, ...]) -> Path:
    return folder


TWO = frozenset({2})
KINDS = {
    "text": Kind(write_text),
    "text.gz": Kind(packed(write_text, ".gz")),
    "csv": Kind(
        lambda folder, rows: write_separated(folder, rows, suffix=".csv", mark=b","), counts=TWO
    ),
    "csv.zst": Kind(
        packed(
            lambda folder, rows: write_separated(folder, rows, suffix=".csv", mark=b","), ".zst"
        ),
        counts=TWO,
    ),
    "tsv": Kind(
        lambda folder, rows: write_separated(folder, rows, suffix=".tsv", mark=b"\t"), counts=TWO
    ),
    "jsonl": Kind(write_json_lines),
    "jsonl.gz": Kind(packed(write_json_lines, ".gz")),
    "json": Kind(write_json),
    "parquet": Kind(write_parquet, counts=TWO),
    "folder": Kind(write_tables, counts=frozenset({1, 2})),
    "duckdb": Kind(write_duckdb, spec="{path}#images.prompt", holds_bad_bytes=False, counts=TWO),
    "webdataset": Kind(write_webdataset),
    "webdataset of JSON": Kind(write_objects, counts=TWO),
    "hub": Kind(write_to_hub, spec="hf:somebody/prompts#prompt", counts=TWO),
    "phrases": Kind(write_phrases, spec="phrases:clip-interrogator"),
    "images": Kind(write_images, spec="images:{path}", holds_bad_bytes=False),
    "starter": Kind(write_nothing, spec="starter", holds_bad_bytes=False),
}
SHAPES: dict[str, dict[str, Any]] = {
    "whole": {},
    "limited": {"limit": 7},
    "sampled": {"sample": 5, "seed": 3},
}

Rows = list[RawPrompt | RejectedRow]


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub's cache and a folder of packages of this test alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "packages").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(params=SHAPES)
def source(kind: Kind, request: pytest.FixtureRequest, tmp_path: Path) -> CorpusSource:
    path = kind.write(tmp_path, ROWS)
    return parse_corpus(kind.spec.format(path=path), **SHAPES[request.param])


def read(source: CorpusSource, size: int, start: int = 0) -> Rows:
    """All rows of a source, prompts before rejections within a batch."""
    rows: Rows = []
    for batch in source.batches(size, start):
        rows += [*batch.prompts, *batch.rejected]
    return rows


def n_rows(source: CorpusSource) -> int:
    return len(read(source, 1000))


class TestEverySource:
    def test_gives_the_same_rows_each_time(self, source: CorpusSource) -> None:
        """Reading twice gives the same rows in the same order."""
        assert read(source, 3) == read(source, 3) != []

    def test_does_not_depend_on_the_batch_size(self, source: CorpusSource) -> None:
        """Batches of 1, 4 and 1,000 hold the same rows in the same order."""
        one_by_one = read(source, 1)
        for size in (4, 1000):
            for picked in (RawPrompt, RejectedRow):
                found = [row for row in read(source, size) if isinstance(row, picked)]
                assert found == [row for row in one_by_one if isinstance(row, picked)]

    def test_goes_on_from_any_row(self, source: CorpusSource) -> None:
        """Starting at row n skips n rows, rejected ones included; past the end there is nothing."""
        everything = read(source, 1)
        for start in (
            *(range(len(everything)) if len(everything) < 12 else (0, 1, 4711)),
            len(everything) - 1,
            len(everything),
        ):
            assert read(source, 1, start) == everything[start:]
        assert read(source, 5, len(everything) + 7) == []

    def test_says_where_to_go_on(self, source: CorpusSource) -> None:
        """`next_start` counts the rows so far: a reader may stop after any batch without loss."""
        seen = 0
        for batch in source.batches(2):
            assert 1 <= len(batch.prompts) + len(batch.rejected) <= 2
            seen += len(batch.prompts) + len(batch.rejected)
            assert batch.next_start == seen
        assert seen == n_rows(source)

    def test_names_itself_and_its_rows(self, source: CorpusSource) -> None:
        """Each row says which corpus it is of, and a key that is its own."""
        rows = read(source, 100)
        assert {row.source for row in rows} == {source.name}
        assert "/" not in source.name
        assert len({row.source_key for row in rows}) == len(rows)

    def test_gives_text_that_can_be_stored(self, source: CorpusSource) -> None:
        """Every prompt is valid Unicode, not blank, without NUL, and submitted at least once."""
        for row in read(source, 100):
            if isinstance(row, RawPrompt):
                assert row.text.encode("utf-8").strip()
                assert "\0" not in row.text
                assert 1 <= len(row.text) <= 100_000
                assert row.n_submitted >= 1
            else:
                assert row.reason

    def test_refuses_senseless_batches(self, source: CorpusSource) -> None:
        """A batch of no rows, or a negative start, is an error and not an endless loop."""
        for size, start in ((0, 0), (1, -1)):
            with pytest.raises(ConfigError):
                next(source.batches(size, start))


class TestFingerprint:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_is_of_the_content(self, kind: Kind, shape: str, tmp_path: Path) -> None:
        """A copy elsewhere with another time has the same fingerprint."""
        path = kind.write(tmp_path, ROWS)
        elsewhere = tmp_path / "elsewhere" / "deeper"
        if path.is_dir() and path != tmp_path:
            shutil.copytree(path, elsewhere / path.name)
        elif path.is_file():
            elsewhere.mkdir(parents=True)
            shutil.copyfile(path, elsewhere / path.name)
            os.utime(elsewhere / path.name, (1, 1))
        here = parse_corpus(kind.spec.format(path=path), **SHAPES[shape])
        there = parse_corpus(kind.spec.format(path=elsewhere / path.name), **SHAPES[shape])
        assert here.fingerprint() == there.fingerprint()
        assert read(here, 10) == read(there, 10)

    def test_tells_other_rows_apart(self, kind: Kind, tmp_path: Path) -> None:
        """One changed word, another order, and one row less each give another fingerprint."""
        if kind.spec == "starter":
            pytest.skip("the starter corpus cannot be changed from outside")
        variants = [ROWS, (b"a blue fox, snow", *ROWS[1:]), ROWS[::-1], ROWS[:-1]]
        found = set()
        for number, rows in enumerate(variants):
            folder = tmp_path / str(number)
            folder.mkdir()
            found.add(parse_corpus(kind.spec.format(path=kind.write(folder, rows))).fingerprint())
        assert len(found) == len(variants)

    def test_tells_samples_apart(self, kind: Kind, tmp_path: Path) -> None:
        """The whole, its beginning, and each sample are corpora of their own."""
        spec = kind.spec.format(path=kind.write(tmp_path, ROWS))
        shapes: list[dict[str, Any]] = [
            {},
            {"limit": 7},
            {"limit": 6},
            {"sample": 5},
            {"sample": 5, "seed": 1},
            {"sample": 4},
        ]
        found = {parse_corpus(spec, **shape).fingerprint() for shape in shapes}
        assert len(found) == len(shapes)


class TestBadRows:
    def test_cost_only_themselves(self, kind: Kind, tmp_path: Path) -> None:
        """Each bad row is rejected by name with its reason, and the rows behind it are read."""
        if not kind.holds_bad_bytes:
            pytest.skip("covered by the kind's own tests")
        source = parse_corpus(kind.spec.format(path=kind.write(tmp_path, ROWS)))
        batches = list(source.batches(100))
        prompts = [row.text for batch in batches for row in batch.prompts]
        reasons = [row.reason for batch in batches for row in batch.rejected]
        assert sorted(prompts) == sorted(ROWS[i].decode() for i in (0, 2, 5, 7))
        assert sorted(reasons) == [
            "NUL bytes",
            "bad UTF-8",
            "empty",
            "longer than 100,000 characters",
        ]

    def test_submissions_are_read_where_a_column_has_them(self, kind: Kind, tmp_path: Path) -> None:
        """The column `n_submitted` is used by the kinds of table that were written with it."""
        path = kind.write(tmp_path, ROWS)
        counts = {
            row.n_submitted
            for row in read(parse_corpus(kind.spec.format(path=path)), 9)
            if isinstance(row, RawPrompt)
        }
        assert counts == kind.counts


def test_images_without_a_prompt_are_named(tmp_path: Path) -> None:
    """In a folder, images without a prompt or truncated are rejected by path and reason."""
    folder = write_images(tmp_path, ROWS[:3])
    rows = read(parse_corpus(f"images:{folder}"), 10)
    rejected = {row.source_key: row.reason for row in rows if isinstance(row, RejectedRow)}
    assert rejected.pop("below/001.png") == "no embedded prompt"
    assert rejected.pop("torn.png").startswith("unreadable image: ")
    assert rejected == {}
    assert {row.source_key for row in rows if isinstance(row, RawPrompt)} == {"000.png", "002.png"}
    assert next(row.text for row in rows if isinstance(row, RawPrompt)) == "a red fox, snow"


def test_synthetic_is_the_starter_alone(kind: Kind, tmp_path: Path) -> None:
    """Only the corpus that a program wrote is marked as synthetic."""
    path = kind.write(tmp_path, ROWS)
    assert parse_corpus(kind.spec.format(path=path)).synthetic == (kind.spec == "starter")


def test_line_numbers_are_those_of_an_editor(tmp_path: Path) -> None:
    """`source_key` counts lines from 1 with the header, also behind a record of several lines."""
    table = tmp_path / "table.csv"
    table.write_text('prompt,id\n"two\nlines",1\nnext,2\n')
    lines = tmp_path / "lines.jsonl"
    lines.write_text("\n".join(json.dumps({"prompt": text}) for text in ("first", "second")))
    keys = [[row.source_key for row in read(parse_corpus(str(path)), 9)] for path in (table, lines)]
    assert list(itertools.chain(*keys)) == ["line 2", "line 4", "line 1", "line 2"]
