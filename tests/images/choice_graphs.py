"""ComfyUI graphs whose choice, count or chain of samplers decides which texts are the picture's."""

from __future__ import annotations

from typing import Any

from tests.images.graphs import graph, node, sampler_of, second_picture
from tests.images.sibling_graphs import BAD, FOX, HEN, SIBLINGS, Sibling, between, text

BOTH = f"{HEN}, {FOX}"
_UNKNOWN = node("Nobody's Counter", start=1, end=4)
_ENDS = {"input1": ["hen", 0], "input2": ["fox", 0]}


def _by(selector: dict[str, Any], **parts: Any) -> Sibling:
    """Impact's switch, whose number comes from another node."""
    return text("ImpactSwitch", inputs={"select": ["i", 0], **_ENDS}, i=selector, **parts)


CHOICES: dict[str, Sibling] = {
    "a number that nobody knows": _by(_UNKNOWN, wanted=BOTH, how="carried"),
    "a number that is drawn": _by(
        node("Random Number", minimum=1, maximum=2, seed=3), wanted=BOTH, how="carried"
    ),
    "a node that is gone": text(
        "ImpactSwitch", inputs={"select": ["gone", 0], **_ENDS}, wanted=BOTH, how="carried"
    ),
    "an expression": _by(
        node("MathExpression|pysssss", expression="(a + 3) // 2", a=["one", 0]),
        one=node("easy int", value=1),
    ),
    "an expression with a function": _by(
        node("MathExpression|pysssss", expression="randomint(1, 2)"), wanted=BOTH, how="carried"
    ),
    "an expression that has no end": _by(
        node("MathExpression|pysssss", expression="9 ** 9 ** 9"), wanted=BOTH, how="carried"
    ),
    "an expression that divides by nothing": _by(
        node("MathExpression|pysssss", expression="1 / 0"), wanted=BOTH, how="carried"
    ),
    "essentials' expression": _by(
        node("SimpleMath+", value="a * 2", a=["one", 0]), one=node("easy int", value=1)
    ),
    "Comfyroll's multiple": _by(node("CR Integer Multiple", integer=1, multiple=2.0)),
    "Comfyroll, a number that nobody knows": text(
        "CR Text Input Switch",
        inputs={"Input": ["i", 0], "text1": ["hen", 0], "text2": ["fox", 0]},
        i=_UNKNOWN,
        wanted=BOTH,
        how="carried",
    ),
    "conditionings, a number that nobody knows": between(
        "easy conditioningIndexSwitch",
        inputs={"index": ["i", 0], "cond0": ["hen", 0], "cond1": ["yes", 0]},
        i=_UNKNOWN,
        wanted=BOTH,
        how="carried",
    ),
    "Impact, a branch by cond": text(
        "ImpactConditionalBranchSelMode",
        inputs={"cond": ["off", 0], "tt_value": ["hen", 0], "ff_value": ["fox", 0]},
    ),
    "Impact, a signal": text(
        "ImpactIfNone", inputs={"signal": ["fox", 0], "any_input": ["hen", 0]}
    ),
    **{
        f"pictures, {kind}": (
            graph(
                save=node("SaveImage", images=["s", 0]),
                s=node(kind, **inputs),
                i=_UNKNOWN,
                **second_picture(HEN),
            ),
            HEN,
            BAD,
            "carried",
        )
        for kind, inputs in {
            "CR Image Input Switch": {
                "Input": ["i", 0],
                "image1": ["decode", 0],
                "image2": ["d2", 0],
            },
            "ComfySwitchNode": {
                "switch": ["i", 0],
                "on_true": ["decode", 0],
                "on_false": ["d2", 0],
            },
        }.items()
    },
}

_STRINGS: dict[str, Any] = {
    "string_1": ["a", 0],
    "string_2": ["b", 0],
    "string_3": ["hen", 0],
    "delimiter": " ",
}
_PARTS: dict[str, Any] = {
    "a": node("PrimitiveString", value="a red"),
    "b": node("PrimitiveString", value="fox"),
}
COUNTS: dict[str, Sibling] = {
    "KJ, a third left over": text(
        "JoinStringMulti", inputs={"inputcount": 2, **_STRINGS}, **_PARTS
    ),
    "KJ, the count linked": text(
        "JoinStringMulti", inputs={"inputcount": ["two", 0], **_STRINGS}, **_PARTS
    ),
    "KJ, a list": text(
        "JoinStringMulti",
        inputs={"inputcount": 2, "return_list": True, **_STRINGS},
        how="carried",
        **_PARTS,
    ),
    "KJ, conditionings": between(
        "ConditioningMultiCombine",
        inputs={"inputcount": 1, "conditioning_1": ["yes", 0], "conditioning_2": ["hen", 0]},
    ),
    "Easy-Use, one prompt of a list": text(
        "easy promptList", inputs={"prompt_1": FOX, "prompt_2": "", "prompt_3": ""}
    ),
    "Easy-Use, two prompts of a list": text(
        "easy promptList", wanted=BOTH, how="carried", inputs={"prompt_1": HEN, "prompt_2": FOX}
    ),
    "Easy-Use, lines joined": text(
        "easy stringJoinLines", inputs={"string": "a red\n\n fox", "delimiter": " "}
    ),
    "Comfyroll, one row": text(
        "CR Prompt List",
        inputs={
            "prepend_text": "a ",
            "multiline_text": "hen\nred\ncat",
            "append_text": " fox",
            "start_index": 1,
            "max_rows": 1,
        },
    ),
    "Comfyroll, rows": text(
        "CR Text List",
        wanted=f"{HEN}\n{FOX}",
        how="carried",
        inputs={"multiline_text": f"{HEN}\n{FOX}", "start_index": 0, "max_rows": 9},
    ),
    "essentials, one section": between("TextEncodeForSamplerParams+", inputs={"text": FOX}),
    "essentials, sections": between(
        "TextEncodeForSamplerParams+",
        wanted=BOTH,
        how="carried",
        inputs={"text": f"{HEN}\n---\n{FOX}"},
    ),
    "Prompt Utilities, a form": text(
        "PromptUtilitiesFormatString", inputs={"prompt": "[1] [2]", "arg1": "a red", "arg2": "fox"}
    ),
    "Prompt Utilities, joined": text(
        "PromptUtilitiesJoinStringList", wanted=BOTH, inputs={"arg1": HEN, "arg2": "", "arg3": FOX}
    ),
    **{
        f"an average of {share}": between(
            "ConditioningAverage",
            wanted=wanted,
            inputs={
                "conditioning_to": ["yes", 0],
                "conditioning_from": ["hen", 0],
                "conditioning_to_strength": share,
            },
        )
        for share, wanted in {1.0: FOX, 0.0: HEN, 0.5: f"{FOX}, {HEN}"}.items()
    },
}


def _edited(*, strength: object = 1.0, **between_them: dict[str, Any]) -> dict[str, Any]:
    """A second sampler over the first one's picture."""
    return graph(
        save=node("SaveImage", images=["d2", 0]),
        d2=node("VAEDecode", samples=["s2", 0]),
        s2=sampler_of(positive=["y2", 0], latent_image=["l2", 0], denoise=strength, seed=9),
        y2=node("TextEncodeQwenImageEdit", prompt=HEN, image=["decode", 0]),
        full=node("PrimitiveFloat", value=1.0),
        **({"l2": node("VAEEncode", pixels=["decode", 0])} | between_them),
    )


CHAINS: dict[str, Sibling] = {
    "an edit that begins anew": (_edited(), HEN, BAD, "exact"),
    "an edit, its strength linked": (_edited(strength=["full", 0]), HEN, BAD, "exact"),
    "an edit that keeps some": (_edited(strength=0.6), FOX, BAD, "exact"),
    "an edit of a larger latent": (
        _edited(
            l2=node("LatentUpscale", samples=["e2", 0]), e2=node("VAEEncode", pixels=["decode", 0])
        ),
        HEN,
        BAD,
        "exact",
    ),
    "an edit behind a mask": (
        _edited(
            l2=node("SetLatentNoiseMask", samples=["e2", 0], mask=["m", 0]),
            e2=node("VAEEncode", pixels=["decode", 0]),
            m=node("LoadImageMask", image="x.png"),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "a latent that goes on": (
        _edited(l2=node("LatentUpscale", samples=["sampler", 0])),
        FOX,
        BAD,
        "exact",
    ),
    "Stable Cascade": (
        graph(
            decode=node("VAEDecode", samples=["s2", 0]),
            empty=node(
                "StableCascade_EmptyLatentImage",
                width=512,
                height=512,
                compression=42,
                batch_size=1,
            ),
            s2=sampler_of(positive=["b", 0], negative=["z", 0], latent_image=["empty", 1], seed=9),
            b=node(
                "StableCascade_StageB_Conditioning", conditioning=["yes", 0], stage_c=["sampler", 0]
            ),
            z=node("ConditioningZeroOut", conditioning=["yes", 0]),
        ),
        FOX,
        BAD,
        "exact",
    ),
    "XLabs' sampler": (
        graph(
            sampler=node(
                "XlabsSampler",
                conditioning=["yes", 0],
                neg_conditioning=["no", 0],
                noise_seed=7,
                steps=20,
                latent_image=["empty", 0],
            )
        ),
        FOX,
        BAD,
        "exact",
    ),
    "the colours of another picture": (
        graph(
            save=node("SaveImage", images=["c", 0]),
            c=node("ColorMatch", image_ref=["d2", 0], image_target=["decode", 0], method="mkl"),
            **second_picture(HEN),
        ),
        FOX,
        BAD,
        "exact",
    ),
}

ALL_SIBLINGS: dict[str, dict[str, Sibling]] = {
    **SIBLINGS,
    "choices": CHOICES,
    "counts": COUNTS,
    "chains": CHAINS,
}
