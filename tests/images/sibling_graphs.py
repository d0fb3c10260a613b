"""ComfyUI graphs that were reported as misread: name to (nodes, positive, negative, how).

They add to a plain text-to-image graph ("save" from "decode" from "sampler", texts "yes" and "no").
"""

from __future__ import annotations

from typing import Any

from tests.images.graphs import graph, node, sampler_of, second_picture

Sibling = tuple[dict[str, Any], str | None, str, str]

FOX, HEN, BAD = "a red fox", "a grey hen", "blurry"


def text(
    kind: str, *, slot: int = 0, how: str = "exact", wanted: str | None = FOX, **parts: Any
) -> Sibling:
    """A node "t" that gives the positive prompt its text; what else is given goes beside it."""
    inputs = parts.pop("inputs")
    nodes = {
        "yes": node("CLIPTextEncode", text=["t", slot], clip=["lora", 1]),
        "t": node(kind, **inputs),
        "fox": node("PrimitiveString", value=FOX),
        "hen": node("PrimitiveString", value=HEN),
        "off": node("PrimitiveBoolean", value=False),
        "on": node("PrimitiveBoolean", value=True),
        "two": node("PrimitiveInt", value=2),
    }
    return graph(**nodes, **parts), wanted, BAD, how


def between(kind: str, *, slot: int = 0, negative_slot: int | None = None, **parts: Any) -> Sibling:
    """A node "t" before the sampler's positive side, and its negative one where a slot is given."""
    inputs = parts.pop("inputs")
    wanted, negative = parts.pop("wanted", FOX), parts.pop("negative", BAD)
    how = parts.pop("how", "exact")
    sides: dict[str, Any] = {"positive": ["t", slot]}
    if negative_slot is not None:
        sides["negative"] = ["t", negative_slot]
    nodes = graph(sampler=sampler_of(**sides), t=node(kind, **inputs), **parts)
    nodes["hen"] = node("CLIPTextEncode", text=HEN, clip=["lora", 1])
    return nodes, wanted, negative, how


_PAIR = {"on_true": ["hen", 0], "on_false": ["fox", 0]}
CHOOSERS: dict[str, Sibling] = {
    "Crystools any, on": text(
        "Switch any [Crystools]",
        inputs={"on_true": ["fox", 0], "on_false": ["hen", 0], "boolean": True},
    ),
    "Crystools, linked boolean": text(
        "Switch string [Crystools]", inputs={**_PAIR, "boolean": ["off", 0]}
    ),
    "Crystools, texts of its own": text(
        "Switch string [Crystools]", inputs={"on_true": FOX, "on_false": HEN, "boolean": True}
    ),
    "Crystools, boolean by another": text(
        "Switch string [Crystools]",
        inputs={**_PAIR, "boolean": ["b", 0]},
        b=node("Primitive boolean [Crystools]", boolean=False),
    ),
    "core, off": text("ComfySwitchNode", inputs={**_PAIR, "switch": False}),
    "core, by a comparison": text(
        "ComfySwitchNode",
        inputs={**_PAIR, "switch": ["c", 0]},
        c=node("StringContains", string="a long day", substring="NIGHT", case_sensitive=False),
    ),
    "core, negated": text(
        "ComfySwitchNode",
        inputs={**_PAIR, "switch": ["n", 0]},
        n=node("ComfyNotNode", value=["on", 0]),
    ),
    "core, an empty text": text(
        "ComfySwitchNode",
        wanted=None,
        inputs={"switch": True, "on_true": "", "on_false": ["fox", 0]},
    ),
    "core, the first that is there": text(
        "ComfyPassOrNoneNode", inputs={"anything": ["gone", 0], "default": ["fox", 0]}
    ),
    "Impact, literal": text(
        "ImpactSwitch", inputs={"select": 2, "input1": ["hen", 0], "input2": ["fox", 0]}
    ),
    "Impact, chained numbers": text(
        "ImpactSwitch",
        inputs={"select": ["i", 0], "input1": ["hen", 0], "input2": ["fox", 0]},
        i=node("ImpactInt", value=["two", 0]),
    ),
    "Impact, one that is not there": text(
        "ImpactSwitch", wanted=None, inputs={"select": 3, "input1": ["fox", 0]}
    ),
    "Impact, a branch": text(
        "ImpactConditionalBranch",
        inputs={"cond": ["off", 0], "tt_value": ["hen", 0], "ff_value": ["fox", 0]},
    ),
    "Impact, compared": text(
        "ImpactConditionalBranch",
        inputs={"cond": ["c", 0], "tt_value": ["fox", 0], "ff_value": ["hen", 0]},
        c=node("ImpactCompare", cmp="a > b", a=["two", 0], b=1),
    ),
    "Easy-Use, ifElse on": text(
        "easy ifElse", inputs={"boolean": ["on", 0], "on_true": ["fox", 0], "on_false": ["hen", 0]}
    ),
    "Easy-Use, text switch": text(
        "easy textSwitch", inputs={"input": 2, "text1": ["hen", 0], "text2": ["fox", 0]}
    ),
    "Easy-Use, any by index": text(
        "easy anythingIndexSwitch", inputs={"index": 1, "value0": ["hen", 0], "value1": ["fox", 0]}
    ),
    "Easy-Use, index linked": text(
        "easy textIndexSwitch",
        inputs={"index": ["i", 0], "text0": ["hen", 0], "text1": ["fox", 0]},
        i=node("easy int", value=1),
    ),
    "Comfyroll, one": text(
        "CR Text Input Switch", inputs={"Input": 1, "text1": ["fox", 0], "text2": ["hen", 0]}
    ),
    "Comfyroll, four ways": text(
        "CR Text Input Switch (4 way)",
        inputs={"Input": 3, "text1": ["hen", 0], "text2": ["hen", 0], "text3": ["fox", 0]},
    ),
    "Comfyroll, linked": text(
        "CR Text Input Switch",
        inputs={"Input": ["two", 0], "text1": ["hen", 0], "text2": ["fox", 0]},
    ),
    "WAS, off": text(
        "Text Input Switch",
        inputs={"text_a": ["hen", 0], "text_b": ["fox", 0], "boolean": ["off", 0]},
    ),
    "WAS, logic": text(
        "Text Input Switch",
        inputs={"text_a": ["hen", 0], "text_b": ["fox", 0], "boolean": ["n", 0]},
        n=node("Logic NOT", boolean=["l", 0]),
        l=node("Logic Boolean", boolean=1.0),
    ),
    "rgthree, a muted first": text(
        "Any Switch (rgthree)",
        inputs={"any_01": ["gone", 0], "any_02": ["fox", 0], "any_03": ["hen", 0]},
    ),
    "rgthree, an empty first": text(
        "Any Switch (rgthree)",
        wanted=None,
        inputs={"any_01": ["e", 0], "any_02": ["fox", 0]},
        e=node("PrimitiveString", value=""),
    ),
    "essentials": text(
        "SimpleCondition+",
        inputs={"evaluate": ["off", 0], "on_true": ["hen", 0], "on_false": ["fox", 0]},
    ),
    "KJ": text(
        "LazySwitchKJ", inputs={"switch": False, "on_true": ["hen", 0], "on_false": ["fox", 0]}
    ),
    "LayerUtility": text(
        "LayerUtility: If",
        inputs={"if_condition": ["on", 0], "when_TRUE": ["fox", 0], "when_FALSE": ["hen", 0]},
    ),
    "conditionings, Comfyroll": between(
        "CR Conditioning Input Switch",
        inputs={"Input": 2, "conditioning1": ["hen", 0], "conditioning2": ["yes", 0]},
    ),
    "conditionings, WAS": between(
        "Conditioning Input Switch",
        inputs={"conditioning_a": ["hen", 0], "conditioning_b": ["yes", 0], "boolean": False},
    ),
    "conditionings, Easy-Use": between(
        "easy conditioningIndexSwitch",
        inputs={"index": 1, "cond0": ["hen", 0], "cond1": ["yes", 0]},
    ),
    "an unknown switch": text("Nobody's Switch", how="carried", inputs={"boolean": False, **_PAIR}),
    "an unknown switch by number": text(
        "Nobody's Switch",
        how="carried",
        inputs={"select": 2, "input1": ["hen", 0], "input2": ["fox", 0]},
    ),
    "a chosen language model": text(
        "ComfySwitchNode",
        wanted=None,
        inputs={"switch": True, "on_true": ["m", 0], "on_false": ["fox", 0]},
        m=node("TextGenerate", prompt="You write prompts. Describe a fox."),
    ),
    "a switch that a model sets": text(
        "ComfySwitchNode",
        how="carried",
        inputs={**_PAIR, "switch": ["m", 0]},
        m=node("Nobody's Judge", image=["decode", 0]),
    ),
    "pictures: the branch that was not taken": (
        graph(
            save=node("SaveImage", images=["s", 0]),
            s=node("ComfySwitchNode", switch=False, on_true=["d2", 0], on_false=["decode", 0]),
            **second_picture(HEN),
        ),
        FOX,
        BAD,
        "exact",
    ),
}

_CONTEXT = {"model": ["lora", 0], "positive": ["hen", 0], "negative": ["no", 0]}
PIPES: dict[str, Sibling] = {
    "rgthree, both replaced": between(
        "Context (rgthree)",
        slot=4,
        negative_slot=5,
        inputs={"base_ctx": ["c", 0], "positive": ["yes", 0], "negative": ["no", 0]},
        c=node("Context (rgthree)", positive=["hen", 0], negative=["hen", 0]),
    ),
    "rgthree Big": between(
        "Context Big (rgthree)",
        slot=4,
        negative_slot=5,
        inputs={"base_ctx": ["c", 0], "positive": ["yes", 0]},
        c=node("Context Big (rgthree)", **_CONTEXT),
    ),
    "rgthree, three deep": between(
        "Context (rgthree)",
        slot=4,
        negative_slot=5,
        inputs={"base_ctx": ["c", 0]},
        c=node("Context (rgthree)", base_ctx=["d", 0], positive=["yes", 0]),
        d=node("Context (rgthree)", **_CONTEXT),
    ),
    "rgthree Switch": between(
        "Context Switch (rgthree)",
        slot=4,
        negative_slot=5,
        inputs={"ctx_01": ["gone", 0], "ctx_02": ["c", 0], "ctx_03": ["d", 0]},
        c=node("Context (rgthree)", positive=["yes", 0], negative=["no", 0]),
        d=node("Context (rgthree)", **_CONTEXT),
    ),
    "rgthree Merge": between(
        "Context Merge (rgthree)",
        slot=4,
        negative_slot=5,
        inputs={"ctx_01": ["d", 0], "ctx_02": ["c", 0]},
        c=node("Context (rgthree)", positive=["yes", 0]),
        d=node("Context (rgthree)", **_CONTEXT),
    ),
    "rgthree, texts in the context": (
        graph(
            yes=node("CLIPTextEncodeSDXL", text_g=["c", 17], text_l=["c", 18]),
            no=node("CLIPTextEncodeSDXL", text_g=["c", 19], text_l=["c", 20]),
            c=node(
                "Context Big (rgthree)",
                text_pos_g=FOX,
                text_pos_l="in snow",
                text_neg_g=BAD,
                text_neg_l=BAD,
            ),
        ),
        "a red fox, in snow",
        BAD,
        "exact",
    ),
    "Impact, from a pipe": between(
        "FromBasicPipe",
        slot=3,
        negative_slot=4,
        inputs={"basic_pipe": ["p", 0]},
        p=node("ToBasicPipe", positive=["yes", 0], negative=["no", 0]),
    ),
    "Impact, from a pipe, second version": between(
        "FromBasicPipe_v2",
        slot=4,
        negative_slot=5,
        inputs={"basic_pipe": ["p", 0]},
        p=node("EditBasicPipe", basic_pipe=["q", 0], negative=["no", 0]),
        q=node("ToBasicPipe", positive=["yes", 0], negative=["hen", 0]),
    ),
    "Impact, a detailer's pipe": (
        graph(
            sampler=node(
                "ImpactKSamplerBasicPipe",
                basic_pipe=["b", 0],
                latent_image=["empty", 0],
                seed=7,
                steps=20,
                cfg=8.0,
            ),
            b=node("DetailerPipeToBasicPipe", detailer_pipe=["e", 0]),
            e=node("EditDetailerPipe", detailer_pipe=["t", 0], positive=["yes", 0], wildcard=""),
            t=node(
                "ToDetailerPipe",
                model=["lora", 0],
                positive=["hen", 0],
                negative=["no", 0],
                wildcard="",
            ),
            hen=node("CLIPTextEncode", text=HEN),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "Easy-Use, pipe edited": (
        graph(
            save=node("PreviewImage", images=["k", 1]),
            k=node("easy kSampler", pipe=["s", 0], image_output="Save"),
            s=node(
                "easy preSampling",
                pipe=["i", 0],
                seed=7,
                steps=20,
                cfg=8.0,
                sampler_name="euler",
                scheduler="normal",
                denoise=1.0,
            ),
            i=node("easy pipeIn", pipe=["l", 0], pos=["yes", 0]),
            l=node(
                "easy fullLoader",
                ckpt_name="own.safetensors",
                positive=HEN,
                negative=BAD,
                empty_latent_width=512,
                empty_latent_height=512,
            ),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "Easy-Use, prompt edited": (
        graph(
            save=node("SaveImage", images=["k", 1]),
            k=node(
                "easy fullkSampler",
                pipe=["i", 0],
                seed=7,
                steps=20,
                cfg=8.0,
                sampler_name="euler",
                scheduler="normal",
                denoise=1.0,
            ),
            i=node("easy pipeEditPrompt", pipe=["l", 0], positive=FOX, negative=BAD),
            l=node("easy a1111Loader", ckpt_name="own.safetensors", positive=HEN, negative=HEN),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "Easy-Use, pipe out": between(
        "easy pipeOut",
        slot=2,
        negative_slot=3,
        inputs={"pipe": ["i", 0]},
        i=node("easy pipeIn", pos=["yes", 0], neg=["no", 0]),
    ),
    "WAS Bus": between(
        "Bus Node",
        slot=4,
        negative_slot=5,
        inputs={"bus": ["b", 0], "positive": ["yes", 0]},
        b=node("Bus Node", positive=["hen", 0], negative=["no", 0]),
    ),
    "Comfyroll, channels": between(
        "CR 8 Channel Out",
        slot=1,
        negative_slot=2,
        inputs={"pipe": ["i", 0]},
        i=node("CR 8 Channel In", ch1=["yes", 0], ch2=["no", 0]),
    ),
    "Comfyroll, modules": between(
        "CR Module Input",
        slot=2,
        negative_slot=3,
        inputs={"pipe": ["o", 0]},
        o=node("CR Module Output", pipe=["i", 0], pos=["yes", 0]),
        i=node("CR Module Pipe Loader", pos=["hen", 0], neg=["no", 0]),
    ),
    "Efficiency, SDXL": (
        graph(
            sampler=node(
                "KSampler SDXL (Eff.)",
                sdxl_tuple=["t", 0],
                latent_image=["empty", 0],
                noise_seed=7,
                steps=20,
                cfg=8.0,
            ),
            decode=node("VAEDecode", samples=["sampler", 1]),
            t=node(
                "Eff. Loader SDXL", base_ckpt_name="own.safetensors", positive=FOX, negative=BAD
            ),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "Efficiency, packed": between(
        "Unpack SDXL Tuple",
        slot=2,
        negative_slot=3,
        inputs={"sdxl_tuple": ["p", 0]},
        p=node(
            "Pack SDXL Tuple",
            base_positive=["yes", 0],
            base_negative=["no", 0],
            refiner_positive=["hen", 0],
        ),
    ),
}

_BOTH = {"positive": ["yes", 0], "negative": ["no", 0]}
SIDES: dict[str, Sibling] = {
    "one node, swapped on purpose": between(
        "ControlNetApplyAdvanced", slot=1, negative_slot=0, inputs=_BOTH, wanted=BAD, negative=FOX
    ),
    "inpainting": between(
        "InpaintModelConditioning",
        slot=0,
        negative_slot=1,
        inputs={**_BOTH, "pixels": ["i", 0]},
        i=node("LoadImage", image="i.png"),
    ),
    "Searge, base": between(
        "SeargeSDXLBasePromptEncoder",
        slot=0,
        negative_slot=1,
        inputs={"pos_g": FOX, "pos_l": FOX, "neg_g": BAD, "neg_l": ""},
    ),
    "Comfyroll SDXL": between(
        "CR SDXL Base Prompt Encoder",
        slot=0,
        negative_slot=1,
        inputs={"pos_g": FOX, "pos_l": FOX, "neg_g": BAD, "neg_l": BAD},
    ),
    "Wan": between(
        "WanImageToVideo",
        slot=0,
        negative_slot=1,
        inputs={**_BOTH, "width": 832, "height": 480, "length": 1},
    ),
    "pairs combined": between(
        "PairConditioningCombine",
        slot=0,
        negative_slot=1,
        wanted="a red fox, a grey hen",
        inputs={
            "positive_A": ["yes", 0],
            "negative_A": ["no", 0],
            "positive_B": ["hen", 0],
            "negative_B": ["no", 0],
        },
    ),
    "Efficient Loader through its sampler": (
        graph(
            save=node("SaveImage", images=["sampler", 5]),
            sampler=node(
                "KSampler (Efficient)",
                model=["l", 0],
                positive=["l", 1],
                negative=["l", 2],
                latent_image=["l", 3],
                seed=7,
                steps=20,
                cfg=8.0,
            ),
            l=node(
                "Efficient Loader",
                ckpt_name="own.safetensors",
                positive=["p", 0],
                negative=BAD,
                empty_latent_width=512,
                empty_latent_height=512,
            ),
            p=node("PrimitiveString", value=FOX),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "guider with two conditionings": (
        graph(
            sampler=node(
                "SamplerCustomAdvanced",
                guider=["g", 0],
                noise=["n", 0],
                sampler=["k", 0],
                sigmas=["s", 0],
                latent_image=["empty", 0],
            ),
            g=node(
                "DualCFGGuider",
                cond1=["yes", 0],
                cond2=["y2", 0],
                negative=["no", 0],
                cfg_conds=8.0,
                cfg_cond2_negative=4.0,
            ),
            y2=node("CLIPTextEncode", text="in snow"),
            n=node("RandomNoise", noise_seed=7),
            k=node("KSamplerSelect", sampler_name="euler"),
            s=node("BasicScheduler", scheduler="normal", steps=20, denoise=1.0),
        ),
        "a red fox, in snow",
        BAD,
        "exact",
    ),
    "guider through a reroute": (
        graph(
            sampler=node(
                "SamplerCustomAdvanced",
                guider=["r", 0],
                noise=["n", 0],
                sampler=["k", 0],
                sigmas=["s", 0],
                latent_image=["empty", 0],
            ),
            r=node("Reroute", **{"": ["g", 0]}),
            g=node("CFGGuider", positive=["yes", 0], negative=["no", 0], cfg=8.0),
            n=node("RandomNoise", noise_seed=7),
            k=node("KSamplerSelect", sampler_name="euler"),
            s=node("BasicScheduler", scheduler="normal", steps=20, denoise=1.0),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "a zeroed negative behind a chain": (
        graph(
            no=node("ConditioningSetTimestepRange", conditioning=["z", 0], start=0.0, end=0.5),
            z=node("ConditioningZeroOut", conditioning=["yes", 0]),
        ),
        FOX,
        "",
        "exact",
    ),
    "a negative that is zeroed for a part": (
        graph(
            no=node("ConditioningCombine", conditioning_1=["z", 0], conditioning_2=["n", 0]),
            z=node("ConditioningZeroOut", conditioning=["yes", 0]),
            n=node("CLIPTextEncode", text=BAD),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "WanVideoWrapper": (
        graph(
            sampler=node(
                "WanVideoSampler",
                text_embeds=["t", 0],
                samples=["empty", 0],
                seed=7,
                steps=20,
                cfg=8.0,
            ),
            t=node("WanVideoTextEncode", positive_prompt=FOX, negative_prompt=BAD),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "regions of a picture": (
        graph(
            yes=node("ConditioningCombine", conditioning_1=["a", 0], conditioning_2=["b", 0]),
            a=node("ConditioningSetArea", conditioning=["c", 0], width=256, height=512),
            b=node("ConditioningSetMask", conditioning=["d", 0]),
            c=node("CLIPTextEncode", text=FOX),
            d=node("CLIPTextEncode", text=HEN),
        ),
        "a red fox, a grey hen",
        BAD,
        "exact",
    ),
}


def encoder(kind: str, *, how: str = "exact", wanted: str = FOX, **inputs: Any) -> Sibling:
    return graph(yes=node(kind, clip=["lora", 1], **inputs)), wanted, BAD, how


ENCODERS: dict[str, Sibling] = {
    "SD3": encoder("CLIPTextEncodeSD3", clip_l=FOX, clip_g=FOX, t5xxl=FOX, empty_padding="none"),
    "SD3, different texts": encoder(
        "CLIPTextEncodeSD3", wanted="a red fox, in snow", clip_l=FOX, clip_g="", t5xxl="in snow"
    ),
    "Flux": encoder("CLIPTextEncodeFlux", clip_l=FOX, t5xxl=FOX, guidance=3.5),
    "HiDream": encoder("CLIPTextEncodeHiDream", clip_l=FOX, clip_g=FOX, t5xxl=FOX, llama=FOX),
    "Lumina": encoder("CLIPTextEncodeLumina2", system_prompt="superior", user_prompt=FOX),
    "PixArt": encoder("CLIPTextEncodePixArtAlpha", width=1024, height=1024, text=FOX),
    "Qwen Image Edit": encoder("TextEncodeQwenImageEdit", prompt=FOX, vae=["model", 2]),
    "Qwen Image Edit Plus": encoder("TextEncodeQwenImageEditPlus", prompt=FOX, image1=["i", 0]),
    "Hunyuan video": encoder("TextEncodeHunyuanVideo_ImageToVideo", prompt=FOX, image_interleave=2),
    "SDXL refiner": encoder(
        "CLIPTextEncodeSDXLRefiner", ascore=6.0, width=1024, height=1024, text=FOX
    ),
    "BlenderNeko": encoder("BNK_CLIPTextEncodeAdvanced", text=FOX, weight_interpretation="comfy"),
    "smZ": encoder(
        "smZ CLIPTextEncode", text=FOX, parser="A1111", with_SDXL=False, text_g=HEN, text_l=HEN
    ),
    "smZ for SDXL": encoder(
        "smZ CLIPTextEncode", text=HEN, parser="A1111", with_SDXL=True, text_g=FOX, text_l=FOX
    ),
    "essentials SDXL": encoder("CLIPTextEncodeSDXL+", width=1024, height=1024, text=FOX),
    "Inspire, weighted": encoder(
        "CLIPTextEncodeWithWeight //Inspire", text=FOX, strength=1.0, add_weight=0.0
    ),
    "WAS": encoder("Text to Conditioning", text=FOX),
    "rgthree Power Prompt": encoder(
        "Power Prompt (rgthree)", prompt="a red fox <lora:own:0.8>", insert_lora="CHOOSE"
    ),
    "rgthree Power Prompt, simple": encoder("Power Prompt - Simple (rgthree)", prompt=FOX),
    "Kolors": encoder("MZ_ChatGLM3_V2", text=FOX, chatglm3_model=["c", 0]),
    "ControlNet's own text": encoder(
        "CLIPTextEncodeControlnet", wanted="a grey hen, a red fox", conditioning=["h", 0], text=FOX
    ),
    "nobody's encoder": encoder("TextEncodeNobody", how="carried", prompt=FOX),
    "nobody's encoder with a text of its own name": encoder(
        "TextEncodeNobody", how="carried", caption_text=FOX, system_prompt="be good"
    ),
    "nobody's encoder with a linked text": (
        graph(
            yes=node("TextEncodeNobody", clip=["lora", 1], clip_l=["t", 0]),
            t=node("PrimitiveString", value=FOX),
        ),
        FOX,
        BAD,
        "carried",
    ),
    "nobody's encoder with nobody's name": encoder(
        "TextEncodeNobody", how="carried", scene=FOX, tokenizer="own"
    ),
    "nobody's node before": (
        graph(yes=node("CLIPTextEncode", text=["t", 0]), t=node("Nobody's Text", string=FOX)),
        FOX,
        BAD,
        "carried",
    ),
    "nobody's node behind": between(
        "Nobody's Conditioning", how="carried", inputs={"conditioning": ["yes", 0], "strength": 0.5}
    ),
}
ENCODERS["ControlNet's own text"][0]["h"] = node("CLIPTextEncode", text=HEN)

_SPLIT = {"string_a": "a red ", "string_b": "fox"}
TEXTS: dict[str, Sibling] = {
    "a delimiter of two characters": text(
        "StringConcatenate",
        wanted="a red\\nfox",
        inputs={"string_a": "a red", "string_b": "fox", "delimiter": "\\n"},
    ),
    "a line end": text(
        "StringConcatenate",
        wanted="a red\nfox",
        inputs={"string_a": "a red", "string_b": "fox", "delimiter": "\n"},
    ),
    "no delimiter": text("StringConcatenate", inputs=_SPLIT),
    "blanks at the ends": text(
        "StringConcatenate",
        wanted="a  red fox",
        inputs={"string_a": " a ", "string_b": " red fox ", "delimiter": ""},
    ),
    "an empty part": text(
        "StringConcatenate",
        wanted="a red fox,",
        inputs={"string_a": FOX, "string_b": "", "delimiter": ", "},
    ),
    "equal parts": text(
        "StringConcatenate",
        wanted="a red fox, a red fox",
        inputs={"string_a": FOX, "string_b": FOX, "delimiter": ", "},
    ),
    "WAS, written line end": text(
        "Text Concatenate",
        wanted="a red fox\nin snow",
        inputs={
            "delimiter": "\\n",
            "clean_whitespace": "true",
            "text_a": ["fox", 0],
            "text_b": " in snow ",
        },
    ),
    "WAS, an empty part": text(
        "Text Concatenate",
        wanted="a red fox, snow",
        inputs={
            "delimiter": ", ",
            "clean_whitespace": "true",
            "text_a": FOX,
            "text_b": "",
            "text_c": "snow",
        },
    ),
    "WAS, blanks kept": text(
        "Text Concatenate",
        wanted="a red  fox",
        inputs={"delimiter": "", "clean_whitespace": "false", "text_a": "a red ", "text_b": " fox"},
    ),
    "WAS, the second string": text(
        "Text String", slot=1, inputs={"text": HEN, "text_b": FOX, "text_c": "", "text_d": ""}
    ),
    "WAS, comments": text("Text Multiline", inputs={"text": "# a note\na red fox"}),
    "WAS, a pattern": text(
        "Text Find and Replace",
        inputs={"text": "a gr[ae]y fox", "find": r"gr\[ae\]y", "replace": "red"},
    ),
    "WAS, a line": text(
        "Text Load Line From File",
        inputs={
            "file_path": "",
            "dictionary_name": "",
            "label": "",
            "mode": "index",
            "index": 1,
            "multiline_text": "a hen\na red fox",
        },
    ),
    "Comfyroll, four parts": text(
        "CR Combine Prompt",
        wanted="a, red, fox,",
        inputs={"part1": "a", "part2": "red", "part3": "fox", "part4": "", "separator": ", "},
    ),
    "Comfyroll, two": text(
        "CR Text Concatenate", inputs={"text1": "a red", "text2": "fox", "separator": " "}
    ),
    "Comfyroll, replaced twice": text(
        "CR Text Replace",
        inputs={
            "text": "ONE TWO",
            "find1": "ONE",
            "replace1": "a red",
            "find2": "TWO",
            "replace2": "fox",
            "find3": "",
            "replace3": "",
        },
    ),
    "Comfyroll, lower case": text(
        "CR Text Operation", inputs={"text": "A RED FOX", "operation": "lowercase"}
    ),
    "Comfyroll, a part": text(
        "CR Split String", slot=1, inputs={"text": "a hen, a red fox", "delimiter": ","}
    ),
    "Comfyroll, by a word": text(
        "CR Set Value on String",
        inputs={
            "text": "at night",
            "test_string": "night",
            "value_if_true": FOX,
            "value_if_false": HEN,
        },
    ),
    "Easy-Use, joined": text(
        "easy promptConcat", inputs={"prompt1": "a red", "prompt2": "fox", "separator": " "}
    ),
    "Easy-Use, replaced": text(
        "easy promptReplace", inputs={"prompt": "a NEW fox", "find1": "NEW", "replace1": "red"}
    ),
    "Easy-Use, positive": text("easy positive", inputs={"positive": FOX}),
    "Easy-Use, several lines": text(
        "easy promptLine",
        how="carried",
        wanted="a hen\na red fox",
        inputs={"prompt": "a hen\na red fox", "start_index": 0, "max_rows": 1000},
    ),
    "KJ, two": text("JoinStrings", inputs={"string1": "a red", "string2": "fox", "delimiter": " "}),
    "KJ, many": text(
        "JoinStringMulti",
        wanted="a, red, fox",
        inputs={
            "inputcount": 3,
            "string_1": "a",
            "string_2": "red",
            "string_3": "fox",
            "delimiter": ", ",
            "return_list": False,
        },
    ),
    "KJ, ten in order": text(
        "JoinStringMulti",
        wanted="1 2 3 4 5 6 7 8 9 10",
        inputs={f"string_{n}": str(n) for n in range(1, 11)} | {"inputcount": 10, "delimiter": " "},
    ),
    "KJ, without line ends": text(
        "StringConstantMultiline",
        wanted="a redfox",
        inputs={"string": "a red\nfox", "strip_newlines": True},
    ),
    "pysssss, appended": text(
        "StringFunction|pysssss",
        wanted="a, red, fox",
        inputs={
            "action": "append",
            "tidy_tags": "yes",
            "text_a": "a",
            "text_b": "red",
            "text_c": "fox",
        },
    ),
    "pysssss, glued": text(
        "StringFunction|pysssss",
        inputs={
            "action": "append",
            "tidy_tags": "no",
            "text_a": "a red ",
            "text_b": "fox",
            "text_c": "",
        },
    ),
    "pysssss, a pattern": text(
        "StringFunction|pysssss",
        inputs={
            "action": "replace",
            "tidy_tags": "no",
            "text_a": "a 17 fox",
            "text_b": r"/\d+/",
            "text_c": "red",
        },
    ),
    "core, replaced everywhere": text(
        "StringReplace",
        wanted="fox fox",
        inputs={"string": "hen hen", "find": "hen", "replace": "fox"},
    ),
    "core, nothing found": text(
        "StringReplace", inputs={"string": FOX, "find": "SUBJECT", "replace": HEN}
    ),
    "core, pattern": text(
        "RegexReplace", inputs={"string": "a  red   fox", "regex_pattern": r"\s+", "replace": " "}
    ),
    "core, pattern with groups": text(
        "RegexReplace",
        inputs={"string": "fox: a red", "regex_pattern": r"(\w+): (.+)", "replace": r"\2 \1"},
    ),
    "core, pattern, one only": text(
        "RegexReplace",
        inputs={
            "string": "a RED RED",
            "regex_pattern": "red",
            "replace": "fox",
            "case_insensitive": False,
            "count": 1,
        },
        wanted="a RED RED",
    ),
    "core, extracted": text(
        "RegexExtract",
        inputs={
            "string": "subject: a red fox; light: dim",
            "regex_pattern": "subject: ([^;]+)",
            "mode": "First Group",
            "group_index": 1,
        },
    ),
    "core, all matches": text(
        "RegexExtract",
        wanted="red\nfox",
        inputs={"string": "<red> <fox>", "regex_pattern": "<([a-z]+)>", "mode": "All Matches"},
    ),
    "core, part": text(
        "StringSubstring", inputs={"string": "see a red fox run", "start": 4, "end": 13}
    ),
    "core, part from the end": text(
        "StringSubstring", inputs={"string": "a red fox run", "start": 0, "end": -4}
    ),
    "core, trimmed left": text(
        "StringConcatenate",
        inputs={"string_a": ["r", 0], "string_b": "fox", "delimiter": ""},
        r=node("StringTrim", string="  a red ", mode="Left"),
    ),
    "core, capitalised": text(
        "CaseConverter", wanted="A red fox", inputs={"string": "a RED fox", "mode": "Capitalize"}
    ),
    "core, titled": text(
        "CaseConverter", wanted="A Red Fox", inputs={"string": FOX, "mode": "Title Case"}
    ),
    "Impact, one of the lines": text(
        "ImpactStringSelector",
        inputs={"strings": "a hen\na red fox", "multiline": False, "select": 1},
    ),
    "Impact, one of the blocks": text(
        "ImpactStringSelector",
        wanted="two\na red fox",
        inputs={"strings": "#one\na hen\n#two\na red fox", "multiline": True, "select": 1},
    ),
    "a number in a text": text(
        "StringConcatenate",
        wanted="2 foxes",
        inputs={"string_a": ["two", 0], "string_b": "foxes", "delimiter": " "},
    ),
    "shown on the way": text("ShowText|pysssss", inputs={"text": ["fox", 0], "text_0": HEN}),
    "any to text": text("easy showAnything", inputs={"anything": ["fox", 0]}),
    "a preview on the way": text("PreviewAny", inputs={"source": ["fox", 0]}),
    "reroutes": text(
        "Reroute", inputs={"": ["r", 0]}, r=node("Reroute (rgthree)", **{"": ["fox", 0]})
    ),
    "wildcards filled in": text(
        "ImpactWildcardProcessor",
        inputs={
            "wildcard_text": "a {red|blue} fox",
            "populated_text": FOX,
            "mode": "populate",
            "seed": 1,
        },
    ),
    "wildcards fixed": text(
        "ImpactWildcardProcessor",
        inputs={"wildcard_text": HEN, "populated_text": FOX, "mode": "fixed", "seed": 1},
    ),
    "wildcards by a truth value": text(
        "ImpactWildcardProcessor",
        inputs={"wildcard_text": HEN, "populated_text": FOX, "mode": True, "seed": 1},
    ),
    "wildcards not filled in": text(
        "ImpactWildcardProcessor",
        how="carried",
        wanted="a {red|blue} fox",
        inputs={
            "wildcard_text": "a {red|blue} fox",
            "populated_text": "",
            "mode": "populate",
            "seed": 1,
        },
    ),
    "a random choice": text(
        "DPRandomGenerator",
        how="carried",
        wanted="a {red|blue} fox",
        inputs={"text": "a {red|blue} fox", "seed": 3, "autorefresh": "No"},
    ),
    "nothing random in it": text(
        "DPRandomGenerator", inputs={"text": FOX, "seed": 3, "autorefresh": "No"}
    ),
    "Easy-Use wildcards, the plain output": text(
        "easy wildcards", slot=1, inputs={"text": FOX, "seed": 1}
    ),
    "Easy-Use wildcards": text(
        "easy wildcards",
        slot=1,
        how="carried",
        wanted="a __colour__ fox",
        inputs={"text": "a __colour__ fox", "seed": 1},
    ),
    "a random line whose seed is recorded": text(
        "Text Random Line", inputs={"text": "a hen\na red fox\na hen", "seed": 1}, wanted="a hen"
    ),
    "a style": text(
        "SDXLPromptStyler",
        how="carried",
        inputs={
            "text_positive": FOX,
            "text_negative": "",
            "style": "cinematic",
            "log_prompt": "No",
        },
    ),
    "translated": text(
        "GoogleTranslateTextNode",
        how="carried",
        wanted="ein Fuchs",
        inputs={"text": "ein Fuchs", "from_translate": "de", "to_translate": "en"},
    ),
    "text in a file": text(
        "LoadText|pysssss", how="carried", wanted=None, inputs={"file": "a.txt"}
    ),
}

_ORDER = "You are a prompt writer. Expand the idea into one paragraph."
MADE: dict[str, Sibling] = {
    name: text(name, wanted=None, inputs=inputs)
    for name, inputs in {
        "OllamaGenerate": {"prompt": _ORDER, "model": "own"},
        "OllamaGenerateV2": {"prompt": _ORDER, "system": _ORDER},
        "OpenAIChatNode": {"prompt": _ORDER, "model": "own"},
        "GeminiNode": {"prompt": _ORDER, "model": "own", "seed": 1},
        "ClaudeNode": {"prompt": _ORDER},
        "Florence2Run": {"text_input": "", "task": "more_detailed_caption", "image": ["i", 0]},
        "DownloadAndLoadFlorence2Model": {"prompt": _ORDER},
        "Qwen2VL": {"text": _ORDER, "image": ["i", 0]},
        "QwenVL_Advanced": {"text": _ORDER, "image": ["i", 0]},
        "AILab_QwenVL": {"custom_prompt": _ORDER, "image": ["i", 0]},
        "JoyCaption": {"prompt": _ORDER, "image": ["i", 0]},
        "LLMSampler": {"prompt": _ORDER},
        "VLM_nodes LLaVA": {"prompt": _ORDER},
        "WD14Tagger|pysssss": {"image": ["i", 0], "model": "own", "tags": ""},
        "CLIPInterrogator": {"prompt_mode": "fast", "image": ["i", 0]},
        "BLIP Analyze Image": {"question": _ORDER, "mode": "caption"},
        "MoondreamQuery": {"question": _ORDER},
        "MiniCPM_VQA": {"text": _ORDER},
        "PromptEnhancer": {"text": _ORDER},
        "LMStudioPrompt": {"prompt": _ORDER},
        "DeepSeekChat": {"prompt": _ORDER},
        "Nobody's Writer": {"prompt": _ORDER, "temperature": 0.7, "max_tokens": 200},
        "PhiPrompt": {"user_prompt": _ORDER},
        "Gemini_API_S_Zho": {"prompt": _ORDER, "api_key": "none"},
        "Searge_LLM_Node": {"text": _ORDER},
        "Nobody's Asker": {"instruction": _ORDER, "question": _ORDER},
    }.items()
}
MADE["joined with what was typed"] = text(
    "StringConcatenate",
    how="carried",
    inputs={"string_a": FOX, "string_b": ["m", 0], "delimiter": ", "},
    wanted="a red fox,",
    m=node("OllamaGenerate", prompt=_ORDER),
)
MADE["shown, from an earlier run"] = text(
    "ShowText|pysssss",
    how="carried",
    inputs={"text": ["m", 0], "text_0": FOX},
    m=node("OllamaGenerate", prompt=_ORDER),
)
MADE["only the negative"] = (
    graph(no=node("CLIPTextEncode", text=["m", 0]), m=node("OllamaGenerate", prompt=_ORDER)),
    FOX,
    "",
    "carried",
)

OTHER: dict[str, Sibling] = {
    "a LoRA loader's own text": (
        graph(
            lora=node(
                "Lora Loader (LoraManager)",
                text="<lora:own:0.8>",
                model=["model", 0],
                clip=["model", 1],
            ),
            yes=node("CLIPTextEncode", text=FOX, clip=["lora", 1]),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "trigger words, one switched off": (
        graph(
            yes=node("Prompt (LoraManager)", text=FOX, clip=["lora", 1], trigger_words1=["t", 0]),
            t=node(
                "TriggerWord Toggle (LoraManager)",
                toggle_trigger_words={
                    "__value__": [
                        {"text": "hero", "active": True},
                        {"text": "dusk", "active": False},
                    ]
                },
                trigger_words=["lora", 2],
            ),
        ),
        "hero, a red fox",
        BAD,
        "exact",
    ),
    "a reference picture's prompt": (
        graph(
            sampler=sampler_of(model=["ip", 0]),
            ip=node("IPAdapterAdvanced", model=["lora", 0], image=["d2", 0], ipadapter=["i", 0]),
            **second_picture(HEN),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "a control picture's prompt": (
        graph(
            sampler=sampler_of(positive=["c", 0], negative=["c", 1]),
            c=node(
                "ControlNetApplyAdvanced", positive=["yes", 0], negative=["no", 0], image=["p", 0]
            ),
            p=node("CannyEdgePreprocessor", image=["d2", 0]),
            **second_picture(HEN),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "a reference latent's prompt": (
        graph(
            sampler=sampler_of(positive=["r", 0]),
            r=node("ReferenceLatent", conditioning=["yes", 0], latent=["e", 0]),
            e=node("VAEEncode", pixels=["d2", 0]),
            **second_picture(HEN),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "a size from another picture": (
        graph(
            empty=node("EmptyLatentImage", width=["z", 0], height=["z", 1], batch_size=1),
            z=node("GetImageSize", image=["d2", 0]),
            **second_picture(HEN),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "two pictures saved": (
        graph(save2=node("SaveImage", images=["d2", 0]), **second_picture("a second picture")),
        FOX,
        BAD,
        "carried",
    ),
    "two pictures in one batch": (
        graph(
            save=node("SaveImage", images=["b", 0]),
            b=node("ImageBatch", image1=["decode", 0], image2=["d2", 0]),
            **second_picture("a second picture"),
        ),
        FOX,
        BAD,
        "carried",
    ),
    "base and upscaled saved": (
        graph(
            save2=node("SaveImage", images=["d2", 0]),
            d2=node("VAEDecode", samples=["s2", 0]),
            s2=sampler_of(positive=["y2", 0], latent_image=["up", 0]),
            up=node("LatentUpscaleBy", samples=["sampler", 0], scale_by=1.5),
            y2=node("CLIPTextEncode", text="sharp"),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "a schedule of prompts": (
        graph(
            yes=node(
                "BatchPromptSchedule",
                text='"0": "a red fox", "12": "a grey hen"',
                pre_text="",
                app_text="",
                max_frames=24,
            )
        ),
        "a red fox, a grey hen",
        BAD,
        "carried",
    ),
    "regions with samplers of their own": (
        graph(
            sampler=node(
                "RegionalSampler",
                samples=["empty", 0],
                base_sampler=["b", 0],
                regional_prompts=["r", 0],
                seed=7,
                steps=20,
            ),
            b=node("KSamplerAdvancedProvider", basic_pipe=["p", 0], cfg=8.0),
            r=node(
                "CombineRegionalPrompts", regional_prompts1=["r1", 0], regional_prompts2=["r2", 0]
            ),
            r1=node("RegionalPrompt", mask=["m", 0], advanced_sampler=["b1", 0]),
            r2=node("RegionalPrompt", mask=["m", 0], advanced_sampler=["b2", 0]),
            b1=node("KSamplerAdvancedProvider", basic_pipe=["p1", 0], cfg=8.0),
            b2=node("KSamplerAdvancedProvider", basic_pipe=["p2", 0], cfg=8.0),
            p=node("ToBasicPipe", positive=["yes", 0], negative=["no", 0]),
            p1=node("EditBasicPipe", basic_pipe=["p", 0], positive=["y1", 0]),
            p2=node("EditBasicPipe", basic_pipe=["p", 0], positive=["y2", 0]),
            y1=node("CLIPTextEncode", text=HEN),
            y2=node("CLIPTextEncode", text="snow"),
        ),
        "a red fox, a grey hen, snow",
        BAD,
        "exact",
    ),
    "a sampler that nobody knows": (
        graph(
            sampler=node(
                "Nobody's KSampler",
                seed=7,
                steps=20,
                positive=["yes", 0],
                negative=["no", 0],
                latent_image=["empty", 0],
            )
        ),
        FOX,
        BAD,
        "exact",
    ),
    "an order to a service": (
        {
            "save": node("SaveImage", images=["g", 0]),
            "g": node("GeminiImageNode", prompt=["t", 0], model="own", seed=3),
            "t": node("StringConcatenate", string_a="a red", string_b="fox", delimiter=" "),
        },
        FOX,
        "",
        "exact",
    ),
}

SIBLINGS: dict[str, dict[str, Sibling]] = {
    "choosers": CHOOSERS,
    "pipes": PIPES,
    "sides": SIDES,
    "encoders": ENCODERS,
    "texts": TEXTS,
    "made": MADE,
    "other": OTHER,
}
