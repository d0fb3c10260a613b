"""Load on one server on loopback: throughput and latency at 1, 8 and 64 clients, with and without micro-batching, texts and images.

    python benchmarks/serve.py --index INDEX        (needs wrk: apt-get install wrk)

The load is wrk's, one thread, on the same machine as the server. Texts are prompts of the starter
corpus, images the three of docs/images. Writes figures to benchmarks/results/serve.json and
serve.md.

    python benchmarks/serve.py --index INDEX --peer PEER/bin/python --peer-folder FOLDER

measures nothing but /knn-service, asked for vectors, of this server and of clip-retrieval's back
end (benchmarks/peer.py lays out FOLDER first), and adds it to what serve.json holds.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import ROOT, machine
from benchmarks.peer import INDEX_NAME, LAYOUTS, describe, peer_served
from imprompt.indexer.readers.sources import parse_corpus

RESULT = ROOT / "benchmarks" / "results" / "serve"
CLIENTS = (1, 8, 64)
WARM_S, RUN_S = 2, 10
N_TEXTS = 500
FLAT_REQUESTS = 10_000
FLAT_RUN_S = 8
K = 10
N_COMPARED = 100


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def served(index: Path, *, max_batch: int) -> Iterator[tuple[str, int]]:
    """(address, process id) of a warm server."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    words = [
        "serve",
        "--index",
        str(index),
        "--port",
        str(port),
        "--max-batch",
        str(max_batch),
        "--quiet",
    ]
    server = subprocess.Popen(
        [sys.executable, "cli.py", *words], cwd=ROOT, stderr=subprocess.DEVNULL
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
    """What wrk measured."""
    script = ROOT / "benchmarks" / "serve.lua"
    words = [
        "wrk",
        "-t1",
        f"-c{clients}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "-s",
        str(script),
        f"{address}{path}",
        "--",
        str(bodies),
    ]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("JSON "))[5:]
    )
    return found | {
        "per_second": round((found["requests"] - found["refused"]) / found["seconds"], 1)
    }


def resident_mib(process: int) -> float:
    """Memory that the process holds now."""
    lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    return round(int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024, 1)


def write_bodies(folder: Path) -> dict[str, tuple[str, Path]]:
    """For each kind its route and a file of bodies, one a line."""
    batch = next(parse_corpus("starter").batches(N_TEXTS))
    texts = [{"text": prompt.text, "k": 10} for prompt in batch.prompts]
    files = [
        ROOT / "docs" / "images" / name for name in ("china.jpg", "flower.jpg", "lighthouse.png")
    ]
    images = [{"images": [base64.b64encode(file.read_bytes()).decode()], "k": 10} for file in files]
    kinds = {}
    for kind, path, bodies in (("text", "/v1/search", texts), ("image", "/v1/query", images)):
        (folder / kind).write_text("".join(json.dumps(body) + "\n" for body in bodies), "utf-8")
        kinds[kind] = (path, folder / kind)
    return kinds


def post(url: str, body: dict[str, Any]) -> Any:
    """The answer to one request."""
    request = urllib.request.Request(  # noqa: S310 our own server
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 our own server
        return json.load(answer)


def knn_bodies(address: str) -> list[dict[str, Any]]:
    """What both servers are asked: the index's vectors of the texts."""
    texts = [prompt.text for prompt in next(parse_corpus("starter").batches(N_TEXTS)).prompts]
    halves = (texts[: N_TEXTS // 2], texts[N_TEXTS // 2 :])
    vectors = [
        row
        for half in halves
        for row in post(f"{address}/v1/embed", {"texts": half, "space": "index"})["vectors"]
    ]
    asked = {
        "modality": "text",
        "num_images": K,
        "num_result_ids": K,
        "indice_name": INDEX_NAME,
        "deduplicate": False,
    }
    return [{"embedding_input": row, **asked} for row in vectors]


def compare(index: Path, peer: Path, folder: Path) -> dict[str, Any]:
    """/knn-service of this server, then of the back end with the same index file, then with the index that it chooses."""
    runs: list[dict[str, Any]] = []
    about: dict[str, Any] = {layout: describe(peer, folder, layout) for layout in LAYOUTS}
    with tempfile.TemporaryDirectory() as scratch:
        bodies = Path(scratch) / "vectors"

        def measure(server: str, address: str) -> list[set[int]]:
            load(address, "/knn-service", bodies, clients=8, seconds=WARM_S)
            for clients in CLIENTS:
                figures = load(address, "/knn-service", bodies, clients=clients, seconds=RUN_S)
                runs.append({"server": server, "clients": clients, **figures})
                print(runs[-1], flush=True)
            return [
                {hit["id"] for hit in post(f"{address}/knn-service", body)}
                for body in asked[:N_COMPARED]
            ]

        with served(index, max_batch=32) as (address, _):
            asked = knn_bodies(address)
            bodies.write_text("".join(json.dumps(body) + "\n" for body in asked), "utf-8")
            ours = measure("imprompt", address)
        for layout in LAYOUTS:
            with peer_served(peer, folder, layout, free_port()) as (address, _):
                theirs = measure(layout, address)
            same = [len(one & other) for one, other in zip(ours, theirs, strict=True)]
            about[layout]["same_neighbours"] = round(sum(same) / (K * N_COMPARED), 4)
    return {
        "machine": machine("faiss-cpu", "fastapi", "uvicorn"),
        "seconds_a_run": RUN_S,
        "k": K,
        "peers": about,
        "runs": runs,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--peer-folder", type=Path)
    given = parser.parse_args()
    index = given.index.absolute()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    file = RESULT.with_suffix(".json")
    value = json.loads(file.read_text("utf-8")) if file.exists() else {}
    if given.peer is None:
        value |= measure_own(index)
    elif given.peer_folder is None:
        parser.error("--peer needs --peer-folder")
    else:
        value |= {"peer": compare(index, given.peer.absolute(), given.peer_folder.absolute())}
    file.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    RESULT.with_suffix(".md").write_text(page(value), "utf-8")


def measure_own(index: Path) -> dict[str, Any]:
    """Texts and images, with and without micro-batching, and the memory over many requests."""
    runs, memory = [], []
    with tempfile.TemporaryDirectory() as folder:
        kinds = write_bodies(Path(folder))
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
                if max_batch == 1:
                    continue
                path, bodies = kinds["text"]
                total = 0
                memory.append({"requests": 0, "resident_mib": resident_mib(process)})
                while total < FLAT_REQUESTS:
                    total += load(address, path, bodies, clients=8, seconds=FLAT_RUN_S)["requests"]
                    memory.append({"requests": total, "resident_mib": resident_mib(process)})
    about = machine("torch", "faiss-cpu", "fastapi", "uvicorn", "duckdb")
    manifest = json.loads(next((index / "versions").glob("*/MANIFEST.json")).read_text("utf-8"))
    return {
        "machine": about,
        "index_rows": manifest["rows"],
        "seconds_a_run": RUN_S,
        "runs": runs,
        "memory": memory,
    }


def page(value: dict[str, Any]) -> str:
    """The figures as Markdown."""
    about, memory = value["machine"], value["memory"]
    lines = [
        "# `serve` under load",
        "",
        f"`lite` over {value['index_rows']:,} real prompts, k = 10; {about['cpu']}, {about['cores']} cores, "
        f"{about['memory_gib']} GiB, Python {about['python']}, commit {about['commit']}. wrk (one thread) ran on the same cores. "
        f"One run of {value['seconds_a_run']} s each after a warm-up; no refused and no broken request where none is named. "
        "Refused is 503 with Retry-After, for which wrk does not wait.",
        "",
        "| what | clients | micro-batching | answers a second | p50 ms | p95 ms | p99 ms |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for run in sorted(
        value["runs"], key=lambda run: (run["kind"], run["clients"], -run["max_batch"])
    ):
        batching = "no" if run["max_batch"] == 1 else f"up to {run['max_batch']}"
        lines.append(f"| {run['kind']} | {run['clients']} | {batching} | {cells(run)} |")
    lines += [
        "",
        "Memory of the process while texts are asked by 8 clients:",
        "",
        "| requests so far | resident MiB |",
        "| ---: | ---: |",
    ]
    lines += [f"| {at['requests']:,} | {at['resident_mib']} |" for at in memory]
    if "peer" in value:
        lines += peer_lines(value["peer"], value["index_rows"])
    if "clip" in value:
        from benchmarks.serve_clip import clip_lines

        lines += clip_lines(value["clip"])
    return "\n".join([*lines, ""])


def cells(run: dict[str, Any]) -> str:
    """The last four columns of a run."""
    bad = (
        f" ({run['refused']} refused, {run['broken']} broken)"
        if run["refused"] or run["broken"]
        else ""
    )
    return f"{run['per_second']}{bad} | {run['p50_ms']} | {run['p95_ms']} | {run['p99_ms']}"


def peer_lines(value: dict[str, Any], rows: int) -> list[str]:
    """The comparison with clip-retrieval's back end as Markdown."""
    about, same, chosen = value["machine"], value["peers"]["same"], value["peers"]["chosen"]
    names = {
        "imprompt": "imprompt",
        "same": f"clip-retrieval, the same index ({same['index']}, {same['index_mib']} MiB)",
        "chosen": f"clip-retrieval, the index it chooses ({chosen['index']}, {chosen['index_mib']} MiB)",
    }
    lines = [
        "",
        "## Beside clip-retrieval's back end",
        "",
        f"`POST /knn-service` with `embedding_input` on the same machine, commit {about['commit']}: the same {rows:,} vectors and "
        f"prompts, the same {N_TEXTS} `lite` vectors of texts as questions, k = num_images = {value['k']}, no deduplication, "
        f"{value['seconds_a_run']} s each after a warm-up, one server after the other, each on {about['cores']} cores that wrk "
        f"shared. FAISS {about['faiss-cpu']} here, {same['faiss']} there; clip-retrieval {same['clip_retrieval']} with its "
        "defaults, save that what downloads further models is off (multilingual CLIP, aesthetic embeddings), and JIT. "
        "One run each: no spread was measured.",
        "",
        '"The same index" is imprompt\'s own FAISS file, exact over float16, read by both. The other is what `clip-retrieval '
        "index` builds of the same vectors with its defaults: approximate, larger, tuned by it to about 10 ms a search. "
        f"Of the {value['k']} neighbours that imprompt names for each of {N_COMPARED} questions, clip-retrieval names "
        f"{same['same_neighbours']:.1%} with the same index and {chosen['same_neighbours']:.1%} with its own.",
        "",
        "Encoding is left out here, since the back end cannot load `lite`: it started with a tiny random CLIP. The next section "
        "has texts and images.",
        "",
        "| server | clients | answers a second | p50 ms | p95 ms | p99 ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {names[run['server']]} | {run['clients']} | {cells(run)} |" for run in value["runs"]
    ]
    speed = {(run["server"], run["clients"]): run["per_second"] for run in value["runs"]}
    lines += ["", "clip-retrieval's answers a second for each of imprompt's:", ""]
    for clients in CLIENTS:
        one, other = (speed[layout, clients] / speed["imprompt", clients] for layout in LAYOUTS)
        lines.append(
            f"- clients {clients}: {one:.2f} with the same index, {other:.2f} with the index it chooses"
        )
    return lines


if __name__ == "__main__":
    main()
