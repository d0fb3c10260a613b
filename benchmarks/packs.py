"""How long are packs, and what do packing and installing take? Measured on an index, then reckoned.

    python cli.py embed --images PICTURES --space index --index INDEX --out IMAGES.npy
    python cli.py embed --texts TEXTS --space index --index INDEX --out TEXTS.npy
    python benchmarks/packs.py --index INDEX --scratch FOLDER --texts TEXTS.npy --images IMAGES.npy

INDEX is one by `lite`, which stays as it is; FOLDER is on the same disk. A copy is packed with the
index that is planned for so many rows, and with a flat one. What int8 vectors cost is measured with
texts and images: the exact neighbours before and after. Texts that the index holds are left out.
Writes figures, no prompts, to benchmarks/results/packs.json and packs.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import ROOT, machine
from imprompt.core.atomic_files import sha256_file
from imprompt.indexer.installing import install_pack
from imprompt.indexer.reindexing import reindex
from imprompt.store.index_plan import DEFAULT_BUDGET_BYTES, FLAT, index_bytes, plan_index
from imprompt.store.index_version import IndexVersion, open_version
from imprompt.store.integrity import verify
from imprompt.store.packs.int8_vectors import quantized, restored
from imprompt.store.packs.packing import PackOptions, pack_version

RESULT = ROOT / "benchmarks" / "results" / "packs.json"
PAGE = RESULT.with_suffix(".md")
SIZES = {"100,000": 100_000, "2 M": 2_000_000, "14 M": 14_000_000}
KINDS = {
    "`lite` alone": (384,),
    "`lite` and MiniLM": (384, 384),
    "ViT-H/14 alone": (1024,),
    "ViT-H/14 and MiniLM": (1024, 384),
}
BUDGET_BYTES = 24 << 30
_HELD = 0.9999
"""From this cosine on a text stands in the index."""


def main() -> None:
    """Pack, install and verify, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True, help="an .npy file of `embed`")
    parser.add_argument("--images", type=Path, required=True, help="another")
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    planned, flat = args.scratch / "planned", args.scratch / "flat"
    for copy in (planned, flat):
        shutil.copytree(args.index, copy, dirs_exist_ok=True)
    reindex(planned, memory_budget_bytes=DEFAULT_BUDGET_BYTES)
    reindex(flat, index_factory=FLAT)
    with open_version(planned) as version:
        rows, searched = version.manifest.rows, version.manifest.encoders[0]
        cost = int8_cost(version, {"text": np.load(args.texts), "image": np.load(args.images)})
    alone = (searched.space,)
    variants = {
        "all spaces": measured(planned, PackOptions(), args.scratch),
        "searched space alone": measured(planned, PackOptions(spaces=alone), args.scratch),
        "all spaces, without sources": measured(planned, PackOptions(sources=False), args.scratch),
        "all spaces, flat index": measured(flat, PackOptions(), args.scratch),
        "all spaces, int8": measured(planned, PackOptions(int8=True), args.scratch),
        "searched space alone, int8": measured(
            planned, PackOptions(spaces=alone, int8=True), args.scratch
        ),
    }
    whole, small = variants["all spaces"], variants["all spaces, int8"]
    parts = whole["parts"]
    result = {
        "machine": machine("pyarrow", "duckdb", "faiss-cpu"),
        "rows": rows,
        "index": plan_index(rows=rows, dim=searched.dim).factory,
        "variants": variants,
        "int8_cost": cost,
        "bytes_a_prompt": parts["prompts.jsonl"] / rows,
        "vector_share": parts["vectors"] / whole["expanded"]["vectors"],
        "int8_share": small["parts"]["vectors"] / small["expanded"]["vectors"],
        "index_share": parts["index"] / whole["expanded"]["index"],
        "record_bytes_a_prompt": (parts["PACK.json"] + parts["README.md"]) / rows,
    }
    result["reckoned"] = {
        kind + (", int8" if int8 else ""): {
            name: reckoned(result, count, dims, int8=int8) for name, count in SIZES.items()
        }
        for kind, dims in KINDS.items()
        for int8 in (False, True)
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    PAGE.write_text(page(result), "utf-8")
    print(page(result))


def int8_cost(version: IndexVersion, asked: dict[str, Any]) -> dict[str, Any]:
    """Return how many exact neighbours rounding keeps, for each kind of query."""
    vectors = version.vectors(version.space)
    codes = vectors.codes(0, len(vectors))
    before = vectors.block(0, len(vectors))
    after = restored(quantized(codes)).astype(np.float32)
    after /= np.linalg.norm(after, axis=1, keepdims=True)
    cost = {}
    for kind, queries in asked.items():
        near = [_nearest(queries, rows) for rows in (before, after)]
        new = near[0][1] < _HELD  # not a stored prompt
        shares = np.array(
            [np.isin(a, b).mean() for a, b in zip(near[0][0][new], near[1][0][new], strict=True)]
        )
        rng = np.random.default_rng(0)
        means = shares[rng.integers(0, len(shares), (2000, len(shares)))].mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        cost[kind] = {
            "n": len(shares),
            "recall_at_10": round(float(shares.mean()), 4),
            "interval": [round(float(low), 4), round(float(high), 4)],
            "top_1": round(float((near[0][0][new, 0] == near[1][0][new, 0]).mean()), 4),
        }
    return cost


def _nearest(queries: Any, rows: Any) -> tuple[Any, Any]:
    """Return the (n, 10) nearest rows of each query, and the cosine of the first."""
    found, first = [], []
    for query in queries:
        cosines = rows @ query
        some = np.argpartition(-cosines, 10)[:10]
        found.append(some[np.argsort(-cosines[some], kind="stable")])
        first.append(cosines[found[-1][0]])
    return np.array(found), np.array(first)


def measured(index: Path, options: PackOptions, scratch: Path) -> dict[str, Any]:
    """Pack a version twice, install it elsewhere and verify that; return lengths and seconds."""
    path, again, root = (scratch / name for name in ("a.imprompt", "b.imprompt", "installed"))
    shutil.rmtree(root, ignore_errors=True)
    with open_version(index) as version:
        began = time.perf_counter()
        record = pack_version(version, path, options)
        pack_s = time.perf_counter() - began
        pack_version(version, again, options)
        digest = version.manifest.rows_digest
    if sha256_file(path) != sha256_file(again):
        sys.exit("the same version gave two different packs")
    began = time.perf_counter()
    report = install_pack(root, path)
    install_s = time.perf_counter() - began
    began = time.perf_counter()
    if problems := verify(root):
        sys.exit(f"what was installed is damaged: {problems}")
    verify_s = time.perf_counter() - began
    if options.sources and report.manifest.rows_digest != digest:
        sys.exit("the installed rows have another digest")
    if not options.int8:
        check_answers(index, root)
    with zipfile.ZipFile(path) as archive:
        stored = {info.filename.removesuffix(".zst"): info.file_size for info in archive.infolist()}
    expanded = {name: member.bytes for name, member in record.members.items()}
    return {
        "bytes": path.stat().st_size,
        "parts": by_part(stored),
        "expanded": by_part(expanded),
        "pack_s": pack_s,
        "install_s": install_s,
        "verify_s": verify_s,
    }


def check_answers(index: Path, root: Path) -> None:
    """End the program if the installed index answers 64 stored rows otherwise than the first."""
    with open_version(index) as one, open_version(root) as other:
        queries = one.vectors(one.space).block(0, 64)
        found = [each.index(each.space).search(queries, 10) for each in (one, other)]
        if (found[0].ids != found[1].ids).any() or (found[0].scores != found[1].scores).any():
            sys.exit("the installed index answers otherwise")


def by_part(sizes: dict[str, int]) -> dict[str, int]:
    """Add lengths up by the first part of their names."""
    parts = dict.fromkeys(("PACK.json", "README.md", "prompts.jsonl", "vectors", "index"), 0)
    for name, size in sizes.items():
        parts[name.partition("/")[0]] += size
    return parts


def reckoned(result: dict[str, Any], rows: int, dims: tuple[int, ...], *, int8: bool) -> int:
    """Return the length of a pack: the index, and what each row takes."""
    plan = plan_index(rows=rows, dim=dims[0], budget_bytes=BUDGET_BYTES)
    a_row: float = result["bytes_a_prompt"] + result["record_bytes_a_prompt"]
    a_row += result["int8_share"] * sum(dims) if int8 else result["vector_share"] * 2 * sum(dims)
    index_share: float = result["index_share"]
    return round(rows * a_row + index_share * index_bytes(plan.factory, rows=rows, dim=dims[0]))


def page(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    described = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    lines = [
        "# Packs",
        "",
        "Written by `python benchmarks/packs.py`. Every pack was made twice, with equal bytes, and "
        "installed into another folder, where `verify` found nothing and, without int8, 64 stored "
        "prompts had equal answers and scores.",
        "",
        f"{described}.",
        "",
        f"## {result['rows']:,} real prompts by `lite`, measured",
        "",
        "| pack | MB | prompts | vectors | index | pack | install | verify |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in result["variants"].items():
        sizes = [found["parts"][part] / 1e6 for part in ("prompts.jsonl", "vectors", "index")]
        seconds = [f"{found[name]:.1f} s" for name in ("pack_s", "install_s", "verify_s")]
        shown = " | ".join(f"{size:.1f}" for size in (found["bytes"] / 1e6, *sizes))
        lines.append(f"| {name} | {shown} | {' | '.join(seconds)} |")
    lines += [
        "",
        f"The index is {result['index']}; a flat one is a copy of the vectors, and left out. The "
        "seconds are of one run, beside other work.",
        "",
        "## What int8 costs",
        "",
        "The exact neighbours before and after, in the searched space; with 95 % intervals over "
        "resampled queries. Texts that the index holds are not counted.",
        "",
        "| queries | n | recall@10 | the nearest is the same |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {kind}s | {found['n']:,} | {found['recall_at_10']:.4f} ({found['interval'][0]:.4f} "
            f"to {found['interval'][1]:.4f}) | {found['top_1']:.4f} |"
            for kind, found in result["int8_cost"].items()
        ),
        "",
        "## Reckoned",
        "",
        f"    length = rows · ({result['bytes_a_prompt']:.1f} + "
        f"{result['record_bytes_a_prompt']:.2f} + {result['vector_share']:.3f} · 2 · dimensions) + "
        f"{result['index_share']:.3f} · index",
        "",
        "with the dimensions of all spaces and the length of the inverted file that `plan` "
        f"chooses with 24 GiB. With int8, {result['int8_share']:.3f} · dimensions. The shares are "
        "those measured above; for ViT-H/14 the shares of vectors are assumed to be those of "
        "`lite`.",
        "",
        f"| encoder | {' | '.join(f'{name} prompts' for name in SIZES)} |",
        f"| --- |{' ---: |' * len(SIZES)}",
    ]
    for kind, found in result["reckoned"].items():
        lines.append(f"| {kind} | {' | '.join(f'{found[name] / 1e9:.2f} GB' for name in SIZES)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
