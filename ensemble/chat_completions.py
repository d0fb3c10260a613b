"""`caption` by a server that speaks OpenAI's chat completions, such as Ollama, llama.cpp or vLLM.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urldefrag, urlsplit

import msgspec

from imprompt.core.errors import ConfigError, MemberUnavailable, first_line
from imprompt.core.hub.fetch import Announce
from imprompt.core.retries import PASSING_STATUS, Refusal, retrying
from imprompt.ensemble.blend_config import CaptionStyle
from imprompt.ensemble.caption_models import (
    CHAT_PROMPTS,
    MAX_ANSWER_TOKENS,
    caption_of,
    tell_declined,
)
from imprompt.images.decode import small_jpeg

if TYPE_CHECKING:
    from PIL.Image import Image

CHAT_PREFIX = "openai:"
KEY_VARIABLE = "OPENAI_API_KEY"
ADDRESS_VARIABLE = "OPENAI_BASE_URL"
MAX_SIDE_PX = 1_024
"""Images are sent no larger; the servers' models see less."""
N_AT_ONCE = 4
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 300.0
_MAX_ANSWER_BYTES = 1 << 20
_THOUGHTS = re.compile(r"\A\s*<think>.*?(</think>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ChatServer:
    """The address of a server, such as http://127.0.0.1:11434/v1, and a model's name there."""

    url: str
    model: str

    @property
    def host(self) -> str:
        """Return the host and port, for messages."""
        return urlsplit(self.url).netloc

    @property
    def is_here(self) -> bool:
        """Return whether it runs on this machine."""
        name = urlsplit(self.url).hostname or ""
        try:
            return name == "localhost" or ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


class ChatCaptioner:
    """A captioner that sends each image to a server; see `load`."""

    files: tuple[Path, ...] = ()

    def __init__(
        self, server: ChatServer, *, style: CaptionStyle, key: str, announce: Announce
    ) -> None:
        self._server = server
        self._style = style
        self._announce = announce
        self._headers = {"Content-Type": "application/json", "User-Agent": "imprompt"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        # A redirect would carry the key and the image to an address that nobody named.
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if server.is_here:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    @classmethod
    def load(
        cls,
        source: str,
        *,
        device: str,  # noqa: ARG003 the server chooses its own
        offline: bool,
        announce: Announce,
        style: CaptionStyle = "sentence",
    ) -> ChatCaptioner:
        """Return the captioner of a source `openai:URL#MODEL`, whose server answers.

        Blend configs are passed on, so an address of another machine must also be the one in
        OPENAI_BASE_URL. The key in OPENAI_API_KEY, if any, is sent to no other server than these.

        Raises:
            ConfigError: it is no such source, or names another machine than OPENAI_BASE_URL.
            MemberUnavailable: the server does not answer, or `offline` is set and it is not on this
                machine.
        """
        server = chat_server(source)
        if not server.is_here:
            if offline:
                raise MemberUnavailable(
                    "caption",
                    f"--offline is set, and {server.host} is not this machine",
                    hint="Name a server on this machine, such as openai:http://127.0.0.1:11434/v1"
                    f"#{server.model}.",
                )
            if os.environ.get(ADDRESS_VARIABLE, "").rstrip("/") != server.url:
                raise ConfigError(
                    f"The blend config would send images to {server.host}, which is not this "
                    "machine.",
                    hint=f"If you want that, set {ADDRESS_VARIABLE}={server.url}.",
                )
        key = os.environ.get(KEY_VARIABLE, "").strip()
        captioner = cls(server, style=style, key=key, announce=announce)
        captioner._check_reachable()
        announce(f"caption makes one request per image to {server.host}, model {server.model}.")
        return captioner

    def captions(self, images: Sequence[Image]) -> list[str]:
        """Return one caption for each upright RGB image, in order; "" where the model declines.

        Raises:
            MemberUnavailable: the server refuses, or answers with something else.
        """
        with ThreadPoolExecutor(N_AT_ONCE) as pool:
            captions = list(pool.map(self._caption, images))
        tell_declined(captions, announce=self._announce)
        return captions

    def _caption(self, image: Image) -> str:
        content = [
            {"type": "text", "text": CHAT_PROMPTS[self._style]},
            {"type": "image_url", "image_url": {"url": _data_url(image)}},
        ]
        asked = {
            "model": self._server.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": MAX_ANSWER_TOKENS,
            "temperature": 0,
            "stream": False,
        }
        return caption_of(_THOUGHTS.sub("", self._answer(msgspec.json.encode(asked))))

    def _answer(self, body: bytes) -> str:
        """Return what the model says, "" for nothing."""
        request = urllib.request.Request(  # noqa: S310 http or https, see chat_server
            f"{self._server.url}/chat/completions", body, self._headers, method="POST"
        )
        content = self._send(request)
        try:
            message = msgspec.json.decode(content)["choices"][0]["message"]
            said = message.get("content") or ""
            if isinstance(said, str):
                return said
        except (msgspec.MsgspecError, LookupError, TypeError, AttributeError):
            pass
        raise self._unavailable("answers with something else than a chat completion")

    def _send(self, request: urllib.request.Request) -> bytes:
        """Return the content of the answer; refusals that may pass are tried again."""

        def send() -> bytes:
            with self._opener.open(request, timeout=ANSWER_TIMEOUT_S) as answer:
                content: bytes = answer.read(_MAX_ANSWER_BYTES + 1)
                return content

        try:
            content = retrying(send, host=self._server.host, announce=self._announce, passing=_busy)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(error) from error
        if len(content) > _MAX_ANSWER_BYTES:
            raise self._unavailable(f"answers with more than {_MAX_ANSWER_BYTES:,} bytes")
        return content

    def _check_reachable(self) -> None:
        """Raise `MemberUnavailable` if nothing answers; what it answers does not matter."""
        request = urllib.request.Request(f"{self._server.url}/models", headers=self._headers)  # noqa: S310
        try:
            with self._opener.open(request, timeout=CONNECT_TIMEOUT_S):
                pass
        except urllib.error.HTTPError as error:
            error.close()
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(error) from error

    def _silent(self, error: Exception) -> MemberUnavailable:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return self._unavailable(f"does not answer: {first_line(Exception(str(reason)))}")

    def _refused(self, error: urllib.error.HTTPError) -> MemberUnavailable:
        said = _error_message(error)
        hint = f"Check the address and the model {self._server.model}."
        if error.code in (401, 403):
            hint = f"It wants a valid key in the environment variable {KEY_VARIABLE}."
        return self._unavailable(f"answered {error.code}{said}", hint=hint)

    def _unavailable(self, what: str, *, hint: str = "") -> MemberUnavailable:
        return MemberUnavailable(
            "caption",
            f"{self._server.host} {what}",
            hint=hint or f"Is a server with the model {self._server.model} running there?",
        )


def chat_server(source: str) -> ChatServer:
    """Return the server of `openai:URL#MODEL`.

    Raises:
        ConfigError: it is no such source.
    """
    url, model = urldefrag(source.removeprefix(CHAT_PREFIX))
    try:
        parts = urlsplit(url)
        valid = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and parts.username is None
            and not parts.query
            and url.isascii()
            and all(char > " " for char in url)
        )
    except ValueError:
        valid = False
    if not valid or not model:
        raise ConfigError(
            f"The source of caption is not {CHAT_PREFIX}URL#MODEL, without a user name.",
            hint=f"Write it like {CHAT_PREFIX}http://127.0.0.1:11434/v1#llava.",
        )
    return ChatServer(url.rstrip("/"), model)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Leave the redirect as an error."""
        return


def _data_url(image: Image) -> str:
    jpeg = small_jpeg(image, MAX_SIDE_PX, quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _busy(error: Exception) -> Refusal | None:
    """Return what `retrying` needs of a refusal that may pass."""
    if not isinstance(error, urllib.error.HTTPError) or error.code not in PASSING_STATUS:
        return None
    return Refusal(f"answered {error.code}", error.headers.get("Retry-After", ""))


def _error_message(error: urllib.error.HTTPError) -> str:
    """Return ": MESSAGE" from an error's content as OpenAI's servers write it, or ""."""
    try:
        said = msgspec.json.decode(error.read(_MAX_ANSWER_BYTES))["error"]
        message = said["message"] if isinstance(said, dict) else said
        return f": {first_line(Exception(message[:200]))}"
    except (OSError, http.client.HTTPException, msgspec.MsgspecError, LookupError, TypeError):
        return ""
