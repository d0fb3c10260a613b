"""Captions by a server that speaks OpenAI's chat completions, one of the tests' own."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imprompt.core.errors import ConfigError, MemberUnavailable
from imprompt.core.hub.fetch import silent
from imprompt.ensemble.blend_config import BlendConfig, CaptionStyle, KnnSettings
from imprompt.ensemble.caption_models import CHAT_PROMPTS
from imprompt.ensemble.chat_completions import MAX_SIDE_PX, N_AT_ONCE, ChatCaptioner, chat_server
from imprompt.ensemble.knn import Knn
from imprompt.ensemble.model_members import CachedMember, CaptionMember
from imprompt.environment.model_files import blend_needs
from imprompt.store.index_version import open_version
from tests.ensemble.builders import WORDS, build_colour_index, neighbourhood, picture

ALLOWED = {"model": str, "messages": list, "max_tokens": int, "temperature": int, "stream": bool}
"""Fields of a request to create a chat completion, and their types."""


class ChatStub:
    """A server that checks each request against the public schema and says the image's colour.

    `refusals` are (status, headers, content) of the next answers, `says` is said in place of a
    colour, `asked` are the requests' contents, `headers` their headers, `most` how many were open
    at once.
    """

    def __init__(self) -> None:
        self.refusals: list[tuple[int, dict[str, str], bytes]] = []
        self.says: str | None = None
        self.raw: bytes | None = None
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.wrong: list[str] = []
        self.waits: list[float] = []
        self.most = 0
        self._open = 0
        self._lock = threading.Lock()
        self.gate: threading.Barrier | None = None

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        asked = json.loads(body)
        with self._lock:
            self.asked.append(asked)
            self.headers.append(headers)
            self._open += 1
            self.most = max(self.most, self._open)
        try:
            if self.gate is not None:
                self.gate.wait(10)
            said = self.says if self.says is not None else f"a {self._check(path, asked)} square"
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            whole = {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice]}
            return 200, self.raw if self.raw is not None else json.dumps(whole).encode()
        except (AssertionError, KeyError, ValueError, TypeError) as error:
            self.wrong.append(repr(error))
            return 400, b'{"error": {"message": "the request is malformed"}}'
        finally:
            with self._lock:
                self._open -= 1

    def _check(self, path: str, asked: dict[str, Any]) -> str:
        assert path == "/v1/chat/completions"
        assert asked.keys() == ALLOWED.keys()
        assert all(isinstance(asked[key], kind) for key, kind in ALLOWED.items())
        assert asked["max_tokens"] > 0
        (message,) = asked["messages"]
        assert message.keys() == {"role", "content"}
        assert message["role"] == "user"
        text, image = message["content"]
        assert text.keys() == {"type", "text"}
        assert text["type"] == "text"
        assert image.keys() == {"type", "image_url"}
        assert image["type"] == "image_url"
        assert image["image_url"].keys() == {"url"}
        head, content = image["image_url"]["url"].split(",", 1)
        assert head == "data:image/jpeg;base64"
        shown = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
        assert shown.format == "JPEG"
        assert max(shown.size) <= MAX_SIDE_PX
        red, _, blue = np.asarray(shown).reshape(-1, 3).mean(axis=0)
        return "red" if red > blue else "blue"


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ChatStub, str]]:
    """The stub and the address of its server; waits are counted, not waited."""
    stub = ChatStub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200 if self.path == "/v1/models" else 404, {}, b"{}")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if stub.refusals:
                self._send(*stub.refusals.pop(0))
            else:
                status, content = stub.answer(self.path, dict(self.headers), body)
                self._send(status, {}, content)

        def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # no proxy for this machine
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr("imprompt.core.retries.time", SimpleNamespace(sleep=stub.waits.append))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield stub, f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def load(
    url: str, *, offline: bool = True, style: CaptionStyle = "sentence", announce: Any = silent
) -> ChatCaptioner:
    return ChatCaptioner.load(
        f"openai:{url}#llava:7b", device="cpu", offline=offline, announce=announce, style=style
    )


def test_each_image_is_one_request_of_the_public_form(chat: tuple[ChatStub, str]) -> None:
    """Captions in the order of the images, large ones shrunk; also with --offline, being local."""
    stub, url = chat
    said: list[str] = []
    captioner = load(url, announce=said.append)
    images = [Image.new("RGB", (3000, 20), "red"), Image.new("RGB", (40, 20), "blue")] * 3
    assert captioner.captions(images) == ["a red square", "a blue square"] * 3
    assert not stub.wrong
    assert len(stub.asked) == 6
    assert {asked["model"] for asked in stub.asked} == {"llava:7b"}
    assert {asked["messages"][0]["content"][0]["text"] for asked in stub.asked} == {
        CHAT_PROMPTS["sentence"]
    }
    assert not any("Authorization" in headers for headers in stub.headers)
    assert said == [f"caption makes one request per image to {url[7:-3]}, model llava:7b."]
    assert captioner.captions([]) == []
    assert images[0].size == (3000, 20)


def test_the_style_is_the_question_and_the_key_goes_along(
    chat: tuple[ChatStub, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of the environment is sent in the header, and stands in no message."""
    stub, url = chat
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    captioner = load(url, style="tags")
    captioner.captions([picture("red")])
    assert stub.asked[0]["messages"][0]["content"][0]["text"] == CHAT_PROMPTS["tags"]
    assert stub.headers[0]["Authorization"] == "Bearer sk-secret"
    stub.refusals = [(401, {}, b'{"error": {"message": "Incorrect API key"}}')]
    with pytest.raises(MemberUnavailable, match="answered 401: Incorrect API key") as caught:
        captioner.captions([picture("red")])
    assert "OPENAI_API_KEY" in caught.value.hint
    assert "sk-secret" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


def test_a_few_requests_at_once(chat: tuple[ChatStub, str]) -> None:
    """As many as N_AT_ONCE, and no more."""
    stub, url = chat
    stub.gate = threading.Barrier(N_AT_ONCE)  # opens only if that many wait
    load(url).captions([picture("red")] * (2 * N_AT_ONCE))
    assert stub.most == N_AT_ONCE


def test_a_busy_server_is_asked_again(chat: tuple[ChatStub, str]) -> None:
    """After the time that it asks for, or one, two, four seconds; four times in all."""
    stub, url = chat
    said: list[str] = []
    captioner = load(url, announce=said.append)
    stub.refusals = [(429, {"Retry-After": "7"}, b""), (503, {}, b"")]
    assert captioner.captions([picture("red")]) == ["a red square"]
    assert stub.waits[0] == 7
    assert 1 <= stub.waits[1] <= 2
    assert "answered 429; trying again in 7 s (1 of 3)" in said[1]
    stub.refusals = [(500, {}, b"")] * 5
    with pytest.raises(MemberUnavailable, match="answered 500"):
        captioner.captions([picture("red")])
    assert len(stub.refusals) == 1
    stub.refusals = [(429, {"Retry-After": "3600"}, b"")]
    with pytest.raises(MemberUnavailable, match="answered 429"):
        captioner.captions([picture("red")])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>", "something else than a chat completion"),
        (b"[]", "something else"),
        (b'{"choices": []}', "something else"),
        (b'{"choices": [{"message": {"content": [1]}}]}', "something else"),
        (b" " * (1 << 20) + b" ", "more than 1,048,576 bytes"),
    ],
)
def test_other_answers_are_refused(content: bytes, words: str, chat: tuple[ChatStub, str]) -> None:
    """One line that names the server."""
    stub, url = chat
    stub.raw = content
    with pytest.raises(MemberUnavailable, match=words) as caught:
        load(url).captions([picture("red")])
    assert url[7:-3] in caught.value.message


def test_refusals_and_redirects(chat: tuple[ChatStub, str]) -> None:
    """An unknown model is told in the server's words; a redirect is not followed."""
    stub, url = chat
    captioner = load(url)
    stub.refusals = [(404, {}, b'{"error": {"message": "model \'llava:7b\' not found"}}')]
    with pytest.raises(MemberUnavailable, match="answered 404: model 'llava:7b' not found"):
        captioner.captions([picture("red")])
    for status in (302, 307):
        stub.refusals = [(status, {"Location": f"{url}/chat/completions"}, b"")]
        with pytest.raises(MemberUnavailable, match=f"answered {status}"):
            captioner.captions([picture("red")])
    assert not stub.asked


@pytest.mark.parametrize(
    "answer", ["I'm sorry, but I can't help with that.", "", "<think>It is red", None]
)
def test_an_image_without_a_caption_is_told(answer: str | None, chat: tuple[ChatStub, str]) -> None:
    """Apologies and nothing are no captions; the member's row is zeros, without the suffix."""
    stub, url = chat
    stub.says = answer
    if answer is None:
        stub.raw = b'{"choices": [{"message": {"content": null, "refusal": "No."}}]}'
    said: list[str] = []
    member = CaptionMember(
        "caption", load(url, announce=said.append), minilm=WORDS, suffix=", masterpiece"
    )
    prediction = member.predict([picture("red"), picture("blue")])
    assert prediction.texts == ("", "")
    assert not prediction.vectors.any()
    assert said[1:] == ["caption: the model declines to describe 2 of 2 images."]


def test_thoughts_are_no_caption(chat: tuple[ChatStub, str]) -> None:
    """What a model thinks aloud before its answer is cut off."""
    stub, url = chat
    stub.says = "<think>\nIt is red.\n</think>\n\na red square"
    assert load(url).captions([picture("red")]) == ["a red square"]


def test_knn_reads_no_caption_that_is_none(tmp_path: Any) -> None:
    """A prompt regression with captions gives the row without them where there is none."""

    class Declines:
        def captions(self, images: Any) -> list[str]:
            return ["" for _ in images]

    with open_version(build_colour_index(tmp_path)) as version:
        around = neighbourhood(version)
        alone = Knn(around, settings=KnnSettings())
        declines = CachedMember(CaptionMember("caption", Declines(), minilm=WORDS))
        both = Knn(around, settings=KnnSettings(), captioners=[declines], minilm=WORDS)
        images = [picture("red"), picture("teal")]
        np.testing.assert_array_equal(both.predict(images).vectors, alone.predict(images).vectors)


def test_nobody_answers() -> None:
    """A server that is not running is told when the member is loaded."""
    with pytest.raises(MemberUnavailable, match=r"127\.0\.0\.1:9 does not answer: .*refused"):
        load("http://127.0.0.1:9/v1")


def test_another_machine_must_be_named_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blend config of somebody else cannot send images, or the key, to a host of its choice."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    url = "https://captions.invalid/v1"
    with pytest.raises(MemberUnavailable, match="--offline is set"):
        load(url)
    with pytest.raises(
        ConfigError, match=r"captions\.invalid, which is not this machine"
    ) as caught:
        load(url, offline=False)
    assert f"OPENAI_BASE_URL={url}" in caught.value.hint
    monkeypatch.setenv("OPENAI_BASE_URL", "https://captions.invalid/")
    with pytest.raises(ConfigError):
        load(url, offline=False)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/")
    monkeypatch.setattr(
        "urllib.request.OpenerDirector.open", lambda *_, **__: (_ for _ in ()).throw(OSError("no"))
    )
    with pytest.raises(MemberUnavailable, match=r"captions\.invalid does not answer: no"):
        load(url, offline=False)


@pytest.mark.parametrize(
    "source",
    [
        "openai:http://127.0.0.1:11434/v1",
        "openai:#llava",
        "openai:127.0.0.1:11434/v1#llava",
        "openai:ftp://127.0.0.1/v1#llava",
        "openai:file:///etc/passwd#llava",
        "openai:http://user:secret@127.0.0.1/v1#llava",
        "openai:http://127.0.0.1:99999/v1#llava",
        "openai:http://127.0.0.1/v1?key=secret#llava",
        "openai:http://127.0.0.1/v 1#llava",
    ],
)
def test_other_sources_are_refused(source: str) -> None:
    """One line, without what may be a secret."""
    with pytest.raises(ConfigError, match=r"is not openai:URL#MODEL") as caught:
        chat_server(source)
    assert "secret" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:1234/v1", True),
        ("http://127.0.0.2/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://127.0.0.1.evil.com/v1", False),
        ("http://192.168.1.2/v1", False),
        ("http://localhost.evil.com/v1", False),
    ],
)
def test_which_servers_are_on_this_machine(url: str, *, here: bool) -> None:
    """By the host's name or number."""
    assert chat_server(f"openai:{url}#m").is_here == here


def test_a_server_needs_no_files() -> None:
    """`prefetch` has nothing to fetch for it."""
    blend_config = BlendConfig(
        name="mine",
        weights={"caption": 1.0},
        sources={"caption": "openai:http://127.0.0.1:11434/v1#llava"},
    )
    (need,) = [need for need in blend_needs(blend_config) if need.name == "member caption"]
    assert (need.extra, need.local, list(need.wanted())) == ("", (), [])
