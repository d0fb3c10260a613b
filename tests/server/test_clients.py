"""What the real clients sent, recorded by `make test-clients`, sent again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.server.conftest import PROMPTS
from tests.server.pictures import PARAMETERS

RECORDED: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("clients").joinpath("requests.json").read_text("utf-8")
)


@pytest.mark.parametrize(
    "request_", RECORDED, ids=lambda request: f"{request['method']} {request['path']}"
)
def test_recorded_requests_are_answered_as_the_client_reads_them(
    client: TestClient, request_: dict[str, Any]
) -> None:
    """Status and the fields that the client takes out of the answer."""
    headers = {"Content-Type": request_["type"]} if request_["type"] else {}
    done = client.request(
        request_["method"], request_["path"], content=request_["body"], headers=headers
    )
    assert done.status_code == request_["status"] == 200
    value = done.json()
    match request_["path"]:
        case "/sdapi/v1/scripts":
            assert value["txt2img"] == []
        case "/sdapi/v1/interrogate":
            assert value["caption"] == "a small lighthouse on a cliff"
        case "/sdapi/v1/png-info":
            assert value["info"] == PARAMETERS
        case "/knn-service":
            assert all({"id", "similarity", "caption"} <= hit.keys() for hit in value)
            assert value[0]["caption"] == PROMPTS[2] or json.loads(request_["body"])["text"] is None
        case other:
            pytest.fail(other)


def test_all_of_their_endpoints_were_recorded() -> None:
    """So that the recording cannot shrink unseen."""
    paths = [request["path"] for request in RECORDED]
    assert paths.count("/knn-service") == 3
    assert {"/sdapi/v1/scripts", "/sdapi/v1/interrogate", "/sdapi/v1/png-info"} <= set(paths)
    assert any(
        request["type"] != "application/json"
        for request in RECORDED
        if request["path"] == "/knn-service"
    )
