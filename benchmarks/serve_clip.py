"""Texts and images by /knn-service, against clip-retrieval's back end on the same CLIP and index.

    python benchmarks/serve_clip.py --peer PEER/bin/python --folder FOLDER

PEER: see benchmarks/peer.py. Needs wrk. FOLDER gets the files of both servers, once: an open_clip
ViT-B-32 with random weights, and an index of 100,000 prompts of the starter corpus, numbered so
that they differ, with random unit rows as vectors: the cost matters here, not the hits. Each server
answers texts and images for 1, 8 and 64 clients, the servers in turn, in several rounds. Writes
benchmarks/results/serve.json and serve.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.peer import describe, lay_out, peer_served
from benchmarks.serve_load import (
    ARCHITECTURE,
    CLIENTS,
    KINDS,
    N_COMPARED,
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
from imprompt.core.values import EncoderSpec, Vectors, unit_rows
from imprompt.encoders.registry import load_encoder
from imprompt.indexer.build import BuildOptions, build_index
from imprompt.indexer.cleaning_rules import Cleaning
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.index_plan import FLAT

ROWS = 100_000
ROUNDS = 2
RUN_S = {1: 8, 8: 8, 64: 20}
"""By clients: 64 are answered in large batches, and one unfinished at the end does not count."""


@dataclass(frozen=True)
class RandomTexts:
    """Random unit rows in place of a text tower's, the same in every build."""

    spec: EncoderSpec
    random: np.random.Generator

    def encode(self, items: Sequence[str]) -> Vectors:
        """Return (n, dim) unit rows."""
        return unit_rows(
            self.random.standard_normal((len(items), self.spec.dim), dtype=np.float32),
            role="random rows",
        )

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) constant lengths."""
        return np.full(len(texts), 8, dtype=np.int64)

    def provenance(self) -> dict[str, str | int]:
        """Return the provenance: random."""
        return {"backend": "random"}


@dataclass(frozen=True)
class RandomEncoder:
    """A dual encoder whose text vectors are random."""

    spec: EncoderSpec
    texts: RandomTexts
    images: Any = None


def prepare(folder: Path, peer: Path) -> None:
    """Write weights, index, and clip-retrieval's layout of the same vectors, if missing."""
    weights = folder / "vit-b-32.pt"
    if not weights.exists():
        import open_clip
        import torch

        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        torch.save(open_clip.create_model(ARCHITECTURE).state_dict(), weights)
    if not (folder / "index" / "CURRENT").exists():
        spec = load_encoder(encoder_name(folder)).spec
        texts = [
            prompt.text
            for batch in parse_corpus("starter").batches(5000)
            for prompt in batch.prompts
        ]
        corpus = folder / "prompts.txt"
        corpus.write_text(
            "".join(f"{texts[row % len(texts)]}, no. {row}\n" for row in range(ROWS)), "utf-8"
        )
        # Keep near-duplicates: these texts differ in a number only.
        options = BuildOptions(index_factory=FLAT, cleaning=Cleaning(near_duplicates=None))
        encoder = RandomEncoder(spec, RandomTexts(spec, np.random.default_rng(0)))
        build_index(folder / "index", [parse_corpus(str(corpus))], encoder, options=options)
    if not (folder / "peer").exists():
        lay_out(folder / "index", peer, folder / "peer", layouts=("same",))


def encoder_name(folder: Path) -> str:
    """Return the name of the encoder, as both servers take it."""
    return f"{ARCHITECTURE}//{(folder / 'vit-b-32.pt').absolute()}"


def write_kinds(folder: Path) -> dict[str, Path]:
    """Write the bodies of each kind; return its file."""
    write_bodies(folder / "text", (knn_body(text=text) for text in starter_texts()))
    write_bodies(folder / "image", (knn_body(image=image) for image in pictures()))
    return {kind: folder / kind for kind in KINDS}


@contextmanager
def serving(server: str, folder: Path, peer: Path) -> Iterator[tuple[str, int]]:
    """Yield (address, process id) of one of the two servers."""
    if server == "imprompt":
        with served(folder / "index", max_batch=32) as address_and_process:
            yield address_and_process
    else:
        model = f"open_clip:{encoder_name(folder)}"
        with peer_served(
            peer, folder / "peer", "same", free_port(), model=model
        ) as address_and_process:
            yield address_and_process


def measure(folder: Path, peer: Path) -> dict[str, Any]:
    """Run all rounds, and compare the hits of the two servers."""
    runs: list[dict[str, Any]] = []
    memory: dict[str, list[float]] = {"imprompt": [], "clip-retrieval": []}
    hits: dict[str, dict[str, list[set[int]]]] = {}
    load_before = []
    with tempfile.TemporaryDirectory() as scratch:
        bodies = write_kinds(Path(scratch))
        for number in range(ROUNDS):
            load_before.append(round(os.getloadavg()[0], 1))
            for server in memory:
                with serving(server, folder, peer) as (address, process):
                    about = {"server": server, "round": number}
                    runs += [about | figures for figures in run_kinds(address, bodies)]
                    memory[server].append(resident_mib(process))
                    if number == 0:
                        hits[server] = first_hits(address, bodies)
    return {
        "machine": machine("torch", "open_clip_torch", "faiss-cpu"),
        "peer": describe(peer, folder / "peer", "same"),
        "rows": ROWS,
        "k": K,
        "seconds_a_run": list(RUN_S.values()),
        "rounds": ROUNDS,
        "load_before_rounds": load_before,
        "group_nice": group_nice(),
        "same_neighbours": {
            kind: same_neighbours(hits["imprompt"][kind], hits["clip-retrieval"][kind])
            for kind in KINDS
        },
        "resident_mib": {server: max(mib) for server, mib in memory.items()},
        "runs": runs,
    }


def run_kinds(address: str, bodies: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Load one server with texts, then images, and yield the figures of each run."""
    for kind, file in bodies.items():
        load(address, "/knn-service", file, clients=8, seconds=WARM_S)
        for clients in CLIENTS:
            figures = load(address, "/knn-service", file, clients=clients, seconds=RUN_S[clients])
            figures = {"kind": kind, "clients": clients, **figures}
            print(figures, flush=True)
            yield figures


def first_hits(address: str, bodies: dict[str, Path]) -> dict[str, list[set[int]]]:
    """Return the ids found for the first bodies of each kind."""
    return {
        kind: [
            {hit["id"] for hit in post(f"{address}/knn-service", json.loads(line))}
            for line in file.read_text("utf-8").splitlines()[:N_COMPARED]
        ]
        for kind, file in bodies.items()
    }


def same_neighbours(ours: list[set[int]], theirs: list[set[int]]) -> float:
    """Return the mean share of neighbours that both servers name."""
    shares = [len(one & other) / K for one, other in zip(ours, theirs, strict=True)]
    return round(float(np.mean(shares)), 4)


def group_nice() -> int:
    """Return the nice value of this process's scheduling group, 0 if Linux does not state it."""
    file = Path("/proc/self/autogroup")
    return int(file.read_text("ascii").split()[-1]) if file.exists() else 0


def main() -> None:
    """Prepare, measure, and write figures and page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument(
        "--prepare", action="store_true", help="only write the files of both servers"
    )
    args = parser.parse_args()
    folder, peer = args.folder.absolute(), args.peer.absolute()
    prepare(folder, peer)
    if args.prepare:
        return
    file = RESULT.with_suffix(".json")
    value = json.loads(file.read_text("utf-8")) | {"clip": measure(folder, peer)}
    file.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    RESULT.with_suffix(".md").write_text(page(value), "utf-8")


if __name__ == "__main__":
    main()
