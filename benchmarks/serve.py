"""Load on one server on loopback: throughput and latency at 1, 8 and 64 clients, with and without micro-batching, texts and images.

    python benchmarks/serve.py --index INDEX        (needs wrk: apt-get install wrk)

The load is wrk's, one thread, on the same machine as the server. Texts are prompts of the starter corpus, images the three of
docs/images. Writes figures to benchmarks/results/serve.json and serve.md.
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
from indexer.sources import parse_corpus

RESULT = ROOT / "benchmarks" / "results" / "serve"
CLIENTS = (1, 8, 64)
WARM_S, RUN_S = 2, 10
N_TEXTS = 500
FLAT_REQUESTS = 10_000
FLAT_RUN_S = 8


@contextmanager
def served(index: Path, *, max_batch: int) -> Iterator[tuple[str, int]]:
    """(address, process id) of a warm server."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{found.getsockname()[1]}"
    words = ["serve", "--index", str(index), "--port", address.rpartition(":")[2], "--max-batch", str(max_batch), "--quiet"]
    server = subprocess.Popen([sys.executable, "cli.py", *words], cwd=ROOT, stderr=subprocess.DEVNULL)
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
    found: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("JSON "))[5:])
    return found | {"per_second": round((found["requests"] - found["refused"]) / found["seconds"], 1)}


def resident_mib(process: int) -> float:
    """Memory that the process holds now."""
    lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    return round(int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024, 1)


def write_bodies(folder: Path) -> dict[str, tuple[str, Path]]:
    """For each kind its route and a file of bodies, one a line."""
    batch = next(parse_corpus("starter").batches(N_TEXTS))
    texts = [{"text": prompt.text, "k": 10} for prompt in batch.prompts]
    files = [ROOT / "docs" / "images" / name for name in ("china.jpg", "flower.jpg", "lighthouse.png")]
    images = [{"images": [base64.b64encode(file.read_bytes()).decode()], "k": 10} for file in files]
    kinds = {}
    for kind, path, bodies in (("text", "/v1/search", texts), ("image", "/v1/query", images)):
        (folder / kind).write_text("".join(json.dumps(body) + "\n" for body in bodies), "utf-8")
        kinds[kind] = (path, folder / kind)
    return kinds


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    index = parser.parse_args().index.absolute()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    runs, memory = [], []
    with tempfile.TemporaryDirectory() as folder:
        kinds = write_bodies(Path(folder))
        for max_batch in (32, 1):
            with served(index, max_batch=max_batch) as (address, process):
                for kind, (path, bodies) in kinds.items():
                    load(address, path, bodies, clients=8, seconds=WARM_S)
                    for clients in CLIENTS:
                        figures = load(address, path, bodies, clients=clients, seconds=RUN_S)
                        runs.append({"kind": kind, "max_batch": max_batch, "clients": clients, **figures})
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
    manifest = json.loads(next((index / "generations").glob("*/MANIFEST.json")).read_text("utf-8"))
    value = {"machine": about, "index_rows": manifest["rows"], "seconds_a_run": RUN_S, "runs": runs, "memory": memory}
    RESULT.with_suffix(".json").write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    RESULT.with_suffix(".md").write_text(page(value), "utf-8")


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
    for run in sorted(value["runs"], key=lambda run: (run["kind"], run["clients"], -run["max_batch"])):
        bad = f" ({run['refused']} refused, {run['broken']} broken)" if run["refused"] or run["broken"] else ""
        batching = "no" if run["max_batch"] == 1 else f"up to {run['max_batch']}"
        figures = f"{run['per_second']}{bad} | {run['p50_ms']} | {run['p95_ms']} | {run['p99_ms']}"
        lines.append(f"| {run['kind']} | {run['clients']} | {batching} | {figures} |")
    lines += [
        "",
        "Memory of the process while texts are asked by 8 clients:",
        "",
        "| requests so far | resident MiB |",
        "| ---: | ---: |",
    ]
    lines += [f"| {at['requests']:,} | {at['resident_mib']} |" for at in memory]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
