"""read_workflow: the editor's graph alone, mapped to what the editor would send when it queues."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imprompt.images.prompts.comfyui import api_graph, read_workflow
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, read_embedded_prompt
from tests.images.editor import box, plain, workflow
from tests.images.graphs import SETTINGS, graph
from tests.images.places import field_exif, png_with, saved, text_chunk

FOX, BAD = "a red fox", "blurry"


def made(*more: dict[str, Any], **parts: Any) -> dict[str, Any]:
    subgraphs = parts.pop("subgraphs", None)
    return workflow(*plain(*more, **parts).values(), subgraphs=subgraphs)


def encode(key: int, source: tuple[int, int], **parts: Any) -> dict[str, Any]:
    """An encoder whose text is linked, as a widget turned into an input."""
    return box(
        key,
        "CLIPTextEncode",
        "old text",
        links={"clip": (4, 1), "text": source},
        types="CLIP STRING",
        out="CONDITIONING",
        widgets="text",
        **parts,
    )


NEW_STYLE = box(
    3,
    "KSampler",
    *(7, "fixed", 20, 8.0, "euler", "normal", 1.0),
    links={"model": (4, 0), "positive": (6, 0), "negative": (7, 0), "latent_image": (5, 0)},
    types="MODEL CONDITIONING CONDITIONING LATENT",
    out="LATENT",
    widgets="seed steps cfg sampler_name scheduler denoise",
)
WORKFLOWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "plain": (made(), FOX, "exact"),
    "all widgets are inputs, too": (made(NEW_STYLE), FOX, "exact"),
    "a text from another node": (
        made(encode(6, (20, 0)), box(20, "PrimitiveStringMultiline", FOX, out="STRING")),
        FOX,
        "exact",
    ),
    "an operation on texts": (
        made(encode(6, (20, 0)), box(20, "StringConcatenate", "a red", "fox", " ", out="STRING")),
        FOX,
        "exact",
    ),
    "a primitive": (
        made(encode(6, (20, 0)), box(20, "PrimitiveNode", FOX, out="STRING")),
        FOX,
        "exact",
    ),
    "reroutes": (
        made(
            encode(6, (21, 0)),
            box(21, "Reroute", links={"": (20, 0)}, out="STRING"),
            box(20, "PrimitiveString", FOX, out="STRING"),
        ),
        FOX,
        "exact",
    ),
    "Set and Get": (
        made(
            encode(6, (22, 0)),
            box(22, "GetNode", "prompt", out="STRING"),
            box(21, "SetNode", "prompt", links={"STRING": (20, 0)}, out="STRING"),
            box(20, "PrimitiveString", FOX, out="STRING"),
        ),
        FOX,
        "exact",
    ),
    "a bypassed node": (
        made(
            box(
                20,
                "ConditioningConcat",
                links={"conditioning_to": (6, 0), "conditioning_from": (21, 0)},
                types="CONDITIONING CONDITIONING",
                out="CONDITIONING",
                mode=4,
            ),
            box(
                21,
                "CLIPTextEncode",
                "a hen",
                links={"clip": (4, 1)},
                types="CLIP",
                out="CONDITIONING",
            ),
            positive=(20, 0),
        ),
        FOX,
        "exact",
    ),
    "a muted branch": (
        made(
            box(
                20,
                "Any Switch (rgthree)",
                links={"any_01": (21, 0), "any_02": (6, 0)},
                types="CONDITIONING CONDITIONING",
                out="CONDITIONING",
            ),
            box(
                21,
                "CLIPTextEncode",
                "a hen",
                links={"clip": (4, 1)},
                types="CLIP",
                out="CONDITIONING",
                mode=2,
            ),
            positive=(20, 0),
        ),
        FOX,
        "exact",
    ),
    "a muted picture": (
        made(
            box(30, "SaveImage", "own", links={"images": (31, 0)}, types="IMAGE", mode=2),
            box(31, "VAEDecode", links={"samples": (32, 0)}, types="LATENT", out="IMAGE", mode=2),
            box(
                32,
                "KSampler",
                1,
                "fixed",
                2,
                1.0,
                "euler",
                "normal",
                1.0,
                links={"positive": (33, 0)},
                types="CONDITIONING",
                out="LATENT",
            ),
            box(33, "CLIPTextEncode", "a hen", out="CONDITIONING"),
        ),
        FOX,
        "exact",
    ),
    "Prompts Everywhere": (
        made(
            box(
                20,
                "Prompts Everywhere",
                links={"CONDITIONING": (6, 0), "+ve": (7, 0)},
                types="CONDITIONING CONDITIONING",
            ),
            {
                **NEW_STYLE,
                "inputs": [
                    {"name": "model", "type": "MODEL", "from": (4, 0)},
                    {"name": "positive", "type": "CONDITIONING"},
                    {"name": "negative", "type": "CONDITIONING"},
                    {"name": "latent_image", "type": "LATENT", "from": (5, 0)},
                ],
            },
        ),
        FOX,
        "exact",
    ),
    "comments": (
        made(
            box(
                6,
                "CLIPTextEncode",
                "a red /* or grey */fox // done",
                links={"clip": (4, 1)},
                types="CLIP",
                out="CONDITIONING",
            )
        ),
        FOX,
        "exact",
    ),
    "one of several texts": (
        made(
            box(
                6,
                "CLIPTextEncode",
                "a {red|grey} fox",
                links={"clip": (4, 1)},
                types="CLIP",
                out="CONDITIONING",
            )
        ),
        "a {red|grey} fox",
        "carried",
    ),
    "an unknown node with its names": (
        made(
            encode(6, (20, 0)),
            box(20, "Nobody's Text", FOX, 3, "fixed", out="STRING", widgets="text seed"),
        ),
        FOX,
        "carried",
    ),
    "widgets as an object": (
        made(
            encode(6, (20, 0)),
            {**box(20, "PrimitiveString", out="STRING"), "widgets_values": {"value": FOX}},
        ),
        FOX,
        "exact",
    ),
    "Impact's wildcards": (
        made(
            encode(6, (20, 0)),
            box(
                20,
                "ImpactWildcardProcessor",
                "a {red|grey} fox",
                FOX,
                "populate",
                7,
                "randomize",
                "Select",
                out="STRING",
            ),
        ),
        FOX,
        "exact",
    ),
    "Seed (rgthree)": (
        made(
            box(
                3,
                "KSampler",
                *(0, "fixed", 20, 8.0, "euler", "normal", 1.0),
                links={
                    "model": (4, 0),
                    "positive": (6, 0),
                    "negative": (7, 0),
                    "latent_image": (5, 0),
                    "seed": (20, 0),
                },
                types="MODEL CONDITIONING CONDITIONING LATENT INT",
                out="LATENT",
                widgets="seed",
            ),
            box(20, "Seed (rgthree)", 7, "", "", "", out="INT"),
        ),
        FOX,
        "exact",
    ),
}


@pytest.mark.parametrize("case", WORKFLOWS)
def test_a_workflow_is_read_as_the_editor_would_queue_it(case: str) -> None:
    """Widgets by their places, links through what only the editor knows."""
    value, prompt, how = WORKFLOWS[case]
    found = read_workflow(json.loads(json.dumps(value)))
    assert found is not None
    assert (found.prompt, found.negative) == (prompt, BAD)
    assert ("carried" if found.doubt else "exact") == how
    assert found.settings == SETTINGS


def subgraph(key: str, *boxes: dict[str, Any], inputs: str, outputs: str) -> dict[str, Any]:
    """Its inputs are the outputs of node -10, its outputs the inputs of node -20."""
    inner = workflow(*boxes, as_objects=True)
    rows = {
        "inputs": [{"name": name} for name in inputs.split()],
        "outputs": [{"name": name} for name in outputs.split()],
    }
    return {"id": key, "name": key, **rows, "nodes": inner["nodes"], "links": inner["links"]}


def ends(**links: tuple[int, int]) -> dict[str, Any]:
    return box(-20, "", links=links)


ENCODER = subgraph(
    "enc",
    box(
        1,
        "CLIPTextEncode",
        "inner",
        links={"clip": (-10, 0), "text": (-10, 1)},
        types="CLIP STRING",
        out="CONDITIONING",
        widgets="text",
    ),
    ends(CONDITIONING=(1, 0)),
    inputs="clip text",
    outputs="CONDITIONING",
)
OUTER = subgraph(
    "outer",
    box(1, "enc", FOX, links={"clip": (-10, 0)}, types="CLIP", out="CONDITIONING", widgets="text"),
    ends(CONDITIONING=(1, 0)),
    inputs="clip",
    outputs="CONDITIONING",
)
SUBGRAPHS: dict[str, dict[str, Any]] = {
    "a widget of its own": box(
        6, "enc", FOX, links={"clip": (4, 1)}, types="CLIP", out="CONDITIONING", widgets="text"
    ),
    "a linked text": box(
        6,
        "enc",
        "old",
        links={"clip": (4, 1), "text": (20, 0)},
        types="CLIP STRING",
        out="CONDITIONING",
        widgets="text",
    ),
    "one inside another": box(6, "outer", links={"clip": (4, 1)}, types="CLIP", out="CONDITIONING"),
}


@pytest.mark.parametrize("case", SUBGRAPHS)
def test_subgraphs_are_unfolded(case: str) -> None:
    """Links go in and out; a widget of the subgraph stands for one inside."""
    value = made(
        SUBGRAPHS[case],
        box(20, "PrimitiveString", FOX, out="STRING"),
        subgraphs=json.loads(json.dumps([ENCODER, OUTER])),
    )
    found = read_workflow(value)
    assert found is not None
    assert (found.prompt, found.negative, found.doubt) == (FOX, BAD, "")


def test_a_bypassed_subgraph_hands_on_its_input() -> None:
    """As any bypassed node."""
    inner = subgraph(
        "style",
        box(
            1,
            "ConditioningConcat",
            links={"conditioning_to": (-10, 0), "conditioning_from": (2, 0)},
            out="CONDITIONING",
        ),
        box(2, "CLIPTextEncode", "in snow", out="CONDITIONING"),
        ends(CONDITIONING=(1, 0)),
        inputs="conditioning",
        outputs="CONDITIONING",
    )
    for mode, wanted in ((0, "a red fox, in snow"), (4, FOX)):
        outside = box(
            20,
            "style",
            links={"conditioning": (6, 0)},
            types="CONDITIONING",
            out="CONDITIONING",
            mode=mode,
        )
        found = read_workflow(
            made(outside, positive=(20, 0), subgraphs=[json.loads(json.dumps(inner))])
        )
        assert found is not None
        assert found.prompt == wanted


def test_group_nodes_are_unfolded() -> None:
    """The editor's form before subgraphs: nodes by index, widgets in one list, two outputs."""
    inside = [
        box(0, "PrimitiveString", "old", out="STRING"),
        box(
            1,
            "CLIPTextEncode",
            "older",
            links={"clip": (0, 0), "text": (0, 0)},
            out="CONDITIONING",
            widgets="text",
        ),
        box(2, "CLIPTextEncode", "old", links={"clip": (0, 0)}, out="CONDITIONING"),
    ]
    group = {
        "nodes": json.loads(json.dumps(inside)),
        "links": [[0, 0, 1, 1, 0, "STRING"]],
        "external": [[1, 0, "CONDITIONING"]],
    }
    links = {"clip": (4, 1), "CLIPTextEncode clip": (4, 1)}
    outside = box(
        6,
        "workflow>texts",
        FOX,
        "unused",
        BAD,
        links=links,
        types="CLIP CLIP",
        out="CONDITIONING CONDITIONING",
    )
    value = made(outside, positive=(6, 0), negative=(6, 1)) | {
        "extra": {"groupNodes": {"texts": group}}
    }
    found = read_workflow(value)
    assert found is not None
    assert (found.prompt, found.negative, found.doubt) == (FOX, BAD, "")
    outside["widgets_values"] = [FOX]
    found = read_workflow(value)
    assert found is None or found.doubt


def test_subgraphs_without_end_are_refused() -> None:
    """One that holds itself, and ones that double at each step."""
    itself = subgraph("a", box(1, "a"), inputs="", outputs="")
    assert api_graph(workflow(box(1, "a"), subgraphs=[itself])) is None
    ladder = [
        subgraph(f"s{n}", *(box(key, f"s{n + 1}") for key in range(9)), inputs="", outputs="")
        for n in range(8)
    ]
    assert api_graph(workflow(box(1, "s0"), subgraphs=ladder)) is None


def test_a_workflow_counts_only_where_no_graph_was_sent() -> None:
    """The graph beside it is what ran, whatever the editor showed later."""
    other = json.dumps(made(box(6, "CLIPTextEncode", "another text", out="CONDITIONING")))
    both = png_with(text_chunk("prompt", json.dumps(graph())), text_chunk("workflow", other))
    assert read_embedded_prompt(both) == EmbeddedPrompt(FOX, BAD, "ComfyUI", SETTINGS)
    text = json.dumps(made())
    for alone in (
        png_with(text_chunk("workflow", text)),
        saved("JPEG", exif=field_exif(0x010F, f"workflow:{text}")),
    ):
        assert read_embedded_prompt(alone) == EmbeddedPrompt(FOX, BAD, "ComfyUI", SETTINGS)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"nodes": [], "links": []},
        {"nodes": [1, {"id": []}], "links": [[1], {}]},
        {"nodes": 1, "links": 2},
    ],
)
def test_half_a_workflow_is_none(value: dict[str, Any]) -> None:
    """And no exception."""
    assert read_workflow(value) is None


def test_widgets_of_another_version_are_not_called_exact() -> None:
    """A number where a text belongs: the table's order is not the file's."""
    moved = box(
        6,
        "CLIPTextEncodeSDXL",
        "a red fox",
        "in snow",
        1024,
        1024,
        0,
        0,
        1024,
        1024,
        links={"clip": (4, 1)},
        types="CLIP",
        out="CONDITIONING",
    )
    found = read_workflow(made(moved))
    assert found is None or found.doubt


def test_files_of_2023_have_truth_values_behind_their_seeds() -> None:
    """Where later ones have "fixed" or "randomize"."""
    links = {"model": (4, 0), "positive": (6, 0), "negative": (7, 0), "latent_image": (5, 0)}
    sampler = box(
        3,
        "KSampler",
        *(7, True, 20, 8.0, "euler", "normal", 1.0),
        links=links,
        types="MODEL CONDITIONING CONDITIONING LATENT",
        out="LATENT",
    )
    found = read_workflow(made(sampler))
    assert found is not None
    assert (found.settings, found.doubt) == (SETTINGS, "")
