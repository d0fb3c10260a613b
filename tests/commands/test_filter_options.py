"""Filters on the command line: what is asked for, what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Imprompt

PROMPTS = [
    "a red fox in the snow",
    "a bowl of ramen",
    "a lighthouse at dusk by Greg Rutkowski",
    "a red lighthouse",
    "a yellow flower",
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of five prompts by the built-in encoder."""
    from imprompt.encoders.registry import load_encoder
    from imprompt.indexer.build import build_index
    from imprompt.indexer.readers.sources import parse_corpus

    folder = tmp_path_factory.mktemp("filtering")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", "utf-8")
    build_index(folder / "index", [parse_corpus(str(folder / "prompts.txt"))], load_encoder("lite"))
    return folder / "index"


def test_a_query_is_filtered(imprompt: Imprompt, index: Path) -> None:
    """All filters at once; the JSON answer says which."""
    words = [
        "--where",
        "length(text) < 30",
        "--contains",
        "A",
        "--exclude",
        "ramen",
        "--exclude",
        "FOX",
        "-k",
        "9",
    ]
    (answer,) = imprompt("query", "--text", "noodles", *words, "--json", "--index", index).lines
    assert {hit["prompt"] for hit in answer["neighbours"]} == {
        "a red lighthouse",
        "a yellow flower",
    }
    assert answer["filters"] == {
        "where": "length(text) < 30",
        "contains": ["A"],
        "exclude": ["ramen", "FOX"],
    }
    assert answer["prompt"] == answer["neighbours"][0]["prompt"]


def test_a_person_reads_which_filter_was_used(imprompt: Imprompt, index: Path) -> None:
    """Beside the answer, in the words of the options."""
    done = imprompt("query", "--text", "noodles", "--contains", "lighthouse", "--index", index)
    assert done.code == 0
    assert "filters: contains 'lighthouse'" in done.out
    assert "The 2 nearest prompts" in done.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["--where", "prompt = 'a'"],
            34,
            "There is no column 'prompt'. There are row_id, prompt_key, text,",
        ),
        (["--where", "text = "], 34, "'=' at character 6 is not expected"),
        (["--where", "1=1; DROP TABLE prompts"], 34, "'DROP' at character 6 is not expected"),
        (["--where", "getenv('HOME') = 'x'"], 34, "GETENV('HOME')"),
        (["--where", ""], 34, "is empty"),
        (
            ["--contains", "zebra"],
            30,
            "No prompt of the index passes the filter: contains 'zebra'.",
        ),
        (["-k", "3000"], 30, "k is 3000"),
    ],
)
def test_a_filter_that_cannot_be_used_is_one_line(
    imprompt: Imprompt, index: Path, words: list[str], code: int, said: str
) -> None:
    """With the piece, the place and the remedy."""
    done = imprompt("query", "--text", "noodles", *words, "--index", index)
    assert done.code == code, done.err
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_members_know_of_no_filters(imprompt: Imprompt, index: Path, tmp_path: Path) -> None:
    """So a filtered explanation is refused, before the image is looked for."""
    done = imprompt("query", tmp_path / "a.png", "--explain", "--contains", "a", "--index", index)
    assert done.code == 10
    assert "without --explain" in done.err
