"""Asks a running `imprompt serve`, by the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from typing import Any

ADDRESS = "http://127.0.0.1:7861"
TIMEOUT_S = 300
IMAGES_A_REQUEST = 4


def ask(address: str, route: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of one route, such as "v1/query".

    The token of the server, if it asks for one, is read from IMPROMPT_TOKEN.

    Raises:
        RuntimeError: no server answers there, or it refuses; one line says what to do.
    """
    address = address.rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise RuntimeError(f"imprompt: {address!r} is no address. It looks like {ADDRESS}")
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("IMPROMPT_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(  # noqa: S310 http or https, as checked above
        f"{address}/{route}", json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"imprompt: {_reason(error)}") from error
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"imprompt does not answer at {address}: {error}. Start it with `imprompt serve`."
        ) from error
    if not isinstance(answer, dict):
        raise RuntimeError(f"What answers at {address} is not imprompt.")
    return answer


def query(address: str, images: list[bytes], **fields: Any) -> list[dict[str, Any]]:
    """Return one result for each image file; more than a request may hold are sent in turns.

    Raises:
        RuntimeError: see `ask`; or the server is another version with other answers.
    """
    results: list[dict[str, Any]] = []
    for start in range(0, len(images), IMAGES_A_REQUEST):
        turn = images[start : start + IMAGES_A_REQUEST]
        some = [base64.b64encode(image).decode() for image in turn]
        answer = ask(address, "v1/query", {"images": some, **fields})
        found = answer.get("results")
        if not isinstance(found, list) or len(found) != len(some):
            raise RuntimeError(
                f"imprompt at {address} answers in another form than this node reads: "
                "install the node of its version."
            )
        results += found
    return results


def _reason(error: urllib.error.HTTPError) -> str:
    """Return what a refusal says (application/problem+json), or its status."""
    if error.code == 401:
        return "the server asks for a token. Set IMPROMPT_TOKEN where ComfyUI is started."
    try:
        problem = json.loads(error.read())
        return str(problem.get("detail") or problem["title"])
    except (ValueError, KeyError, AttributeError, OSError):
        return f"the server answers with status {error.code}."
