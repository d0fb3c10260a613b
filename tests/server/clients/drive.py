"""Runs the real clients, `webuiapi` and `ClipClient`, against a server and records their requests.

Run in an environment of its own by `make test-clients`: python drive.py ADDRESS IMAGE RECORD.json
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import requests
import webuiapi
from PIL import Image


class Recorder:
    """Notes every request that goes through `requests`, and its answer."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self._send = requests.Session.send

    def __enter__(self) -> Recorder:
        recorder = self

        def send(
            session: requests.Session, request: requests.PreparedRequest, **settings: Any
        ) -> requests.Response:
            response = recorder._send(session, request, **settings)
            body = request.body.decode() if isinstance(request.body, bytes) else request.body
            noted = {
                "method": request.method,
                "path": request.path_url,
                "type": request.headers.get("Content-Type"),
                "body": body,
            }
            recorder.requests.append({**noted, "status": response.status_code})
            return response

        requests.Session.send = send  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *exc: object) -> None:
        requests.Session.send = self._send  # type: ignore[method-assign]


def clip_client() -> Any:
    """Return clip-retrieval's client module alone; its package would import flask and torch."""
    package = importlib.util.find_spec("clip_retrieval")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0]) / "clip_client.py"
    spec = importlib.util.spec_from_file_location("clip_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drive(address: str, picture: Path) -> dict[str, Any]:
    """What each client made of the answers."""
    host, port = address.removeprefix("http://").split(":")
    image = Image.open(picture)
    webui = webuiapi.WebUIApi(host=host, port=int(port))
    info = webui.png_info(image)
    clients = clip_client()
    knn = clients.ClipClient(
        url=f"{address}/knn-service",
        indice_name="imprompt",
        modality=clients.Modality.IMAGE,
        num_images=3,
    )
    by_text = knn.query(text="a bowl of ramen")
    return {
        "scripts": webui.get_scripts(),
        "has_controlnet": webui.has_controlnet,
        "interrogate": webui.interrogate(image).info,
        "png_info": info.info,
        "parameters": info.parameters,
        "by_text": by_text,
        "by_image": knn.query(image=str(picture)),
        "by_vector": knn.query(embedding_input=[1.0] + [0.0] * 383),
    }


def main() -> None:
    """Write {"requests", "results"} to the file named last."""
    address, picture, record = sys.argv[1:]
    with Recorder() as recorder:
        results = drive(address, Path(picture))
    Path(record).write_text(
        json.dumps({"requests": recorder.requests, "results": results}, indent=1) + "\n", "utf-8"
    )


if __name__ == "__main__":
    main()
