"""`lite` on ONNX Runtime against the former code on torch, in turns, and the memory of a build.

    git worktree add FORMER e4f2112
    pip install --no-deps --target SITE efficientnet-lite-pytorch==0.1.0
    python benchmarks/lite_speed.py --former FORMER --site SITE --prompts PROMPTS.parquet
                                    --images FOLDER [--rounds 7] [--rows 100000]

Each round, the two codes encode the same prompts and the same pictures, which neither has seen, one
after the other, each in a process that has its models loaded; the pictures are decoded before. Then
this code builds an index of --rows prompts, and both build one of an eighth of them. Writes
benchmarks/results/lite_speed.json and its page: figures, no prompt and no image.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

RESULT = ROOT / "benchmarks" / "results" / "lite_speed.json"
TEXTS, IMAGES = 2048, 32
_PAGE = """# `lite` on ONNX Runtime, against torch

From `lite_speed.json`, by `benchmarks/lite_speed.py`, which writes this page. {cpu}, {cores} cores,
{memory_gib} GiB, Python {python}, ONNX Runtime {onnxruntime}, torch {torch}, commit {commit}; {n}
rounds after one that is not counted, at a load of {load} with these. The former code is that of
commit e4f2112: MiniLM and EfficientNet-Lite in torch, batches of MiniLM without padding. In each
round both encode the same {texts:,} real prompts and {images} pictures.

| | ONNX Runtime | torch | ratio, median | least to most | floor |
| --- | ---: | ---: | ---: | --- | ---: |
{rates}

The vectors of the two differ by at most {texts_differ:.1e} (prompts) and {images_differ:.1e}
(pictures) in an entry of a unit row.

| one build, its own process | prompts | peak of resident memory | seconds |
| --- | ---: | ---: | ---: |
{builds}
"""


def child(checkout: Path) -> None:
    """Encode what the lines of standard input name with the code of a checkout; print seconds."""
    spec = importlib.util.spec_from_file_location(
        "imprompt", checkout / "__init__.py", submodule_search_locations=[str(checkout)]
    )
    if spec is None or spec.loader is None:
        sys.exit(f"{checkout} is not a copy of imprompt")
    sys.modules["imprompt"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["imprompt"])
    import numpy as np
    from PIL import Image

    from imprompt.encoders.lite import load_lite

    encoder = load_lite(device="cpu")
    for line in sys.stdin:
        work = json.loads(line)
        items = work["items"]
        if work["what"] == "images":
            items = [Image.open(path).convert("RGB") for path in items]
        tower = encoder.texts if work["what"] == "texts" else encoder.images
        begin = time.perf_counter()
        rows = tower.encode(items)
        seconds = time.perf_counter() - begin
        np.save(work["out"], rows)
        print(json.dumps(seconds), flush=True)


class Code:
    """A checkout's `lite`, loaded in a process of its own."""

    def __init__(self, checkout: Path, site: Path | None) -> None:
        environment = os.environ | ({"PYTHONPATH": str(site)} if site else {})
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--child", str(checkout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def encode(self, what: str, items: list[str], out: Path) -> float:
        """Return the seconds that encoding took."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the child has no pipes")
        stdin.write(json.dumps({"what": what, "items": items, "out": str(out)}) + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            sys.exit("a child has ended")
        return float(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def in_turns(args: argparse.Namespace, prompts: list[str], work: Path) -> dict[str, Any]:
    """Encode with both codes, in turns; the first round warms up and does not count."""
    import numpy as np

    from benchmarks.encode import spread

    pictures = sorted(str(path) for path in args.images.iterdir() if path.suffix != ".parquet")
    codes = {"ours": Code(ROOT, None), "former": Code(args.former.absolute(), args.site)}
    seconds: dict[str, list[float]] = {}
    differ: dict[str, float] = {}
    loads = []
    for number in range(args.rounds + 1):
        for what, pool, size in (("texts", prompts, TEXTS), ("images", pictures, IMAGES)):
            items = pool[number * size :][:size]
            order = list(codes) if number % 2 else list(codes)[::-1]
            for name in order:
                took = codes[name].encode(what, items, work / f"{name}.npy")
                if number:
                    seconds.setdefault(f"{name}_{what}", []).append(len(items) / took)
            gap = np.abs(np.load(work / "ours.npy") - np.load(work / "former.npy")).max()
            differ[what] = max(differ.get(what, 0.0), float(gap))
        loads.append(round(os.getloadavg()[0], 1))
    for code in codes.values():
        code.close()
    ratios = {
        what: [
            ours / former
            for ours, former in zip(seconds[f"ours_{what}"], seconds[f"former_{what}"], strict=True)
        ]
        for what in ("texts", "images")
    }
    return {
        "n": args.rounds,
        "per_second": {name: spread(rates) for name, rates in seconds.items()},
        "ratio": {what: spread(rates) for what, rates in ratios.items()},
        "vectors_differ": differ,
        "load_average": loads,
    }


def build(name: str, checkout: Path, site: Path | None, corpus: Path, rows: int) -> dict[str, Any]:
    """Build an index of the first `rows` prompts by the command line; return its peak memory."""
    environment = os.environ | ({"PYTHONPATH": str(site)} if site else {})
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [
                *(sys.executable, "cli.py", "build-index", "--index", folder),
                *("--corpus", str(corpus), "--sample", str(rows), "--seed", "0"),
            ],
            cwd=checkout,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"the build of {name} ended with {process.returncode}")
        return {
            "code": name,
            "rows": rows,
            "peak_rss_mib": usage.ru_maxrss / 1024,
            "seconds": time.perf_counter() - begin,
        }


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    rates, ratio = result["per_second"], result["ratio"]
    return _PAGE.format(
        **result["machine"],
        n=result["n"],
        load=f"{min(result['load_average'])} to {max(result['load_average'])}",
        texts=TEXTS,
        images=IMAGES,
        rates="\n".join(
            f"| {said} a second | {rates[f'ours_{what}']['median']:.1f} "
            f"| {rates[f'former_{what}']['median']:.1f} | **{ratio[what]['median']:.2f}** "
            f"| {ratio[what]['min']:.2f} to {ratio[what]['max']:.2f} | {floor} |"
            for what, said, floor in (("texts", "prompts", 1.15), ("images", "pictures", 2.5))
        ),
        **{f"{what}_differ": gap for what, gap in result["vectors_differ"].items()},
        builds="\n".join(
            f"| {row['code']} | {row['rows']:,} | {row['peak_rss_mib']:.0f} MiB "
            f"| {row['seconds']:.0f} |"
            for row in result["builds"]
        ),
    )


def main() -> None:
    """Measure and write, or run as a child."""
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--former", type=Path, required=True)
    parser.add_argument("--site", type=Path)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    import numpy as np
    from pyarrow import parquet

    from benchmarks.machine import machine

    column = parquet.read_table(args.prompts, columns=["prompt"])["prompt"]
    chosen = np.random.default_rng(0).choice(len(column), (args.rounds + 1) * TEXTS, replace=False)
    prompts = [str(column[int(row)]) for row in chosen]
    former, corpus = args.former.absolute(), args.prompts.absolute()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "machine": machine("onnxruntime", "torch", "numpy"),
            **in_turns(args, prompts, Path(folder)),
            "builds": [
                build("torch", former, args.site, corpus, args.rows // 8),
                build("ONNX Runtime", ROOT, None, corpus, args.rows // 8),
                build("ONNX Runtime", ROOT, None, corpus, args.rows),
            ],
        }
    args.result.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    args.result.with_suffix(".md").write_text(page(result), "utf-8")
    print(page(result))


if __name__ == "__main__":
    main()
