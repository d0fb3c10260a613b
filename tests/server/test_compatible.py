"""The endpoints of AUTOMATIC1111 and clip-retrieval; test_clients.py replays the real clients."""

from __future__ import annotations

import json

import numpy as np
import pytest
from starlette.testclient import TestClient

from imprompt.encoders.lite import LiteEncoder
from tests.images.tool_files import CARRIED
from tests.server.conftest import PROMPTS
from tests.server.pictures import PARAMETERS, b64, png


def knn(client: TestClient, **body: object) -> list[dict[str, object]]:
    """The results, asked without a JSON content type, as ClipClient does."""
    words = {
        "num_images": 5,
        "num_result_ids": 5,
        "modality": "image",
        "indice_name": "imprompt",
        **body,
    }
    done = client.post("/knn-service", content=json.dumps(words))
    assert done.status_code == 200, done.text
    found: list[dict[str, object]] = done.json()
    return found


def test_interrogate_gives_the_prompt(client: TestClient) -> None:
    """The one that the file carries, else an estimate, composed of phrases of the index's."""
    done = client.post(
        "/sdapi/v1/interrogate", json={"image": b64(png(parameters=PARAMETERS)), "model": "clip"}
    )
    assert done.json() == {"caption": "a small lighthouse on a cliff"}
    caption = client.post("/sdapi/v1/interrogate", json={"image": b64(png())}).json()["caption"]
    (result,) = client.post("/v1/query", json={"images": [b64(png())]}).json()["results"]
    assert caption == ", ".join(phrase["text"] for phrase in result["phrases"]) != ""
    for phrase in result["phrases"]:
        assert all(phrase["text"] in PROMPTS[row_id] for row_id in phrase["row_ids"])
    assert client.get("/sdapi/v1/interrogate").json() == ["imprompt"]
    assert client.post("/sdapi/v1/interrogate", json={"image": "?"}).status_code == 422


def test_png_info_gives_the_texts_of_the_file(client: TestClient) -> None:
    """`info` is AUTOMATIC1111's text, `parameters` is parsed; both are empty without a prompt."""
    done = client.post(
        "/sdapi/v1/png-info",
        json={"image": f"data:image/png;base64,{b64(png(parameters=PARAMETERS))}"},
    ).json()
    assert done["info"] == PARAMETERS
    assert done["items"] == {"parameters": PARAMETERS}
    expected = {
        "Prompt": "a small lighthouse on a cliff",
        "Negative prompt": "people",
        "CFG scale": "7",
        "Seed": "1234",
    }
    assert expected.items() <= done["parameters"].items()
    written = client.post("/sdapi/v1/png-info", json={"image": b64(CARRIED)}).json()["info"]
    (result,) = client.post("/v1/query", json={"images": [b64(CARRIED)]}).json()["results"]
    assert written == result["infotext"] != "", "another tool's, in AUTOMATIC1111's form"
    assert client.post("/sdapi/v1/png-info", json={"image": b64(png())}).json() == {
        "info": "",
        "items": {},
        "parameters": {},
    }


def test_text_image_and_vector_find_the_same_prompt(client: TestClient, lite: LiteEncoder) -> None:
    """Text, image and vector agree where they mean the same; /metadata describes the rows."""
    by_text = knn(client, text="a bowl of ramen")
    vector = lite.texts.encode(["a bowl of ramen"])[0].tolist()
    by_vector = knn(client, embedding_input=vector)
    assert [hit["id"] for hit in by_text] == [hit["id"] for hit in by_vector]
    assert by_text[0]["caption"] == PROMPTS[2]
    similarities = [np.array([hit["similarity"] for hit in hits]) for hits in (by_text, by_vector)]
    np.testing.assert_allclose(similarities[0], similarities[1], rtol=0, atol=1e-3)
    described = client.post(
        "/metadata", content=json.dumps({"ids": [by_text[0]["id"]], "indice_name": "imprompt"})
    ).json()
    assert described[0]["id"] == by_text[0]["id"]
    assert described[0]["metadata"]["caption"] == PROMPTS[2]
    assert len(knn(client, image=b64(png()))) == 5
    assert client.get("/indices-list").json() == ["imprompt"]


def test_near_duplicates_are_folded_when_asked(client: TestClient) -> None:
    """Two foxes in the snow are one result with `deduplicate`, the better of the two."""
    both = knn(client, text="a red fox in the snow", deduplicate=False)
    one = knn(client, text="a red fox in the snow", deduplicate=True)
    assert [hit["caption"] for hit in both][:2] == list(PROMPTS[:2])
    assert PROMPTS[0] in [hit["caption"] for hit in one]
    assert PROMPTS[1] not in [hit["caption"] for hit in one]


def test_captions_come_for_as_many_as_are_shown(client: TestClient) -> None:
    """`num_result_ids` results, of which the first `num_images` have a caption."""
    found = knn(client, text="fox", num_images=2, num_result_ids=4)
    assert ["caption" in hit for hit in found] == [True, True, False, False]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"embedding_input": [1.0, 2.0]}, 400),
        ({"embedding_input": [0.0] * 384}, 400),
        ({"text": "fox", "num_images": 0}, 422),
        ({"text": "fox", "num_images": 10_000}, 400),
        ({"image": "%"}, 422),
        ({"image_url": "http://127.0.0.1/"}, 422),
        ([], 422),
    ],
)
def test_bad_questions_are_refused(client: TestClient, body: object, status: int) -> None:
    """A clear problem, whatever is wrong."""
    assert client.post("/knn-service", content=json.dumps(body)).status_code == status


def test_a_vector_of_any_length_is_taken(client: TestClient, lite: LiteEncoder) -> None:
    """Only its direction counts, however large or small its numbers are."""
    row = lite.texts.encode(["a bowl of ramen"])[0].astype(np.float64)
    for scale in (1e-300, 1e300):
        assert knn(client, embedding_input=(row * scale).tolist())[0]["caption"] == PROMPTS[2]


def test_rows_that_are_not_there_are_refused(client: TestClient) -> None:
    """Also those that no 64-bit number holds."""
    assert (
        client.post("/metadata", content=json.dumps({"ids": [99]})).json()["kind"] == "unknown-row"
    )
    assert client.post("/metadata", content=json.dumps({"ids": [10**30]})).status_code in (404, 422)
    assert client.post("/metadata", content=json.dumps({"ids": []})).json() == []
