"""The whole way on Milvus: push, then query, submit and serve, with the answers of the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from imprompt.core.settings import MilvusPlace
from imprompt.server.server_settings import ServerSettings
from imprompt.store.milvus.upload import PushOptions, push
from tests.conftest import Imprompt
from tests.server.conftest import PROMPTS, Serve
from tests.server.load import until
from tests.server.pictures import png

pytestmark = pytest.mark.slow


def check_same(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    """The same neighbours in the same order, scores within 1e-3."""
    assert [hit["prompt_key"] for hit in left] == [hit["prompt_key"] for hit in right]
    assert np.allclose([hit["score"] for hit in left], [hit["score"] for hit in right], atol=1e-3)


def ask_text(client: TestClient) -> httpx2.Response:
    return client.post("/v1/search", json={"text": "a fox", "k": 4})


def ask_image(client: TestClient) -> httpx2.Response:
    return client.post("/v1/query", files={"image": png()}, data={"explain": "true", "k": "4"})


def test_query_and_submit_answer_as_the_folder_does(
    imprompt: Imprompt, index: Path, tmp_path: Path
) -> None:
    """Texts, images, filters, members, submissions; the second push has nothing to do."""
    place = f"milvus:{tmp_path / 'prompts.db'}"
    done = imprompt("push", "--index", index, place)
    assert (done.code, f"{len(PROMPTS)} prompts in service on {place}" in done.out) == (0, True)
    assert "Nothing to do" in imprompt("push", "--index", index, place).out
    (tmp_path / "images").mkdir()
    for number, colour in enumerate(("red", "green", "navy")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "images" / f"{number}.png")
    image = tmp_path / "images" / "0.png"
    for words in (
        ["--text", "a fox in the snow"],
        [image],
        [image, "--contains", "a", "--exclude", "FOX"],
        ["--text", "sea", "--where", "length(text) > 25 AND row_id < 8", "-k", "3"],
        ["--text", "sea", "--contains", "a", "--exclude", "FOX"],
    ):
        answers = [
            imprompt("query", *words, "--json", "--index", where).lines[0]
            for where in (index, place)
        ]
        check_same(answers[0]["nearest"], answers[1]["nearest"])
        for field in ("prompt", "how", "phrases"):
            assert answers[0].get(field) == answers[1].get(field)
    explanations = [
        imprompt("query", image, "--explain", "--json", "--index", where).lines[0]["explanation"]
        for where in (index, place)
    ]
    assert [part["member"] for part in explanations[0]["contributions"]] == [
        part["member"] for part in explanations[1]["contributions"]
    ]
    assert explanations[0]["cosine"] == pytest.approx(explanations[1]["cosine"], abs=1e-3)
    for name, where in (("local.npz", index), ("milvus.npz", place)):
        assert (
            imprompt("submit", tmp_path / "images", "--out", tmp_path / name, "--index", where).code
            == 0
        )
    with np.load(tmp_path / "local.npz") as local, np.load(tmp_path / "milvus.npz") as pushed:
        for key in local.files:
            if local[key].dtype.kind == "f":
                assert np.allclose(local[key], pushed[key], atol=1e-3)
            else:
                assert np.array_equal(local[key], pushed[key])
    done = imprompt("info", "--index", place)
    assert "FLAT on Milvus" in done.out
    done = imprompt(
        "query", image, "--explain", "--blend", "notebook", "--phrases", "corpus", "--index", place
    )
    assert done.code != 0
    assert done.err.count("\n") == 1


def test_serve_answers_and_takes_up_what_is_pushed(
    serve: Serve, index: Path, build: Callable[..., Path], tmp_path: Path
) -> None:
    """Answers equal those of the folder, and a new push is taken up while the server runs."""
    place = MilvusPlace(str(tmp_path / "prompts.db"))
    push(index, place, options=PushOptions())
    with serve() as local, serve(ServerSettings(place, watch_s=0.1)) as pushed:
        for ask in (ask_text, ask_image):
            left, right = ask(local).json()["results"][0], ask(pushed).json()["results"][0]
            check_same(left["nearest"], right["nearest"])
            for field in ("prompt", "how", "phrases"):
                assert left.get(field) == right.get(field)
        key = local.post("/v1/search", json={"text": "a fox", "k": 1}).json()["results"][0][
            "nearest"
        ][0]["prompt_key"]
        assert pushed.get(f"/v1/prompts/{key}").json() == local.get(f"/v1/prompts/{key}").json()
        push(build(tmp_path, (*PROMPTS, "a teapot")), place, options=PushOptions())

        def teapot() -> bool:
            done = pushed.post("/v1/search", json={"text": "a teapot", "k": 1})
            return bool(done.json()["results"][0]["nearest"][0]["prompt"] == "a teapot")

        until(teapot)
