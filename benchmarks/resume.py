"""A build killed twenty times against one that is not: both must end with the same rows and bytes.

    python benchmarks/resume.py --prompts PROMPTS.parquet --work FOLDER --leg lite --sample 110000
    python benchmarks/resume.py --prompts PROMPTS.parquet --work FOLDER --leg tower --sample 1100000

`lite` does what `build-index` does, MiniLM's vectors included. `tower` is a CLIP text tower of two
layers with random weights, fast enough for a million rows; only its space is stored. The first
kills come while the corpus is read, cleaned and numbered, each other one after a further share of
the shards, at a random moment of the next shard. FOLDER keeps the uninterrupted build for the next
call.

Writes figures, no prompts, to benchmarks/results/resume.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import ROOT, machine
from imprompt.core.values import EncoderSpec
from imprompt.store import layout
from imprompt.store.integrity import verify
from imprompt.store.manifest import Manifest, decode_manifest
from imprompt.store.publish import current_name

RESULT = ROOT / "benchmarks" / "results" / "resume.json"
KILLS = 20
EARLY_KILLS = 3
_LATEST_EARLY_KILL_S = 20.0
_LONGEST_WAIT_IN_A_SHARD_S = 30.0
_LAST_KILL = 0.85  # of the shards: the last one is short, and the build might end before the kill
_POLL_S = 0.05
TOWER = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def write_tower(folder: Path) -> None:
    """Write a CLIP of two text layers with random weights, as open_clip saves models."""
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = open_clip.CLIP(TOWER["embed_dim"], TOWER["vision_cfg"], TOWER["text_cfg"])
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    config = {
        "model_cfg": TOWER,
        "preprocess_cfg": {"mean": PreprocessCfg().mean, "std": PreprocessCfg().std},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")


def child(index: Path, prompts: Path, sample: int, tower: Path) -> None:
    """Build like `build-index`, without the vectors of MiniLM."""
    from imprompt.encoders.registry import load_encoder
    from imprompt.indexer.build import build_index
    from imprompt.indexer.readers.sources import parse_corpus

    build_index(
        index,
        [parse_corpus(str(prompts), sample=sample, seed=0)],
        load_encoder(str(tower), device="cpu"),
    )


def start(args: argparse.Namespace, index: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the build, or resume it with the same command."""
    corpus = ["--prompts", str(args.prompts), "--sample", str(args.sample)]
    words = [__file__, "--child", str(index), "--work", str(args.work), *corpus]
    if args.leg == "lite":
        corpus = ["--corpus", str(args.prompts), "--sample", str(args.sample), "--seed", "0"]
        words = ["cli.py", "build-index", "--index", str(index), *corpus, "--json"]
    with log.open("ab") as opened:
        return subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=opened
        )


def journal_lines(index: Path) -> int:
    """Return the number of steps in the journal of the unfinished build."""
    journals = list(layout.staging_root(index).glob(f"*/{layout.JOURNAL}"))
    return journals[0].read_bytes().count(b"\n") if journals else 0


def finished(args: argparse.Namespace, index: Path, log: Path) -> float:
    """Return the seconds of a build that runs to its end."""
    begin = time.monotonic()
    code = start(args, index, log).wait()
    if code:
        sys.exit(f"the build ended with {code}: {log}")
    return time.monotonic() - begin


def killed(args: argparse.Namespace, index: Path, log: Path, *, steps: int) -> dict[str, Any]:
    """Kill the build at the moments named in the module docstring, then let it end.

    Args:
        steps: lines of the journal of an uninterrupted build.
    """
    rng = random.Random(args.seed)  # noqa: S311 moments, no secrets
    seconds, moments = 0.0, []
    for kill in range(KILLS):
        begin = time.monotonic()
        build = start(args, index, log)
        if kill < EARLY_KILLS:
            time.sleep(rng.uniform(0.5, _LATEST_EARLY_KILL_S))
        else:
            target = 1 + round(
                _LAST_KILL * (steps - 1) * (kill - EARLY_KILLS) / (KILLS - 1 - EARLY_KILLS)
            )
            while journal_lines(index) < target and build.poll() is None:
                time.sleep(_POLL_S)
            time.sleep(rng.uniform(0, args.shard_s))
        if build.poll() is not None:
            sys.exit(f"the build ended with {build.returncode} before kill {kill + 1}: {log}")
        build.kill()
        build.wait()
        seconds += time.monotonic() - begin
        moments.append(journal_lines(index))
        print(f"kill {kill + 1} with {moments[-1]} of {steps} steps journaled", flush=True)
    return {
        "killed_s": seconds + finished(args, index, log),
        "steps": steps,
        "journaled_at_kills": moments,
    }


def manifest(index: Path) -> Manifest:
    """Return the manifest of the current version, after verifying every byte."""
    problems = verify(index)
    name = current_name(index)
    if problems or name is None:
        sys.exit(f"{index} is not whole: {problems}")
    path = layout.version_folder(index, name) / layout.MANIFEST
    return decode_manifest(path.read_bytes(), path=path)


def compare(whole: Manifest, broken: Manifest) -> dict[str, bool]:
    """Return which parts of the two are equal."""
    return {
        "plan": whole.plan_sha256 == broken.plan_sha256,
        "rows digest": whole.rows_digest == broken.rows_digest,
        "funnel": whole.funnel == broken.funnel,
        "vector bytes": {
            space: [shard.sha256 for shard in shards] for space, shards in whole.shards.items()
        }
        == {space: [shard.sha256 for shard in shards] for space, shards in broken.shards.items()},
        "index bytes": {info.file: whole.files[info.file] for info in whole.indexes.values()}
        == {info.file: broken.files[info.file] for info in broken.indexes.values()},
        "check_queries": whole.check_queries == broken.check_queries,
    }


def shard_times(index: Path, whole: Manifest) -> list[float]:
    """Return the seconds between shards of the searched space, by the times of their files."""
    spec: EncoderSpec = whole.encoders[0]
    folder = layout.version_folder(index, whole.version)
    times = [(folder / record.file).stat().st_mtime for record in whole.shards[spec.space]]
    return [later - earlier for earlier, later in pairwise(times)]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run both builds and compare them."""
    args.work.mkdir(parents=True, exist_ok=True)
    if args.leg == "tower" and not (args.work / "tower").exists():
        write_tower(args.work / "tower")
    whole, broken = args.work / f"{args.leg}-whole", args.work / f"{args.leg}-killed"
    if broken.exists():
        sys.exit(f"{broken} is there already; remove it to measure again")
    threads = len(os.sched_getaffinity(0))
    about: dict[str, Any] = {
        "kills": KILLS,
        "seed": args.seed,
        "threads": {"unbroken": threads, "killed": threads},
    }
    if not (whole / "CURRENT").exists():
        about["unbroken_s"] = finished(args, whole, args.work / f"{args.leg}-whole.log")
    reference = manifest(whole)
    shards = shard_times(whole, reference)
    args.shard_s = min(statistics.median(shards), _LONGEST_WAIT_IN_A_SHARD_S)
    steps = 1 + sum(map(len, reference.shards.values()))
    about |= killed(args, broken, args.work / f"{args.leg}-killed.log", steps=steps)
    equal = compare(reference, manifest(broken))
    return {
        "machine": machine("torch", "faiss-cpu", "duckdb"),
        "rows": reference.rows,
        "encoder": reference.encoders[0].name.split("/")[-1],
        "spaces": len(reference.shards),
        "shard_rows": reference.plan["shard_rows"],
        "shard_s": {"median": statistics.median(shards), "max": max(shards), "n": len(shards)},
        **about,
        "equal": equal,
    }


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--leg", choices=["lite", "tower"], default="lite")
    parser.add_argument("--sample", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.prompts.absolute(), args.sample, args.work / "tower")
        return
    args.prompts, args.work = args.prompts.absolute(), args.work.absolute()
    figures = measure(args)
    print(json.dumps(figures, indent=1))
    value = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {}
    RESULT.write_text(json.dumps(value | {args.leg: figures}, indent=1) + "\n", "utf-8")
    if not all(figures["equal"].values()):
        sys.exit("the killed build does not end as the unbroken one")


if __name__ == "__main__":
    main()
