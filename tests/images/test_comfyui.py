"""read_graph: from the saved picture back to the texts of the sampler that began it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.graphs import FORMS
from imprompt.images.prompts.comfyui import MAX_NODES, read_graph
from imprompt.images.prompts.prompt_parts import PromptParts
from tests.images.graphs import SETTINGS, graph, node, sampler_of, second_picture

GRAPHS: dict[str, tuple[dict[str, Any], str, str]] = {
    "plain": (graph(), "a red fox", "blurry"),
    "text from another node": (
        graph(
            yes=node("CLIPTextEncode", text=["t", 0], clip=["lora", 1]),
            t=node("PrimitiveStringMultiline", value="a red fox"),
        ),
        "a red fox",
        "blurry",
    ),
    "texts put together": (
        graph(
            yes=node("CLIPTextEncode", text=["t", 0]),
            t=node("StringConcatenate", string_a=["u", 0], string_b="in snow", delimiter=" "),
            u=node("StringConstant", string="a red fox"),
        ),
        "a red fox in snow",
        "blurry",
    ),
    "two conditionings": (
        graph(
            yes=node("ConditioningCombine", conditioning_1=["y1", 0], conditioning_2=["y2", 0]),
            y1=node("CLIPTextEncode", text="a red fox"),
            y2=node("CLIPTextEncode", text="snow"),
        ),
        "a red fox, snow",
        "blurry",
    ),
    "ControlNet passes both sides": (
        graph(
            sampler=sampler_of(positive=["cn", 0], negative=["cn", 1]),
            cn=node(
                "ControlNetApplyAdvanced",
                positive=["yes", 0],
                negative=["no", 0],
                control_net=["c", 0],
                image=["i", 0],
                strength=1.0,
            ),
        ),
        "a red fox",
        "blurry",
    ),
    "SDXL's two encoders": (
        graph(
            yes=node(
                "CLIPTextEncodeSDXL",
                text_g="a red fox",
                text_l="a red fox",
                width=1024,
                clip=["lora", 1],
            )
        ),
        "a red fox",
        "blurry",
    ),
    "negative made from positive": (
        graph(no=node("ConditioningZeroOut", conditioning=["yes", 0])),
        "a red fox",
        "",
    ),
    "refiner behind base": (
        graph(
            decode=node("VAEDecode", samples=["refiner", 0], vae=["model", 2]),
            refiner=sampler_of(latent_image=["sampler", 0], positive=["r", 0]),
            r=node("CLIPTextEncode", text="sharp details"),
        ),
        "a red fox",
        "blurry",
    ),
    "face detailer behind": (
        graph(
            save=node("SaveImage", images=["face", 0]),
            face=node(
                "FaceDetailer",
                image=["decode", 0],
                positive=["f", 0],
                negative=["no", 0],
                seed=1,
                steps=5,
                cfg=4.0,
            ),
            f=node("CLIPTextEncode", text="a face"),
        ),
        "a red fox",
        "blurry",
    ),
    "loader with its own texts": (
        graph(
            sampler=sampler_of(positive=["load", 1], negative=["load", 2]),
            load=node(
                "Efficient Loader",
                positive="a red fox",
                negative="blurry",
                ckpt_name="own.safetensors",
            ),
        ),
        "a red fox",
        "blurry",
    ),
    "wildcards that were filled in": (
        graph(
            sampler=sampler_of(positive=["yes", 2]),
            yes=node(
                "ImpactWildcardEncode",
                wildcard_text="a {red|blue} fox",
                populated_text="a red fox",
                mode="populate",
            ),
        ),
        "a red fox",
        "blurry",
    ),
    "a second picture that is not saved": (
        graph(aaa=node("PreviewImage", images=["d2", 0]), **second_picture("another picture")),
        "a red fox",
        "blurry",
    ),
    "a switch that is on": (
        graph(
            yes=node("CLIPTextEncode", text=["w", 0]),
            w=node("ComfySwitchNode", switch=True, on_true=["t", 0], on_false="a hen"),
            t=node("PrimitiveString", value="a red fox"),
        ),
        "a red fox",
        "blurry",
    ),
    "a switch that is off, by another node": (
        graph(
            yes=node("CLIPTextEncode", text=["w", 0]),
            w=node("ComfySwitchNode", switch=["b", 0], on_true="a hen", on_false="a red fox"),
            b=node("PrimitiveBoolean", value=False),
        ),
        "a red fox",
        "blurry",
    ),
    "a numbered switch": (
        graph(
            yes=node("ImpactSwitch", select=2, input1=["no", 0], input2=["y2", 0]),
            y2=node("CLIPTextEncode", text="a red fox"),
        ),
        "a red fox",
        "blurry",
    ),
    "the first that is there": (
        graph(
            yes=node(
                "Any Switch (rgthree)", any_01=["gone", 0], any_02=["y2", 0], any_03=["no", 0]
            ),
            y2=node("CLIPTextEncode", text="a red fox"),
        ),
        "a red fox",
        "blurry",
    ),
    "a text that is shown": (
        graph(
            yes=node("CLIPTextEncode", text=["s", 0]),
            s=node("ShowText|pysssss", text=["t", 0], text_0="an earlier run"),
            t=node("DF_Text_Box", Text="a red fox"),
        ),
        "a red fox",
        "blurry",
    ),
    "a shown text of a language model": (
        graph(
            yes=node("CLIPTextEncode", text=["s", 0]),
            s=node("ShowText|pysssss", text=["t", 0], text_0="a red fox"),
            t=node("OllamaGenerate", prompt="Describe a fox."),
        ),
        "a red fox",
        "blurry",
    ),
    "conditioning in a circle": (
        graph(
            yes=node("ConditioningCombine", conditioning_1=["y1", 0], conditioning_2=["yes", 0]),
            y1=node("ConditioningConcat", conditioning_to=["yes", 0], conditioning_from=["y2", 0]),
            y2=node("CLIPTextEncode", text="a red fox"),
        ),
        "a red fox",
        "blurry",
    ),
    "samplers in a circle": (
        graph(
            sampler=sampler_of(latent_image=["again", 0]),
            again=sampler_of(latent_image=["sampler", 0]),
        ),
        "a red fox",
        "blurry",
    ),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_comfyui_graphs_are_walked_from_the_saved_picture_to_the_text(case: str) -> None:
    """The usual nodes between a sampler and its texts, and circles that no tool should write."""
    nodes, positive, negative = GRAPHS[case]
    found = read_graph(nodes)
    assert found is not None
    assert (found.prompt, found.negative) == (positive, negative)
    assert found.settings["model"] == "own.safetensors"


def test_the_settings_of_a_graph_are_those_of_its_sampler() -> None:
    """Seed, steps, scale, sampler, scheduler, strength, model."""
    assert read_graph(graph()) == PromptParts("a red fox", "blurry", SETTINGS)


def test_a_service_that_makes_the_picture_is_asked_by_its_prompt() -> None:
    """No sampler: the node nearest to the saved picture that has a prompt, written or linked."""
    nodes = {
        "1": node("SaveImage", images=["2", 0]),
        "2": node("ImageScale", image=["3", 0], width=512),
        "3": node(
            "GeminiImageNode", prompt=["4", 0], negative_prompt="blurry", seed=7, model="own"
        ),
        "4": node("PrimitiveStringMultiline", value="a red fox"),
    }
    assert read_graph(nodes) == PromptParts("a red fox", "blurry", {"seed": "7", "model": "own"})
    assert read_graph(nodes | {"3": node("Florence2Run", prompt="describe")}) is None
    assert read_graph(nodes | {"3": node("LoadImage", image="a.png")}) is None


def test_a_guided_sampler_without_negative_is_read() -> None:
    """Flux graphs spread the sampler over a guider, a noise, a sampler and a schedule node."""
    nodes = graph(
        sampler=node(
            "SamplerCustomAdvanced",
            noise=["n", 0],
            guider=["g", 0],
            sampler=["k", 0],
            sigmas=["s", 0],
            latent_image=["empty", 0],
        ),
        n=node("RandomNoise", noise_seed=7),
        g=node("BasicGuider", model=["model", 0], conditioning=["fg", 0]),
        fg=node("FluxGuidance", guidance=3.5, conditioning=["yes", 0]),
        k=node("KSamplerSelect", sampler_name="euler"),
        s=node("BasicScheduler", scheduler="simple", steps=20, denoise=1.0, model=["model", 0]),
        model=node("UNETLoader", unet_name="own.safetensors"),
    )
    settings = {name: value for name, value in SETTINGS.items() if name != "cfg_scale"} | {
        "scheduler": "simple"
    }
    assert read_graph(nodes) == PromptParts("a red fox", "", settings)


@pytest.mark.parametrize("form", FORMS)
def test_five_thousand_nodes_with_fifty_samplers_take_a_fifth_of_a_second(form: str) -> None:
    """In forms that make a search from each sampler slow; growing texts are cut a little later."""
    nodes = json.loads(json.dumps(FORMS[form](MAX_NODES)))
    times = []
    for _ in range(3):
        begun = time.process_time()
        assert read_graph(nodes) is not None
        times.append(time.process_time() - begun)
    assert min(times) < (0.5 if form == "texts that double" else 0.2)


@pytest.mark.timeout(10)
def test_graphs_made_to_be_slow_end() -> None:
    """Chains of samplers, texts that double at each step, too many nodes, too many links."""
    samplers = {str(i): sampler_of(latent_image=[str(i + 1), 0]) for i in range(MAX_NODES - 10)}
    assert read_graph(graph(save=node("SaveImage", images=["0", 0])) | samplers) is not None
    ladder = {
        f"y{i}": node(
            "ConditioningCombine", conditioning_1=[f"y{i + 1}", 0], conditioning_2=[f"y{i + 1}", 0]
        )
        for i in range(90)
    }
    found = read_graph(
        graph(yes=node("X", conditioning=["y0", 0]), y90=node("CLIPTextEncode", text="a red fox"))
        | ladder
    )
    assert found is not None
    assert found.prompt == "a red fox"
    deep = {f"y{i}": node("Reroute", conditioning=[f"y{i + 1}", 0]) for i in range(4000)}
    assert read_graph(graph(yes=node("X", conditioning=["y0", 0])) | deep) is None
    assert read_graph({str(i): node("X") for i in range(MAX_NODES + 1)}) is None
    assert read_graph(graph(many=node("X", **{f"i{i}": ["yes", 0] for i in range(60_000)}))) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["inputs", "class_type", "positive", "text", "steps", "1"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    value=st.dictionaries(st.sampled_from(["1", "2", "sampler", "yes"]), json_values, max_size=4)
)
def test_any_json_object_is_walked_without_an_exception(value: dict[str, Any]) -> None:
    """Half-right graphs: nodes replaced by whatever JSON can hold."""
    for candidate in (value, graph() | value):
        found = read_graph(candidate)
        assert found is None or found.prompt
