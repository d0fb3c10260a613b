"""ComfyUI's graphs: node id to class and inputs, a link as [node id, output]."""

from __future__ import annotations

from typing import Any


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(**nodes: dict[str, Any]) -> dict[str, Any]:
    """Return a text-to-image graph, save <- decode <- sampler <- (yes, no), updated by `nodes`."""
    return {
        "save": node("SaveImage", images=["decode", 0]),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        "sampler": node(
            "KSampler",
            seed=7,
            steps=20,
            cfg=8.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            model=["lora", 0],
            positive=["yes", 0],
            negative=["no", 0],
            latent_image=["empty", 0],
        ),
        "lora": node("LoraLoader", lora_name="x", model=["model", 0], clip=["model", 1]),
        "model": node("CheckpointLoaderSimple", ckpt_name="own.safetensors"),
        "empty": node("EmptyLatentImage", width=512, height=512, batch_size=1),
        "yes": node("CLIPTextEncode", text="a red fox", clip=["lora", 1]),
        "no": node("CLIPTextEncode", text="blurry", clip=["lora", 1]),
    } | nodes


SETTINGS = {
    "seed": "7",
    "steps": "20",
    "cfg_scale": "8.0",
    "sampler": "euler",
    "scheduler": "normal",
    "denoise": "1.0",
    "model": "own.safetensors",
    "size": "512x512",
}


def sampler_of(**inputs: Any) -> dict[str, Any]:
    return node("KSampler", **(graph()["sampler"]["inputs"] | inputs))


def second_picture(text: str) -> dict[str, Any]:
    """Return the nodes of another picture, d2 <- s2 <- y2, made of `text`."""
    return {
        "d2": node("VAEDecode", samples=["s2", 0]),
        "s2": sampler_of(positive=["y2", 0]),
        "y2": node("CLIPTextEncode", text=text),
    }
