"""Hostile HTTP requests, byte by byte: each with what it tries and the statuses that may answer it.

`REQUESTS` is name -> (bytes of the request, what it tries, statuses). A status of 0 is a connection
that was closed without an answer. `WITH_TOKEN` are sent to a server that has a token, with it.
"""

from __future__ import annotations

import base64
import json
import struct

from tests.hostile.images import small

Entry = tuple[bytes, str, tuple[int, ...]]
TOKEN = "correct-horse-battery-staple"  # noqa: S105 of these tests alone
REFUSED = (400, 413, 415, 422)
_BASIC = "Basic " + base64.b64encode(f"user:{TOKEN}".encode()).decode()


def raw(
    body: bytes = b"",
    *headers: str,
    path: str = "/v1/search",
    kind: str = "application/json",
    host: str = "localhost",
    method: str = "POST",
    length: int | None = None,
) -> bytes:
    """One request that closes its connection."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    if body or length is not None:
        lines += [
            f"Content-Type: {kind}",
            f"Content-Length: {len(body) if length is None else length}",
        ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def asked(value: object, *headers: str, path: str = "/v1/search") -> bytes:
    """A JSON request."""
    return raw(json.dumps(value).encode(), *headers, path=path)


def form(
    *parts: bytes, kind: str = "multipart/form-data; boundary=b", path: str = "/v1/query"
) -> bytes:
    """A multipart request of parts that have their own heads."""
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    return raw(body, path=path, kind=kind)


def field(name: bytes, value: bytes) -> bytes:
    """A field of a form."""
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value


def file(name: bytes, data: bytes | None = None) -> bytes:
    """A file of a form, by what the client calls it."""
    head = b'Content-Disposition: form-data; name="image"; filename="' + name + b'"\r\n\r\n'
    return head + (small("PNG") if data is None else data)


_FOX = b'{"text": "a fox", "num_images": 1}'
_DEEP = 200_000

REQUESTS: dict[str, Entry] = {
    # Texts that are no Unicode
    "surrogate": (raw(b'{"text": "\\ud800"}'), "a lone surrogate, escaped", REFUSED),
    "surrogate-low": (raw(b'{"text": "a\\udc80b"}'), "a low one", REFUSED),
    "surrogate-bytes": (raw(b'{"text": "\xed\xa0\x80"}'), "a surrogate as bytes", REFUSED),
    "surrogate-key": (
        raw(b'{"text": "fox", "\\ud800": 1}'),
        "a surrogate as a field's name",
        REFUSED,
    ),
    "surrogate-knn": (
        raw(b'{"text": "\\ud800"}', path="/knn-service"),
        "the same for clip-retrieval",
        REFUSED,
    ),
    "surrogate-embed": (
        raw(b'{"texts": ["\\udfff"]}', path="/v1/embed"),
        "the same to embed",
        REFUSED,
    ),
    "surrogate-query": (
        raw(b'{"text": "\\ud800"}', path="/v1/query"),
        "the same to query",
        REFUSED,
    ),
    "surrogate-image": (
        raw(b'{"image": "\\ud800"}', path="/v1/extract"),
        "the same as base64",
        REFUSED,
    ),
    "surrogate-model": (
        raw(b'{"image": "", "model": "\\ud800"}', path="/sdapi/v1/interrogate"),
        "the same as a model's name",
        REFUSED,
    ),
    "surrogate-filter": (
        raw(b'{"text": "fox", "filters": {"contains": ["\\ud800"]}}'),
        "the same as a filter",
        REFUSED,
    ),
    "surrogate-form": (form(field(b"text", b"\xed\xa0\x80")), "the same in a form", REFUSED),
    "surrogate-form-filter": (
        form(field(b"text", b"fox"), field(b"filters", b'{"where": "\\ud800"}')),
        "the same in a form's JSON",
        REFUSED,
    ),
    "latin-1": (raw(b'{"text": "caf\xe9"}'), "Latin-1", REFUSED),
    "utf-16": (raw('{"text": "fox"}'.encode("utf-16")), "UTF-16", REFUSED),
    "nul": (raw(b'{"text": "a\\u0000fox"}'), "a NUL", (200, *REFUSED)),
    "controls": (raw(b'{"text": "\\u001b]0;x\\u0007"}'), "an escape sequence as a text", (200,)),
    "query-string": (
        raw(method="GET", path="/v1/info?x=%ff%ed%a0%80"),
        "no UTF-8 in the query string",
        (200,),
    ),
    "path-bytes": (
        raw(method="GET", path="/v1/prompts/%ff%00%1b[2J"),
        "no UTF-8 in the path",
        (404, 422),
    ),
    "header-bytes": (
        raw(_FOX[:17] + b"}", "X-Request-ID: \xff\xfe", "Cookie: \x80"),
        "bytes in headers",
        (200, 400),
    ),
    "request-id": (raw(b'{"text": "fox"}', "X-Request-ID: a b<script>"), "markup as an id", (200,)),
    # JSON
    "deep": (raw(b"[" * _DEEP), "200,000 brackets", REFUSED),
    "deep-object": (raw(b'{"text":' * _DEEP), "200,000 objects", REFUSED),
    "wide": (
        raw(b"[" + b"[]," * 5_000_000 + b"[]]"),
        "15 MB that take a gigabyte as lists",
        (413,),
    ),
    "wide-object": (
        raw(b'{"text": [' + b"{}," * 3_000_000 + b"{}]}"),
        "the same as objects",
        (413,),
    ),
    "long-number": (
        raw(b'{"text": "fox", "k": ' + b"9" * 1_000_000 + b"}"),
        "a number of a million digits",
        REFUSED,
    ),
    "infinite": (raw(b'{"text": "fox", "k": 1e999}'), "a number without an end", REFUSED),
    "not-a-number": (raw(b'{"text": "fox", "k": NaN}'), "no number", REFUSED),
    "twice": (raw(b'{"text": "fox", "text": 7}'), "a field twice", REFUSED),
    "unknown": (asked({"text": "fox", "__class__": "x"}), "a field that is not known", REFUSED),
    "nothing": (raw(length=0), "an empty body", REFUSED),
    "large-k": (asked({"text": "fox", "k": 10**18}), "all neighbours there are", REFUSED),
    "negative-row": (
        asked({"ids": [-1, 2**63]}, path="/metadata"),
        "rows that are not there",
        (400, 404, 422),
    ),
    "vector": (
        asked({"embedding_input": [1e308] * 384}, path="/knn-service"),
        "a vector whose square is infinite",
        (200, 400),
    ),
    "long-vector": (
        asked({"embedding_input": [1] * 900_000}, path="/knn-service"),
        "a vector of 900,000",
        REFUSED,
    ),
    # Base64 and data URLs
    "base64": (asked({"image": "@@@@"}, path="/v1/extract"), "no base64", REFUSED),
    "base64-spaces": (
        asked({"image": "A " * 10_000_000}, path="/v1/extract"),
        "ten million spaces in base64",
        REFUSED,
    ),
    "base64-unicode": (
        asked({"image": "\u2003QUJD\u00e9"}, path="/v1/extract"),
        "other letters in base64",
        REFUSED,
    ),
    "data-url": (
        asked({"image": "data:" + "a" * 5_000_000}, path="/v1/extract"),
        "a data URL without an end",
        REFUSED,
    ),
    "data-html": (
        asked({"image": "data:text/html,<script>"}, path="/v1/extract"),
        "a page as data URL",
        REFUSED,
    ),
    "url": (
        asked({"image_urls": ["file:///etc/passwd"]}, path="/v1/query"),
        "a file of the server",
        REFUSED,
    ),
    "url-surrogate": (
        raw(b'{"image_url": "http://\\ud800/"}', path="/knn-service"),
        "a surrogate in a URL",
        REFUSED,
    ),
    # Multipart
    "form-name": (
        form(file(b"../../\x1b]0;x\x07\xff.png")),
        "a file name with paths and escape sequences",
        (200,),
    ),
    "form-charset": (
        form(
            field(b"text", b"a-" * 200_000),
            kind="multipart/form-data; boundary=b; charset=punycode",
        ),
        "a codec that takes quadratic time",
        REFUSED,
    ),
    "form-escapes": (
        form(
            field(b"text", b"\\ud800"),
            kind="multipart/form-data; boundary=b; charset=unicode_escape",
        ),
        "a codec that makes surrogates",
        REFUSED,
    ),
    "form-no-boundary": (
        form(field(b"text", b"fox"), kind="multipart/form-data"),
        "no boundary",
        REFUSED,
    ),
    "form-odd-boundary": (
        form(field(b"text", b"fox"), kind='multipart/form-data; boundary="\x1b[2J\xff"'),
        "a boundary that clears the terminal",
        REFUSED,
    ),
    "form-other-boundary": (
        form(field(b"text", b"fox"), kind="multipart/form-data; boundary=c"),
        "another boundary",
        REFUSED,
    ),
    "form-broken": (
        raw(
            b"--b\r\n\x1b]0;x\x07\r\n--b2\n--b\r\r\n",
            path="/v1/query",
            kind="multipart/form-data; boundary=b",
        ),
        "line ends that are none",
        REFUSED,
    ),
    "form-no-name": (
        form(b"Content-Disposition: form-data\r\n\r\nx"),
        "a part without a name",
        REFUSED,
    ),
    "form-head": (
        form(b"X: " + b"x" * 100_000 + b"\r\n\r\nfox"),
        "a part with a large head",
        REFUSED,
    ),
    "form-heads": (form(b"X: y\r\n" * 10_000 + b"\r\nfox"), "a part with 10,000 heads", REFUSED),
    "form-fields": (form(*[field(b"text", b"fox")] * 1000), "1,000 fields", REFUSED),
    "form-files": (form(*[file(b"x")] * 100), "100 files", REFUSED),
    "form-twice": (form(field(b"text", b"fox"), field(b"text", b"cat")), "a field twice", REFUSED),
    "form-nested": (
        form(b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c--", file(b"x")),
        "a form in a form",
        (200, *REFUSED),
    ),
    "form-transfer": (
        form(
            b'Content-Disposition: form-data; name="text"\r\n'
            b"Content-Transfer-Encoding: base64\r\n\r\nZm94"
        ),
        "a part in base64",
        (200, *REFUSED),
    ),
    # Sites
    "site-form": (
        raw(_FOX, "Origin: http://evil.example", path="/knn-service", kind="text/plain"),
        "another site's form",
        (403,),
    ),
    "site-null": (
        raw(_FOX, "Origin: null", path="/knn-service", kind="text/plain"),
        "a sandboxed page",
        (403,),
    ),
    "site-fetch": (
        asked({"text": "fox"}, "Sec-Fetch-Site: cross-site"),
        "another site's script",
        (403,),
    ),
    "site-preflight": (
        raw(
            b"",
            "Origin: http://evil.example",
            "Access-Control-Request-Method: POST",
            method="OPTIONS",
        ),
        "what comes before it",
        (403,),
    ),
    "rebinding": (
        raw(b'{"text": "fox"}', host="evil.example:7861"),
        "a name that was led here",
        (421,),
    ),
    "rebinding-suffix": (
        raw(b'{"text": "fox"}', host="localhost.evil.example"),
        "one that begins like ours",
        (421,),
    ),
    "absolute": (
        raw(b'{"text": "fox"}', path="http://evil.example/v1/search", host="localhost"),
        "an address instead of a path",
        (404, 421, 400),
    ),
    # HTTP itself
    "length-short": (raw(b'{"text": "fox"}', length=5), "a length that is too short", (400, 422)),
    "length-negative": (raw(b"{}", length=-1), "a length below nothing", (400, 0)),
    "length-huge": (raw(b"{}", length=10**18), "a length of an exabyte", (413,)),
    "length-twice": (raw(b"{}", "Content-Length: 7"), "two lengths", (400, 0)),
    "length-and-chunks": (
        raw(b"5\r\n{}   \r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
        "a length and chunks",
        (400, 422, 0),
    ),
    "chunk-size": (
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"ffffffffffffffffff\r\n{}",
        "a chunk without an end",
        (400, 0),
    ),
    "large-head": (raw(b"{}", "X: " + "x" * 200_000), "a head of 200 kB", (400, 431, 0)),
    "many-heads": (raw(b"{}", *["X: y"] * 20_000), "20,000 heads", (400, 422, 431, 0)),
    "no-host": (b"POST /v1/search HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", "no host", (400, 0)),
    "old": (b"GET /v1/info HTTP/1.0\r\n\r\n", "HTTP/1.0 without a host", (421,)),
    "binary": (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(600),
        "TLS on a plain port",
        (400, 0),
    ),
    "escape-path": (
        b"GET /\x1b]0;x\x07 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "an escape sequence as a path",
        (400, 404, 0),
    ),
    "method": (raw(b"{}", method="BREW"), "a method that is none", (405,)),
    "smuggled": (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "a line end inside of a head",
        (200, 400, 0),
    ),
    "image-type": (
        raw(small("PNG"), path="/v1/query", kind="image/png"),
        "an image as the body",
        (415,),
    ),
    "gzip": (
        raw(b"\x1f\x8b" + struct.pack("<Q", 0), "Content-Encoding: gzip"),
        "a packed body",
        REFUSED,
    ),
}

WITH_TOKEN: dict[str, Entry] = {
    "kept": (
        raw(
            _FOX,
            f"Authorization: {_BASIC}",
            "Origin: http://evil.example",
            path="/knn-service",
            kind="text/plain",
        ),
        "another site's form, with the password that the browser keeps",
        (403,),
    ),
    "kept-fetch": (
        raw(
            _FOX,
            f"Authorization: {_BASIC}",
            "Sec-Fetch-Site: cross-site",
            "Origin: http://evil.example",
            path="/knn-service",
            kind="text/plain",
        ),
        "the same from a newer browser",
        (403,),
    ),
    "kept-link": (
        raw(
            b"",
            f"Authorization: {_BASIC}",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Mode: navigate",
            method="GET",
            path="/",
        ),
        "a link to the page",
        (200,),
    ),
    "program": (raw(_FOX, f"Authorization: {_BASIC}", path="/knn-service"), "a program", (200,)),
    "own-page": (
        raw(_FOX, f"Authorization: {_BASIC}", "Origin: http://localhost", path="/knn-service"),
        "the own page of an older browser",
        (200,),
    ),
    "no-token": (raw(_FOX, path="/knn-service"), "no token", (401,)),
    "odd-token": (
        raw(_FOX, "Authorization: Bearer \xff\xfe", path="/knn-service"),
        "bytes as a token",
        (401,),
    ),
    "odd-basic": (
        raw(_FOX, "Authorization: Basic //79", path="/knn-service"),
        "no UTF-8 as a password",
        (401,),
    ),
}
