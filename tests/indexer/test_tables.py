"""Compressed tables, folders, DuckDB files, JSON arrays, phrase lists, and damage to them."""

from __future__ import annotations

import gzip
import importlib
import json
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imprompt.core.errors import ConfigError, CorpusError
from imprompt.indexer.readers.sources import parse_corpus
from tests.indexer.corpus_rows import reasons, rows_of, texts


def packed(path: Path, content: bytes) -> Path:
    """The content at `path`, compressed as its suffix says."""
    with pa.output_stream(
        str(path), compression={".gz": "gzip", ".zst": "zstd"}[path.suffix]
    ) as stream:
        stream.write(content)
    return path


class TestCompressed:
    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_a_file_that_ends_early_is_told_with_its_line(
        self, suffix: str, tmp_path: Path
    ) -> None:
        """A cut download is one error with file, line and reason, not a shorter file."""
        path = packed(
            tmp_path / f"prompts.csv{suffix}",
            b"prompt\n" + b"".join(b"prompt number %d\n" % i for i in range(30_000)),
        )
        whole = path.read_bytes()
        for keep in (len(whole) // 2, len(whole) - 3):
            path.write_bytes(whole[:keep])
            with pytest.raises(
                CorpusError, match=r"prompts\.csv.* cannot be read beyond line \d+: it ends early"
            ) as caught:
                rows_of(path)
            assert caught.value.hint
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_a_file_that_is_none(self, suffix: str, tmp_path: Path) -> None:
        """A suffix that promises what the bytes do not keep is said, for every kind of table."""
        for kind in ("txt", "csv", "jsonl", "json"):
            path = tmp_path / f"prompts.{kind}{suffix}"
            path.write_text("prompt\na red fox\n" * 9)
            with pytest.raises(CorpusError, match=r"not a valid (gzip|zstd) file"):
                parse_corpus(str(path))

    def test_several_members_are_one_file(self, tmp_path: Path) -> None:
        """Parallel compressors write one gzip behind the other; all are read."""
        path = tmp_path / "prompts.txt.gz"
        path.write_bytes(gzip.compress(b"first\n") + gzip.compress(b"second\n"))
        assert texts(rows_of(path)) == ["first", "second"]

    @pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "json"])
    def test_a_bomb_is_stopped(self, kind: str, tmp_path: Path) -> None:
        """400 MB on one line, packed into 0.4 MB, end in one line, in little memory and time."""
        begin = {
            "txt": b"good\n",
            "jsonl": b'{"prompt": "good"}\n',
            "csv": b"prompt\ngood\n",
            "json": b'[{"prompt": "good"}, "',
        }[kind]
        path = tmp_path / f"bomb.{kind}.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(begin)
            for _ in range(400):
                file.write(bytes(1 << 20))
        began = time.monotonic()
        tracemalloc.start()
        with pytest.raises(CorpusError, match=r"bomb\..* cannot be read"):
            rows_of(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 64 << 20
        assert time.monotonic() - began < 20


class TestFolders:
    def test_a_broken_file_costs_its_own_rows(self, tmp_path: Path) -> None:
        """Readable files are read; others are named with a reason, once or for each lost row."""
        folder = tmp_path / "tables"
        folder.mkdir()
        (folder / "a.csv").write_text("prompt\nfirst\n")
        (folder / "b.csv").write_text("caption,style\nx,y\n")
        (folder / "c.parquet").write_text("no parquet")
        pq.write_table(
            pa.table({"prompt": [f"prompt {i}" for i in range(20_000)]}),
            folder / "d.parquet",
            compression="zstd",
            use_dictionary=False,
        )
        content = bytearray((folder / "d.parquet").read_bytes())
        content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
        (folder / "d.parquet").write_bytes(content)
        (folder / "e.jsonl").write_text('{"prompt": "last"}\n')
        source = parse_corpus(str(folder))
        rows = rows_of(folder)
        found = reasons(rows)
        assert texts(rows)[0] == "first"
        assert texts(rows)[-1] == "last"
        assert found.pop("b.csv:row 0").startswith("unreadable file: b.csv has no column 'prompt'")
        assert found.pop("c.parquet:row 0").startswith(
            "unreadable file: c.parquet cannot be read as Parquet"
        )
        assert all(key.startswith("d.parquet:row ") for key in found)
        assert len(rows) == 20_004 == source.count()
        for start in (1, 2, 3, 20_002, 20_003):
            assert [*next(source.batches(30_000, start)).prompts][-1].text == "last"

    def test_nothing_that_can_be_read(self, tmp_path: Path) -> None:
        """Where no file at all can be opened, the first one's error is the answer."""
        (tmp_path / "a.csv").write_text("caption,style\nx,y\n")
        (tmp_path / "b.csv").write_text("caption,style\nx,y\n")
        with pytest.raises(CorpusError, match=r"a\.csv has no column 'prompt'"):
            parse_corpus(str(tmp_path))
        assert texts(rows_of(tmp_path, column="style")) == ["y", "y"]
        assert texts(rows_of(f"{tmp_path}#caption")) == ["x", "x"]

    def test_texts_are_prompts_where_there_is_nothing_else(self, tmp_path: Path) -> None:
        """A folder of text files is a corpus; next to a table they are licences and notes."""
        (tmp_path / "b.txt").write_text("second\n")
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"first\n"))
        assert texts(rows_of(tmp_path)) == ["first", "second"]
        (tmp_path / "table.csv").write_text("prompt\nthird\n")
        assert texts(rows_of(tmp_path)) == ["third"]

    def test_images_without_a_table_are_pointed_to(self, tmp_path: Path) -> None:
        """A folder of pictures is answered with the spec that reads them."""
        (tmp_path / "a.png").touch()
        with pytest.raises(CorpusError, match=f"it holds images.*say images:{tmp_path}"):
            parse_corpus(str(tmp_path))


class TestDuckDb:
    @pytest.fixture
    def database(self, tmp_path: Path) -> Path:
        """40,000 rows of which a third is deleted, another schema, and a view on a file."""
        path = tmp_path / "prompts.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.execute(
                "CREATE TABLE many AS "
                "SELECT 'prompt ' || i AS prompt, i AS number FROM range(40000) t(i)"
            )
            connection.execute("DELETE FROM many WHERE number % 3 = 1")
            connection.execute(
                "CREATE SCHEMA other; "
                'CREATE TABLE other."odd name" ("the ""text" VARCHAR, style VARCHAR)'
            )
            connection.execute("INSERT INTO other.\"odd name\" VALUES ('a', 'b')")
            connection.execute("CREATE VIEW passwords AS SELECT * FROM read_csv('/etc/passwd')")
        return path

    def test_rows_come_in_the_order_of_their_ids(self, database: Path) -> None:
        """Deleted rows leave gaps in the ids, not in the corpus; reading can start anywhere."""
        source = parse_corpus(f"{database}#many")
        everything = [
            (row.text, row.source_key) for batch in source.batches(5000) for row in batch.prompts
        ]
        assert everything == [(f"prompt {i}", f"row {i}") for i in range(40_000) if i % 3 != 1]
        assert source.count() == len(everything)
        for start in (10_921, 10_922, 10_923, 26_000):
            assert [row.text for row in next(source.batches(3, start)).prompts] == [
                text for text, _ in everything[start : start + 3]
            ]

    def test_names_are_names(self, database: Path) -> None:
        """A schema, spaces and quotes in names are read as they are written."""
        assert texts(rows_of(f'{database}#other.odd name.the "text')) == ["a"]
        assert texts(rows_of(f"{database}#other.odd name", column="style")) == ["b"]

    @pytest.mark.parametrize(
        ("part", "said"),
        [
            ("", "more than one table; there are: many, other.odd name"),
            ("#nothing", "no table 'nothing'; there are: many"),
            ("#passwords", "no table 'passwords'"),
            ("#many.nothing", "no column 'nothing'; it has: prompt, number"),
            ("#many.number", "'number' .* does not hold text"),
        ],
    )
    def test_what_is_not_there_is_answered_with_what_is(
        self, part: str, said: str, database: Path
    ) -> None:
        """The message lists tables and columns; a view, which could read other files, is none."""
        with pytest.raises(CorpusError, match=said):
            parse_corpus(f"{database}{part}")

    def test_it_is_never_written(self, database: Path) -> None:
        """Reading leaves the file as it was, and nothing beside it."""
        before = database.read_bytes()
        rows_of(f"{database}#many")
        assert database.read_bytes() == before
        assert [path.name for path in database.parent.iterdir()] == [database.name]

    def test_no_database(self, tmp_path: Path) -> None:
        """Another file under that name is refused in one line."""
        path = tmp_path / "prompts.duckdb"
        path.write_text("no database" * 999)
        with pytest.raises(CorpusError, match="cannot be read as DuckDB") as caught:
            parse_corpus(str(path))
        assert "\n" not in str(caught.value)

    def test_one_that_another_program_writes(self, database: Path) -> None:
        """A locked file is refused, with what to do."""
        script = (
            f"import duckdb, sys\nc = duckdb.connect({str(database)!r})\n"
            "print('open', flush=True)\nsys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as writer:
            if writer.stdout is not None:
                writer.stdout.readline()
            with pytest.raises(CorpusError, match="lock") as caught:
                parse_corpus(f"{database}#many")
            writer.communicate("")
        assert "Close the program" in caught.value.hint


class TestJsonArrays:
    def test_items_of_any_size_and_shape(self, tmp_path: Path) -> None:
        """Objects across read boundaries, nested, with white space; others are rejected."""
        path = tmp_path / "prompts.json"
        prompts = [f"prompt {i} " + "é" * (i * 997 % 70_000) for i in range(40)]
        items = [
            {"prompt": prompt, "more": [{"deep": "]},"}] * (i % 3)}
            for i, prompt in enumerate(prompts)
        ]
        path.write_text(json.dumps([*items, 12, "text", None], ensure_ascii=False, indent=1))
        rows = rows_of(path)
        assert texts(rows) == prompts
        assert reasons(rows) == dict.fromkeys(
            ("item 40", "item 41", "item 42"), "not a JSON object"
        )

    @pytest.mark.parametrize(
        "end",
        [
            '{"prompt": "cut',
            '{"prompt": "two"}',
            '{"prompt": nonsense}]',
            "[" * 100_000,
            "9" * 5000 + "]",
        ],
    )
    def test_damage_is_told_with_its_item(self, end: str, tmp_path: Path) -> None:
        """Items after a damaged one cannot be told apart: the file ends there, in one line."""
        path = tmp_path / "prompts.json"
        path.write_text('[{"prompt": "one"}, ' + end)
        with pytest.raises(CorpusError, match=r"prompts\.json cannot be read beyond item [12]"):
            rows_of(path)

    def test_json_lines_under_that_name(self, tmp_path: Path) -> None:
        """Many data sets call JSON lines `.json`."""
        path = tmp_path / "prompts.json"
        path.write_text('\ufeff\n{"prompt": "one"}\n{"prompt": "two"}\n')
        assert texts(rows_of(path)) == ["one", "two"]


class TestPhrases:
    @pytest.fixture(autouse=True)
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A package that must not be imported."""
        folder = tmp_path / "clip_interrogator"
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise RuntimeError('imported')")
        for name in ("artists", "flavors", "mediums", "movements", "negative"):
            (folder / "data" / f"{name}.txt").write_text(f"one of {name}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(
            sys.modules, "clip_interrogator", raising=False
        )  # another test may have imported the real one
        return folder

    def test_artists_are_left_out_unless_named(self) -> None:
        """Mediums, movements and flavors; other lists only by name."""
        assert texts(rows_of("phrases:clip-interrogator")) == [
            "one of mediums",
            "one of movements",
            "one of flavors",
        ]
        assert texts(rows_of("phrases:clip-interrogator:artists,mediums")) == [
            "one of artists",
            "one of mediums",
        ]

    @pytest.mark.parametrize(
        "spec", ["phrases:", "phrases:nltk", "phrases:clip-interrogator:poets"]
    )
    def test_what_it_does_not_have(self, spec: str) -> None:
        """Another package or list is answered with those that there are."""
        with pytest.raises(ConfigError, match="movements,flavors,artists"):
            parse_corpus(spec)

    def test_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The command that brings it."""
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(
            CorpusError, match=r"not installed.*pip install --no-deps clip-interrogator==0\.6\.0"
        ):
            parse_corpus("phrases:clip-interrogator")

    def test_without_its_lists(self, package: Path) -> None:
        """A package that lost a list is named by the list."""
        (package / "data" / "flavors.txt").unlink()
        with pytest.raises(CorpusError, match=r"flavors\.txt is not there"):
            parse_corpus("phrases:clip-interrogator")


def test_a_column_behind_the_path(tmp_path: Path) -> None:
    """FILE#COLUMN names a corpus's column; a file that has a # in its name comes first."""
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")
    (tmp_path / "table#a.csv").write_text("prompt\nhash\n")
    assert texts(rows_of(f"{path}#b", column="a")) == ["2"]
    assert texts(rows_of(tmp_path / "table#a.csv")) == ["hash"]


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc"
)
@pytest.mark.parametrize("kind", ["parquet", "csv.gz", "jsonl.zst", "json"])
def test_memory_does_not_grow_with_the_file(kind: str, tmp_path: Path) -> None:
    """Ten times the rows take the same memory within 40 MB, in a separate process."""
    script = (
        "import sys\nfrom imprompt.indexer.readers.sources import parse_corpus\n"
        "n = sum(len(batch.prompts) for batch in parse_corpus(sys.argv[1]).batches(4096))\n"
        "status = open('/proc/self/status')\n"
        "print(n, next(line.split()[1] for line in status if line.startswith('VmHWM')))"
    )
    peaks = []
    for rows in (30_000, 300_000):
        path = tmp_path / f"{rows}.{kind}"
        write_many(path, rows)
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", script, path],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
        n, peak = map(int, done.stdout.split())
        assert n == rows
        peaks.append(peak / 1024)
    assert peaks[1] < peaks[0] + 40, peaks


def write_many(path: Path, rows: int) -> None:
    """So many prompts in one row group, or one array."""
    words = [f"{place * 7919 % 104_729:x}" for place in range(1 << 16)]
    starts = (i * 31 % (len(words) - 80) for i in range(rows))
    prompts = pa.array(
        [f"{i} {' '.join(words[start : start + 80])}" for i, start in enumerate(starts)]
    )
    table = pa.table({"prompt": prompts})
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows, use_dictionary=False)
    else:
        lines = (
            [json.dumps({"prompt": text}) for text in prompts.to_pylist()]
            if "json" in path.name
            else prompts.to_pylist()
        )
        content = (
            f"[{','.join(lines)}]"
            if path.suffix == ".json"
            else "\n".join(["prompt", *lines][path.name.count("json") :]) + "\n"
        )
        compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
        with pa.output_stream(str(path), compression=compression) as stream:
            stream.write(content.encode())
