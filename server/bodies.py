"""Request bodies, read from memory into what a route takes:

JSON or multipart, images as base64 or as files.
"""

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

from imprompt.server.http_errors import HttpError, too_large, usage
from imprompt.server.server_settings import Limits

_MAX_FIELDS = 64
_MAX_JSON_MARKS = 1_000_000
"""Brackets and commas of a JSON body: an empty list of two bytes takes sixty in memory."""
_WHITE_SPACE = b" \t\r\n\f\v"
_BOUNDARY = re.compile(r"[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]", re.ASCII)  # RFC 2046, 5.1.1
_DATA_URL = re.compile(r"data:[^,]{0,200},")
_SHOWN_ERRORS = 3

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a multipart body by name, and its files' bytes; what the client calls a file is not kept."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: list[bytes] = field(default_factory=list)


class _MemoryParser(MultiPartParser):
    """Never writes to disk: the body is in memory already, and bounded."""

    spool_max_size = 1 << 62

    def close(self) -> None:
        """Close the files, those of parts that never ended as well."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_form(request: Request, limits: Limits) -> Form:
    """The multipart body of the request.

    Raises:
        HttpError: it is no multipart body, or has too many parts.
    """
    headers = Headers({"content-type": _bare_form(request.headers.get("content-type", ""))})
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
        raise usage(
            f"The multipart body cannot be read: {reason.rstrip('.')}.",
            status=HTTPStatus.BAD_REQUEST,
        ) from error
    finally:
        parser.close()
    return form


def _bare_form(content_type: str) -> str:
    """The content type with its boundary and Latin-1 as its charset, which keeps every byte for `_utf8`.

    A client's own charset would be any codec of Python, some of which take quadratic time.
    """
    _, options = parse_options_header(content_type)
    charset = options.get(b"charset", b"utf-8").lower()
    if charset not in (b"utf-8", b"utf8"):
        raise usage("The multipart body's charset is not UTF-8.", status=HTTPStatus.BAD_REQUEST)
    if not _BOUNDARY.fullmatch(boundary := options.get(b"boundary", b"").decode("latin-1")):
        message = "The multipart body cannot be read: there is no usable boundary."
        raise usage(message, status=HTTPStatus.BAD_REQUEST)
    return f'multipart/form-data; boundary="{boundary}"; charset=latin-1'


def _utf8(latin1: str) -> str:
    try:
        return latin1.encode("latin-1").decode("utf-8")
    except UnicodeError as error:
        raise usage(
            "A field of the multipart body is not UTF-8.", status=HTTPStatus.BAD_REQUEST
        ) from error


async def read_model(model: type[Body], request: Request) -> Body:
    """The JSON body as a model.

    Raises:
        HttpError: it is a form, no JSON, or does not fit.
    """
    if is_form(request):
        message = "This takes no form."
        hint = "Send application/json."
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", message, hint=hint
        )
    return checked(model, await read_json(request))


async def read_json(request: Request) -> Any:
    """The JSON value of the body, whatever the content type says.

    Raises:
        HttpError: it is no JSON, or has too many parts.
    """
    return parse_json(await request.body())


def parse_json(content: bytes) -> Any:
    """The JSON value; raises as `read_json`.

    Its texts are valid Unicode: the decoder takes no lone surrogate.
    """
    if sum(map(content.count, (b"[", b"{", b","))) > _MAX_JSON_MARKS:
        raise too_large(f"The JSON has more than {_MAX_JSON_MARKS:,} brackets and commas.")
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise usage("The body is no JSON.", status=HTTPStatus.BAD_REQUEST) from error


def is_form(request: Request) -> bool:
    """The body is multipart; anything but that and JSON is refused.

    Raises:
        HttpError: it is of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return True
    if kind == "application/json" or kind.endswith("+json"):
        return False
    message = f"A body of type {kind[:80] or '(none)'} is not read."
    hint = "Send multipart/form-data or application/json."
    raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", message, hint=hint)


def checked(model: type[Body], value: object) -> Body:
    """The value as a model.

    Raises:
        HttpError: it does not fit; the first few reasons are named, no value is repeated.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise usage(reasons(error.errors(include_url=False, include_input=False))) from error


def reasons(errors: Sequence[Mapping[str, Any]]) -> str:
    """What pydantic or FastAPI found wrong, in one line."""
    found = [
        f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}"
        for error in errors[:_SHOWN_ERRORS]
    ]
    more = f" (and {len(errors) - _SHOWN_ERRORS} more)" if len(errors) > _SHOWN_ERRORS else ""
    return f"{'; '.join(found)}{more}."


def decode_image(text: str, limits: Limits) -> bytes:
    """The bytes of an image in base64, with or without `data:…,` before it, white space allowed.

    Raises:
        HttpError: it is no base64, or too large.
    """
    start = match.end() if (match := _DATA_URL.match(text)) else 0
    if (len(text) - start) * 3 // 4 > limits.max_image_bytes + 3:
        raise too_large(f"An image may have {limits.max_image_bytes:,} bytes.")
    try:
        return base64.b64decode(
            text[start:].encode("ascii").translate(None, _WHITE_SPACE), validate=True
        )
    except (binascii.Error, UnicodeEncodeError) as error:
        raise usage("An image is not valid base64.") from error


def check_images(images: Sequence[bytes], limits: Limits) -> None:
    """Raise `HttpError` where there are too many images, or one is too large."""
    if len(images) > limits.max_images:
        raise too_large(f"{len(images)} images were sent, the limit is {limits.max_images}.")
    if (
        largest := max((len(image) for image in images), default=0)
    ) and largest > limits.max_image_bytes:
        raise too_large(f"An image has {largest:,} bytes, the limit is {limits.max_image_bytes:,}.")


def as_json(value: object) -> Response:
    """The value as a JSON response."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def request_body(model: type[BaseModel], *, form: dict[str, Any] | None = None) -> dict[str, Any]:
    """What OpenAPI says of a body that a route reads by itself:

    JSON of a model, or multipart of the schema `form`.
    """
    content: dict[str, Any] = {"application/json": {"schema": _inlined(model.model_json_schema())}}
    if form is not None:
        content = {"multipart/form-data": {"schema": _inlined(form)}, **content}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its `$defs` put where they are meant: in OpenAPI a reference begins at the whole document."""
    definitions: dict[str, Any] = schema.get("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, list):
            return [put(item) for item in value]
        if not isinstance(value, dict):
            return value
        meant = definitions.get(str(value.get("$ref", "")).removeprefix("#/$defs/"), {})
        return {
            name: put(item)
            for name, item in {**meant, **value}.items()
            if name not in ("$ref", "$defs")
        }

    found: dict[str, Any] = put(schema)
    return found
