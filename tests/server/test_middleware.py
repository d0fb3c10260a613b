"""What every request passes: token, host, body, and the headers of every answer."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imprompt.server.middleware import Middleware
from imprompt.server.prometheus import Metrics
from imprompt.server.server_settings import Limits, ServerSettings
from tests.server.conftest import Serve
from tests.server.pictures import b64, png

TOKEN = "correct-horse-battery-staple"  # noqa: S105 of this test alone


@pytest.fixture(scope="module")
def locked(serve: Serve) -> Iterator[TestClient]:
    with serve(token=TOKEN, host="0.0.0.0") as client:  # noqa: S104 nothing is opened: the client calls the application
        yield client


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"user:{password}".encode()).decode()


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        "Basic ###",
        basic("wrong"),
        f"Token {TOKEN}",
        f"bearer{TOKEN}",
        "Bearer \u00e9\u00e9",
    ],
)
def test_a_wrong_token_is_refused_everywhere(locked: TestClient, authorization: str) -> None:
    """API, page, metrics and description alike; the two health probes say nothing and need none."""
    headers = {b"Authorization": authorization.encode("latin-1")} if authorization else {}
    for path in ("/", "/v1/info", "/metrics", "/openapi.json", "/nothing"):
        done = locked.get(path, headers=headers)
        assert (done.status_code, done.json()["kind"]) == (401, "unauthorized")
        assert done.headers["www-authenticate"].startswith("Basic")
    assert locked.get("/healthz", headers=headers).status_code == 200


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)])
def test_the_token_opens(locked: TestClient, authorization: str) -> None:
    """As a bearer, or as the password that browsers and AUTOMATIC1111's clients send."""
    assert locked.get("/v1/info", headers={"Authorization": authorization}).status_code == 200


def test_tokens_are_compared_in_constant_time(
    locked: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the standard library's comparison alone, however much of the token is right."""
    compared = []

    def digest(given: bytes, token: bytes) -> bool:
        compared.append((given, token))
        return False

    monkeypatch.setattr("imprompt.server.middleware.hmac.compare_digest", digest)
    for given in (TOKEN, TOKEN[:-1], ""):
        assert (
            locked.get("/v1/info", headers={"Authorization": f"Bearer {given}"}).status_code == 401
        )
    assert compared == [(given.encode(), TOKEN.encode()) for given in (TOKEN, TOKEN[:-1], "")]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:7861",
        "",
        "[::2]:7861",
        "10.0.0.1",
    ],
)
def test_another_host_name_does_not_reach_a_server_without_a_token(
    client: TestClient, host: str
) -> None:
    """So no site can lead its own name to this machine and ask through the visitor's browser."""
    assert client.get("/v1/info", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:7861", "[::1]:7861", "LOCALHOST:1"])
def test_this_machine_has_several_names(client: TestClient, host: str) -> None:
    """All of loopback."""
    assert client.get("/v1/info", headers={"Host": host}).status_code == 200


def test_a_page_of_another_site_may_not_ask(client: TestClient) -> None:
    """Browsers say where a request comes from, and no answer allows another origin to read it."""
    assert client.get("/v1/info", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    assert client.post("/v1/search", headers=link, json={"text": "fox"}).status_code == 403
    done = client.get(
        "/v1/info", headers={"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:7861"}
    )
    assert done.status_code == 200
    assert not [name for name in done.headers if name.startswith("access-control")]


def test_every_answer_carries_its_id_and_its_rules(client: TestClient) -> None:
    """A request id of the client is kept where it is plain, and replaced where it is not."""
    done = client.get("/v1/info", headers={"X-Request-ID": "job-7.a"})
    assert done.headers["x-request-id"] == "job-7.a"
    odd = client.get("/nothing", headers={"X-Request-ID": "a\tb<script>"})
    assert len(odd.headers["x-request-id"]) == 32
    assert odd.headers["content-security-policy"].startswith("default-src 'none'")
    assert odd.headers["x-content-type-options"] == "nosniff"
    assert "x-problem-kind" not in odd.headers
    page = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in page
    assert "script-src 'self'" in page
    assert "unsafe" not in page


def test_a_body_over_the_limit_is_refused(serve: Serve) -> None:
    """By what it announces before it is read, and by what it is where it announces nothing."""
    with serve(limits=Limits(max_body_bytes=2000)) as client:
        assert client.post("/v1/search", content=b"x" * 2001).status_code == 413

        def chunks() -> Iterator[bytes]:
            for _ in range(30):
                yield b"x" * 100

        done = client.post("/v1/search", content=chunks())
        assert (done.status_code, done.json()["kind"]) == (413, "too-large")
        assert client.post("/v1/search", json={"text": "fox"}).status_code == 200


def test_all_bodies_together_have_a_limit(serve: Serve) -> None:
    """Over it comes 503 with Retry-After; what was held is let go."""
    with serve(limits=Limits(max_held_bytes=3000)) as client:
        done = client.post("/v1/query", json={"images": [b64(bytes(4000))]})
        assert (done.status_code, done.json()["kind"]) == (503, "busy")
        assert int(done.headers["retry-after"]) >= 1
        for _ in range(5):
            assert client.post("/v1/query", files={"image": png()}).status_code == 200
        assert "imprompt_held_bytes 0.0" in client.get("/metrics").text


def test_only_so_many_questions_wait(serve: Serve) -> None:
    """Over the limit comes 503 with Retry-After at once; what was taken is answered."""
    texts = [f"a long text of many words, number {number}" for number in range(200)]
    with serve(max_batch=1, limits=Limits(max_waiting=1)) as client, ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: client.post("/v1/embed", json={"texts": texts}), range(8)))
    refused = [answer for answer in done if answer.status_code != 200]
    assert 0 < len(refused) < 8
    assert {
        (answer.status_code, answer.json()["kind"], answer.headers["retry-after"])
        for answer in refused
    } == {(503, "busy", "1")}


def test_no_question_takes_longer_than_the_limit(serve: Serve) -> None:
    """The client is told to come again, and the server answers the next one."""
    with serve(limits=Limits(answer_timeout_s=0.05)) as client:
        done = client.post(
            "/v1/embed",
            json={
                "texts": [f"a long text of many words, number {number}" for number in range(250)]
            },
        )
        assert (done.status_code, done.json()["kind"]) == (503, "busy")
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../cli.py",
        "/%2e%2e/cli.py",
        "/page.css/../../app.py",
        "//etc/passwd",
        "/v1/prompts/..%2f..%2f",
        "/%00",
    ],
)
def test_paths_lead_nowhere_but_to_routes(client: TestClient, path: str) -> None:
    """Nothing is served from the file system by its path."""
    assert client.get(path).status_code in (404, 422)


def test_methods_that_are_not_there_are_refused(client: TestClient) -> None:
    """With the problem's form, and the methods that are."""
    done = client.delete("/v1/info")
    assert (done.status_code, done.json()["kind"], done.headers["allow"]) == (
        405,
        "method-not-allowed",
        "GET",
    )


class Line:
    """A connection without a server: what the client sends, then silence or its end; responses."""

    def __init__(self, *sent: bytes, ends: bool) -> None:
        self._sent = [{"type": "http.request", "body": body, "more_body": True} for body in sent]
        self._ends = ends
        self.got: list[Message] = []

    async def receive(self) -> Message:
        if self._sent:
            return self._sent.pop(0)
        if self._ends:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        self.got.append(message)


SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": "/v1/search",
    "headers": [(b"host", b"localhost")],
}


def guarded(app: ASGIApp, line: Line) -> None:
    config = ServerSettings(Path("index"), limits=Limits(body_timeout_s=0.05))
    asyncio.run(
        asyncio.wait_for(
            Middleware(app, config, Metrics())(dict(SCOPE), line.receive, line.send), 10
        )
    )


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    """The client is told 408 after the limit; the application never hears of it."""
    line = Line(b"{", ends=False)
    guarded(_never, line)
    assert line.got[0]["status"] == 408


def test_half_a_body_of_a_client_that_left_goes_nowhere() -> None:
    """Nothing is asked, nothing is answered."""
    line = Line(b"{", ends=True)
    guarded(_never, line)
    assert line.got == []


def test_work_stops_when_the_client_goes_away() -> None:
    """The application is cancelled, not left to answer nobody."""
    stopped = []

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(True)
            raise

    line = Line(ends=True)
    line._sent = [{"type": "http.request", "body": b"{}", "more_body": False}]
    guarded(endless, line)
    assert stopped == [True]
    assert line.got == []


async def _never(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError


OWN, FOREIGN = "http://192.168.1.5:7861", "http://evil.example"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": OWN}, 200),
        ({"Origin": "https://192.168.1.5:7861"}, 200),  # a proxy brought TLS
        ({"Origin": FOREIGN}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": f"{OWN}.evil.example"}, 403),
        ({"Origin": "http://192.168.1.5"}, 403),
        ({"Origin": FOREIGN, "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": OWN, "Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_a_page_of_another_site_may_not_ask_with_the_kept_token(
    locked: TestClient, headers: dict[str, str], status: int, kind: str
) -> None:
    """Browsers resend a typed password with any page's request; plain HTTP has no Sec-Fetch."""
    sent = {
        "Host": "192.168.1.5:7861",
        "Authorization": basic(TOKEN),
        "Content-Type": kind,
        **headers,
    }
    done = locked.post("/knn-service", headers=sent, json={"text": "fox", "num_images": 1})
    assert done.status_code == status
    assert status == 200 or done.json()["kind"] == "cross-site"


@pytest.mark.parametrize(
    "origin", [FOREIGN, "null", "http://localhost.evil.example:7861", "http://localhost:7862"]
)
def test_a_foreign_origin_may_not_ask_this_machine(client: TestClient, origin: str) -> None:
    """Also where a browser says nothing else, and for requests that only read."""
    assert (
        client.post("/v1/search", headers={"Origin": origin}, json={"text": "fox"}).status_code
        == 403
    )
    assert client.get("/v1/info", headers={"Origin": origin}).status_code == 403
    assert client.request("OPTIONS", "/v1/search", headers={"Origin": origin}).status_code == 403


def test_two_origins_do_not_hide_one(client: TestClient) -> None:
    """Each one counts."""
    headers = [("Origin", "http://localhost:7861"), ("Origin", FOREIGN)]
    assert client.post("/v1/search", headers=headers, json={"text": "fox"}).status_code == 403
