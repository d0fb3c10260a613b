"""Bad input by the thousand: nothing answers 5xx, and the server lives on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from starlette.testclient import TestClient

from imprompt.server.server_settings import Limits
from tests.images.hostile_files import HOSTILE, picture_bytes
from tests.server.conftest import Serve
from tests.server.pictures import PARAMETERS, b64, png

pytestmark = pytest.mark.slow

N_IMAGES = 1000
SETTINGS = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
_KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def mutated(random: Random, originals: list[bytes]) -> bytes:
    """Return an image file cut, with bytes changed, added or removed, or joined from two files."""
    data = bytearray(random.choice(originals))
    match random.randrange(6):
        case 0:
            return bytes(data[: random.randrange(len(data))])
        case 1:
            for _ in range(random.randint(1, 40)):
                data[random.randrange(len(data))] = random.randrange(256)
        case 2:
            start = random.randrange(min(64, len(data)))
            data[start : start + random.randint(1, 8)] = random.randbytes(random.randint(1, 8))
        case 3:
            start = random.randrange(len(data))
            del data[start : start + random.randint(1, 200)]
        case 4:
            other = random.choice(originals)
            cut = random.randrange(8, 64)
            return bytes(data[:cut]) + other[cut:]
        case _:
            return (
                bytes(data[:12])
                + b"\xff" * random.randint(1, 30)
                + bytes(data[12 + random.randint(0, 30) :])
            )
    return bytes(data)


def test_a_thousand_damaged_images_are_refused_or_answered(serve: Serve) -> None:
    """Truncated files, bombs, wrong types, huge headers and polyglots never cause 5xx.

    They get 4xx or, where the picture survived, 200.
    """
    random = Random(7)  # noqa: S311 a seed, no secret
    originals = [picture_bytes(kind, (48, 40)) for kind in _KINDS] + [png(parameters=PARAMETERS)]
    polyglots = [
        b"<html><script>alert(1)</script>" + originals[0],
        originals[1] + b"PK\x03\x04" + bytes(200),
        b"%PDF-1.7\n" + originals[0],
    ]
    images = [*polyglots, *(mutated(random, originals) for _ in range(N_IMAGES - len(polyglots)))]
    statuses: dict[int, int] = {}
    with serve(limits=Limits(max_pixels=4_000_000)) as client:
        for number, image in enumerate(images):
            path = ("/v1/query", "/v1/extract")[number % 2]
            done = client.post(path, files={"image": (f"../{number}\r\n.png", image)})
            statuses[done.status_code] = statuses.get(done.status_code, 0) + 1
            assert done.status_code in (200, 400, 413, 422), (number, done.text)
        assert client.post("/v1/query", files={"image": png()}).status_code == 200
    assert statuses[422] > N_IMAGES / 4, statuses


def test_hostile_files_are_refused(client: TestClient, tmp_path: Path) -> None:
    """What the images' own suite rejects is rejected by every route that takes an image."""
    for number, (name, (make, _)) in enumerate(HOSTILE.items()):
        path = tmp_path / str(number)
        make(path)
        if not path.is_file() or path.is_symlink() or path.stat().st_size > 2_000_000:
            continue
        image = path.read_bytes()
        assert client.post("/v1/query", files={"image": image}).status_code in (400, 413, 422), name
        assert client.post("/sdapi/v1/interrogate", json={"image": b64(image)}).status_code in (
            400,
            413,
            422,
        ), name
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value
)
def test_nothing_that_the_description_allows_or_forbids_ends_in_a_fault(
    client: TestClient, mode: GenerationMode
) -> None:
    """schemathesis makes valid and invalid requests for every route; none is answered with 5xx."""
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    seen: dict[str, int] = {}
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr] # our description is valid
        ask = _asker(client, operation.label, seen)
        with suppress(Unsatisfiable):  # a route that takes nothing cannot be asked wrongly
            SETTINGS(given(operation.as_strategy(generation_mode=mode))(ask))()
    assert len(seen) >= 8, seen


def _asker(
    client: TestClient, label: str, seen: dict[str, int]
) -> Callable[[schemathesis.Case[Any]], None]:
    """Asks as a case says, and notes the highest status of its route."""

    def ask(case: schemathesis.Case[Any]) -> None:
        request = requests.Request(
            **case.as_transport_kwargs(base_url="http://localhost")
        ).prepare()
        headers = {
            str(name): str(value)
            for name, value in request.headers.items()
            if str(name).lower() != "host"
        }
        body = (
            request.body.encode("utf-8", "replace")
            if isinstance(request.body, str)
            else request.body or b""
        )
        assert isinstance(body, bytes)
        done = client.request(str(request.method), request.path_url, content=body, headers=headers)
        seen[label] = max(seen.get(label, 0), done.status_code)
        assert done.status_code < 500, (label, done.text)

    return ask
