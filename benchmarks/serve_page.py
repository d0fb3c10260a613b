"""The page of `benchmarks/serve.py` and `serve_clip.py`, from their result file alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.peer import LAYOUTS
from benchmarks.serve_load import ARCHITECTURE, CLIENTS, KINDS, N_COMPARED, N_TEXTS


def page(value: dict[str, Any]) -> str:
    """Return the whole page as Markdown."""
    about, memory = value["machine"], value["memory"]
    lines = [
        "# `serve` under load",
        "",
        f"`lite` over {value['index_rows']:,} real prompts, k = 10; {about['cpu']}, "
        f"{about['cores']} cores, {about['memory_gib']} GiB, Python {about['python']}, commit "
        f"{about['commit']}. wrk (one thread) ran on the same cores. One run of "
        f"{value['seconds_a_run']} s each after a warm-up; no refused and no broken request where "
        "none is named. Refused is 503 with Retry-After, for which wrk does not wait.",
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
        lines += clip_lines(value["clip"])
    return "\n".join([*lines, ""])


def cells(run: dict[str, Any]) -> str:
    """Return the last four columns of a run."""
    bad = (
        f" ({run['refused']} refused, {run['broken']} broken)"
        if run["refused"] or run["broken"]
        else ""
    )
    return f"{run['per_second']}{bad} | {run['p50_ms']} | {run['p95_ms']} | {run['p99_ms']}"


def peer_lines(value: dict[str, Any], rows: int) -> list[str]:
    """Return the comparison with clip-retrieval's back end by vectors."""
    about, same, chosen = value["machine"], value["peers"]["same"], value["peers"]["chosen"]
    names = {
        "imprompt": "imprompt",
        "same": f"clip-retrieval, the same index ({same['index']}, {same['index_mib']} MiB)",
        "chosen": "clip-retrieval, the index it chooses "
        f"({chosen['index']}, {chosen['index_mib']} MiB)",
    }
    lines = [
        "",
        "## Beside clip-retrieval's back end",
        "",
        "`POST /knn-service` with `embedding_input` on the same machine, commit "
        f"{about['commit']}: the same {rows:,} vectors and prompts, the same {N_TEXTS} `lite` "
        f"vectors of texts as questions, k = num_images = {value['k']}, no deduplication, "
        f"{value['seconds_a_run']} s each after a warm-up, one server after the other, each on "
        f"{about['cores']} cores that wrk shared. FAISS {about['faiss-cpu']} here, "
        f"{same['faiss']} there; clip-retrieval {same['clip_retrieval']} with its defaults, save "
        "that what downloads further models is off (multilingual CLIP, aesthetic embeddings), "
        "and JIT. One run each: no spread was measured.",
        "",
        '"The same index" is imprompt\'s own FAISS file, exact over float16, read by both. '
        "The other is what `clip-retrieval "
        "index` builds of the same vectors with its defaults: approximate, larger, tuned by it "
        f"to about 10 ms a search. Of the {value['k']} neighbours that imprompt names for each of "
        f"{N_COMPARED} questions, clip-retrieval names {same['same_neighbours']:.1%} with the "
        f"same index and {chosen['same_neighbours']:.1%} with its own.",
        "",
        "Encoding is left out here, since the back end cannot load `lite`: it started with a "
        "tiny random CLIP. The next section has texts and images.",
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
            f"- clients {clients}: {one:.2f} with the same index, {other:.2f} with the index it "
            "chooses"
        )
    return lines


def clip_lines(value: dict[str, Any]) -> list[str]:
    """Return the comparison with clip-retrieval's back end by texts and images."""
    resident = value["resident_mib"]
    lines = [
        *_clip_method(value),
        "| what | clients | server | answers a second | p50 ms | p95 ms | p99 ms |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    ratios = []
    for kind in KINDS:
        for clients in CLIENTS:
            runs = {
                server: [
                    run
                    for run in value["runs"]
                    if (run["server"], run["kind"], run["clients"]) == (server, kind, clients)
                ]
                for server in resident
            }
            lines += [
                f"| {kind} | {clients} | {server} | {_spread(rounds)} |"
                for server, rounds in runs.items()
            ]
            ratios.append(f"- {kind}, clients {clients}: {_ratio(*runs.values())}")
    return [
        *lines,
        "",
        "imprompt's answers a second for each of clip-retrieval's, round by round:",
        "",
        *ratios,
    ]


def _clip_method(value: dict[str, Any]) -> list[str]:
    """Return how the servers were compared."""
    about, peer, same, resident = (
        value["machine"],
        value["peer"],
        value["same_neighbours"],
        value["resident_mib"],
    )
    busy = ", ".join(map(str, value["load_before_rounds"]))
    seconds = ", ".join(map(str, value["seconds_a_run"]))
    return [
        "",
        "## Texts and images beside clip-retrieval's back end",
        "",
        f"`POST /knn-service` with `text`, then with `image` (base64), commit {about['commit']}: "
        f"an open_clip {ARCHITECTURE} with random weights, the same file for both, and the same "
        f"{value['rows']:,} vectors of 512 dimensions, captions and FAISS file ({peer['index']}, "
        f"{peer['index_mib']} MiB); k = num_images = {value['k']}, no deduplication; {N_TEXTS} "
        f"texts of the starter corpus, the three pictures of docs/images. {value['rounds']} "
        f"rounds of {seconds} s for 1, 8 and 64 clients, after a warm-up, the servers in turn, "
        f"each on {about['cores']} cores that wrk shared; the median by rate (of two, the "
        f"slower), and the range. torch {about['torch']}, open_clip {about['open_clip_torch']} "
        f"and {peer['open_clip']}; clip-retrieval {peer['clip_retrieval']} with its defaults, "
        "save that what downloads further models is off, and JIT. Refused is 503 with "
        "Retry-After, for which wrk does not wait.",
        "",
        f"Load of the machine before each round, of other work and of the round before: {busy}. "
        f"The servers and wrk went before other work (nice {value['group_nice']} of their group "
        "of processes).",
        "",
        f"Of the {value['k']} neighbours that one names, the other names {same['text']:.1%} for "
        f"texts and {same['image']:.1%} for images. Resident at most: imprompt "
        f"{resident['imprompt']:,.0f} MiB, clip-retrieval {resident['clip-retrieval']:,.0f} MiB.",
        "",
    ]


def _ratio(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> str:
    """Return the median and range of the ratios of rates, round by round."""
    ratios = [
        one["per_second"] / other["per_second"] for one, other in zip(ours, theirs, strict=True)
    ]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _spread(runs: Sequence[dict[str, Any]]) -> str:
    """Return the last four columns: the median run, the range of its rate, all failures."""
    rates = [run["per_second"] for run in runs]
    bad = {name: sum(run[name] for run in runs) for name in ("refused", "broken")}
    middle = sorted(runs, key=lambda run: float(run["per_second"]))[(len(runs) - 1) // 2]
    cell = cells({**middle, **bad}).split(" | ")
    return " | ".join([f"{cell[0]} ({min(rates)} to {max(rates)})", *cell[1:]])
