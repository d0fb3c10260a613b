"""Verbs that work on a folder, asked to work on Milvus."""

from __future__ import annotations

import pytest

from tests.conftest import Imprompt

PLACE = "milvus:http://127.0.0.1:9"
VERBS = [
    ["gc"],
    ["verify"],
    ["dedupe"],
    ["remove", "--where", "true"],
    ["add", "corpus.txt"],
    ["build-index", "--corpus", "starter"],
    ["push", "milvus:http://127.0.0.1:9"],
]


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_what_changes_an_index_works_on_its_folder(imprompt: Imprompt, words: list[str]) -> None:
    """One line says so, before anything is loaded or asked."""
    done = imprompt(*words, "--index", PLACE)
    assert done.code == 10
    assert done.err.splitlines()[-1].startswith(f"error: {PLACE} is on Milvus")
    assert done.out == ""


def test_doctor_asks_no_server(imprompt: Imprompt) -> None:
    """It never touches the network: it names the place and goes on."""
    done = imprompt("doctor", "--index", PLACE, "--json")
    assert done.lines[0]["index"]["problem"].startswith(f"{PLACE} is on Milvus")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/a/folder"], "is not an address of Milvus"),
        (["milvus:a.db", "--milvus-index-params", "[1]"], "not a JSON object"),
        (["milvus:a.db", "--milvus-index-params", "{"], "not a JSON object"),
        (["milvus:http://a:b@host"], "may not hold a user name"),
    ],
)
def test_what_push_does_not_take(imprompt: Imprompt, words: list[str], said: str) -> None:
    """In one line, before the folder is looked for."""
    done = imprompt("push", *words)
    assert (done.code, said in done.err, len(done.err.splitlines())) == (10, True, 1)
