"""Staged prompts: batches committed with the place to resume, without duplicates, numbered once."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imprompt.core.errors import Checksum
from imprompt.core.values import prompt_key
from imprompt.store import database_files
from imprompt.store.layout import PROMPTS, STAGED
from imprompt.store.prompts import DuckPrompts
from imprompt.store.staged_prompts import CleanPrompt, CorpusState, NumberedRows, StagedPrompts
from tests.store.builders import clean_prompt


def add(folder: Path, texts: list[str], *, corpus: int = 0, size: int = 100) -> None:
    """Stage all texts from where an earlier call stopped, reopening the folder for each batch."""
    while True:
        with StagedPrompts(folder) as staged:
            start = staged.state(corpus).next_start
            if start >= len(texts):
                return
            prompts = [
                clean_prompt(text, key=f"{corpus}:{start + i}", n=2)
                for i, text in enumerate(texts[start : start + size])
            ]
            staged.add(
                prompts,
                corpus=corpus,
                state=CorpusState(start + len(prompts), notes={"read": start + len(prompts)}),
            )


def numbered(folder: Path) -> tuple[NumberedRows, str]:
    with StagedPrompts(folder) as staged:
        rows = staged.number()
    with DuckPrompts(folder / PROMPTS) as prompts:
        return rows, prompts.digest()


def test_first_come_first_numbered(tmp_path: Path) -> None:
    """Equal prompts become one row.

    The first one's text, source and place, and the sum of how often it was submitted.
    """
    add(tmp_path, ["b", "a", "b", "c"])
    add(tmp_path, ["d", "a", "b"], corpus=1)
    rows, _ = numbered(tmp_path)
    assert rows == NumberedRows(rows=4, duplicates=3)
    with DuckPrompts(tmp_path / PROMPTS) as prompts:
        found = prompts.get_many(range(4))
    assert [(row.text, row.source_key, row.n_submitted, row.group_id) for row in found] == [
        ("b", "0:0", 6, 0),
        ("a", "0:1", 4, 1),
        ("c", "0:3", 2, 2),
        ("d", "1:0", 2, 3),
    ]


def test_batches_change_nothing(tmp_path: Path) -> None:
    """Row ids and digest depend on the order of prompts alone, not on batches or resumption."""
    texts = [f"text {i * i % 97}" for i in range(400)]
    found = []
    for size in (1000, 37):
        folder = tmp_path / str(size)
        add(folder, texts, size=size)
        found.append(numbered(folder))
    assert found[0] == found[1]
    assert found[0][0].rows == len(set(texts))


def test_digest_is_canonical(tmp_path: Path) -> None:
    """The digest is sha256 over one JSON array a row, whichever library wrote it.

    Another row or order has another digest.
    """
    texts = ["Öl, 油画 🎨", 'quote " and \\', "tab\tline\n", "\0", "/"]
    add(tmp_path / "a", texts)
    add(tmp_path / "b", texts[::-1])
    digest = hashlib.sha256()
    for i, text in enumerate(texts):
        row = [i, prompt_key(text.lower()), text, text.lower(), "toy.txt", f"0:{i}", 2, i, 0]
        digest.update(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    assert numbered(tmp_path / "a")[1] == digest.hexdigest()
    assert numbered(tmp_path / "b")[1] != digest.hexdigest()


def test_state_per_corpus(tmp_path: Path) -> None:
    """Each corpus has its own place and notes; one that was never read starts at 0."""
    with StagedPrompts(tmp_path) as staged:
        staged.add(
            [],
            corpus=1,
            state=CorpusState(7, finished=True, notes={"counts": {"empty": 7}, "examples": ["ü"]}),
        )
    with StagedPrompts(tmp_path) as staged:
        assert staged.state(0) == CorpusState(0, finished=False, notes={})
        assert staged.state(1) == CorpusState(
            7, finished=True, notes={"counts": {"empty": 7}, "examples": ["ü"]}
        )


def test_numbering_twice(tmp_path: Path) -> None:
    """Numbering again keeps the file that is there, and leaves nothing beside it."""
    add(tmp_path, ["a", "b", "a"])
    first = numbered(tmp_path)
    before = (tmp_path / PROMPTS).read_bytes()
    assert numbered(tmp_path) == first
    assert (tmp_path / PROMPTS).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {PROMPTS, STAGED}


def test_numbering_over_a_torn_file(tmp_path: Path) -> None:
    """What a killed numbering left behind is written anew."""
    add(tmp_path, ["a", "b"])
    (tmp_path / f"{PROMPTS}.tmp").write_bytes(b"torn")
    (tmp_path / f"{PROMPTS}.tmp.wal").write_bytes(b"torn")
    assert numbered(tmp_path)[0].rows == 2


def test_no_rows(tmp_path: Path) -> None:
    """A build without prompts numbers none."""
    with StagedPrompts(tmp_path) as staged:
        assert staged.number() == NumberedRows(0, 0)
    with DuckPrompts(tmp_path / PROMPTS) as prompts:
        assert len(prompts) == 0


def test_embedded_texts(tmp_path: Path) -> None:
    """What is to be encoded comes in row order, cut at the end."""
    add(tmp_path, [f"TEXT {i}" for i in range(10)])
    numbered(tmp_path)
    with DuckPrompts(tmp_path / PROMPTS) as prompts:
        assert prompts.embedded_texts(8, 20) == ["text 8", "text 9"]
        assert prompts.embedded_texts(3, 3) == []


def test_damaged_staging(tmp_path: Path) -> None:
    """A staged file that is no database is named, with what to do."""
    (tmp_path / STAGED).write_bytes(b"no database at all" * 1000)
    with pytest.raises(Checksum, match=STAGED) as caught:
        StagedPrompts(tmp_path)
    assert str(tmp_path) in caught.value.hint


def test_prompts_that_are_not_there(tmp_path: Path) -> None:
    """A missing file and a database without prompts are damaged prompts."""
    with pytest.raises(Checksum, match=PROMPTS):
        DuckPrompts(tmp_path / PROMPTS)
    StagedPrompts(tmp_path).close()
    with pytest.raises(Checksum, match=STAGED):
        DuckPrompts(tmp_path / STAGED)


def test_a_folder_with_a_quote(tmp_path: Path) -> None:
    """A path with quotes and spaces is a path like any other."""
    folder = tmp_path / 'it\'s a "folder"'
    add(folder, ["a"])
    assert numbered(folder)[0].rows == 1


ADDING = """
import sys
sys.path.insert(0, {repository!r})
from itertools import count
from pathlib import Path
from imprompt.store.staged_prompts import CorpusState, StagedPrompts
from tests.store.builders import clean_prompt
with StagedPrompts(Path({folder!r})) as staged:
    for start in count(staged.state(0).next_start, 50):
        batch = [clean_prompt(f"text {{i}}", key=str(i)) for i in range(start, start + 50)]
        staged.add(batch, corpus=0, state=CorpusState(start + 50))
        print(start, flush=True)
"""


@pytest.mark.parametrize("batches", [1, 12])
def test_killed_while_adding(tmp_path: Path, batches: int) -> None:
    """SIGKILL while batches are added: every batch is there with its place, or neither.

    The next run goes on behind it.
    """
    program = ADDING.format(repository=str(Path.cwd()), folder=str(tmp_path))
    for attempt in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        ) as adding:
            assert adding.stdout is not None
            told = [int(adding.stdout.readline()) for _ in range(batches)]
            adding.send_signal(signal.SIGKILL)
        with StagedPrompts(tmp_path) as staged:
            reached = staged.state(0).next_start
        assert reached >= told[-1] + 50
        assert attempt == 0 or told[0] > 0
    with StagedPrompts(tmp_path) as staged:
        assert staged.number() == NumberedRows(reached, 0)
    with DuckPrompts(tmp_path / PROMPTS) as prompts:
        assert [row.text for row in prompts.get_many([0, reached - 1])] == [
            "text 0",
            f"text {reached - 1}",
        ]


@pytest.mark.parametrize("n_bytes", [0, 1, 4096, 8192, 12288, 100_000])
def test_killed_while_the_file_is_made(tmp_path: Path, n_bytes: int) -> None:
    """Whatever a killed process left of a file without rows, the next run starts anew.

    DuckDB refuses a file that lacks a header, so the file has its name only once it is whole.
    """
    StagedPrompts(tmp_path / "whole").close()
    whole = (tmp_path / "whole" / STAGED).read_bytes()
    (tmp_path / f"{STAGED}.tmp").write_bytes(whole[:n_bytes])
    (tmp_path / f"{STAGED}.tmp.wal").write_bytes(b"torn")
    add(tmp_path, ["a", "b"])
    assert numbered(tmp_path)[0].rows == 2
    assert not [path for path in tmp_path.iterdir() if ".tmp" in path.name]


def test_a_file_that_is_not_whole_never_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If making it ends before it is put in place, there is none."""

    def end(*_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(database_files, "replace_database", end)
        with pytest.raises(KeyboardInterrupt):
            StagedPrompts(tmp_path)
    assert not (tmp_path / STAGED).exists()
    add(tmp_path, ["a"])
    assert numbered(tmp_path)[0].rows == 1


def test_lone_surrogate(tmp_path: Path) -> None:
    """Text that is no Unicode cannot be staged; the batch is left out as a whole."""
    with StagedPrompts(tmp_path) as staged:
        with pytest.raises(UnicodeEncodeError):
            staged.add(
                [clean_prompt("a"), CleanPrompt("k", "\ud800", "x", "s", "1")],
                corpus=0,
                state=CorpusState(2),
            )
        assert staged.state(0) == CorpusState()
        assert staged.number().rows == 0
