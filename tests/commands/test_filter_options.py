"""Filters on the command line: what is asked for, what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import Imprompt

PROMPTS = [
    "a red fox in the snow",
    "a bowl of ramen",
    "a lighthouse at dusk by Greg Rutkowski",
    "a red lighthouse",
    "a yellow flower",
]
PAINTED = [
    "a red barn, oil painting, by greg rutkowski, warm light",
    "a red fox in the snow, oil painting, warm light, greg rutkowski",
    "a poppy field at dusk, warm light, oil painting, by alphonse mucha",
    "a glass of wine, macro photograph, red background",
    "a rose, macro photograph, red background, by alphonse mucha",
    "a fire in a forest, warm light, by greg rutkowski, oil painting",
]
ARTISTS = ("rutkowski", "mucha")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of five prompts by the built-in encoder."""
    return build(tmp_path_factory.mktemp("filtering"), PROMPTS)


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of prompts that share phrases and artists."""
    return build(tmp_path_factory.mktemp("painted"), PAINTED)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A picture."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def build(folder: Path, prompts: list[str]) -> Path:
    from imprompt.encoders.registry import load_encoder, output_encoder
    from imprompt.indexer.build import build_index
    from imprompt.indexer.readers.sources import parse_corpus

    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n", "utf-8")
    pair = load_encoder("lite")
    corpus = [parse_corpus(str(folder / "prompts.txt"))]
    build_index(folder / "index", corpus, pair, extra=[output_encoder(pair)])
    return folder / "index"


def estimated(imprompt: Imprompt, index: Path, image: Path, *words: str) -> dict[str, Any]:
    """Return the answer about an image, whose phrases make up its prompt."""
    done = imprompt("query", image, *words, "--json", "--index", index)
    assert done.code == 0, done.err
    (answer,) = done.lines
    assert answer["how"] == "estimated"
    assert answer["prompt"] == ", ".join(phrase["text"] for phrase in answer["phrases"])
    return answer


def texts_and_holders(answer: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the phrases of an answer, its shared ones too, and the prompts that hold them."""
    phrases = [*answer["phrases"], *answer["shared"]]
    holders = [PAINTED[row_id] for phrase in phrases for row_id in phrase["row_ids"]]
    for phrase in phrases:
        assert all(phrase["text"] in PAINTED[row_id] for row_id in phrase["row_ids"])
        assert phrase["support"] == len(phrase["row_ids"])
    return [phrase["text"] for phrase in phrases], holders


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
    assert {hit["prompt"] for hit in answer["nearest"]} == {"a red lighthouse", "a yellow flower"}
    assert answer["filters"] == {
        "where": "length(text) < 30",
        "contains": ["A"],
        "exclude": ["ramen", "FOX"],
    }
    assert "prompt" not in answer


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


def test_what_is_unfiltered_shares_phrases(imprompt: Imprompt, painted: Path, red: Path) -> None:
    """So that the tests of filters below have something to leave out."""
    texts, _ = texts_and_holders(estimated(imprompt, painted, red))
    assert {"oil painting", "warm light", "by greg rutkowski"} <= set(texts)


@pytest.mark.parametrize("word", ["oil painting", "RED", "fox", "light"])
def test_no_phrase_holds_an_excluded_word(
    imprompt: Imprompt, painted: Path, red: Path, word: str
) -> None:
    """Nor does any prompt that holds a phrase, nor what the encoder sees."""
    answer = estimated(imprompt, painted, red, "--exclude", word)
    texts, holders = texts_and_holders(answer)
    assert texts
    assert not any(word.lower() in text.lower() for text in (*texts, *holders))
    assert not any(word.lower() in hit["prompt"].lower() for hit in answer["nearest"])


def test_without_artists_no_phrase_is_of_one(imprompt: Imprompt, painted: Path, red: Path) -> None:
    """Credited or just named; the prompts that name one hold no phrase either."""
    answer = estimated(imprompt, painted, red, "--no-artists")
    texts, holders = texts_and_holders(answer)
    assert "artist" not in {phrase["role"] for phrase in (*answer["phrases"], *answer["shared"])}
    for name in ARTISTS:
        assert not any(name in text for text in (*texts, *holders))
    assert [hit["prompt"] for hit in answer["nearest"]] == [PAINTED[3]]


def test_every_prompt_that_holds_a_phrase_passes(
    imprompt: Imprompt, painted: Path, red: Path
) -> None:
    """Of a condition and of words alike; with --explain the answer is the same."""
    words = ("--where", "row_id <> 3", "--contains", "light", "--exclude", "forest")
    answer = estimated(imprompt, painted, red, *words)
    _, holders = texts_and_holders(answer)
    assert set(holders) <= {PAINTED[0], PAINTED[1], PAINTED[2]}
    assert {hit["row_id"] for hit in answer["nearest"]} == {0, 1, 2}
    explained = estimated(imprompt, painted, red, *words, "--explain")
    assert explained["explanation"]["contributions"]
    assert explained["phrases"] == answer["phrases"]
    done = imprompt("query", red, "--contains", "zebra", "--index", painted)
    assert done.code == 30
    assert "No prompt of the index passes the filter: contains 'zebra'." in done.err


def test_a_text_that_is_searched_for_has_no_prompt(
    imprompt: Imprompt, painted: Path, red: Path
) -> None:
    """Alone or with an image, in JSON and for a person, who reads the nearest prompts."""
    for words in (["--text", "a red barn"], [red, "--text", "a red barn"]):
        (answer,) = imprompt("query", *words, "--json", "--index", painted).lines
        assert answer["how"] == "searched"
        assert answer["nearest"][0]["prompt"] == PAINTED[0]
        assert not {"prompt", "phrases", "shared", "confidence", "close"} & answer.keys()
        shown = imprompt("query", *words, "--index", painted).out
        assert "estimated" not in shown
        assert "Phrases" not in shown
        assert "The 6 nearest prompts" in shown
