"""Time to parse ComfyUI graphs of 5,000 nodes and 50 samplers that are slow for a plain walk.

    python benchmarks/graphs.py

Prints the best of five runs of each in milliseconds, and the ratio to half the nodes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from imprompt.images.prompts.comfyui import read_graph

SAMPLERS = 50
Graph = dict[str, Any]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def sampler(**inputs: Any) -> dict[str, Any]:
    return node(
        "KSampler", seed=7, steps=20, cfg=8.0, positive=["text", 0], negative=["no", 0], **inputs
    )


def chain(count: int) -> Graph:
    """Return a chain of samplers, each conditioned on some of the nodes."""
    graph = {
        "save": node("SaveImage", images=["d0", 0]),
        "no": node("CLIPTextEncode", text="blurry"),
    }
    per_sampler = count // SAMPLERS - 5
    for i in range(SAMPLERS):
        latent = [f"e{i + 1}", 0] if i + 1 < SAMPLERS else ["empty", 0]
        graph[f"d{i}"] = node("VAEDecode", samples=[f"s{i}", 0])
        graph[f"s{i}"] = sampler(latent_image=latent)
        graph[f"s{i}"]["inputs"]["positive"] = [f"c{i}.0", 0]
        graph[f"e{i}"] = node("VAEEncode", pixels=[f"d{i}", 0])
        for k in range(per_sampler):
            graph[f"c{i}.{k}"] = node("ConditioningSetArea", conditioning=[f"c{i}.{k + 1}", 0])
        graph[f"c{i}.{per_sampler}"] = node("CLIPTextEncode", text=f"text {i}")
    return graph


def before_pictures(count: int) -> Graph:
    """Return thousands of picture nodes, linked twice each, before a chain of samplers."""
    graph = {
        "save": node("SaveImage", images=["i0", 0]),
        "text": node("CLIPTextEncode", text="a fox"),
        "no": node("CLIPTextEncode", text="blurry"),
    }
    pictures = count - 2 * SAMPLERS - 3
    for i in range(pictures):
        further = [f"i{i + 1}", 0] if i + 1 < pictures else ["d0", 0]
        graph[f"i{i}"] = node(
            "ImageBlend", image1=further, image2=[f"i{min(i + 7, pictures - 1)}", 0]
        )
    for i in range(SAMPLERS):
        graph[f"d{i}"] = node("VAEDecode", samples=[f"s{i}", 0])
        graph[f"s{i}"] = sampler(
            latent_image=[f"d{i + 1}", 0] if i + 1 < SAMPLERS else ["empty", 0]
        )
    return graph


def texts(count: int) -> Graph:
    """Return a ladder of joined texts that doubles at each step."""
    graph = chain(400)
    for i in range(count - len(graph) - 3):
        graph[f"t{i}"] = node(
            "StringConcatenate", string_a=[f"t{i + 1}", 0], string_b=[f"t{i + 1}", 0], delimiter=" "
        )
    graph["both"] = node(
        "ConditioningCombine", conditioning_1=["t", 0], conditioning_2=[f"c{SAMPLERS - 1}.0", 0]
    )
    graph["t"] = node("CLIPTextEncode", text=["t0", 0])
    graph[f"s{SAMPLERS - 1}"]["inputs"]["positive"] = ["both", 0]
    return graph


def patterns(count: int) -> Graph:
    """Return regular expressions that backtrack exponentially."""
    graph = chain(400)
    for i in range(count - len(graph) - 3):
        graph[f"t{i}"] = node(
            "RegexReplace",
            string="a" * 40 + "b" if i > 90 else [f"t{i + 1}", 0],
            regex_pattern="(a+)+$",
            replace="",
        )
    graph["both"] = node(
        "ConditioningCombine", conditioning_1=["t", 0], conditioning_2=[f"c{SAMPLERS - 1}.0", 0]
    )
    graph["t"] = node("CLIPTextEncode", text=["t0", 0])
    graph[f"s{SAMPLERS - 1}"]["inputs"]["positive"] = ["both", 0]
    return graph


FORMS: dict[str, Callable[[int], Graph]] = {
    "a chain of samplers": chain,
    "samplers before pictures": before_pictures,
    "texts that double": texts,
    "patterns without end": patterns,
}


def seconds(graph: Graph) -> float:
    graph = json.loads(json.dumps(graph))
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        walk = read_graph(graph)
        best = min(best, time.perf_counter() - begun)
        if walk is None:
            raise SystemExit("The graph was not read: the figures would mean nothing.")
    return best


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    for name, form in FORMS.items():
        half, whole = seconds(form(2_500)), seconds(form(5_000))
        print(f"{name}: {1000 * whole:.0f} ms, {whole / half:.1f} times as long as half the nodes")


if __name__ == "__main__":
    main()
