"""imprompt's own API: what it answers, and how it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from imprompt.core.values import prompt_key
from imprompt.encoders.lite import LiteEncoder
from imprompt.indexer.build import build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.retriever.artists import artists_listed
from imprompt.retriever.closeness import closeness
from imprompt.server import schemas
from imprompt.server.server_settings import Limits, ServerSettings
from tests.images.tool_files import CARRIED, DOUBT
from tests.server.conftest import PROMPTS, Serve
from tests.server.pictures import PARAMETERS, b64, png


def test_a_text_finds_its_prompts(client: TestClient) -> None:
    """Search and query agree; neighbours have version and row; k limits; a key finds its prompt."""
    done = client.post("/v1/search", json={"text": "noodle soup", "k": 3})
    results = schemas.QueryResponse.model_validate(done.json())
    (result,) = results.results
    assert len(result.nearest) == 3
    assert (result.how, result.prompt) == ("searched", None)
    assert "prompt" not in done.json()["results"][0]
    assert result.version == client.get("/v1/info").json()["version"]
    best = result.nearest[0]
    assert best.prompt == best.shown == PROMPTS[2]
    assert best.prompt_key == prompt_key(PROMPTS[2])
    stored = client.get(f"/v1/prompts/{best.prompt_key}").json()
    assert (stored["prompt"], stored["row_id"], stored["version"]) == (
        best.prompt,
        best.row_id,
        result.version,
    )
    as_query = client.post("/v1/query", json={"text": "noodle soup", "k": 3}).json()["results"][0]
    assert as_query["nearest"] == done.json()["results"][0]["nearest"]


def test_files_and_base64_are_answered_alike(client: TestClient) -> None:
    """The same images as multipart and as JSON, data URLs too, get the same answers in order."""
    images = [png((250, 30, 30)), png((10, 10, 240))]
    form = client.post(
        "/v1/query",
        files=[("image", ("../../etc/passwd", image)) for image in images],
        data={"k": "4"},
    )
    json = client.post(
        "/v1/query",
        json={"images": [b64(images[0]), f"data:image/png;base64,{b64(images[1])}"], "k": 4},
    )
    assert form.status_code == json.status_code == 200
    rows = [
        [[hit["row_id"] for hit in result["nearest"]] for result in done.json()["results"]]
        for done in (form, json)
    ]
    assert rows[0] == rows[1]
    assert [result["image"] for result in form.json()["results"]] == [0, 1]


def test_a_prompt_in_the_file_is_exact_unless_it_is_to_be_ignored(client: TestClient) -> None:
    """`how` says which it is, and the tool and its settings come along."""
    image = b64(png(parameters=PARAMETERS))
    exact = client.post("/v1/query", json={"images": [image]}).json()["results"][0]
    assert (exact["how"], exact["prompt"], exact["tool"]) == (
        "exact",
        "a small lighthouse on a cliff",
        "AUTOMATIC1111",
    )
    estimated = client.post("/v1/query", json={"images": [image], "ignore_metadata": True}).json()[
        "results"
    ][0]
    assert exact["infotext"] == PARAMETERS
    assert estimated["how"] == "estimated"
    assert "infotext" not in estimated
    assert estimated["prompt"] == ", ".join(phrase["text"] for phrase in estimated["phrases"])
    extracted = client.post("/v1/extract", json={"image": image}).json()
    assert extracted["negative"] == "people"
    assert (
        schemas.ExtractResponse.model_validate(
            client.post("/v1/extract", files={"image": png()}).json()
        ).prompt
        is None
    )


def test_a_prompt_that_is_not_exact_is_carried(client: TestClient) -> None:
    """With the node that stands in between, in each of the answers."""
    image = b64(CARRIED)
    result = client.post("/v1/query", json={"images": [image]}).json()["results"][0]
    extracted = client.post("/v1/extract", json={"image": image}).json()
    for found in (result, extracted):
        assert (found["how"], found["prompt"], found["doubt"]) == ("carried", "a red fox", DOUBT)
    info = client.post("/sdapi/v1/png-info", json={"image": image}).json()
    assert info["parameters"]["Carried"] == DOUBT


def test_neighbours_have_a_word_by_minilm(client: TestClient, lite: LiteEncoder) -> None:
    """By the cosine with a text, with the prompt in the file, and with an estimate."""
    text = "a bowl of ramen, steam"
    told = b64(png(parameters=f"{text}\nNegative prompt: people\nSteps: 20, Seed: 1"))
    by_text = client.post("/v1/search", json={"text": text}).json()["results"][0]
    exact, mixed, estimated = (
        client.post("/v1/query", json={"images": [told], "explain": not mixing, **fields}).json()[
            "results"
        ][0]
        for mixing, fields in (
            (False, {}),
            (True, {"text": text}),
            (False, {"ignore_metadata": True}),
        )
    )
    row = lite.minilm.encode([text])[0]
    blend = np.array(estimated["explanation"]["vector"])
    for result, target, is_estimate in (
        (by_text, row, False),
        (exact, row, False),
        (mixed, row, False),
        (estimated, blend, True),
    ):
        assert len(result["nearest"]) > 5
        for near in result["nearest"]:
            cosine = float(lite.minilm.encode([near["prompt"]])[0] @ target)
            assert near["closeness"] == closeness(cosine, estimated=is_estimate)
    words = {near["prompt"]: near["closeness"] for near in by_text["nearest"]}
    assert (words[PROMPTS[2]], words[PROMPTS[0]]) == ("close", "far")


def test_phrases_to_choose_from_come_with_a_text_where_they_are_asked_for(
    client: TestClient,
) -> None:
    """Of all prompts around it, however few are returned; an estimate always has them."""
    asked = {"text": "a red fox", "k": 1}
    plain = client.post("/v1/search", json=asked).json()["results"][0]
    (shared,) = client.post("/v1/search", json={**asked, "shared": True}).json()["results"]
    schemas.QueryResult.model_validate(shared)
    assert "shared" not in plain
    assert shared["nearest"] == plain["nearest"] and len(plain["nearest"]) == 1
    texts = [phrase["text"] for phrase in shared["shared"] if phrase["role"] == "subject"]
    assert "a red fox" in texts[0] and len(texts) == 4
    mixed, alone = (
        client.post("/v1/query", files={"image": png()}, data={"shared": "true", **fields}).json()[
            "results"
        ][0]
        for fields in ({"text": "a red fox"}, {})
    )
    assert (mixed["how"], alone["how"]) == ("searched", "estimated")
    assert mixed["shared"] and alone["shared"]


def test_members_contribute(client: TestClient) -> None:
    """With `explain` each member's share comes along, the shares sum to 1, and nothing changes."""
    plain = client.post("/v1/query", files={"image": png()}, data={"k": "2"}).json()["results"][0]
    done = client.post("/v1/query", files={"image": png()}, data={"explain": "true", "k": "2"})
    result = done.json()["results"][0]
    explanation = schemas.QueryResponse.model_validate(done.json()).results[0].explanation
    assert explanation is not None
    assert "explanation" not in plain
    del result["explanation"], result["seconds"], plain["seconds"]
    assert result == plain
    assert (result["confidence"], result["close"]) == (None, None), "not calibrated for ten prompts"
    assert {part.member for part in explanation.contributions} == {"knn", "vit"}
    assert sum(part.share for part in explanation.contributions) == pytest.approx(1)
    assert np.linalg.norm(explanation.vector) == pytest.approx(1, abs=1e-5)
    refused = client.post("/v1/query", json={"text": "fox", "explain": True})
    assert (refused.status_code, refused.json()["kind"]) == (400, "query")


def test_one_bad_image_does_not_stop_the_others(client: TestClient) -> None:
    """Its place holds its problem; only where nothing is answered is the problem the response."""
    done = client.post("/v1/query", json={"images": [b64(png()), b64(b"no image"), b64(png())]})
    assert done.status_code == 200
    assert done.json()["failed"] == 1
    assert [("error" in result) for result in done.json()["results"]] == [False, True, False]
    assert done.json()["results"][1]["error"]["kind"] == "image-rejected"
    alone = client.post("/v1/query", json={"images": [b64(b"no image")]})
    assert (alone.status_code, alone.json()["kind"]) == (422, "image-rejected")
    assert alone.headers["content-type"] == "application/problem+json"


def test_vectors_are_those_of_the_encoders(client: TestClient, lite: LiteEncoder) -> None:
    """The rows of texts come first; each space is the one that was asked for."""
    text, image = "a bowl of ramen", png()
    output = client.post("/v1/embed", json={"texts": [text], "images": [b64(image)]}).json()
    assert np.allclose(output["vectors"][0], lite.minilm.encode([text])[0], atol=1e-5)
    index = client.post("/v1/embed", json={"texts": [text], "space": "index"}).json()
    assert np.allclose(index["vectors"][0], lite.texts.encode([text])[0], atol=1e-5)
    assert (output["space"], index["space"]) == (lite.minilm.spec.space, lite.spec.space)
    assert np.asarray(output["vectors"]).shape == (2, output["dim"])


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/v1/query", {}, 400, "empty-query"),
        ("/v1/query", {"text": "fox", "k": 0}, 422, "usage"),
        ("/v1/query", {"text": "fox", "k": 1001}, 400, "query"),
        ("/v1/query", {"text": "fox", "unknown": 1}, 422, "usage"),
        ("/v1/query", {"images": ["%%%"]}, 422, "usage"),
        ("/v1/query", {"images": ["AA=="] * 17}, 413, "too-large"),
        ("/v1/query", {"image_urls": ["http://localhost/x.png"]}, 422, "url-refused"),
        ("/v1/search", {"text": "x" * 10_001}, 413, "too-large"),
        ("/v1/search", {"text": "   "}, 400, "empty-query"),
        ("/v1/embed", {}, 400, "empty-query"),
        ("/v1/embed", {"texts": ["a"] * 257}, 413, "too-large"),
        ("/v1/extract", {"image": ""}, 422, "image-rejected"),
    ],
)
def test_bad_input_gets_one_clear_problem(
    client: TestClient, path: str, body: object, status: int, kind: str
) -> None:
    """Every refusal is problem+json with the command line's kind."""
    done = client.post(path, json=body)
    assert (done.status_code, done.json()["kind"]) == (status, kind)
    schemas.ProblemDetails.model_validate(done.json())


def test_other_bodies_are_refused(client: TestClient) -> None:
    """Neither JSON nor multipart; no boundary; broken JSON; a field twice."""
    assert (
        client.post("/v1/query", content=b"x", headers={"content-type": "text/plain"}).status_code
        == 415
    )
    assert (
        client.post(
            "/v1/query", content=b"x", headers={"content-type": "multipart/form-data"}
        ).status_code
        == 400
    )
    assert (
        client.post(
            "/v1/query", content=b"{", headers={"content-type": "application/json"}
        ).status_code
        == 400
    )
    assert (
        client.post("/v1/query", files=[("image", png())], data={"k": ["1", "2"]}).status_code
        == 422
    )
    assert client.get("/v1/prompts/nonsense").status_code == 422
    assert client.get(f"/v1/prompts/{'0' * 64}").json()["kind"] == "unknown-row"


def test_info_states_the_limits(client: TestClient) -> None:
    """Every limit that a request can meet, by the name that it has in the code."""
    info = client.get("/v1/info").json()
    schemas.InfoResponse.model_validate(info)
    assert info["limits"]["max_pixels"] == Limits().max_pixels
    assert info["prompts"] == len(PROMPTS)
    assert info["members"].keys() == {"knn", "vit"}
    assert info["sources"] == {"prompts.txt": len(PROMPTS)}
    assert (info["pictures"], info["artists"]) == ([], artists_listed())


def test_the_api_describes_itself_with_examples(client: TestClient) -> None:
    """OpenAPI names every route, with an example of each body of our own."""
    api = client.get("/openapi.json").json()
    for path in (
        "/v1/query",
        "/v1/search",
        "/v1/embed",
        "/v1/extract",
        "/sdapi/v1/interrogate",
        "/knn-service",
        "/metadata",
    ):
        assert path in api["paths"]
    assert api["paths"]["/v1/query"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]["examples"]
    assert api["paths"]["/v1/search"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]["examples"]


def test_limits_on_pixels_and_bytes_hold(serve: Serve) -> None:
    """A picture over either is refused before it is decoded."""
    with serve(limits=Limits(max_pixels=1000, max_image_bytes=400)) as client:
        assert (
            client.post("/v1/query", files={"image": png(side=40)}).json()["kind"]
            == "image-rejected"
        )
        large = client.post("/v1/query", json={"images": [b64(bytes(500))]})
        assert (large.status_code, large.json()["kind"]) == (413, "too-large")
        assert client.post("/v1/query", files={"image": png(side=20)}).status_code == 200


def test_filters_say_which_prompts_may_answer(client: TestClient) -> None:
    """By words and by a condition, as JSON and in a form; the answer repeats them.

    One that cannot be used is refused.
    """
    only = {"contains": ["fox"], "exclude": ["deep"]}
    for done in (
        client.post("/v1/search", json={"text": "noodle soup", "filters": only}),
        client.post(
            "/v1/query",
            files={"image": png()},
            data={"filters": '{"contains": ["fox"], "exclude": ["deep"]}'},
        ),
    ):
        (result,) = done.json()["results"]
        assert [hit["prompt"] for hit in result["nearest"]] == [PROMPTS[0]]
        assert result["filters"] == only
        assert result["nearest"][0]["n_like"] >= 0
    where = {"text": "fox", "filters": {"where": "n_submitted >= 2"}}
    assert client.post("/v1/search", json=where).status_code in (200, 400)
    bad = client.post(
        "/v1/search", json={"text": "fox", "filters": {"where": "1; DROP TABLE prompts"}}
    )
    assert (bad.status_code, bad.json()["kind"]) == (400, "filter-rejected")
    both = client.post(
        "/v1/query",
        files={"image": png()},
        data={"explain": "true", "filters": '{"contains": ["fox"], "exclude": ["deep"]}'},
    ).json()["results"][0]
    assert {row_id for phrase in both["phrases"] for row_id in phrase["row_ids"]} <= {0}
    assert both["explanation"]["contributions"]


def test_the_description_has_no_reference_that_leads_nowhere(client: TestClient) -> None:
    """Each one is found from the whole document on."""
    api = client.get("/openapi.json").json()
    for place in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(api)):
        found = api
        for part in place.split("/"):
            found = found[part]


def test_without_the_ensemble_only_estimates_fail(
    serve: Serve, lite: LiteEncoder, tmp_path: Path
) -> None:
    """Over an index without MiniLM's vectors texts are searched for, and files' prompts read."""
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS), "utf-8")
    build_index(tmp_path / "index", [parse_corpus(str(tmp_path / "p.txt"))], lite)
    told = b64(png(parameters=PARAMETERS))
    with serve(ServerSettings(tmp_path / "index")) as client:
        (found,) = client.post("/v1/search", json={"text": "noodle soup"}).json()["results"]
        assert found["nearest"][0]["prompt"] == PROMPTS[2]
        done = client.post("/v1/query", json={"images": [b64(png()), told]}).json()
        assert [result.get("how") for result in done["results"]] == [None, "exact"]
        assert done["results"][0]["error"]["kind"] == "member-unavailable"
        alone = client.post("/sdapi/v1/interrogate", json={"image": b64(png())})
        assert (alone.status_code, alone.json()["kind"]) == (503, "member-unavailable")
        caption = client.post("/sdapi/v1/interrogate", json={"image": told}).json()["caption"]
        assert caption == "a small lighthouse on a cliff"
