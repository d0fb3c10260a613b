"""What `remove` takes out is gone from every file, what stays is as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprompt.core.errors import BuildLocked, ConfigError, FilterRejected, IndexDiffers, NoIndex
from imprompt.indexer.build import BuildOptions, build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.indexer.removing import (
    RemoveRules,
    preview_removal,
    remove_prompts,
    rules_of_file,
    rules_where,
)
from imprompt.store import layout
from imprompt.store.index_version import IndexVersion, open_version
from imprompt.store.integrity import verify
from imprompt.store.locking import write_lock
from imprompt.store.prompts import DuckPrompts
from imprompt.store.prompts_without import write_without
from imprompt.store.publish import version_names
from tests.indexer.doubles import BagOfWords, BagPair, write_corpus

OPTIONS = BuildOptions(shard_rows=50)
WORD = "Zanzibarquokka"


def write_marked_corpus(path: Path, n: int = 300) -> Path:
    """Every ninth prompt holds the word, which is long enough to be found among bytes."""
    lines = [
        f"prompt {i} of a {'red' if i % 2 else 'blue'} "
        f"{f'{WORD}{i}' if i % 9 == 4 else 'thing'}, oil on canvas"
        for i in range(n)
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def build(root: Path, corpus: Path, *, extra: bool = True) -> None:
    build_index(
        root,
        [parse_corpus(str(corpus))],
        BagPair(),
        options=OPTIONS,
        extra=[BagOfWords("second", dim=7)] if extra else [],
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build(tmp_path / "index", write_marked_corpus(tmp_path / "corpus.txt"))
    return tmp_path / "index"


def rows_of(version: IndexVersion) -> list[tuple[Any, ...]]:
    """Everything of each prompt but its number, with its vectors' stored bits."""
    prompts = version.prompts.get_many(range(len(version.prompts)))
    codes = [version.vectors(space).codes(0, len(prompts)) for space in version.manifest.shards]
    return [
        (
            p.prompt_key,
            p.text,
            p.embedded_text,
            p.source,
            p.source_key,
            p.n_submitted,
            p.n_duplicates,
            *(code[p.row_id].tobytes() for code in codes),
        )
        for p in prompts
    ]


def bytes_below(root: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()


def holds(root: Path, word: str) -> list[Path]:
    """The files with that word in them, in any of three encodings and either case."""
    needles = {
        form.encode(code)
        for form in (word, word.lower(), word.upper())
        for code in ("utf-8", "utf-16-le", "utf-32-le")
    }
    return [
        path for path, content in bytes_below(root) if any(needle in content for needle in needles)
    ]


@pytest.fixture
def uncompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB writes every text as it is, so that a scan of bytes sees all that is in a file."""
    connect = duckdb.connect

    def plain(*words: Any, **named: Any) -> Any:
        connection = connect(*words, **named)
        connection.execute("SET force_compression = 'uncompressed'")
        return connection

    monkeypatch.setattr(duckdb, "connect", plain)


def test_what_stays_is_as_it_was(root: Path) -> None:
    """Texts, counts and vectors stay to the bit; row ids are dense; nothing is encoded."""
    with open_version(root) as version:
        before = rows_of(version)
    report = remove_prompts(root, rules_where(f"text ILIKE '%{WORD}%'"))
    assert verify(root) == []
    with open_version(root) as version:
        assert rows_of(version) == [row for row in before if WORD not in row[1]]
        prompts = version.prompts.get_many(range(len(version.prompts)))
        assert (
            [p.row_id for p in prompts]
            == [p.group_id for p in prompts]
            == list(range(len(prompts)))
        )
        manifest = version.manifest
    assert report.removed == len(before) - manifest.rows == 33
    assert manifest.funnel == {"read": 300, "duplicate": 0, "removed": 33, "kept": 267}
    assert [record.rows for record in manifest.shards["bag"]] == [50, 50, 50, 50, 50, 17]
    assert manifest.indexes["bag"].recall_at_10 == 1.0
    assert {
        record.provenance["backend"] for records in manifest.shards.values() for record in records
    } == {"words"}


def test_no_byte_of_it_is_left(uncompressed: None, tmp_path: Path) -> None:
    """No file below the index holds it: prompts, journal, plan, vectors, old versions, builds.

    DuckDB writes without compression here; that the scan sees what is there is shown on the index
    before.
    """
    root = tmp_path / "index"
    build(root, write_corpus(tmp_path / "old.txt", 40))
    build_index(
        root,
        [parse_corpus(str(write_marked_corpus(tmp_path / "corpus.txt")))],
        BagPair(),
        options=BuildOptions(shard_rows=50, replace=True),
    )
    broken = layout.staging_folder(root, "0" * 64)
    broken.mkdir(parents=True)
    (broken / "staged.duckdb").write_text(f"a {WORD} of a build that was broken off")
    (tmp_path / "rules.txt").write_text(f"\n{WORD.upper()}\n", "utf-8")
    assert len(holds(root, WORD)) >= 2
    assert len(version_names(root)) == 2
    report = remove_prompts(root, rules_of_file(tmp_path / "rules.txt"))
    assert report.removed == 33
    assert len(report.purged) == 3
    assert holds(root, WORD) == []
    assert holds(root, "oil on canvas") != [], "the scan sees the texts that stay"
    assert len(version_names(root)) == 1
    assert list(layout.staging_root(root).iterdir()) == []


def test_no_text_column_holds_it(root: Path, tmp_path: Path) -> None:
    """By SQL over every column of every table of the file, and of an uncompressed copy."""
    remove_prompts(root, rules_where(f"contains(text, '{WORD}')"))
    file = next(root.glob(f"versions/*/{layout.PROMPTS}"))
    with duckdb.connect(str(file), read_only=True) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns"
        ).fetchall()
        assert {table for table, _ in columns} == {"prompts"}
        for table, column in columns:
            values = connection.table(table).project(f"lower({column}::VARCHAR)").fetchall()
            assert len(values) == 267
            assert not any(WORD.lower() in value for (value,) in values), column
    with duckdb.connect(str(tmp_path / "copy.duckdb")) as connection:
        connection.execute("SET force_compression = 'uncompressed'")
        connection.execute(f"ATTACH '{file}' AS base (READ_ONLY)")
        connection.execute("CREATE TABLE prompts AS SELECT * FROM base.prompts")
    (tmp_path / "scan").mkdir()
    (tmp_path / "copy.duckdb").rename(tmp_path / "scan" / "copy.duckdb")
    assert holds(tmp_path / "scan", WORD) == []
    assert holds(tmp_path / "scan", "oil on canvas") != []


def test_a_reader_keeps_what_it_has_open(root: Path) -> None:
    """A reader answers from unlinked files until it closes; a new one sees the new version."""
    with open_version(root) as reader:
        remove_prompts(root, rules_where("row_id < 100"))
        assert not reader.folder.exists()
        assert len(reader.prompts.get_many(range(300))) == 300
        assert reader.index("bag").search(reader.vectors("bag").block(0, 1), 1).ids[0, 0] == 0
        with open_version(root) as later:
            assert len(later.prompts) == 200


def test_nothing_matching_still_purges(root: Path) -> None:
    """The version in service stays as it is; what is older may hold what it does not."""
    before = (root / "CURRENT").read_bytes()
    broken = layout.staging_folder(root, "0" * 64)
    broken.mkdir(parents=True)
    report = remove_prompts(root, rules_where("text = 'nothing of that kind'"))
    assert (report.removed, [name for name, _ in report.purged]) == (0, [f"staging/{'0' * 64}"])
    assert (root / "CURRENT").read_bytes() == before


def test_a_removal_can_follow_a_removal(root: Path) -> None:
    """The counts add up, the corpora stay named."""
    remove_prompts(root, rules_where("row_id < 10"))
    report = remove_prompts(root, rules_where("row_id < 10"))
    assert (report.removed, report.manifest.rows, report.manifest.funnel["removed"]) == (
        10,
        280,
        20,
    )
    assert [corpus.name for corpus in report.manifest.corpus] == ["corpus.txt"]
    with open_version(root) as version:
        assert version.prompts.get_many([0])[0].text.startswith("prompt 20 ")


def test_a_preview_writes_nothing(root: Path) -> None:
    """The count and the first ten, in row order; every file stays as it is."""
    before = dict(bytes_below(root))
    found = preview_removal(root, rules_where(f"text LIKE '%{WORD}%'"))
    assert (found.rows, found.matching, [p.row_id for p in found.first]) == (
        300,
        33,
        list(range(4, 94, 9)),
    )
    assert dict(bytes_below(root)) == before


def test_building_again_does_not_bring_them_back(root: Path, tmp_path: Path) -> None:
    """The same build is refused with the number of prompts it would restore, or --replace."""
    remove_prompts(root, rules_where("row_id < 7"))
    with pytest.raises(IndexDiffers, match="7 prompts were removed"):
        build(root, tmp_path / "corpus.txt")
    replace = BuildOptions(shard_rows=50, replace=True)
    report = build_index(
        root, [parse_corpus(str(tmp_path / "corpus.txt"))], BagPair(), options=replace
    )
    assert report.manifest.rows == 300


def test_an_index_keeps_at_least_one_prompt(root: Path) -> None:
    """A rule that names all is refused and changes nothing."""
    before = (root / "CURRENT").read_bytes()
    with pytest.raises(ConfigError, match="All 300 prompts match"):
        remove_prompts(root, rules_where("true"))
    assert (root / "CURRENT").read_bytes() == before


def test_another_writer_is_waited_for_by_hand(root: Path) -> None:
    """While something is written, nothing is removed."""
    with write_lock(root), pytest.raises(BuildLocked):
        remove_prompts(root, rules_where("row_id = 1"))


def test_without_an_index_there_is_nothing_to_remove(tmp_path: Path) -> None:
    """And no folder is made."""
    with pytest.raises(NoIndex):
        remove_prompts(tmp_path / "none", rules_where("true"))
    assert not (tmp_path / "none").exists()


LINES: dict[str, tuple[str, bool, Callable[[str], bool]]] = {
    "words": (
        "Quokka1\n\nprompt 3 \n",
        False,
        lambda text: "quokka1" in text.lower() or "prompt 3" in text,
    ),
    "crlf and byte order mark": (
        "\ufeffquokka22\r\n",
        False,
        lambda text: "quokka22" in text.lower(),
    ),
    "no pattern": ("quokka.*\n100%\n", False, lambda text: False),
    "regular expression": (
        r"^PROMPT \d OF" + "\n" + r"quokka\d2," + "\n",
        True,
        lambda text: text[8:9] == " " or "quokka22," in text,
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_the_lines_of_a_file(root: Path, tmp_path: Path, name: str) -> None:
    """Each line matches literally, or as a regular expression; empty ones are no rules."""
    content, regex, meant = LINES[name]
    (tmp_path / "rules.txt").write_text(content, "utf-8", newline="")
    with open_version(root) as version:
        texts = [p.text for p in version.prompts.get_many(range(300))]
    found = preview_removal(root, rules_of_file(tmp_path / "rules.txt", regex=regex))
    assert found.matching == sum(meant(text) for text in texts)


def test_many_lines(root: Path, tmp_path: Path) -> None:
    """Hundreds of rules are one removal."""
    (tmp_path / "rules.txt").write_text(
        "\n".join(f"prompt {i} of" for i in range(0, 300, 2)), "utf-8"
    )
    assert preview_removal(root, rules_of_file(tmp_path / "rules.txt")).matching == 150


@pytest.mark.parametrize(
    ("content", "regex", "error"),
    [
        (b"", False, ConfigError),
        (b"\n \n", False, ConfigError),
        (b"\xff\n", False, ConfigError),
        (b"(\n", True, FilterRejected),
        (b"a" * 501, False, FilterRejected),
    ],
)
def test_a_file_that_is_no_rules(
    tmp_path: Path, content: bytes, regex: bool, error: type[Exception]
) -> None:
    """Refused before the index is looked at."""
    (tmp_path / "rules.txt").write_bytes(content)
    with pytest.raises(error):
        rules_of_file(tmp_path / "rules.txt", regex=regex)


def test_a_missing_file_of_rules(tmp_path: Path) -> None:
    """Named, with its reason."""
    with pytest.raises(ConfigError, match=r"none\.txt cannot be read: No such file"):
        rules_of_file(tmp_path / "none.txt")


def test_the_plan_names_no_rule(root: Path) -> None:
    """Only a hash of the rules is stored, and other rules have another."""
    report = remove_prompts(root, rules_where(f"text LIKE '%{WORD}13,%'"))
    assert report.removed == 1
    assert len(report.manifest.plan["rules_sha256"]) == 64
    assert f"{WORD}13" not in json.dumps(report.manifest.plan)
    assert RemoveRules(()).sha256 != rules_where("true").sha256


@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_groups_keep_together(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two remaining prompts share a group exactly if they did before; it is renumbered."""
    folder = tmp_path_factory.mktemp("groups")
    rows = data.draw(st.integers(1, 20))
    groups = [data.draw(st.integers(0, i)) for i in range(rows)]
    first = {group: groups.index(group) for group in groups}
    removed = data.draw(st.sets(st.integers(0, rows - 1), max_size=rows - 1))
    with duckdb.connect(str(folder / "old.duckdb")) as connection:
        columns = (
            "row_id, prompt_key, text, embedded_text, source, source_key, n_submitted, group_id, "
            "n_duplicates"
        )
        values = [
            [i, f"k{i}", f"t{i}", f"e{i}", "s", f"{i}", i + 1, first[groups[i]], i]
            for i in range(rows)
        ]
        kinds = ", ".join(
            f"{name} {'VARCHAR' if 2 <= place <= 6 else 'BIGINT'}"
            for place, name in enumerate(columns.split(", "), 1)
        )
        connection.execute(f"CREATE TABLE prompts({kinds})")
        connection.executemany(
            "INSERT INTO prompts VALUES (" + ", ".join("?" * len(values[0])) + ")",  # noqa: S608
            values,
        )
    write_without(
        folder / "old.duckdb", folder / "new.duckdb", np.array(sorted(removed), dtype=np.int64)
    )
    kept = [i for i in range(rows) if i not in removed]
    with DuckPrompts(folder / "new.duckdb") as prompts:
        found = prompts.get_many(range(len(prompts)))
    assert [p.text for p in found] == [f"t{i}" for i in kept]
    assert [p.n_duplicates for p in found] == kept
    assert [p.group_id for p in found] == [
        next(new for new, j in enumerate(kept) if groups[j] == groups[i]) for i in kept
    ]
