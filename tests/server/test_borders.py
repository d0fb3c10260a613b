"""What comes in is looked at once, where it comes in, and what goes to the log is plain."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from imprompt.server.bodies import decode_image
from imprompt.server.logs import _LineFormatter, configure_logs
from imprompt.server.server_settings import Limits
from tests.server.pictures import b64, png

FORM = "multipart/form-data; boundary=b"


@pytest.mark.parametrize("path", ["/v1/search", "/v1/query", "/knn-service"])
@pytest.mark.parametrize("text", [rb"\ud800", rb"a\udfffb", b"\xed\xa0\x80", b"caf\xe9"])
def test_a_text_that_is_no_unicode_is_refused(client: TestClient, path: str, text: bytes) -> None:
    """As a problem, not as a fault."""
    done = client.post(
        path, content=b'{"text": "' + text + b'"}', headers={"Content-Type": "application/json"}
    )
    assert (done.status_code, done.json()["kind"]) == (400, "usage")


@pytest.mark.parametrize(
    "kind",
    [f"{FORM}; charset=punycode", f"{FORM}; charset=unicode_escape", f"{FORM}; charset=nothing"],
)
def test_a_form_is_utf_8(client: TestClient, kind: str) -> None:
    """No other of Python's codecs is reached; names and texts of a form that is are taken."""
    body = '--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nfôx\r\n--b--\r\n'.encode()
    assert client.post("/v1/query", content=body, headers={"Content-Type": kind}).status_code == 400
    for good in (FORM, f"{FORM}; charset=UTF-8"):
        done = client.post("/v1/query", content=body, headers={"Content-Type": good})
        assert done.json()["results"][0]["text"] == "fôx"
    latin = body.decode().encode("latin-1")
    assert (
        client.post("/v1/query", content=latin, headers={"Content-Type": FORM}).status_code == 400
    )


def test_json_of_too_many_parts_is_refused_before_it_is_read(client: TestClient) -> None:
    """A million empty lists."""
    done = client.post(
        "/v1/query",
        content=b"[" + b"[]," * 600_000 + b"[]]",
        headers={"Content-Type": "application/json"},
    )
    assert (done.status_code, done.json()["kind"]) == (413, "too-large")


def test_base64_may_hold_white_space() -> None:
    """Of any kind and amount."""
    image = png()
    spaced = "\r\n".join(b64(image)[at : at + 5] + " \t" for at in range(0, len(b64(image)), 5))
    assert decode_image("data:image/png;base64," + spaced, Limits()) == image


def test_forms_are_not_taken_as_json(client: TestClient) -> None:
    """Of /v1/search and /v1/embed, which a page of another site could send."""
    for path in ("/v1/search", "/v1/embed"):
        for kind in (FORM, "text/plain", "application/x-www-form-urlencoded"):
            assert (
                client.post(
                    path, content=b'{"text": "fox"}', headers={"Content-Type": kind}
                ).status_code
                == 415
            )


@pytest.fixture
def kept_loggers() -> Iterator[None]:
    """What logging was set to, put back afterwards."""
    names = ("", "imprompt.server", "uvicorn", "python_multipart")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_every_line_is_of_one_form(kept_loggers: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Other libraries' warnings too, escaped; python-multipart's quote clients and are dropped."""
    configure_logs(json=True)
    logging.getLogger("some.library").warning("odd \x1b]0;x\x07\x9b2J\nname \ud800")
    logging.getLogger("python_multipart.multipart").warning(
        "Did not find CR at end of boundary (2)"
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == r"odd \x1b]0;x\x07\x9b2J\nname \ud800"
    record = logging.LogRecord("x", logging.WARNING, "", 1, "a\x1b[2J\nb", None, None)
    assert _LineFormatter(json=False).format(record).endswith(r"warning a\x1b[2J\nb")
