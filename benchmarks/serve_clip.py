"""Texts and images through /knn-service, beside clip-retrieval's back end with the same CLIP, vectors and FAISS file.

    python benchmarks/serve_clip.py --peer PEER/bin/python --folder FOLDER      (PEER: see
    benchmarks/peer.py; needs wrk)

FOLDER gets what both servers read, once: an open_clip ViT-B-32 with random weights in one file, and
an index of 100,000 prompts of the starter corpus, numbered so that they differ, whose vectors are
random unit rows: what is found does not matter here, what it takes does. Each server then answers
texts and images for 1, 8 and 64 clients, round after round, the servers in turn. Figures go to
benchmarks/results/serve.json and serve.md.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
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

from benchmarks.machine import ROOT, machine
from benchmarks.peer import INDEX_NAME, describe, lay_out, peer_served
from benchmarks.serve import (
    CLIENTS,
    N_COMPARED,
    N_TEXTS,
    RESULT,
    WARM_S,
    K,
    cells,
    free_port,
    load,
    page,
    post,
    resident_mib,
    served,
)
from imprompt.core.values import EncoderSpec, Vectors, unit_rows
from imprompt.encoders.registry import load_encoder
from imprompt.indexer.build import BuildOptions, build_index
from imprompt.indexer.cleaning_rules import Cleaning
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.index_plan import FLAT

ROWS = 100_000
ARCHITECTURE = "ViT-B-32"
ROUNDS = 2
RUN_S = {1: 8, 8: 8, 64: 20}
"""By clients: those that wait together are answered together, and at the end of a run nothing that is still waiting counts."""
KINDS = ("text", "image")


@dataclass(frozen=True)
class RandomTexts:
    """Random unit rows in place of a text tower's, the same in every build."""

    spec: EncoderSpec
    random: np.random.Generator

    def encode(self, items: Sequence[str]) -> Vectors:
        """(n, dim) unit rows."""
        return unit_rows(
            self.random.standard_normal((len(items), self.spec.dim), dtype=np.float32),
            role="random rows",
        )

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) of no meaning."""
        return np.full(len(texts), 8, dtype=np.int64)

    def provenance(self) -> dict[str, str | int]:
        """That they are random."""
        return {"backend": "random"}


@dataclass(frozen=True)
class RandomPair:
    """A pair whose texts are random."""

    spec: EncoderSpec
    texts: RandomTexts
    images: Any = None


def prepare(folder: Path, peer: Path) -> None:
    """Weights, index, and clip-retrieval's layout of the same vectors; what is there already is kept."""
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
        options = BuildOptions(
            index_factory=FLAT, cleaning=Cleaning(near_duplicates=None)
        )  # texts that differ in a number stay
        pair = RandomPair(spec, RandomTexts(spec, np.random.default_rng(0)))
        build_index(folder / "index", [parse_corpus(str(corpus))], pair, options=options)
    if not (folder / "peer").exists():
        lay_out(folder / "index", peer, folder / "peer", layouts=("same",))


def encoder_name(folder: Path) -> str:
    """Of the weights, as both servers take it."""
    return f"{ARCHITECTURE}//{(folder / 'vit-b-32.pt').absolute()}"


def write_bodies(folder: Path) -> dict[str, Path]:
    """For each kind of question a file of bodies, one a line."""
    asked = {
        "modality": "text",
        "num_images": K,
        "num_result_ids": K,
        "indice_name": INDEX_NAME,
        "deduplicate": False,
    }
    texts = [
        {"text": prompt.text} for prompt in next(parse_corpus("starter").batches(N_TEXTS)).prompts
    ]
    files = [
        ROOT / "docs" / "images" / name for name in ("china.jpg", "flower.jpg", "lighthouse.png")
    ]
    images = [{"image": base64.b64encode(file.read_bytes()).decode()} for file in files]
    for kind, bodies in zip(KINDS, (texts, images), strict=True):
        (folder / kind).write_text(
            "".join(json.dumps({**body, **asked}) + "\n" for body in bodies), "utf-8"
        )
    return {kind: folder / kind for kind in KINDS}


@contextmanager
def answering(server: str, folder: Path, peer: Path) -> Iterator[tuple[str, int]]:
    """(address, process id) of one of the two."""
    if server == "imprompt":
        with served(folder / "index", max_batch=32) as found:
            yield found
    else:
        with peer_served(
            peer, folder / "peer", "same", free_port(), model=f"open_clip:{encoder_name(folder)}"
        ) as found:
            yield found


def measure(folder: Path, peer: Path) -> dict[str, Any]:
    """All rounds, and how far the two agree."""
    runs: list[dict[str, Any]] = []
    memory: dict[str, list[float]] = {"imprompt": [], "clip-retrieval": []}
    named: dict[str, dict[str, list[list[int]]]] = {}
    busy = []
    with tempfile.TemporaryDirectory() as scratch:
        bodies = write_bodies(Path(scratch))
        for number in range(ROUNDS):
            busy.append(round(os.getloadavg()[0], 1))
            for server in memory:
                with answering(server, folder, peer) as (address, process):
                    url = f"{address}/knn-service"
                    for kind, file in bodies.items():
                        load(address, "/knn-service", file, clients=8, seconds=WARM_S)
                        for clients in CLIENTS:
                            figures = load(
                                address,
                                "/knn-service",
                                file,
                                clients=clients,
                                seconds=RUN_S[clients],
                            )
                            runs.append(
                                {
                                    "server": server,
                                    "round": number,
                                    "kind": kind,
                                    "clients": clients,
                                    **figures,
                                }
                            )
                            print(runs[-1], flush=True)
                    memory[server].append(resident_mib(process))
                    if number == 0:
                        lines = {
                            kind: file.read_text("utf-8").splitlines()[:N_COMPARED]
                            for kind, file in bodies.items()
                        }
                        named[server] = {
                            kind: [
                                [hit["id"] for hit in post(url, json.loads(line))] for line in found
                            ]
                            for kind, found in lines.items()
                        }
    both = {
        kind: zip(named["imprompt"][kind], named["clip-retrieval"][kind], strict=True)
        for kind in KINDS
    }
    return {
        "machine": machine("torch", "open_clip_torch", "faiss-cpu"),
        "peer": describe(peer, folder / "peer", "same"),
        "rows": ROWS,
        "k": K,
        "seconds_a_run": list(RUN_S.values()),
        "rounds": ROUNDS,
        "load_before_rounds": busy,
        "group_nice": group_nice(),
        "same_neighbours": {
            kind: round(float(np.mean([len({*one} & {*other}) / K for one, other in pairs])), 4)
            for kind, pairs in both.items()
        },
        "resident_mib": {server: max(found) for server, found in memory.items()},
        "runs": runs,
    }


def group_nice() -> int:
    """Of the group of processes that Linux schedules us with; 0 where it does not tell."""
    file = Path("/proc/self/autogroup")
    return int(file.read_text("ascii").split()[-1]) if file.exists() else 0


def clip_lines(value: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    about, peer, same, resident = (
        value["machine"],
        value["peer"],
        value["same_neighbours"],
        value["resident_mib"],
    )
    busy = ", ".join(map(str, value["load_before_rounds"]))
    seconds = ", ".join(map(str, value["seconds_a_run"]))
    lines = [
        "",
        "## Texts and images beside clip-retrieval's back end",
        "",
        f"`POST /knn-service` with `text`, then with `image` (base64), commit {about['commit']}: an open_clip {ARCHITECTURE} with "
        f"random weights, the same file for both, and the same {value['rows']:,} vectors of 512 dimensions, captions and FAISS "
        f"file ({peer['index']}, {peer['index_mib']} MiB); k = num_images = {value['k']}, no deduplication; {N_TEXTS} texts of the "
        f"starter corpus, the three pictures of docs/images. {value['rounds']} rounds of {seconds} s for 1, 8 and 64 clients, "
        f"after a warm-up, the servers in turn, each on {about['cores']} cores that wrk shared; the median by rate (of two, the "
        f"slower), and the range. torch {about['torch']}, open_clip {about['open_clip_torch']} and {peer['open_clip']}; "
        f"clip-retrieval {peer['clip_retrieval']} with its defaults, save that what downloads further models is off, and JIT. "
        "Refused is 503 with Retry-After, for which wrk does not wait.",
        "",
        f"Load of the machine before each round, of other work and of the round before: {busy}. The servers and wrk went before "
        f"other work (nice {value['group_nice']} of their group of processes).",
        "",
        f"Of the {value['k']} neighbours that one names, the other names {same['text']:.1%} for texts and {same['image']:.1%} for "
        f"images. Resident at most: imprompt {resident['imprompt']:,.0f} MiB, clip-retrieval "
        f"{resident['clip-retrieval']:,.0f} MiB.",
        "",
        "| what | clients | server | answers a second | p50 ms | p95 ms | p99 ms |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    ratios = []
    for kind in KINDS:
        for clients in CLIENTS:
            found = {
                server: [
                    run
                    for run in value["runs"]
                    if (run["server"], run["kind"], run["clients"]) == (server, kind, clients)
                ]
                for server in resident
            }
            lines += [
                f"| {kind} | {clients} | {server} | {_spread(runs)} |"
                for server, runs in found.items()
            ]
            rates = [[run["per_second"] for run in runs] for runs in found.values()]
            each = [one / other for one, other in zip(*rates, strict=True)]
            ratios.append(
                f"- {kind}, clients {clients}: {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
            )
    return [
        *lines,
        "",
        "imprompt's answers a second for each of clip-retrieval's, round by round:",
        "",
        *ratios,
    ]


def _spread(runs: Sequence[dict[str, Any]]) -> str:
    """The last four columns: the median run's, with the range of the rate, and all that was refused or broken."""
    rates = [run["per_second"] for run in runs]
    bad = {name: sum(run[name] for run in runs) for name in ("refused", "broken")}
    middle = sorted(runs, key=lambda run: float(run["per_second"]))[(len(runs) - 1) // 2]
    cell = cells({**middle, **bad}).split(" | ")
    return " | ".join([f"{cell[0]} ({min(rates)} to {max(rates)})", *cell[1:]])


def main() -> None:
    """Prepare, measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--prepare", action="store_true", help="only write what both servers read")
    given = parser.parse_args()
    folder, peer = given.folder.absolute(), given.peer.absolute()
    prepare(folder, peer)
    if given.prepare:
        return
    file = RESULT.with_suffix(".json")
    value = json.loads(file.read_text("utf-8")) | {"clip": measure(folder, peer)}
    file.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    RESULT.with_suffix(".md").write_text(page(value), "utf-8")


if __name__ == "__main__":
    main()
