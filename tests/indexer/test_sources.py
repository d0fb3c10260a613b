"""Corpora that cannot be read, and rows that cannot: one clear error, or one named row."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imprompt.core.errors import ConfigError, CorpusError
from imprompt.core.values import RawPrompt
from imprompt.indexer.readers.rows import MAX_LINE_BYTES
from imprompt.indexer.readers.sampling import draw_rows
from imprompt.indexer.readers.sources import parse_corpus
from tests.images.tool_files import CARRIED, TOOL_FILES, png_texts
from tests.indexer.corpus_rows import Row, reasons, rows_of, texts


class TestWhatCannotBeRead:
    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ("nowhere.csv", "no corpus"),
            ("table.xlsx", "no kind"),
            ("noextension", "no kind"),
            ("folder", "is a folder"),
            ("images:nowhere", "not a folder"),
            ("images:table.csv", "not a folder"),
            ("images:folder", "no rows"),
            ("empty.txt", "no rows"),
            ("empty.csv", "has no rows"),
            ("empty.jsonl", "no column"),
            ("empty.parquet", "Parquet"),
            ("header.csv", "no rows"),
            ("norows.parquet", "no rows"),
            ("torn.parquet", "Parquet"),
            ("text.parquet", "Parquet"),
            ("utf16.txt", "UTF-16"),
            ("utf16.csv", "UTF-16"),
            ("binary.jsonl", "no column"),
        ],
    )
    def test_is_named_with_a_remedy(
        self, spec: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Absent, empty, unknown, torn or misencoded: one line with the name and a remedy."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder").mkdir()
        for name in (
            "table.xlsx",
            "noextension",
            "empty.txt",
            "empty.csv",
            "empty.jsonl",
            "empty.parquet",
        ):
            (tmp_path / name).touch()
        (tmp_path / "header.csv").write_text("id,prompt\n")
        (tmp_path / "table.csv").write_text("prompt\nx\n")
        (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)) * 9)
        pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "norows.parquet")
        pq.write_table(pa.table({"prompt": ["a", "b"] * 999}), tmp_path / "whole.parquet")
        (tmp_path / "torn.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-20])
        (tmp_path / "text.parquet").write_text("a red fox\n" * 99)
        for name in ("utf16.txt", "utf16.csv"):
            (tmp_path / name).write_text("prompt\na red fox\n", encoding="utf-16")
        with pytest.raises(CorpusError) as caught:
            parse_corpus(spec)
        assert said in caught.value.message
        assert spec.removeprefix("images:") in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.hint
        assert caught.value.path is not None

    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
    def test_a_missing_column_is_answered_with_those_there(
        self, suffix: str, tmp_path: Path
    ) -> None:
        """The message lists the columns, asked for by name or not."""
        path = write_table(
            tmp_path / f"table{suffix}", {"caption": ["a", "b"], "style": ["c", "d"]}
        )
        for column in ("prompt", None):
            with pytest.raises(CorpusError, match="caption, style"):
                parse_corpus(str(path), column=column)
        assert texts(rows_of(path, column="style")) == ["c", "d"]

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_two_columns_of_one_name(self, suffix: str, tmp_path: Path) -> None:
        """Which of the two is meant cannot be told, so it is asked."""
        path = tmp_path / f"table{suffix}"
        path.write_text("prompt,prompt\na,b\n")
        if suffix == ".parquet":
            pq.write_table(
                pa.Table.from_arrays(
                    [pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"]
                ),
                path,
            )
        with pytest.raises(CorpusError, match="has 2 columns 'prompt'"):
            parse_corpus(str(path))

    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
    def test_the_only_text_column_is_found(self, suffix: str, tmp_path: Path) -> None:
        """A table with one column of text and the count of submissions needs no --column."""
        path = write_table(
            tmp_path / f"table{suffix}", {"caption": ["a", "b"], "n_submitted": [3, 4]}
        )
        rows = rows_of(path)
        assert [(row.text, row.n_submitted) for row in rows if isinstance(row, RawPrompt)] == [
            ("a", 3),
            ("b", 4),
        ]

    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
    def test_what_the_corpus_calls_unsafe_comes_along(self, suffix: str, tmp_path: Path) -> None:
        """`prompt_nsfw` is read with the prompt, never taken for it, and None if not a number."""
        path = write_table(
            tmp_path / f"table{suffix}",
            {"caption": ["a", "b", "c"], "prompt_nsfw": [0.25, 1.0, None]},
        )
        assert [row.nsfw for row in rows_of(path) if isinstance(row, RawPrompt)] == [
            0.25,
            1.0,
            None,
        ]

    def test_a_column_that_is_not_text(self, tmp_path: Path) -> None:
        """A Parquet column of numbers is refused by name."""
        path = write_table(tmp_path / "table.parquet", {"prompt": [1, 2], "caption": ["a", "b"]})
        with pytest.raises(CorpusError, match=r"'prompt' of .* does not hold text"):
            parse_corpus(str(path))

    def test_a_page_broken_in_the_middle(self, tmp_path: Path) -> None:
        """Damage that shows only when a column is read is a `CorpusError`, too."""
        path = tmp_path / "broken.parquet"
        pq.write_table(
            pa.table({"prompt": [f"prompt {i}" for i in range(20_000)]}),
            path,
            compression="zstd",
            use_dictionary=False,
        )
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(64)
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=r"broken\.parquet"):
            rows_of(path)

    @pytest.mark.parametrize(
        "option", [{"limit": 0}, {"sample": 0}, {"limit": -1}, {"sample": 3, "seed": -1}]
    )
    def test_senseless_options(self, option: dict[str, Any]) -> None:
        """A limit or sample below one row and a negative seed are refused as configuration."""
        with pytest.raises(ConfigError):
            parse_corpus("starter", **option)


class TestCsv:
    def test_bad_records_cost_themselves(self, tmp_path: Path) -> None:
        """Too few, too many and oversized fields are rejected by line; the rest is read."""
        path = tmp_path / "table.csv"
        path.write_text("id,prompt\n1,good\n2\n3,a,b\n4," + "x" * 200_000 + "\n\n5,fine\n")
        rows = rows_of(path)
        assert texts(rows) == ["good", "fine"]
        assert reasons(rows) == {
            "line 3": "fields do not match the header",
            "line 4": "fields do not match the header",
            "line 5": "longer than 100,000 characters",
            "line 6": "empty",
        }

    @pytest.mark.parametrize("rest", [5, 50_000])
    def test_a_quote_left_open_costs_one_row(self, rest: int, tmp_path: Path) -> None:
        """A quote that never closes is rejected by its line; the rows after it are read."""
        path = tmp_path / "table.csv"
        path.write_text(
            'id,prompt\n1,good\n2,"open\n' + "".join(f"{i},prompt {i}\n" for i in range(rest))
        )
        rows = rows_of(path)
        assert reasons(rows) == {"line 3": "quote left open"}
        assert texts(rows) == ["good", *(f"prompt {i}" for i in range(rest))]

    def test_quotes_commas_and_line_breaks(self, tmp_path: Path) -> None:
        """Quotes keep commas, quotes and line breaks (RFC 4180); a byte order mark is skipped."""
        path = tmp_path / "table.csv"
        path.write_bytes('\ufeffprompt,id\n"a, ""b""\nc",1\r\n5" pipe,2'.encode())
        assert texts(rows_of(path)) == ['a, "b"\nc', '5" pipe']


class TestJsonLines:
    def test_bad_lines_cost_themselves(self, tmp_path: Path) -> None:
        """What is not JSON, not an object, nested too deep or of another type is rejected."""
        path = tmp_path / "lines.jsonl"
        deep = b"[" * 100_000
        lines = [
            b'{"prompt": "good"}',
            b"{",
            b'"text"',
            b"",
            b'{"prompt": 7}',
            b'{"other": "x"}',
            deep,
            b'{"prompt": "\\ud800"}',
        ]
        path.write_bytes(b"\n".join([*lines, b'{"prompt": "fine", "n_submitted": 5}']))
        rows = rows_of(path)
        assert texts(rows) == ["good", "fine"]
        assert [row.n_submitted for row in rows if isinstance(row, RawPrompt)] == [1, 5]
        assert list(reasons(rows).values()) == [
            "not JSON",
            "not a JSON object",
            "empty",
            "not text",
            "empty",
            "not JSON",
            "not JSON",
        ]


class TestBoundedMemory:
    @pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
    def test_a_line_without_end_is_not_held(self, suffix: str, tmp_path: Path) -> None:
        """A line of 40 MB is rejected by number without being held; the next one is read."""
        path = tmp_path / f"long{suffix}"
        good = {
            ".txt": b"good\n",
            ".csv": b"prompt,id\ngood,1\n",
            ".jsonl": b'{"prompt": "good"}\n',
        }[suffix]
        last = {".txt": b"last\n", ".csv": b"last,2\n", ".jsonl": b'{"prompt": "last"}\n'}[suffix]
        with path.open("wb") as file:
            file.write(good)
            for _ in range(40):
                file.write(b"x" * 1_000_000)
            file.write(b"\n" + last)
        tracemalloc.start()
        rows = rows_of(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert texts(rows) == ["good", "last"]
        assert list(reasons(rows).values()) == ["longer than 100,000 characters"]
        assert peak < 5 * MAX_LINE_BYTES

    def test_reading_does_not_grow_with_the_file(self, tmp_path: Path) -> None:
        """Streaming a sample of a Parquet file of 11 MB of text holds a small part of it."""
        path = tmp_path / "large.parquet"
        pq.write_table(
            pa.table({"prompt": [f"{i} " + "word " * 45 for i in range(50_000)]}),
            path,
            row_group_size=5_000,
        )
        source = parse_corpus(str(path), sample=50)
        tracemalloc.start()
        count = sum(len(batch.prompts) for batch in source.batches(10))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 50
        assert peak < 6_000_000

    @pytest.mark.parametrize("repeated", [True, False])
    def test_long_texts_in_a_small_file(self, repeated: bool, tmp_path: Path) -> None:
        """0.1 MB of Parquet that expands to up to 15 GB of text is read in little memory."""
        path = tmp_path / "small.parquet"
        if repeated:
            texts = pa.DictionaryArray.from_arrays(
                pa.array([0] * 4_000, pa.int32()), pa.array(["x" * 2_000])
            )
            long = pa.DictionaryArray.from_arrays(
                pa.array([0] * 30_000, pa.int32()), pa.array(["x" * 500_000])
            )
            rows = 34_000
            with pq.ParquetWriter(
                path, pa.schema([("prompt", texts.type)]), store_schema=False
            ) as writer:
                for array in (texts, long):
                    writer.write_table(pa.table({"prompt": array}))
        else:
            rows = 60
            with pq.ParquetWriter(
                path, pa.schema([("prompt", pa.string())]), compression="zstd", use_dictionary=False
            ) as writer:
                for _ in range(6):
                    writer.write_table(pa.table({"prompt": ["y" * 2_000_000] * 10}))
        assert path.stat().st_size < 200_000
        source = parse_corpus(str(path))
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        held = 0
        found = 0
        for batch in source.batches(1000):
            held = max(held, pa.total_allocated_bytes() - before)
            found += len(batch.rejected) + len(batch.prompts)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found == rows
        assert peak + held < 150_000_000


class TestSample:
    def test_is_drawn_without_replacement(self) -> None:
        """So many different rows, rising, below the total; all of them where fewer are there."""
        drawn = draw_rows(3_000_000, 1000, seed=1)
        assert len(set(drawn.tolist())) == 1000
        assert (drawn[1:] > drawn[:-1]).all()
        assert 0 <= drawn[0] < drawn[-1] < 3_000_000
        assert draw_rows(7, 9, seed=1).tolist() == list(range(7))
        assert draw_rows(0, 9, seed=1).tolist() == []

    def test_is_even_over_the_rows(self) -> None:
        """Over many seeds, each of 20 rows is drawn about equally often.

        5 of 20, 4,000 times, within five standard deviations.
        """
        counts = [0] * 20
        for seed in range(4000):
            for row in draw_rows(20, 5, seed=seed).tolist():
                counts[row] += 1
        assert all(abs(count - 1000) < 5 * 27.4 for count in counts)

    def test_never_changes(self) -> None:
        """A seed gives these rows on every machine and numpy: indexes name their corpus by it."""
        assert draw_rows(1000, 5, seed=0).tolist() == [11, 269, 850, 855, 921]

    def test_of_the_first_rows(self, tmp_path: Path) -> None:
        """With a limit too, the sample is drawn from the first rows alone."""
        path = tmp_path / "prompts.txt"
        path.write_text("".join(f"prompt {i}\n" for i in range(100)))
        source = parse_corpus(str(path), limit=10, sample=8)
        found = [prompt.text for batch in source.batches(3) for prompt in batch.prompts]
        assert len(found) == 8
        assert set(found) <= {f"prompt {i}" for i in range(10)}


def write_table(path: Path, columns: dict[str, list[Any]]) -> Path:
    """The same columns in the format of the path's suffix."""
    names, cells = list(columns), list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text(
            "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in cells)
        )
    else:
        mark = {".csv": ",", ".tsv": "\t"}[path.suffix]
        path.write_text("".join(mark.join(map(str, row)) + "\n" for row in [names, *cells]))
    return path


def test_a_folder_of_images_gives_exact_prompts_alone(tmp_path: Path) -> None:
    """Embedded but inexact prompts are rejected with a reason; so are files without one."""
    (tmp_path / "carried.png").write_bytes(CARRIED)
    (tmp_path / "exact.png").write_bytes(TOOL_FILES["comfyui.png"].data)
    (tmp_path / "none.png").write_bytes(png_texts({"Title": "holiday"}))
    rows: list[Row] = []
    for batch in parse_corpus(f"images:{tmp_path}").batches(1):
        rows += [*batch.prompts, *batch.rejected]
    assert texts(rows) == [TOOL_FILES["comfyui.png"].prompt]
    assert reasons(rows) == {
        "carried.png": "embedded prompt that is not exact",
        "none.png": "no embedded prompt",
    }
