"""Growth of the index stage from 10,000 to 10 million prompts: time, bytes, memory, latency.

    python benchmarks/vectors.py --index INDEX --work FOLDER
        --rows 10000 31600 100000 316000 1000000 3160000 10000000
    python benchmarks/growth.py --work FOLDER --encoded INDEX

FOLDER is also that of `benchmarks/search.py`, which reuses the indexes built here. INDEX was built
without an interruption: the times of its shard files give the rate of encoding.

For each size, in its own process: the planned index is built; it is opened and queried on one core
like in `search.py`; and a whole version (the vectors in two spaces, the index, and as many made-up
prompts of 150 characters) is published by hard links and opened seven times. The exponent of a
figure is the slope of its logarithm over that of the rows, from 316,000 rows on, where all indexes
are inverted files, with its standard error.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec

from benchmarks import search
from benchmarks.machine import machine
from benchmarks.vectors import K, records_of, vectors_of
from imprompt.core.values import EncoderSpec
from imprompt.store import layout
from imprompt.store.check_queries import N_HITS, N_QUERIES
from imprompt.store.exact_index import ExactIndex
from imprompt.store.index_plan import plan_index
from imprompt.store.index_version import open_version
from imprompt.store.locking import write_lock
from imprompt.store.manifest import CheckQuery, CorpusInfo, IndexInfo, Manifest
from imprompt.store.publish import publish
from imprompt.store.shards import ShardedVectors, write_row_sums

RESULT = Path(__file__).resolve().parent / "results" / "growth.json"
SIZES = (10_000, 31_600, 100_000, 316_000, 1_000_000, 3_160_000, 10_000_000)
FITTED_FROM = 316_000
WANTED_RECALL = 0.95
OPENINGS = 7
_EFFORT = 0.5  # the root of the lists, for the first question after opening
SPACE, SECOND_SPACE = "drawn", "drawn-too"
_PROMPTS = """
CREATE TABLE prompts AS
SELECT i AS row_id, sha256(t) AS prompt_key, t AS text, t AS embedded_text, 'drawn' AS source,
       i::VARCHAR AS source_key, 1::BIGINT AS n_submitted, i AS group_id, 0::BIGINT AS n_duplicates
FROM (SELECT i, 'a ' || i || ' ' || md5(i::VARCHAR) || md5((i + 1)::VARCHAR) ||
      md5((i + 2)::VARCHAR) || md5((i + 3)::VARCHAR) AS t
      FROM range({rows}) AS numbers(i)) ORDER BY i
"""


def lay_out(folder: Path) -> Path:
    """Publish a whole version of one size, if missing; return the root of its index."""
    root, rows = folder / "root", int(folder.name)
    if layout.current_path(root).exists():
        return root
    staging = layout.staging_folder(root, "0" * 64)
    info = msgspec.json.decode((folder / "ours.json").read_bytes(), type=IndexInfo)
    vectors = vectors_of(folder.parent, rows)
    info = msgspec.structs.replace(info, effort=_EFFORT)
    shards = {}
    for space in (SPACE, SECOND_SPACE):
        shards[space] = [
            msgspec.structs.replace(record, file=layout.shard_file(space, number))
            for number, record in enumerate(records_of(folder.parent, rows))
        ]
        for record, linked in zip(records_of(folder.parent, rows), shards[space], strict=True):
            _link(folder.parent / record.file, staging / linked.file)
    for file in info.all_files:
        _link(folder / file, staging / "index" / file)
    parts = [msgspec.structs.replace(part, file=f"index/{part.file}") for part in info.parts]
    info = msgspec.structs.replace(
        info, file=f"index/{info.file}", parts=parts, sums=f"index/{info.sums}"
    )
    for space, records in shards.items():
        write_row_sums(staging, layout.row_sums_file(space), ShardedVectors(staging, records))
    write_prompts(staging / layout.PROMPTS, rows)
    manifest = Manifest(
        imprompt="0",
        plan_sha256="0" * 64,
        plan={},
        rows=rows,
        rows_digest="0" * 64,
        corpus=[CorpusInfo("drawn", "0" * 64, synthetic=True)],
        funnel={"read": rows, "kept": rows},
        encoders=[EncoderSpec(space, space, vectors.dim, 77) for space in shards],
        shards=shards,
        indexes={SPACE: info},
        check_queries={SPACE: check_queries(folder)},
        row_sums={space: layout.row_sums_file(space) for space in shards},
    )
    with write_lock(root):
        publish(root, staging, manifest)
    return root


def check_queries(folder: Path) -> list[CheckQuery]:
    """Make the check queries of a build."""
    vectors = vectors_of(folder.parent, int(folder.name))
    row_ids = np.random.default_rng(0).permutation(len(vectors))[:N_QUERIES].astype(np.int64)
    hits = ExactIndex(vectors).search(vectors.rows(row_ids), N_HITS)
    return [
        CheckQuery(int(row_id), ids.tolist(), scores.tolist())
        for row_id, ids, scores in zip(row_ids, hits.ids, hits.scores, strict=True)
    ]


def write_prompts(path: Path, rows: int) -> None:
    """Write made-up prompts of about 150 characters into a build's table."""
    import duckdb

    with duckdb.connect(
        str(path),
        config={"memory_limit": "3GB", "temp_directory": str(path.parent / layout.SPILLED)},
    ) as connection:
        connection.execute(_PROMPTS.format(rows=rows))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.hardlink_to(source)


def opening(root: Path) -> dict[str, Any]:
    """Return the ms of opening a version, libraries loaded, and of its first query."""
    question = np.load(root.parent.parent / "questions.npy")[:1]
    open_version(root).close()  # loads the libraries
    opened_ms, processor_ms, first_ms = [], [], []
    for _ in range(OPENINGS):
        began, used = time.perf_counter(), time.process_time()
        with open_version(root) as version:
            opened_ms.append((time.perf_counter() - began) * 1e3)
            processor_ms.append((time.process_time() - used) * 1e3)
            began = time.perf_counter()
            version.index(SPACE).search(question, K)
            first_ms.append((time.perf_counter() - began) * 1e3)
    return {
        "open_ms": round(float(np.median(opened_ms)), 1),
        "open_cpu_ms": round(float(np.median(processor_ms)), 1),
        "open_range_ms": [round(min(opened_ms), 1), round(max(opened_ms), 1)],
        "first_question_ms": round(float(np.median(first_ms)), 1),
        "files": sum(1 for path in root.rglob("*") if path.is_file()),
    }


def one_size(args: argparse.Namespace, rows: int) -> dict[str, Any]:
    """Return all figures of one size."""
    folder = args.work / str(rows)
    options = argparse.Namespace(work=args.work, rows=rows, peers=None, autofaiss=None)
    search.build_missing(options, "ours")
    search_figures = compared(rows) or search.run(options, "ours", "one-core")
    point = next(
        (point for point in search_figures["curve"] if point["recall_at_10"] >= WANTED_RECALL),
        search_figures["curve"][-1],
    )
    plan = plan_index(
        rows=rows, dim=np.load(folder.parent / "questions.npy").shape[1], budget_bytes=1 << 60
    )
    lay_out(folder)
    words = [sys.executable, __file__, "--child", "--work", str(args.work), "--rows", str(rows)]
    opened = json.loads(
        subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    )
    built = json.loads((folder / "ours.build.json").read_text("utf-8"))
    return {
        "factory": plan.factory,
        "parts": plan.parts,
        "build": built,
        "predicted_build_s": [round(second, 1) for second in plan.build_s],
        "predicted_build_mib": round(plan.build_memory_bytes / 2**20),
        "index_bytes": search_figures["file_bytes"],
        "predicted_index_bytes": plan.index_bytes,
        "question": point,
        "predicted_query_ms": [round(ms, 2) for ms in plan.query_ms],
        "own_mib": search_figures["own_mib"],
        **opened,
    }


def compared(rows: int) -> dict[str, Any] | None:
    """Return the figures that `search.py` measured at this size, if any."""
    result = json.loads(search.RESULT.read_text("utf-8")) if search.RESULT.exists() else {}
    figures: dict[str, Any] | None = result.get(str(rows), {}).get("engines", {}).get("ours")
    return figures


def encoded(index: Path) -> list[list[float]]:
    """Return [rows, seconds] of each shard of an index, by the times of its files.

    Seconds count from the end of cleaning. Of an index that was added to, only the last addition.
    """
    with open_version(index) as version:
        began = (version.folder / layout.PROMPTS).stat().st_mtime
        done, points = 0, []
        for record in version.manifest.shards[version.space]:
            seconds = (version.folder / record.file).stat().st_mtime - began
            if seconds > 0:
                done += record.rows
                points.append([done, round(seconds, 1)])
    return points


def exponents(sizes: dict[str, Any]) -> dict[str, list[float]]:
    """Return [exponent, standard error] of each figure, over the sizes with inverted files."""
    rows = [int(size) for size in sizes if int(size) >= FITTED_FROM]
    if len(rows) < 3:
        return {}
    figures = {
        "build_cpu_s": [sizes[str(n)]["build"]["cpu_s"] for n in rows],
        "build_peak_mib": [sizes[str(n)]["build"]["peak_mib"] for n in rows],
        "index_bytes": [sizes[str(n)]["index_bytes"] for n in rows],
        "question_ms": [sizes[str(n)]["question"]["p50_ms"] for n in rows],
        "open_ms": [sizes[str(n)]["open_ms"] for n in rows],
    }
    return {name: slope(rows, values) for name, values in figures.items()}


def slope(rows: list[int], values: list[float]) -> list[float]:
    """Return [slope, standard error] of a line through the logarithms."""
    x, y = np.log(rows), np.log(values)
    fitted = np.polyfit(x, y, 1)
    left = y - np.polyval(fitted, x)
    error = np.sqrt(left @ left / (len(x) - 2) / ((x - x.mean()) @ (x - x.mean())))
    return [round(float(fitted[0]), 2), round(float(error), 2)]


def main() -> None:
    """Parse, measure every size, fit, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="the folder of benchmarks/vectors.py"
    )
    parser.add_argument("--encoded", type=Path, help="an index of real prompts")
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--child", action="store_true")
    parser.add_argument(
        "--page", action="store_true", help="write page and plot from the results that are there"
    )
    args = parser.parse_args()
    if args.child:
        print(json.dumps(opening(args.work / str(args.rows[0]) / "root")))
        return
    result: dict[str, Any] = (
        json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"sizes": {}}
    )
    if not args.page:
        for rows in args.rows:
            result["sizes"][str(rows)] = one_size(args, rows) | {
                "machine": machine("faiss-cpu", "duckdb", "numpy")
            }
            result["sizes"] = {
                size: result["sizes"][size] for size in sorted(result["sizes"], key=int)
            }
            result["exponents"] = exponents(result["sizes"])
            RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
            print(rows, json.dumps(result["sizes"][str(rows)]), flush=True)
        if args.encoded:
            result["encoded"] = encoded(args.encoded)
            RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    from benchmarks.growth_page import write_page

    write_page(RESULT)


if __name__ == "__main__":
    main()
