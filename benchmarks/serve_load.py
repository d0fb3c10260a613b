"""A server under the load of wrk: what `benchmarks/serve.py` and `serve_clip.py` share."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.peer import INDEX_NAME
from imprompt.indexer.readers.sources import parse_corpus

RESULT = ROOT / "benchmarks" / "results" / "serve"
ARCHITECTURE = "ViT-B-32"
KINDS = ("text", "image")
CLIENTS = (1, 8, 64)
WARM_S = 2
N_TEXTS = 500
N_COMPARED = 100
K = 10
PICTURES = ("china.jpg", "flower.jpg", "lighthouse.png")


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(index: Path, *, max_batch: int) -> Iterator[tuple[str, int]]:
    """Yield (address, process id) of a warm server."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = f"cli.py serve --port {port} --max-batch {max_batch} --quiet --index".split()
    server = subprocess.Popen(
        [sys.executable, *command, str(index)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                with urllib.request.urlopen(f"{address}/readyz", timeout=5):  # noqa: S310 our own server
                    break
            except OSError:
                if server.poll() is not None:
                    sys.exit(f"the server ended with {server.returncode}")
                time.sleep(0.2)
        yield address, server.pid
    finally:
        server.terminate()
        server.wait()


def load(address: str, path: str, bodies: Path, *, clients: int, seconds: int) -> dict[str, Any]:
    """Load a route with wrk and return its figures.

    Args:
        bodies: a file of request bodies, one a line.
    """
    command = f"wrk -t1 -c{clients} -d{seconds}s --timeout 30s -s".split()
    script = ROOT / "benchmarks" / "serve.lua"
    wrk = subprocess.run(
        [*command, script, f"{address}{path}", "--", bodies],
        check=True,
        capture_output=True,
        text=True,
    )
    line = next(line for line in wrk.stdout.splitlines() if line.startswith("JSON "))
    figures: dict[str, Any] = json.loads(line.removeprefix("JSON "))
    answered = figures["requests"] - figures["refused"]
    return figures | {"per_second": round(answered / figures["seconds"], 1)}


def write_bodies(file: Path, bodies: Iterable[dict[str, Any]]) -> None:
    """Write request bodies for `load`, one a line."""
    file.write_text("".join(json.dumps(body) + "\n" for body in bodies), "utf-8")


def knn_body(**question: Any) -> dict[str, Any]:
    """Return a body of /knn-service for K neighbours, as both servers take it."""
    return question | {
        "modality": "text",
        "num_images": K,
        "num_result_ids": K,
        "indice_name": INDEX_NAME,
        "deduplicate": False,
    }


def starter_texts() -> list[str]:
    """Return the first N_TEXTS prompts of the starter corpus."""
    return [prompt.text for prompt in next(parse_corpus("starter").batches(N_TEXTS)).prompts]


def pictures() -> list[str]:
    """Return three pictures of docs/images, in base64."""
    return [
        base64.b64encode((ROOT / "docs" / "images" / name).read_bytes()).decode()
        for name in PICTURES
    ]


def resident_mib(process: int) -> float:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    kib = next(line for line in lines if line.startswith("VmRSS")).split()[1]
    return round(int(kib) / 1024, 1)


def post(url: str, body: dict[str, Any]) -> Any:
    """Return the answer to one request."""
    request = urllib.request.Request(  # noqa: S310 our own server
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 our own server
        return json.load(answer)
