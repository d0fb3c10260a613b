"""`add` and `remove` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.core.errors import ConfigError
from tests.conftest import Imprompt

PROMPTS = [
    f"a {colour} {thing}"
    for colour in ("red", "blue", "green")
    for thing in ("fox", "lighthouse", "bowl of ramen", "flower")
]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index of twelve prompts by the built-in encoder."""
    from imprompt.encoders.registry import load_encoder, output_encoder
    from imprompt.indexer.build import build_index
    from imprompt.indexer.readers.sources import parse_corpus

    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", "utf-8")
    pair = load_encoder("lite")
    build_index(
        tmp_path / "index",
        [parse_corpus(str(tmp_path / "prompts.txt"))],
        pair,
        extra=[output_encoder(pair)],
    )
    return tmp_path / "index"


def test_remove_shows_first_and_then_removes(
    imprompt: Imprompt, index: Path, tmp_path: Path
) -> None:
    """A dry run says how many and which; the removal says what it purged; what is left answers."""
    rule = ["--where", "text LIKE '%fox%' OR source_key = 'line 2'"]
    done = imprompt("remove", *rule, "--dry-run", "--index", index)
    assert done.code == 0
    assert "4 of 12 prompts would be removed." in done.out
    assert "a green fox" in done.out
    (found,) = imprompt("remove", *rule, "--dry-run", "--json", "--index", index).lines
    assert (found["rows"], found["matching"], found["first"][1]["text"]) == (
        12,
        4,
        "a red lighthouse",
    )
    done = imprompt("remove", *rule, "--index", index)
    assert done.code == 0
    assert "4 prompts removed, 8 left" in done.out
    assert "purged versions/" in done.out
    (answer,) = imprompt(
        "query", "--text", "a red fox", "-k", "99", "--json", "--index", index
    ).lines
    assert len(answer["nearest"]) == 8
    assert not any("fox" in hit["prompt"] for hit in answer["nearest"])
    assert imprompt("verify", "--index", index).code == 0
    done = imprompt("build-index", "--corpus", tmp_path / "prompts.txt", "--index", index)
    assert (done.code, "4 prompts were removed" in done.err) == (56, True)


def test_remove_forgets_what_was_mined(imprompt: Imprompt, index: Path) -> None:
    """Phrase lists taken from the index are purged from the user's cache, except by a dry run."""
    from imprompt.core.settings import settings

    mined = settings().cache / "phrases" / "mined" / "a.json"
    mined.parent.mkdir(parents=True, exist_ok=True)
    mined.write_text("{}")
    imprompt("remove", "--where", "text LIKE '%fox%'", "--dry-run", "--index", index)
    assert mined.exists()
    imprompt("remove", "--where", "text LIKE '%fox%'", "--index", index)
    assert not mined.exists()


def test_remove_by_a_file_of_lines(imprompt: Imprompt, index: Path, tmp_path: Path) -> None:
    """As they stand, or as regular expressions."""
    (tmp_path / "rules.txt").write_text("RAMEN\n^a red\n", "utf-8")
    (found,) = imprompt(
        "remove",
        "--match",
        tmp_path / "rules.txt",
        "--regex",
        "--dry-run",
        "--json",
        "--index",
        index,
    ).lines
    assert found["matching"] == 6
    (done,) = imprompt(
        "remove", "--match", tmp_path / "rules.txt", "--json", "--index", index
    ).lines
    assert (done["removed"], done["rows"], len(done["purged"])) == (3, 9, 1)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 10, "either --where EXPR or --match FILE"),
        (["--where", "true", "--match", "x"], 10, "either --where EXPR or --match FILE"),
        (["--where", "true", "--regex"], 10, "--regex goes with --match"),
        (["--match", "missing.txt"], 10, "missing.txt cannot be read"),
        (["--where", "prompt = 'a'"], 34, "no column 'prompt'"),
        (["--where", "true"], 10, "All 12 prompts match"),
    ],
)
def test_a_removal_that_cannot_be_is_one_line(
    imprompt: Imprompt, index: Path, words: list[str], code: int, said: str
) -> None:
    """And the index stays as it is."""
    before = (index / "CURRENT").read_bytes()
    done = imprompt("remove", *words, "--index", index)
    assert (done.code, len(done.err.strip().splitlines())) == (code, 1), done.err
    assert said in done.err
    assert (index / "CURRENT").read_bytes() == before


def test_add_encodes_what_is_new(imprompt: Imprompt, index: Path, tmp_path: Path) -> None:
    """Known prompts are counted, a repeated `add` does nothing, `info` names all three corpora."""
    (tmp_path / "more.txt").write_text("a purple teapot\na red fox\n", "utf-8")
    (tmp_path / "third.csv").write_text("words\na wooden bridge over a river\n", "utf-8")
    words = [
        "add",
        tmp_path / "more.txt",
        tmp_path / "third.csv",
        "--column",
        "words",
        "--index",
        index,
        "--json",
    ]
    (done,) = imprompt(*words).lines
    assert (done["added"], done["encoded"], done["manifest"]["rows"]) == (True, 4, 14)
    assert [corpus["name"] for corpus in done["manifest"]["corpus"]] == [
        "prompts.txt",
        "more.txt",
        "third.csv",
    ]
    (again,) = imprompt(*words).lines
    assert (again["added"], again["encoded"], again["manifest"]["rows"]) == (False, 0, 14)
    (answer,) = imprompt("query", "--text", "a purple teapot", "--json", "--index", index).lines
    assert answer["nearest"][0]["prompt"] == "a purple teapot"
    assert answer["corpus"] == "prompts.txt, more.txt, third.csv"
    (fox,) = imprompt(
        "query", "--text", "x", "--where", "n_submitted = 2", "--json", "--index", index
    ).lines
    assert fox["nearest"][0]["prompt"] == "a red fox"
    assert imprompt("verify", "--index", index).code == 0


@pytest.mark.parametrize(("words", "code"), [(["missing.txt"], 20), ([], 2)])
def test_an_addition_that_cannot_be(
    imprompt: Imprompt, index: Path, words: list[str], code: int
) -> None:
    """The index stays as it is."""
    before = (index / "CURRENT").read_bytes()
    assert imprompt("add", *words, "--index", index).code == code
    assert (index / "CURRENT").read_bytes() == before


def test_an_addition_to_nothing_says_how_to_begin(imprompt: Imprompt, tmp_path: Path) -> None:
    """There must be an index before something is added."""
    (tmp_path / "more.txt").write_text("a\n", "utf-8")
    done = imprompt("add", tmp_path / "more.txt", "--index", tmp_path / "none")
    assert (done.code, "build-index" in done.err) == (51, True)


def test_no_index_is_laid_among_other_files(imprompt: Imprompt, tmp_path: Path) -> None:
    """A folder of images or prompts stays as it is; what a file system makes does not count."""
    corpus, pictures = tmp_path / "prompts.txt", tmp_path / "pictures"
    corpus.write_text("\n".join(PROMPTS) + "\n", "utf-8")
    pictures.mkdir()
    for name in ("b.png", "a.png", "c.png", "d.png"):
        (pictures / name).write_bytes(b"")
    done = imprompt("build-index", "--corpus", corpus, "--index", pictures)
    assert done.code == ConfigError.exit_code
    assert f"{pictures} holds other files (a.png, b.png, c.png, …) and no index." in done.err
    assert f"such as {pictures / 'index'}" in done.err
    assert {path.name for path in pictures.iterdir()} == {"a.png", "b.png", "c.png", "d.png"}
    disk = tmp_path / "disk"
    (disk / "lost+found").mkdir(parents=True)
    (disk / ".DS_Store").write_bytes(b"")
    assert imprompt("build-index", "--corpus", corpus, "--index", disk).code == 0
    (disk / "notes.txt").write_text("mine")
    assert imprompt("build-index", "--corpus", corpus, "--index", disk).code == 0
