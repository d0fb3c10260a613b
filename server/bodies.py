"""Parses request bodies: JSON or multipart, with images as base64 or as files."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response

from imprompt.server.http_errors import HttpError, invalid_request, malformed, too_large
from imprompt.server.server_settings import Limits

_MAX_FIELDS = 64
_MAX_JSON_MARKS = 1_000_000
"""Brackets and commas in a JSON body: an empty list of two bytes takes sixty in memory."""
_WHITE_SPACE = b" \t\r\n\f\v"
_BOUNDARY = re.compile(r"[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]", re.ASCII)  # RFC 2046, 5.1.1
_DATA_URL = re.compile(r"data:[^,]{0,200},")
_SHOWN_ERRORS = 3

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart body: the values of each field and the files' bytes. File names are dropped."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: list[bytes] = field(default_factory=list)


class _MemoryParser(MultiPartParser):
    """Never writes to disk: the body is in memory already, and its size is bounded."""

    spool_max_size = 1 << 62

    def close(self) -> None:
        """Close all files, including those of unfinished parts."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_form(request: Request, limits: Limits) -> Form:
    """Return the multipart body of the request.

    Raises:
        HttpError: the body is not multipart or has too many parts.
    """
    headers = Headers({"content-type": _latin1_form(request.headers.get("content-type", ""))})
    parser = _MemoryParser(
        headers,
        request.stream(),
        max_files=limits.max_images,
        max_fields=_MAX_FIELDS,
        max_part_size=limits.max_body_bytes,
    )
    form = Form()
    try:
        for name, value in (await parser.parse()).multi_items():
            if isinstance(value, UploadFile):
                form.files.append(await value.read())
            else:
                form.fields.setdefault(_utf8(name), []).append(_utf8(value))
    except (MultiPartException, KeyError, ValueError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "it is malformed"
        raise malformed(f"The multipart body cannot be read: {reason.rstrip('.')}.") from error
    finally:
        parser.close()
    return form


def _latin1_form(content_type: str) -> str:
    """Return the content type with charset Latin-1, which preserves every byte for `_utf8`.

    The parser would accept any of Python's codecs as charset, some of which take quadratic time.
    """
    _, options = parse_options_header(content_type)
    charset = options.get(b"charset", b"utf-8").lower()
    if charset not in (b"utf-8", b"utf8"):
        raise malformed("The charset of the multipart body must be UTF-8.")
    if not _BOUNDARY.fullmatch(boundary := options.get(b"boundary", b"").decode("latin-1")):
        raise malformed("The multipart body cannot be read: its boundary is missing or invalid.")
    return f'multipart/form-data; boundary="{boundary}"; charset=latin-1'


def _utf8(latin1: str) -> str:
    try:
        return latin1.encode("latin-1").decode("utf-8")
    except UnicodeError as error:
        raise malformed("A field of the multipart body is not UTF-8.") from error


async def read_model(model: type[Body], request: Request) -> Body:
    """Return the JSON body as a model.

    Raises:
        HttpError: the body is a form, not JSON, or does not match the model.
    """
    if is_form(request):
        message = "This endpoint does not accept forms."
        hint = "Send application/json."
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", message, hint=hint
        )
    return validated(model, await read_json(request))


async def read_json(request: Request) -> Any:
    """Return the body's JSON value, ignoring the content type.

    Raises:
        HttpError: the body is not JSON or has too many elements.
    """
    return parse_json(await request.body())


def parse_json(content: bytes) -> Any:
    """Return the JSON value; raises like `read_json`.

    Its strings are valid Unicode: the decoder rejects lone surrogates.
    """
    if sum(map(content.count, (b"[", b"{", b","))) > _MAX_JSON_MARKS:
        raise too_large(f"The JSON has more than {_MAX_JSON_MARKS:,} brackets and commas.")
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed("The body is not valid JSON.") from error


def is_form(request: Request) -> bool:
    """Return True for a multipart body and False for JSON.

    Raises:
        HttpError: the content type is neither.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return True
    if kind == "application/json" or kind.endswith("+json"):
        return False
    message = f"The content type {kind[:80] or '(none)'} is not supported."
    hint = "Send multipart/form-data or application/json."
    raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", message, hint=hint)


def validated(model: type[Body], value: object) -> Body:
    """Return the value as a model.

    Raises:
        HttpError: the value does not match; the message gives the first few reasons and no value.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_request(
            reasons(error.errors(include_url=False, include_input=False))
        ) from error


def reasons(errors: Sequence[Mapping[str, Any]]) -> str:
    """Return the validation errors of pydantic or FastAPI in one line."""
    lines = [
        f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}"
        for error in errors[:_SHOWN_ERRORS]
    ]
    more = f" (and {len(errors) - _SHOWN_ERRORS} more)" if len(errors) > _SHOWN_ERRORS else ""
    return f"{'; '.join(lines)}{more}."


def decode_image(text: str, limits: Limits) -> bytes:
    """Return the bytes of a base64 image; a `data:` prefix and white space are allowed.

    Raises:
        HttpError: the text is not base64, or the image is too large.
    """
    start = match.end() if (match := _DATA_URL.match(text)) else 0
    if (len(text) - start) * 3 // 4 > limits.max_image_bytes + 3:
        raise too_large(f"An image is larger than the limit of {limits.max_image_bytes:,} bytes.")
    try:
        return base64.b64decode(
            text[start:].encode("ascii").translate(None, _WHITE_SPACE), validate=True
        )
    except (binascii.Error, UnicodeEncodeError) as error:
        raise invalid_request("An image is not valid base64.") from error


def check_images(images: Sequence[bytes], limits: Limits) -> None:
    """Raise `HttpError` if there are too many images or one is too large."""
    if len(images) > limits.max_images:
        raise too_large(f"{len(images)} images were sent; the limit is {limits.max_images}.")
    largest = max(map(len, images), default=0)
    if largest > limits.max_image_bytes:
        raise too_large(f"An image has {largest:,} bytes; the limit is {limits.max_image_bytes:,}.")


def check_text(text: str, limits: Limits) -> str:
    """Return the text; raises `HttpError` if it is too long."""
    if len(text) > limits.max_text_characters:
        raise too_large(
            f"A text has {len(text):,} characters; the limit is {limits.max_text_characters:,}."
        )
    return text


def json_response(value: object) -> Response:
    """Return the value as a JSON response."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def request_body(model: type[BaseModel], *, form: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the OpenAPI entry for a body that FastAPI does not parse itself.

    The body is JSON of the model or, if `form` is given, multipart of that schema.
    """
    content: dict[str, Any] = {"application/json": {"schema": _inlined(model.model_json_schema())}}
    if form is not None:
        content = {"multipart/form-data": {"schema": _inlined(form)}, **content}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with every `$ref` replaced by its definition.

    In OpenAPI a reference starts at the root of the whole document, where `$defs` does not exist.
    """
    definitions: dict[str, Any] = schema.get("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(item) for item in value]
        if not isinstance(value, dict):
            return value
        target = definitions.get(str(value.get("$ref", "")).removeprefix("#/$defs/"), {})
        merged = {**target, **value}
        return {
            name: inline(item) for name, item in merged.items() if name not in ("$ref", "$defs")
        }

    return {name: inline(item) for name, item in schema.items() if name != "$defs"}
