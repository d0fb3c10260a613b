"""Figures and logs: enough to run it by, and nothing of what was asked."""

from __future__ import annotations

import json
import logging

import pytest
from starlette.testclient import TestClient

from imprompt.server.logs import FIELDS, _LineFormatter
from tests.server.conftest import Serve
from tests.server.pictures import b64, png


def test_metrics_count_what_happened(serve: Serve) -> None:
    """Requests, stages, queues, batches, version and errors; two servers do not share them."""
    with serve() as client:
        version = client.post("/v1/search", json={"text": "fox"}).json()["results"][0]["version"]
        client.post("/v1/query", files={"image": png()}, data={"explain": "true"})
        client.post("/v1/query", files={"image": b"no image"})
        text = client.get("/metrics").text
    for line in (
        'imprompt_requests_total{method="POST",route="/v1/search",status="200"} 1.0',
        'imprompt_errors_total{kind="image-rejected"} 1.0',
        f'imprompt_index_version{{version="{version}"}} 1.0',
        'imprompt_batch_size_count{queue="image"} 1.0',
        'imprompt_queue_waiting{queue="text"} 0.0',
        "imprompt_ready 1.0",
    ):
        assert line in text
    for stage in ("read", "wait", "encode", "answer"):
        assert f'imprompt_stage_seconds_count{{stage="{stage}"}}' in text


def test_nothing_of_a_question_is_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """No text, no image, no path or query with one; a fault is logged without its message."""
    secret = "zanzibar"  # noqa: S105 a word to look for
    caplog.set_level(logging.DEBUG)
    client.post("/v1/search", json={"text": secret})
    client.post("/v1/query", files={"image": (f"{secret}.png", png())}, data={"text": secret})
    client.get(f"/{secret}?q={secret}")
    client.get(f"/v1/prompts/{secret}")
    client.post(
        "/v1/query",
        content=secret,
        headers={"content-type": secret, "x-request-id": f"{secret} {secret}"},
    )
    client.request(secret.upper(), "/v1/info")
    records = [
        record for record in caplog.records if record.name.startswith(("imprompt", "uvicorn"))
    ]
    assert len(records) >= 6
    for record in records:
        line = _LineFormatter(json=True).format(record)
        assert secret not in line.lower()
        assert json.loads(line).keys() <= {"time", "level", "message", *FIELDS}
        assert secret not in _LineFormatter(json=False).format(record).lower()
    assert b64(png())[:20] not in caplog.text


def test_it_is_alive_before_it_is_ready(client: TestClient) -> None:
    """Once warm both are green."""
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
