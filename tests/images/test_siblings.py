"""Graphs of each reported kind give ComfyUI's texts, and are exact only if those are certain."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imprompt.images.prompts.comfyui import read_graph
from tests.images.choice_graphs import ALL_SIBLINGS
from tests.images.graphs import SETTINGS, graph, node, sampler_of
from tests.images.sibling_graphs import Sibling

CASES = {
    f"{kind}: {name}": sibling
    for kind, siblings in ALL_SIBLINGS.items()
    for name, sibling in siblings.items()
}


@pytest.mark.parametrize("sibling", CASES.values(), ids=CASES.keys())
def test_a_graph_of_a_reported_kind_is_computed(sibling: Sibling) -> None:
    """A text that is None: nothing in the file is this picture's prompt."""
    nodes, positive, negative, how = sibling
    found = read_graph(json.loads(json.dumps(nodes)))
    if positive is None:
        assert found is None
        return
    assert found is not None
    assert (found.prompt, found.negative) == (positive, negative)
    assert ("carried" if found.doubt else "exact") == how


_DIMENSIONS = {"width": 64, "height": 64, "batch_size": 1}
SIZES: dict[str, tuple[dict[str, Any], int, str]] = {
    "linked numbers": (
        node("EmptyLatentImage", width=["w", 0], height=["h", 0], batch_size=1),
        0,
        "832x1216",
    ),
    "rgthree's menu": (
        node(
            "SDXL Empty Latent Image (rgthree)", dimensions=" 832 x 1216  (portrait)", batch_size=1
        ),
        0,
        "832x1216",
    ),
    "essentials' menu": (
        node(
            "SDXLEmptyLatentSizePicker+",
            resolution="832x1216 (0.68)",
            width_override=0,
            height_override=0,
        ),
        0,
        "832x1216",
    ),
    "essentials, typed": (
        node(
            "SDXLEmptyLatentSizePicker+",
            resolution="64x64 (1.0)",
            width_override=832,
            height_override=1216,
        ),
        0,
        "832x1216",
    ),
    "Comfyroll's menu": (
        node(
            "CR SDXL Aspect Ratio",
            aspect_ratio="13:19 portrait 832x1216",
            swap_dimensions="Off",
            **_DIMENSIONS,
        ),
        4,
        "832x1216",
    ),
    "Comfyroll, swapped": (
        node(
            "CR SDXL Aspect Ratio",
            aspect_ratio="3:2 landscape 1216x832",
            swap_dimensions="On",
            **_DIMENSIONS,
        ),
        4,
        "832x1216",
    ),
    "Comfyroll, typed": (
        node("CR SDXL Aspect Ratio", aspect_ratio="custom", swap_dimensions="Off", **_DIMENSIONS),
        4,
        "64x64",
    ),
}


@pytest.mark.parametrize("case", SIZES)
def test_the_size_is_the_one_that_the_latent_was_made_with(case: str) -> None:
    """By numbers, through links, or by a menu's text."""
    empty, slot, size = SIZES[case]
    nodes = graph(
        sampler=sampler_of(latent_image=["empty", slot]),
        empty=empty,
        w=node("PrimitiveInt", value=832),
        h=node("easy int", value=1216),
    )
    found = read_graph(nodes)
    assert found is not None
    assert found.settings["size"] == size


SETTINGS_BY_LINKS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "seeds": ({"seed": ["n", 0], "n": node("Seed (rgthree)", seed=99)}, {"seed": "99"}),
    "Easy-Use's seed": ({"seed": ["n", 0], "n": node("easy seed", seed=99)}, {"seed": "99"}),
    "an unknown constant": (
        {"steps": ["n", 0], "n": node("Nobody's Int", number=33)},
        {"steps": "33"},
    ),
    "a float": ({"cfg": ["n", 0], "n": node("PrimitiveFloat", value=5.5)}, {"cfg_scale": "5.5"}),
    "a switch of steps": (
        {
            "steps": ["n", 0],
            "n": node("ComfySwitchNode", switch=False, on_true=50, on_false=["m", 0]),
            "m": node("PrimitiveInt", value=8),
        },
        {"steps": "8"},
    ),
    "rgthree's configuration": (
        {
            "steps": ["n", 0],
            "cfg": ["n", 2],
            "sampler_name": ["n", 3],
            "scheduler": ["n", 4],
            "n": node(
                "KSampler Config (rgthree)",
                steps_total=31,
                refiner_step=20,
                cfg=3.0,
                sampler_name="ddim",
                scheduler="karras",
            ),
        },
        {"steps": "31", "cfg_scale": "3.0", "sampler": "ddim", "scheduler": "karras"},
    ),
    "a context's": (
        {
            "seed": ["n", 8],
            "model": ["n", 1],
            "n": node("Context (rgthree)", seed=99, model=["model", 0]),
        },
        {"seed": "99", "model": "own.safetensors"},
    ),
    "a model behind a switch": (
        {
            "model": ["n", 0],
            "n": node("CR Model Input Switch", Input=2, model1=["model", 0], model2=["m", 0]),
            "m": node("UNETLoader", unet_name="other.safetensors"),
        },
        {"model": "other.safetensors"},
    ),
    "a menu with a picture": (
        {
            "model": ["m", 0],
            "m": node(
                "CheckpointLoader|pysssss",
                ckpt_name={"content": "other.safetensors", "image": None},
            ),
        },
        {"model": "other.safetensors"},
    ),
}


@pytest.mark.parametrize("case", SETTINGS_BY_LINKS)
def test_settings_are_followed_through_links(case: str) -> None:
    """To whatever holds them."""
    parts, wanted = SETTINGS_BY_LINKS[case]
    nodes = {key: value for key, value in parts.items() if isinstance(value, dict)}
    inputs = {key: value for key, value in parts.items() if not isinstance(value, dict)}
    found = read_graph(graph(sampler=sampler_of(**inputs), **nodes))
    assert found is not None
    assert found.settings == SETTINGS | wanted


def test_a_graph_that_saves_nothing_is_read_from_its_last_sampler() -> None:
    """A program that takes latents over the API; several with different texts are in doubt."""
    nodes = graph()
    del nodes["save"], nodes["decode"]
    found = read_graph(nodes)
    assert found is not None
    assert (found.prompt, found.negative, found.doubt) == ("a red fox", "blurry", "")
    more = {"s2": sampler_of(positive=["y2", 0]), "y2": node("CLIPTextEncode", text="a grey hen")}
    found = read_graph(nodes | more)
    assert found is not None
    assert found.doubt
