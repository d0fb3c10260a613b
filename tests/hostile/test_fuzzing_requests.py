"""Fuzzed images, base64, multipart and JSON: our errors, 4xx problems, no crash, no hang."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from imprompt.core.errors import ImageRejected
from imprompt.images.bounds import ImageLimits
from imprompt.retriever.questions import read_image
from imprompt.server.bodies import decode_image
from imprompt.server.http_errors import HttpError
from imprompt.server.server_settings import Limits
from tests.hostile.images import exif, scans, segment, small, tiff, with_segments
from tests.server.conftest import Serve
from tests.server.conftest import build as build
from tests.server.conftest import index as index
from tests.server.conftest import lite as lite
from tests.server.conftest import serve as serve
from tests.server.pictures import b64

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
FUZZ = settings(
    max_examples=6000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
LIMITS = ImageLimits(max_pixels=1_000_000, max_scanned_pixels=10_000_000, max_memory=64 << 20)


@cache
def originals() -> list[bytes]:
    """A small valid file of each format and of what decoders have further readers for."""
    return [
        *(small(kind) for kind in KINDS),
        small("PNG", "RGBA"),
        small("PNG", "P"),
        small("PNG", "I;16"),
        small("WEBP", "RGBA", lossless=True),
        small("JPEG", "CMYK"),
        small("TIFF", compression="tiff_lzw"),
        small("TIFF", compression="jpeg"),
        scans(3, 64),
        tiff(8, 8, bytes(64)),
        with_segments(segment(0xE1, b"Exif\0\0" + exif(5, b"a prompt"))),
    ]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """One of the originals with bytes set, cut out, repeated, or with the tail of another."""
    data = bytearray(draw(st.sampled_from(originals())))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 5)):
            case 0 | 1:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 2:
                number = draw(
                    st.sampled_from([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
                )
                data[at : at + 4] = number.to_bytes(4, draw(st.sampled_from(["big", "little"])))
            case 3:
                del data[at : at + draw(st.integers(1, 64))]
            case 4:
                data[at:at] = bytes(data[at : at + draw(st.integers(1, 32))]) * draw(
                    st.integers(1, 50)
                )
            case _:
                data[at:] = draw(st.sampled_from(originals()))[at:]
    return bytes(data)


@FUZZ
@given(image=damaged())
def test_damaged_images_are_answered_or_refused(image: bytes) -> None:
    """Pixels, metadata and hidden texts of mutated files; none takes longer than two seconds."""
    begun = time.monotonic()
    try:
        assert read_image(image, False, LIMITS).picture.mode == "RGB"
    except ImageRejected as error:
        assert "\n" not in str(error)
        assert len(error.reason) < 300
    assert time.monotonic() - begun < 2


@pytest.fixture(scope="module")
def client(serve: Serve) -> Iterator[TestClient]:
    with serve(limits=Limits(max_pixels=1_000_000)) as found:
        yield found


def check(client: TestClient, path: str, body: bytes, kind: str) -> None:
    """Answered, or a problem of 4xx, in time."""
    begun = time.monotonic()
    done = client.post(path, content=body, headers={b"Content-Type": kind.encode("latin-1")})
    assert done.status_code < 500, (path, body, done.text)
    if done.status_code != 200:
        assert done.headers["content-type"] == "application/problem+json"
        assert done.json()["status"] == done.status_code
    assert time.monotonic() - begun < 5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(), max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = {
    "/v1/query": (
        "text",
        "k",
        "images",
        "image_urls",
        "explain",
        "ignore_metadata",
        "shared",
        "filters",
    ),
    "/v1/search": ("text", "k", "shared", "filters"),
    "/v1/embed": ("texts", "images", "space"),
    "/v1/extract": ("image",),
    "/sdapi/v1/interrogate": ("image", "model"),
    "/sdapi/v1/png-info": ("image",),
    "/knn-service": ("text", "image", "image_url", "embedding_input", "num_images", "deduplicate"),
    "/metadata": ("ids",),
}
VALUES = st.one_of(
    JSON,
    st.sampled_from(
        [
            "fox",
            "\ud800",
            "a\0b",
            "output",
            True,
            1,
            0,
            [],
            ["fox"],
            [1, 2],
            [-1, 2**70],
            [1e308] * 384,
        ]
    ),
    st.builds(lambda data: b64(data), damaged()),
    st.builds(lambda data: [b64(data)], damaged()),
    st.fixed_dictionaries(
        {},
        optional={
            "where": st.text(max_size=40),
            "contains": JSON,
            "exclude": JSON,
            "no_artists": JSON,
        },
    ),
)


@st.composite
def json_bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A route and a body that nearly fits it, sometimes with bytes set."""
    path = draw(st.sampled_from(sorted(FIELDS)))
    value = {name: draw(VALUES) for name in FIELDS[path] if draw(st.booleans())}
    body = bytearray(
        json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    )
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return path, bytes(body)


@settings(FUZZ, max_examples=1500)
@given(asked=json_bodies())
def test_json_of_any_kind_is_answered_or_refused(
    client: TestClient, asked: tuple[str, bytes]
) -> None:
    """Of each route, with images in base64 that are damaged."""
    check(client, *asked, kind="application/json")


_NAMES = st.sampled_from(
    [b"text", b"k", b"filters", b"explain", b"image", b"", b"\xff", b"a\x1b[2J"]
)
_HEADS = st.sampled_from(
    [
        b"",
        b'; filename="x.png"',
        b'; filename="\xff\x1b]0;x\x07"',
        b"; filename*=utf-8''%ff",
        b'; filename="',
    ]
)
_BODIES = st.one_of(
    st.binary(max_size=60),
    damaged(),
    st.sampled_from([b"fox", b"3", b"true", b'{"where": "k"}', b"\xed\xa0\x80"]),
)


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, str]:
    """A multipart body of odd parts, sometimes with bytes set, and an odd content type."""
    body = bytearray()
    for _ in range(draw(st.integers(0, 4))):
        head = b'Content-Disposition: form-data; name="' + draw(_NAMES) + b'"' + draw(_HEADS)
        body += (
            b"--b\r\n"
            + head
            + b"\r\n\r\n"
            + draw(_BODIES)
            + draw(st.sampled_from([b"\r\n", b"\n", b""]))
        )
    body += draw(st.sampled_from([b"--b--\r\n", b"--b--", b"--b", b""]))
    for _ in range(draw(st.sampled_from([0, 0, 1, 4])) if body else 0):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    ends = [
        "; boundary=b",
        '; boundary="b"',
        "; boundary=b; charset=utf-8",
        "; boundary=b; charset=idna",
        "; boundary=\xff",
        "",
    ]
    return bytes(body), "multipart/form-data" + draw(st.sampled_from(ends[:1] * 6 + ends))


@settings(FUZZ, max_examples=1500)
@given(asked=forms(), path=st.sampled_from(["/v1/query", "/v1/extract"]))
def test_forms_of_any_kind_are_answered_or_refused(
    client: TestClient, asked: tuple[bytes, str], path: str
) -> None:
    """Names, heads, line ends and files that are odd."""
    check(client, path, *asked)


@FUZZ
@given(
    text=st.text(st.sampled_from("ABCDabcd0189+/= \n\t-_,:;%data")) | st.text(max_size=80),
    before=st.sampled_from(["", "data:image/png;base64,", "data:"]),
)
def test_base64_of_any_kind_is_bytes_or_refused(text: str, before: str) -> None:
    """Alphabets, white space, padding and data URLs."""
    with suppress(HttpError):
        assert isinstance(decode_image(before + text, Limits()), bytes)
