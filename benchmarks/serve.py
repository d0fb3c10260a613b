"""Load on one server on loopback: throughput and latency at 1, 8 and 64 clients.

    python benchmarks/serve.py --index INDEX        (needs wrk: apt-get install wrk)

Texts (prompts of the starter corpus) and images (three of docs/images), with and without
micro-batching. wrk loads the server with one thread, on the same machine. Writes
benchmarks/results/serve.json and serve.md.

    python benchmarks/serve.py --index INDEX --peer PEER/bin/python --peer-folder FOLDER

measures only /knn-service with vectors, of this server and of clip-retrieval's back end
(benchmarks/peer.py prepares FOLDER), and adds the comparison to serve.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import machine
from benchmarks.peer import LAYOUTS, describe, peer_served
from benchmarks.serve_load import (
    CLIENTS,
    N_COMPARED,
    N_TEXTS,
    RESULT,
    WARM_S,
    K,
    free_port,
    knn_body,
    load,
    pictures,
    post,
    resident_mib,
    served,
    starter_texts,
    write_bodies,
)
from benchmarks.serve_page import page

RUN_S = 10
FLAT_REQUESTS = 10_000
FLAT_RUN_S = 8


def write_kinds(folder: Path) -> dict[str, tuple[str, Path]]:
    """Write the bodies of each kind; return its route and its file."""
    write_bodies(folder / "text", ({"text": text, "k": K} for text in starter_texts()))
    write_bodies(folder / "image", ({"images": [image], "k": K} for image in pictures()))
    return {"text": ("/v1/search", folder / "text"), "image": ("/v1/query", folder / "image")}


def measure_own(index: Path) -> dict[str, Any]:
    """Measure texts and images with and without micro-batching, and memory over many requests."""
    runs: list[dict[str, Any]] = []
    memory: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        kinds = write_kinds(Path(folder))
        for max_batch in (32, 1):
            with served(index, max_batch=max_batch) as (address, process):
                for kind, (path, bodies) in kinds.items():
                    load(address, path, bodies, clients=8, seconds=WARM_S)
                    for clients in CLIENTS:
                        figures = load(address, path, bodies, clients=clients, seconds=RUN_S)
                        runs.append(
                            {"kind": kind, "max_batch": max_batch, "clients": clients, **figures}
                        )
                        print(runs[-1], flush=True)
                if max_batch > 1:
                    memory = memory_over_requests(address, process, *kinds["text"])
    manifest = json.loads(next((index / "versions").glob("*/MANIFEST.json")).read_text("utf-8"))
    return {
        "machine": machine("torch", "faiss-cpu", "fastapi", "uvicorn", "duckdb"),
        "index_rows": manifest["rows"],
        "seconds_a_run": RUN_S,
        "runs": runs,
        "memory": memory,
    }


def memory_over_requests(
    address: str, process: int, path: str, bodies: Path
) -> list[dict[str, float]]:
    """Return the resident memory after rising numbers of requests."""
    requests = 0
    memory = [{"requests": requests, "resident_mib": resident_mib(process)}]
    while requests < FLAT_REQUESTS:
        requests += load(address, path, bodies, clients=8, seconds=FLAT_RUN_S)["requests"]
        memory.append({"requests": requests, "resident_mib": resident_mib(process)})
    return memory


def text_vectors(address: str) -> list[list[float]]:
    """Return the server's vectors of the texts, embedded by halves."""
    texts = starter_texts()
    return [
        row
        for half in (texts[: N_TEXTS // 2], texts[N_TEXTS // 2 :])
        for row in post(f"{address}/v1/embed", {"texts": half, "space": "index"})["vectors"]
    ]


def compare(index: Path, peer: Path, folder: Path) -> dict[str, Any]:
    """Measure /knn-service of this server, then of the back end with each of its indexes."""
    runs: list[dict[str, Any]] = []
    peers: dict[str, Any] = {layout: describe(peer, folder, layout) for layout in LAYOUTS}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "vectors"

        def measure(server: str, address: str) -> list[set[int]]:
            load(address, "/knn-service", file, clients=8, seconds=WARM_S)
            for clients in CLIENTS:
                figures = load(address, "/knn-service", file, clients=clients, seconds=RUN_S)
                runs.append({"server": server, "clients": clients, **figures})
                print(runs[-1], flush=True)
            return [
                {hit["id"] for hit in post(f"{address}/knn-service", body)}
                for body in bodies[:N_COMPARED]
            ]

        with served(index, max_batch=32) as (address, _):
            bodies = [knn_body(embedding_input=row) for row in text_vectors(address)]
            write_bodies(file, bodies)
            ours = measure("imprompt", address)
        for layout in LAYOUTS:
            with peer_served(peer, folder, layout, free_port()) as (address, _):
                theirs = measure(layout, address)
            same = [len(one & other) for one, other in zip(ours, theirs, strict=True)]
            peers[layout]["same_neighbours"] = round(sum(same) / (K * N_COMPARED), 4)
    return {
        "machine": machine("faiss-cpu", "fastapi", "uvicorn"),
        "seconds_a_run": RUN_S,
        "k": K,
        "peers": peers,
        "runs": runs,
    }


def main() -> None:
    """Measure, and write figures and page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--peer-folder", type=Path)
    args = parser.parse_args()
    index = args.index.absolute()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    file = RESULT.with_suffix(".json")
    value = json.loads(file.read_text("utf-8")) if file.exists() else {}
    if args.peer is None:
        value |= measure_own(index)
    elif args.peer_folder is None:
        parser.error("--peer needs --peer-folder")
    else:
        value |= {"peer": compare(index, args.peer.absolute(), args.peer_folder.absolute())}
    file.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    RESULT.with_suffix(".md").write_text(page(value), "utf-8")


if __name__ == "__main__":
    main()
