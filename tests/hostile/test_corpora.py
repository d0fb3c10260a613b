"""Corpora, cards and file names of strangers: refused in one line, or read without harm."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imprompt.core.errors import CorpusError
from imprompt.indexer.readers.hub_datasets import HubCorpus, card_patterns
from tests.conftest import Imprompt
from tests.hostile.corpora import CARDS, CORPORA, card, good_corpus
from tests.hostile.watch import Home, Outcome, check_cheap, check_harmless, check_refused

NO_UTF8 = os.fsdecode(b"dusk-\xff\xfe.png")
ESCAPES = "\x1b]0;owned\x07\x1b[31mred.png"


@pytest.mark.parametrize("name", CARDS)
def test_a_hostile_card_ends_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Aliases, code, depth and length: a corpus error within a second or two, and nothing runs."""
    monkeypatch.setenv("CANARIES", str(tmp_path))
    path = tmp_path / "README.md"
    path.write_bytes(card(name))
    began = time.monotonic()
    with pytest.raises(CorpusError) as caught:
        card_patterns(path, HubCorpus("someone/evil"))
    assert time.monotonic() - began < 5  # exponential work would never end
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 1000
    assert not list(tmp_path.glob("canary*"))


def test_a_good_card_with_an_alias_is_read(tmp_path: Path) -> None:
    """Aliases are not the harm."""
    path = tmp_path / "README.md"
    path.write_text(
        "---\nfiles: &files [a.csv, b.csv]\n"
        "configs:\n- config_name: default\n  data_files: *files\n---\n"
    )
    assert card_patterns(path, HubCorpus("someone/good")) == ["a.csv", "b.csv"]


def build(home: Home, corpus: str) -> Outcome:
    words = ("build-index", "--corpus", corpus, "--index", home.hostile / "index", "--replace")
    return home.run(*words, timeout_s=60)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def fair(home: Home) -> Outcome:
    """The cost of a small good corpus, by a second one, so that both know the weights' digests."""
    outcomes = [build(home, good_corpus(home.hostile, thing)) for thing in ("tower", "lighthouse")]
    assert outcomes[1].code == 0, outcomes[1].err
    check_harmless(outcomes[1])
    return outcomes[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPORA)
def test_a_hostile_corpus_is_refused_or_read_without_harm(
    name: str, home: Home, fair: Outcome
) -> None:
    """`build-index` on each: its exit code, no file read that it names, the cost of a good one."""
    folder = home.hostile / name
    folder.mkdir()
    outcome = build(home, CORPORA[name].make(folder))
    if 0 in CORPORA[name].codes and outcome.code == 0:
        check_harmless(outcome)
    else:
        check_refused(outcome, code=CORPORA[name].codes)
    check_cheap(outcome, fair)


def with_prompt(path: Path, prompt: str) -> None:
    info = PngInfo()
    info.add_text("parameters", f"{prompt}\nSteps: 20, Sampler: Euler, Seed: 1, Size: 8x8")
    with Path(path).open("wb") as file:
        Image.new("RGB", (8, 8), "red").save(file, "PNG", pnginfo=info)


@pytest.fixture(scope="module")
def odd_names(home: Home) -> Path:
    """A folder of three good images, two with hostile names, and a broken image."""
    folder = home.hostile / "odd"
    folder.mkdir()
    for name in ("plain.png", NO_UTF8, ESCAPES):
        with_prompt(folder / name, "a lighthouse")
    (folder / f"broken-{ESCAPES}").write_bytes(b"no image")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("extract", "FOLDER"),
        ("extract", "FOLDER", "--json"),
        ("query", "FOLDER"),
        ("query", "FOLDER", "--json"),
    ],
    ids=" ".join,
)
def test_odd_file_names_are_answered(
    words: tuple[str, ...], home: Home, fair: Outcome, odd_names: Path
) -> None:
    """Good images are answered, the broken one is listed, no terminal control byte is printed."""
    index = ("--index", home.hostile / "index") if words[0] == "query" else ()
    done = home.run(*(odd_names if word == "FOLDER" else word for word in words), *index)
    check_refused(done, code=3)
    assert "\x1b" not in done.out + done.err
    assert "\x07" not in done.out + done.err
    if "--json" in words:
        lines = [json.loads(line) for line in done.out.splitlines()]
        assert sum("error" not in line for line in lines) == 3
    else:
        assert done.out.count("a lighthouse") >= 3


@pytest.mark.slow
def test_folders_and_files_of_odd_names_are_corpora(home: Home, fair: Outcome) -> None:
    """`images:`, a folder of tables and a file, each with a name that is no UTF-8."""
    folder = home.hostile / os.fsdecode(b"folder-\xff")
    folder.mkdir()
    with_prompt(folder / "a.png", "a lighthouse at dusk")
    tables = home.hostile / os.fsdecode(b"tables-\xff")
    tables.mkdir()
    (tables / os.fsdecode(b"a-\xff.txt")).write_text("a harbour at dusk\n")
    (tables / os.fsdecode(b"b-\xff.csv")).write_text("prompt\na harbour at dawn\n")
    for corpus in (
        f"images:{folder}",
        tables,
        tables / os.fsdecode(b"a-\xff.txt"),
        tables / os.fsdecode(b"b-\xff.csv"),
    ):
        done = build(home, str(corpus))
        assert done.code == 0, done.err
        check_harmless(done)


@pytest.mark.slow
def test_an_index_of_an_odd_name_is_refused_in_one_line(home: Home, fair: Outcome) -> None:
    """FAISS and DuckDB take no such path."""
    for words in (
        ("query", "--text", "a"),
        ("info",),
        ("verify",),
        ("build-index", "--corpus", good_corpus(home.hostile)),
    ):
        done = home.run(*words, "--index", home.hostile / os.fsdecode(b"index-\xff"))
        check_refused(done, code=(10, 51), says="UTF-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPORA)
def test_add_lets_no_hostile_corpus_in(
    name: str, home: Home, fair: Outcome, imprompt: Imprompt
) -> None:
    """`add`: the same refusal, and the index answers as before."""
    folder = home.hostile / f"add-{name}"
    folder.mkdir()
    done = imprompt("add", CORPORA[name].make(folder), "--index", home.hostile / "index")
    assert done.code in CORPORA[name].codes, done.err
    assert "fault of imprompt" not in done.err
    assert imprompt("verify", "--index", home.hostile / "index").code == 0
