"""What each tool writes about one picture, as it writes it: texts, and objects that become JSON."""

from __future__ import annotations

import json
from typing import Any

PROMPT = "a lighthouse at dusk, (oil on canvas:1.2), café 灯台"
PLAIN = "a lighthouse at dusk, oil on canvas"
NEGATIVE = "blurry, low quality"
SETTINGS = {"seed": "42", "steps": "20", "cfg_scale": "7", "sampler": "Euler a"}

PARAMETERS = (
    f"{PROMPT}\nNegative prompt: {NEGATIVE}\n"
    "Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 42, "
    'Size: 512x512, Model hash: 0123abcd, Model: own-model, Lora hashes: "one: 11aa, two: 22bb", '
)
FORGE = (
    PARAMETERS
    + "Distilled CFG Scale: 3.5, Version: f2.0.1v1.10.1-previous-313-g8a042934, Module 1: ae"
)
WEBUI = PARAMETERS + 'Hashes: {"model": "0123abcd", "vae": "4567"}, Version: v1.10.1'
RESOURCES = (
    'Civitai resources: [{"type":"checkpoint","modelVersionId":1,"modelName":"Own, two"}], '
    "Civitai metadata: {}"
)
CIVITAI_TEXT = (
    f"{PROMPT}\nNegative prompt: {NEGATIVE}\n"
    f"Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x512, {RESOURCES}"
)

GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 42,
            "steps": 20,
            "cfg": 7,
            "sampler_name": "Euler a",
            "scheduler": "normal",
            "denoise": 1,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "own.safetensors"}},
    "5": {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 512, "height": 512, "batch_size": 1},
    },
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": PROMPT, "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": NEGATIVE, "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {
        "class_type": "SaveImage",
        "inputs": {"images": ["8", 0]},
        "_meta": {"title": "Save Image"},
    },
}
UPSCALE = {
    "12": {"class_type": "SaveImage", "inputs": {"images": ["22", 0]}},
    "22": {
        "class_type": "ImageUpscaleWithModel",
        "inputs": {"image": ["26", 0], "upscale_model": ["23", 0]},
    },
    "23": {
        "class_type": "UpscaleModelLoader",
        "inputs": {"model_name": "urn:air:other:upscaler:civitai:1@1"},
    },
    "26": {
        "class_type": "LoadImage",
        "inputs": {"image": "https://example.org/a.jpeg", "upload": "image"},
    },
    "extra": {"airs": ["urn:air:other:upscaler:civitai:1@1"]},
    "extraMetadata": json.dumps(
        {
            "prompt": PROMPT,
            "negativePrompt": NEGATIVE,
            "cfgScale": 7,
            "sampler": "Euler a",
            "steps": 20,
            "seed": 42,
            "resources": [{"modelVersionId": 1, "strength": 1}],
            "workflow": "txt2img",
        }
    ),
}
NOVELAI = {
    "prompt": PROMPT,
    "steps": 20,
    "height": 512,
    "width": 512,
    "scale": 7,
    "uncond_scale": 0.0,
    "seed": 42,
    "sampler": "Euler a",
    "noise_schedule": "karras",
    "uc": NEGATIVE,
    "request_type": "PromptGenerateRequest",
}
NOVELAI_TEXTS = {
    "Title": "NovelAI generated image",
    "Description": PROMPT,
    "Software": "NovelAI",
    "Source": "NovelAI Diffusion V4 37442FCA",
    "Generation time": "2.5",
    "Comment": json.dumps(NOVELAI),
}
FOOOCUS = {
    "adm_guidance": "(1.5, 0.8, 0.3)",
    "base_model": "own",
    "base_model_hash": "0123abcd",
    "clip_skip": 2,
    "full_negative_prompt": [NEGATIVE],
    "full_prompt": [PROMPT, "cinematic still"],
    "guidance_scale": 7,
    "loras": [],
    "metadata_scheme": "fooocus",
    "negative_prompt": NEGATIVE,
    "performance": "Speed",
    "prompt": PROMPT,
    "prompt_expansion": "",
    "refiner_model": "None",
    "refiner_switch": 0.5,
    "resolution": "(512, 512)",
    "sampler": "Euler a",
    "scheduler": "karras",
    "seed": "42",
    "sharpness": 2,
    "steps": 20,
    "styles": "[]",
    "vae": "Default",
    "version": "Fooocus v2.5.5",
}
EASY = {
    "prompt": PROMPT,
    "negative_prompt": NEGATIVE,
    "seed": 42,
    "num_inference_steps": 20,
    "guidance_scale": 7,
    "sampler_name": "Euler a",
    "width": 512,
    "height": 512,
    "use_stable_diffusion_model": "own",
    "use_vae_model": "",
}
EASY_LABELS = {
    "Prompt": PROMPT,
    "Negative Prompt": NEGATIVE,
    "Seed": "42",
    "Steps": "20",
    "Guidance Scale": "7",
    "Sampler": "Euler a",
    "Stable Diffusion model": "own",
    "Width": "512",
    "Height": "512",
}
SWARM = {
    "sui_image_params": {
        "prompt": PROMPT,
        "negativeprompt": NEGATIVE,
        "model": "own",
        "images": 1,
        "steps": 20,
        "cfgscale": 7,
        "seed": 42,
        "sampler": "Euler a",
        "scheduler": "normal",
        "width": 512,
        "height": 512,
        "swarm_version": "0.9.6.2",
    },
    "sui_extra_data": {"date": "2026-01-01", "generation_time": "1.00 sec"},
    "sui_models": [{"name": "own.safetensors", "param": "model", "hash": "0x0123"}],
}
INVOKE_2 = {
    "model": "stable diffusion",
    "model_weights": "own",
    "model_hash": "0123abcd",
    "app_id": "invoke-ai/InvokeAI",
    "app_version": "v2.3.5",
    "image": {
        "prompt": [{"prompt": f"{PLAIN} [{NEGATIVE}]", "weight": 1.0}],
        "steps": 20,
        "cfg_scale": 7,
        "seed": 42,
        "sampler": "Euler a",
        "height": 512,
        "width": 512,
        "type": "txt2img",
        "variations": [],
        "hires_fix": False,
    },
}
INVOKE_3 = {
    "generation_mode": "txt2img",
    "positive_prompt": PROMPT,
    "negative_prompt": NEGATIVE,
    "seed": 42,
    "steps": 20,
    "cfg_scale": 7,
    "scheduler": "Euler a",
    "width": 512,
    "height": 512,
    "app_version": "3.7.0",
    "loras": [],
    "model": {"model_name": "own", "base_model": "sd-1", "model_type": "main"},
}
INVOKE_5 = INVOKE_3 | {
    "app_version": "5.6.0",
    "model": {"key": "k", "hash": "blake3:01", "name": "own", "base": "sdxl", "type": "main"},
}
TENSOR = {
    "prompt": PROMPT,
    "negativePrompt": NEGATIVE,
    "seed": "42",
    "steps": 20,
    "cfgScale": 7,
    "samplerName": "Euler a",
    "baseModel": {"modelFileName": "own", "hash": "0123ABCD"},
}
MATRIX = {
    "PositivePrompt": PROMPT,
    "NegativePrompt": NEGATIVE,
    "Seed": 42,
    "Steps": 20,
    "CfgScale": 7,
    "Sampler": "Euler a",
    "ModelName": "own",
}
CHARACTERS = ("a keeper with a lamp", "a gull")
NOVELAI_4 = {
    **NOVELAI,
    "v4_prompt": {
        "caption": {
            "base_caption": PROMPT,
            "char_captions": [{"char_caption": text, "centers": []} for text in CHARACTERS],
        },
        "use_coords": False,
    },
    "v4_negative_prompt": {
        "caption": {
            "base_caption": NEGATIVE,
            "char_captions": [{"char_caption": "", "centers": []}],
        }
    },
}
INVOKE_REGIONS = {
    "app_version": "6.8.1",
    "positive_prompt": "",
    "negative_prompt": NEGATIVE,
    "cfg_scale": 7,
    "steps": 20,
    "seed": 42,
    "scheduler": "Euler a",
    "model": {"name": "own"},
    "canvas_v2_metadata": {
        "regionalGuidance": [
            {"positivePrompt": PROMPT, "negativePrompt": None, "isEnabled": True},
            {"positivePrompt": "switched off", "negativePrompt": None, "isEnabled": False},
        ]
    },
}
INVOKE_GRAPH = {
    "id": "own",
    "nodes": {
        "text": {"id": "text", "type": "string", "value": PROMPT},
        "yes": {"id": "yes", "type": "compel", "prompt": "old"},
        "no": {"id": "no", "type": "compel", "prompt": NEGATIVE},
        "denoise": {
            "id": "denoise",
            "type": "denoise_latents",
            "steps": 20,
            "cfg_scale": 7,
            "scheduler": "Euler a",
        },
        "noise": {"id": "noise", "type": "noise", "seed": 42, "width": 512, "height": 512},
    },
    "edges": [
        {"source": {"node_id": source, "field": a}, "destination": {"node_id": target, "field": b}}
        for source, a, target, b in (
            ("text", "value", "yes", "prompt"),
            ("yes", "conditioning", "denoise", "positive_conditioning"),
            ("no", "conditioning", "denoise", "negative_conditioning"),
            ("noise", "noise", "denoise", "noise"),
        )
    ],
}
DRAW_THINGS = {
    "c": PROMPT,
    "uc": NEGATIVE,
    "steps": 20,
    "sampler": "Euler a",
    "scale": 7,
    "seed": 42,
    "size": "512x512",
    "model": "own",
    "strength": 1.0,
}
DRAW_THINGS_TEXT = (
    f"{PROMPT}\n-{NEGATIVE}\nSteps: 20, Sampler: Euler a, Guidance Scale: 7, Seed: 42, "
    "Size: 512x512, Model: own, Strength: 1.0"
)
MOCHI = (
    f"Include in Image: {PROMPT}; Exclude from Image: {NEGATIVE}; "
    "Model: own; Steps: 20; Guidance Scale: 7; Seed: 42; Size: 512x512; Upscaler: ; "
    "Scheduler: Euler a; ML Compute Unit: CPU & Neural Engine; Generator: Mochi Diffusion 4.0"
)
HORDE = (
    f"{PROMPT}\nNegative prompt: {NEGATIVE}\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x512, model: own"
)
METAHUB = {
    "generator": "ComfyUI",
    "prompt": PROMPT,
    "negativePrompt": NEGATIVE,
    "seed": 42,
    "steps": 20,
    "cfg": 7,
    "sampler_name": "Euler a",
    "model": "own",
}
FOOOCUS_LABELS = {
    "Prompt": PROMPT,
    "Negative Prompt": NEGATIVE,
    "Fooocus V2 Expansion": "",
    "Styles": "['Fooocus V2']",
    "Performance": "Speed",
    "Resolution": "(512, 512)",
    "Base Model": "own",
    "Seed": 42,
}
RUINED = {
    "Prompt": PROMPT,
    "Negative": NEGATIVE,
    "steps": 20,
    "cfg": 7,
    "seed": 42,
    "sampler_name": "Euler a",
    "width": 512,
    "base_model_name": "own",
    "loras": [],
    "software": "RuinedFooocus",
}
SPACE = {
    "prompt": PROMPT,
    "negative_prompt": NEGATIVE,
    "resolution": "512 x 512",
    "guidance_scale": 7,
    "seed": 42,
    "num_inference_steps": 20,
    "sampler": "Euler a",
    "use_upscaler": None,
    "Model": "own",
    "Model hash": "0123abcd",
}
