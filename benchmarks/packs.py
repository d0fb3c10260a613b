"""How long are packs, and what do packing and installing take? Measured on an index, then reckoned.

    python benchmarks/packs.py --index INDEX --scratch FOLDER

INDEX is a flat one by `lite`, which stays as it is; FOLDER is on the same disk. The index is also
packed with the inverted file that larger ones get. Writes figures, no prompts, to
benchmarks/results/packs.json and packs.md.
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import ROOT, machine
from imprompt.core.atomic_files import sha256_file
from imprompt.indexer.installing import install_pack
from imprompt.indexer.reindexing import reindex
from imprompt.store.index_plan import index_bytes, number_of_lists, plan_index, short_codes
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
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


def main() -> None:
    """Pack, install and verify, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    inverted = args.scratch / "inverted"
    shutil.copytree(args.index, inverted, dirs_exist_ok=True)
    with open_version(args.index) as version:
        rows, searched = version.manifest.rows, version.manifest.encoders[0]
    factory = f"IVF{number_of_lists(rows)}x2,{short_codes(searched.dim)}"
    reindex(inverted, index_factory=factory)
    one, bare = PackOptions(spaces=(searched.space,)), PackOptions(sources=False)
    variants = {
        "all spaces": measured(args.index, PackOptions(), args.scratch),
        "searched space alone": measured(args.index, one, args.scratch),
        "all spaces, without sources": measured(args.index, bare, args.scratch),
        f"all spaces, {factory}": measured(inverted, PackOptions(), args.scratch),
    }
    whole = variants[f"all spaces, {factory}"]
    parts = whole["parts"]
    result = {
        "machine": machine("pyarrow", "duckdb", "faiss-cpu"),
        "rows": rows,
        "variants": variants,
        "bytes_a_prompt": parts["prompts.jsonl"] / rows,
        "vector_share": parts["vectors"] / whole["expanded"]["vectors"],
        "index_share": parts["index"] / whole["expanded"]["index"],
        "record_bytes_a_prompt": (parts["PACK.json"] + parts["README.md"]) / rows,
    }
    result["reckoned"] = {
        kind: {name: reckoned(result, count, dims) for name, count in SIZES.items()}
        for kind, dims in KINDS.items()
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    PAGE.write_text(page(result), "utf-8")
    print(page(result))


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


def reckoned(result: dict[str, Any], rows: int, dims: tuple[int, ...]) -> int:
    """Return the length of a pack: the index, if it is no copy of the vectors, and what each row
    takes."""
    plan = plan_index(rows=rows, dim=dims[0], budget_bytes=BUDGET_BYTES)
    index = index_bytes(plan.factory, rows=rows, dim=dims[0]) if plan.n_lists else 0
    a_row: float = result["bytes_a_prompt"] + result["record_bytes_a_prompt"]
    a_row += result["vector_share"] * 2 * sum(dims)
    index_share: float = result["index_share"]
    return round(rows * a_row + index_share * index)


def page(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    described = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    lines = [
        "# Packs",
        "",
        "Written by `python benchmarks/packs.py`. Every pack was made twice, with equal bytes, and "
        "installed into another folder, where `verify` found nothing and 64 stored prompts had "
        "equal answers and scores.",
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
        "A flat index (SQfp16) is a copy of the vectors, and left out. The seconds are of one run, "
        "beside other work.",
        "",
        "## Reckoned",
        "",
        f"    length = rows · ({result['bytes_a_prompt']:.1f} + "
        f"{result['record_bytes_a_prompt']:.2f} + {result['vector_share']:.3f} · 2 · dimensions) + "
        f"{result['index_share']:.3f} · index",
        "",
        "with the dimensions of all spaces and the length of the inverted file that `plan` "
        "chooses with 24 GiB; at 100,000 there is none. The shares are those measured above; "
        "for ViT-H/14 the share of vectors is assumed to be that of `lite`.",
        "",
        f"| encoder | {' | '.join(f'{name} prompts' for name in SIZES)} |",
        f"| --- |{' ---: |' * len(SIZES)}",
    ]
    for kind, found in result["reckoned"].items():
        lines.append(f"| {kind} | {' | '.join(f'{found[name] / 1e9:.2f} GB' for name in SIZES)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
