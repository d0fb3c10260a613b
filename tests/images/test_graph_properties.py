"""What a graph means does not depend on how it is written down."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprompt.images.prompts.comfyui import read_graph
from imprompt.images.prompts.prompt_parts import PromptParts
from tests.images.choice_graphs import ALL_SIBLINGS
from tests.images.graphs import node, sampler_of

GRAPHS = [sibling[0] for siblings in ALL_SIBLINGS.values() for sibling in siblings.values()]
GRAPHS = [json.loads(json.dumps(nodes)) for nodes in GRAPHS]


def is_link(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


def meaning(found: PromptParts | None) -> tuple[str, str, dict[str, str], bool] | None:
    """All of an answer but the name of the node that a doubt is about."""
    return (
        None if found is None else (found.prompt, found.negative, found.settings, bool(found.doubt))
    )


graphs = st.sampled_from(GRAPHS)


@settings(deadline=None, max_examples=300)
@given(nodes=graphs, order=st.randoms(use_true_random=False))
def test_renamed_and_shuffled_nodes_give_the_same_answer(nodes: dict[str, Any], order: Any) -> None:
    """Ids say nothing, nor does the order of the nodes."""
    names = list(nodes)
    order.shuffle(names)
    ids = {name: str(number) for number, name in enumerate(names)}
    order.shuffle(names)

    def renamed(value: object) -> object:
        return [ids.get(value[0], "gone"), value[1]] if is_link(value) else value  # type: ignore[index]

    changed = {
        ids[name]: {
            "class_type": nodes[name]["class_type"],
            "inputs": {k: renamed(v) for k, v in nodes[name]["inputs"].items()},
        }
        for name in names
    }
    assert meaning(read_graph(changed)) == meaning(read_graph(nodes))


@settings(deadline=None, max_examples=300)
@given(nodes=graphs, seed=st.randoms(use_true_random=False))
def test_links_through_reroutes_give_the_same_answer(nodes: dict[str, Any], seed: Any) -> None:
    """Any of the links, once or several times."""
    changed: dict[str, Any] = {}
    for name, value in nodes.items():
        inputs = dict(value["inputs"])
        for key, item in inputs.items():
            for step in range(seed.choice((0, 0, 1, 3))):
                if is_link(item) and item[0] in nodes:
                    reroute = f"{name} {key} {step}"
                    changed[reroute] = node(
                        seed.choice(("Reroute", "Reroute (rgthree)")), **{"": inputs[key]}
                    )
                    inputs[key] = [reroute, 0]
        changed[name] = node(value["class_type"], **inputs)
    assert meaning(read_graph(changed)) == meaning(read_graph(nodes))


@pytest.mark.parametrize("number", range(len(GRAPHS)))
def test_a_branch_that_nothing_saves_changes_nothing(number: int) -> None:
    """Another sampler with other texts, a note, a text by itself."""
    branch = {
        "other": sampler_of(
            positive=["other yes", 0],
            negative=["other no", 0],
            latent_image=["other empty", 0],
            seed=99,
        ),
        "other yes": node("CLIPTextEncode", text="another picture"),
        "other no": node("CLIPTextEncode", text="nothing"),
        "other empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "other text": node("PrimitiveString", value="a text that nobody reads"),
    }
    nodes = GRAPHS[number]
    assert meaning(read_graph(nodes | branch)) == meaning(read_graph(nodes))
    assert meaning(read_graph(branch | nodes)) == meaning(read_graph(nodes))
