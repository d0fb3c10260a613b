"""One file for each tool and container, made as the tool writes it.

`docs/embedded-prompts.md` lists them all.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from tests.images.builders import png, png_chunk
from tests.images.graphs import graph, node
from tests.images.places import (
    gif,
    jpeg_segments,
    packet,
    photoshop,
    png_with,
    saved,
    text_chunk,
    xmp_jpeg,
)
from tests.images.tool_texts import (
    CHARACTERS,
    CIVITAI_TEXT,
    DRAW_THINGS,
    DRAW_THINGS_TEXT,
    EASY,
    EASY_LABELS,
    FOOOCUS,
    FOOOCUS_LABELS,
    FORGE,
    GRAPH,
    HORDE,
    INVOKE_2,
    INVOKE_3,
    INVOKE_5,
    INVOKE_GRAPH,
    INVOKE_REGIONS,
    MATRIX,
    METAHUB,
    MOCHI,
    NEGATIVE,
    NOVELAI_4,
    NOVELAI_TEXTS,
    PARAMETERS,
    PLAIN,
    PROMPT,
    RUINED,
    SETTINGS,
    SPACE,
    SWARM,
    TENSOR,
    UPSCALE,
    WEBUI,
)

_PIXELS = np.zeros((2, 2, 3), np.uint8)
_DESCRIPTION, _MAKE, _MODEL, _SOFTWARE, _MAKER_NOTE, _COMMENT = (
    0x010E,
    0x010F,
    0x0110,
    0x0131,
    0x927C,
    0x9286,
)
_EXIF = 0x8769


@dataclass(frozen=True, slots=True)
class ToolFile:
    """A file's bytes, and what is read from it: the settings at least."""

    tool: str
    container: str
    data: bytes
    prompt: str = PROMPT
    settings: dict[str, str] | None = None


def png_texts(texts: dict[str, str]) -> bytes:
    """iTXt where a text is beyond Latin-1, as Pillow writes it, else tEXt."""
    chunks = b""
    for keyword, text in texts.items():
        try:
            chunks += png_chunk(b"tEXt", keyword.encode() + b"\0" + text.encode("latin-1"))
        except UnicodeEncodeError:
            chunks += png_chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text.encode())
    return png(_PIXELS, colour=2, before=chunks)


def png_with_chunks(chunks: bytes) -> bytes:
    """Any chunks before two by two black pixels."""
    return png(_PIXELS, colour=2, before=chunks)


def exif_file(kind: str, fill: Callable[[Image.Exif], None]) -> bytes:
    exif, buffer = Image.Exif(), BytesIO()
    fill(exif)
    Image.fromarray(_PIXELS).save(buffer, kind, exif=exif.tobytes())
    return buffer.getvalue()


def user_comment(text: str, kind: str, *, encoding: str = "utf-16-be") -> bytes:
    """Return EXIF's user comment as piexif's `UserComment.dump(text, encoding="unicode")` does."""

    def fill(exif: Image.Exif) -> None:
        exif.get_ifd(_EXIF)[_COMMENT] = b"UNICODE\0" + text.encode(encoding)

    return exif_file(kind, fill)


def horde_client(software: str) -> bytes:
    def fill(exif: Image.Exif) -> None:
        exif[_SOFTWARE] = software
        exif.get_ifd(_EXIF)[_COMMENT] = b"UNICODE\0" + HORDE.encode("utf-16-be")

    return exif_file("JPEG", fill)


def fooocus_exif(kind: str) -> bytes:
    """Fooocus puts the comment beside the EXIF folder instead of into it."""

    def fill(exif: Image.Exif) -> None:
        exif[_COMMENT] = json.dumps(FOOOCUS)
        exif[_SOFTWARE] = "Fooocus v2.5.5"
        exif[_MAKER_NOTE] = "fooocus"

    return exif_file(kind, fill)


def comfyui_exif(kind: str) -> bytes:
    def fill(exif: Image.Exif) -> None:
        exif[_MODEL] = "prompt:" + json.dumps(GRAPH)
        exif[_MAKE] = 'workflow:{"nodes": []}'

    return exif_file(kind, fill)


def save_image_extended(kind: str) -> bytes:
    def fill(exif: Image.Exif) -> None:
        exif[_MAKE] = "Prompt: " + json.dumps(GRAPH)
        exif[_DESCRIPTION] = 'Workflow: {"nodes": []}'

    return exif_file(kind, fill)


def novelai_exif(kind: str) -> bytes:
    """The comment without a label, holding all of PNG's texts; four NULs before the description."""

    def fill(exif: Image.Exif) -> None:
        exif[_DESCRIPTION] = b"\0\0\0\0" + PROMPT.encode()
        exif.get_ifd(_EXIF)[_COMMENT] = json.dumps(NOVELAI_TEXTS, ensure_ascii=False).encode()

    return exif_file(kind, fill)


def stealth_rgb(text: str, *, packed: bool, side: int = 96) -> bytes:
    """The same in the lowest bits of red, green and blue, pixel by pixel down each column."""
    body = gzip.compress(text.encode()) if packed else text.encode()
    head = (b"stealth_rgbcomp" if packed else b"stealth_rgbinfo") + (8 * len(body)).to_bytes(
        4, "big"
    )
    bits = np.unpackbits(np.frombuffer(head + body, np.uint8))
    values = np.full(side * side * 3, 100, np.uint8)
    values[: len(bits)] |= bits
    return png(values.reshape(side, side, 3).transpose(1, 0, 2), colour=2)


def stealth(text: str, *, packed: bool, size: tuple[int, int] = (96, 96)) -> bytes:
    """Return a PNG with signature, length and text in the lowest bits of alpha, by columns."""
    body = gzip.compress(text.encode()) if packed else text.encode()
    head = (b"stealth_pngcomp" if packed else b"stealth_pnginfo") + (8 * len(body)).to_bytes(
        4, "big"
    )
    bits = np.unpackbits(np.frombuffer(head + body, np.uint8))
    alpha = np.full(size[0] * size[1], 255, np.uint8)
    alpha[: len(bits)] = 254 | bits
    pixels = np.zeros((size[1], size[0], 4), np.uint8)
    pixels[:, :, 3] = alpha.reshape(size).T
    return png(pixels, colour=6)


DOUBT = "CLIPTextEncode ← OllamaGenerate: written by a model"
_MADE = graph(
    yes=node("CLIPTextEncode", text=["join", 0]),
    join=node("StringConcatenate", string_a="a red fox", string_b=["made", 0], delimiter=" "),
    made=node("OllamaGenerate", prompt="Describe a fox."),
)
CARRIED_TEXT = json.dumps(_MADE)
CARRIED = png_texts({"prompt": CARRIED_TEXT})
"""A picture with a prompt that a language model wrote in part; the file has the rest."""

_INVOKE = {**SETTINGS, "width": "512"}
_COMFY = {**SETTINGS, "scheduler": "normal", "model": "own.safetensors"}
_WEBUI = {
    **SETTINGS,
    "scheduler": "Karras",
    "model": "own-model",
    "model_hash": "0123abcd",
    "lora_hashes": "one: 11aa, two: 22bb",
}
_OWN = {**SETTINGS, "model": "own"}

TOOL_FILES: dict[str, ToolFile] = {
    "automatic1111.png": ToolFile(
        "AUTOMATIC1111", "PNG", png_texts({"parameters": WEBUI}), settings=_WEBUI
    ),
    "automatic1111.jpg": ToolFile(
        "AUTOMATIC1111", "JPEG", user_comment(WEBUI, "JPEG"), settings=_WEBUI
    ),
    "automatic1111.webp": ToolFile(
        "AUTOMATIC1111", "WebP", user_comment(WEBUI, "WEBP"), settings=_WEBUI
    ),
    "forge.png": ToolFile(
        "AUTOMATIC1111", "PNG", png_texts({"parameters": FORGE}), settings=_WEBUI
    ),
    "forge.jpg": ToolFile("AUTOMATIC1111", "JPEG", user_comment(FORGE, "JPEG"), settings=_WEBUI),
    "forge.webp": ToolFile("AUTOMATIC1111", "WebP", user_comment(FORGE, "WEBP"), settings=_WEBUI),
    "comfyui.png": ToolFile(
        "ComfyUI",
        "PNG",
        png_texts({"prompt": json.dumps(GRAPH), "workflow": "{}"}),
        settings=_COMFY,
    ),
    "comfyui.jpg": ToolFile(
        "ComfyUI",
        "JPEG",
        user_comment(json.dumps({"prompt": GRAPH, "workflow": {}}), "JPEG"),
        settings=_COMFY,
    ),
    "comfyui.webp": ToolFile("ComfyUI", "WebP", comfyui_exif("WEBP"), settings=_COMFY),
    "comfyui-extended.jpg": ToolFile(
        "ComfyUI", "JPEG", save_image_extended("JPEG"), settings=_COMFY
    ),
    "comfyui-extended.webp": ToolFile(
        "ComfyUI", "WebP", save_image_extended("WEBP"), settings=_COMFY
    ),
    "invokeai-dream.png": ToolFile(
        "InvokeAI",
        "PNG",
        png_texts({"Dream": f'"{PLAIN} [{NEGATIVE}]" -s20 -W512 -H512 -C7 -Ak_lms -F -S42'}),
        prompt=PLAIN,
        settings={**_INVOKE, "sampler": "k_lms"},
    ),
    "invokeai-2.png": ToolFile(
        "InvokeAI",
        "PNG",
        png_texts({"Dream": "", "sd-metadata": json.dumps(INVOKE_2)}),
        prompt=PLAIN,
        settings=_INVOKE,
    ),
    "invokeai-3.png": ToolFile(
        "InvokeAI", "PNG", png_texts({"invokeai_metadata": json.dumps(INVOKE_3)}), settings=_OWN
    ),
    "invokeai-5.png": ToolFile(
        "InvokeAI", "PNG", png_texts({"invokeai_metadata": json.dumps(INVOKE_5)}), settings=_OWN
    ),
    "novelai.png": ToolFile("NovelAI", "PNG", png_texts(NOVELAI_TEXTS), settings=SETTINGS),
    "novelai.webp": ToolFile("NovelAI", "WebP", novelai_exif("WEBP"), settings=SETTINGS),
    "fooocus.png": ToolFile(
        "Fooocus",
        "PNG",
        png_texts({"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"}),
        settings=_OWN,
    ),
    "fooocus.jpg": ToolFile("Fooocus", "JPEG", fooocus_exif("JPEG"), settings=_OWN),
    "fooocus.webp": ToolFile("Fooocus", "WebP", fooocus_exif("WEBP"), settings=_OWN),
    "fooocus-text.png": ToolFile(
        "Fooocus",
        "PNG",
        png_texts(
            {"parameters": PARAMETERS + "Version: Fooocus v2.5.5", "fooocus_scheme": "a1111"}
        ),
        settings=_WEBUI,
    ),
    "easy-diffusion.png": ToolFile(
        "Easy Diffusion", "PNG", png_texts({k: str(v) for k, v in EASY.items()}), settings=_OWN
    ),
    "easy-diffusion-labels.png": ToolFile(
        "Easy Diffusion", "PNG", png_texts(EASY_LABELS), settings=_OWN
    ),
    "easy-diffusion.jpg": ToolFile(
        "Easy Diffusion", "JPEG", user_comment(json.dumps(EASY), "JPEG"), settings=_OWN
    ),
    "easy-diffusion.webp": ToolFile(
        "Easy Diffusion", "WebP", user_comment(json.dumps(EASY), "WEBP"), settings=_OWN
    ),
    "swarmui.png": ToolFile(
        "SwarmUI",
        "PNG",
        png_texts(
            {"parameters": json.dumps(SWARM, ensure_ascii=False), "prompt": json.dumps(GRAPH)}
        ),
        settings=_OWN,
    ),
    "swarmui.jpg": ToolFile(
        "SwarmUI",
        "JPEG",
        user_comment(json.dumps(SWARM, ensure_ascii=False), "JPEG", encoding="utf-16-le"),
        settings=_OWN,
    ),
    "swarmui.webp": ToolFile(
        "SwarmUI",
        "WebP",
        user_comment(json.dumps(SWARM, ensure_ascii=False), "WEBP", encoding="utf-16-le"),
        settings=_OWN,
    ),
    "civitai.jpg": ToolFile(
        "Civitai", "JPEG", user_comment(json.dumps(UPSCALE), "JPEG"), settings=SETTINGS
    ),
    "civitai.png": ToolFile(
        "Civitai", "PNG", png_texts({"prompt": json.dumps(UPSCALE)}), settings=SETTINGS
    ),
    "civitai-chunk.png": ToolFile(
        "Civitai",
        "PNG",
        png_texts({"prompt": json.dumps(GRAPH), "extraMetadata": str(UPSCALE["extraMetadata"])}),
        settings=SETTINGS,
    ),
    "civitai-text.jpg": ToolFile(
        "Civitai", "JPEG", user_comment(CIVITAI_TEXT, "JPEG"), settings=SETTINGS
    ),
    "civitai-text.png": ToolFile(
        "Civitai", "PNG", png_texts({"parameters": CIVITAI_TEXT}), settings=SETTINGS
    ),
    "tensor-art.png": ToolFile(
        "Tensor.Art",
        "PNG",
        png_texts({"prompt": json.dumps(GRAPH), "generation_data": json.dumps(TENSOR) + "\0\0"}),
        settings=_OWN,
    ),
    "stability-matrix.png": ToolFile(
        "Stability Matrix",
        "PNG",
        png_texts(
            {"parameters": PARAMETERS, "parameters-json": json.dumps(MATRIX), "smproj": "{}"}
        ),
        settings=_OWN,
    ),
    "ruined-fooocus.png": ToolFile(
        "RuinedFooocus", "PNG", png_texts({"parameters": json.dumps(RUINED)}), settings=_OWN
    ),
    "hugging-face.png": ToolFile(
        "Hugging Face", "PNG", png_texts({"parameters": json.dumps(SPACE)}), settings=_OWN
    ),
}
TOOL_FILES |= {
    "automatic1111.gif": ToolFile("AUTOMATIC1111", "GIF", gif(WEBUI), settings=_WEBUI),
    "automatic1111.avif": ToolFile(
        "AUTOMATIC1111", "AVIF", user_comment(WEBUI, "AVIF"), settings=_WEBUI
    ),
    "automatic1111.tif": ToolFile(
        "AUTOMATIC1111", "TIFF", user_comment(WEBUI, "TIFF"), settings=_WEBUI
    ),
    "comfyui-xmp.webp": ToolFile(
        "ComfyUI", "WebP", saved("WEBP", xmp=packet("prompt", json.dumps(GRAPH))), settings=_COMFY
    ),
    "comfyui.avif": ToolFile(
        "ComfyUI", "AVIF", saved("AVIF", xmp=packet("prompt", json.dumps(GRAPH))), settings=_COMFY
    ),
    "comfyui-animated.png": ToolFile(
        "ComfyUI",
        "PNG",
        png_with(behind=png_chunk(b"comf", b"prompt\0" + json.dumps(GRAPH).encode())),
        settings=_COMFY,
    ),
    "comfyui-infotext.png": ToolFile(
        "ComfyUI",
        "PNG",
        png_texts({"parameters": PARAMETERS, "prompt": json.dumps(GRAPH)}),
        settings=SETTINGS,
    ),
    "comfyui-metahub.png": ToolFile(
        "ComfyUI", "PNG", png_texts({"imagemetahub_data": json.dumps(METAHUB)}), settings=_OWN
    ),
    "novelai-4.png": ToolFile(
        "NovelAI",
        "PNG",
        png_texts({**NOVELAI_TEXTS, "Comment": json.dumps(NOVELAI_4)}),
        prompt=", ".join((PROMPT, *CHARACTERS)),
        settings=SETTINGS,
    ),
    "invokeai-regions.png": ToolFile(
        "InvokeAI",
        "PNG",
        png_texts({"invokeai_metadata": json.dumps(INVOKE_REGIONS)}),
        settings=_OWN,
    ),
    "invokeai-graph.png": ToolFile(
        "InvokeAI", "PNG", png_texts({"invokeai_graph": json.dumps(INVOKE_GRAPH)}), settings=_INVOKE
    ),
    "draw-things.png": ToolFile(
        "Draw Things",
        "PNG",
        png_with(
            text_chunk("XML:com.adobe.xmp", packet("UserComment", json.dumps(DRAW_THINGS)).decode())
        ),
        settings=_OWN,
    ),
    "draw-things.jpg": ToolFile(
        "Draw Things",
        "JPEG",
        xmp_jpeg(packet("UserComment", json.dumps(DRAW_THINGS))),
        settings=_OWN,
    ),
    "draw-things-description.jpg": ToolFile(
        "Draw Things", "JPEG", xmp_jpeg(packet("description", DRAW_THINGS_TEXT)), settings=_OWN
    ),
    "fooocus-labels.png": ToolFile(
        "Fooocus",
        "PNG",
        png_texts({"parameters": json.dumps(FOOOCUS_LABELS)}),
        settings={"seed": "42"},
    ),
    "mochi.png": ToolFile(
        "Mochi Diffusion",
        "PNG",
        png_with(text_chunk("XML:com.adobe.xmp", packet("description", MOCHI).decode())),
        settings=_OWN,
    ),
    "mochi.jpg": ToolFile(
        "Mochi Diffusion", "JPEG", jpeg_segments((0xED, photoshop(MOCHI))), settings=_OWN
    ),
    "artbot.jpg": ToolFile(
        "ArtBot",
        "JPEG",
        horde_client("ArtBot - Create images with Stable Diffusion"),
        settings=_OWN,
    ),
    "stable-ui.jpg": ToolFile(
        "Stable UI",
        "JPEG",
        horde_client("Stable UI - Create images with the AI Horde"),
        settings=_OWN,
    ),
}
HIDDEN_FILES: dict[str, ToolFile] = {
    "novelai-hidden.png": ToolFile(
        "NovelAI", "PNG", stealth(json.dumps(NOVELAI_TEXTS), packed=True), settings=SETTINGS
    ),
    "automatic1111-hidden-rgb.png": ToolFile(
        "AUTOMATIC1111", "PNG", stealth_rgb(WEBUI, packed=True), settings=_WEBUI
    ),
    "automatic1111-hidden-rgb-plain.png": ToolFile(
        "AUTOMATIC1111", "PNG", stealth_rgb(WEBUI, packed=False), settings=_WEBUI
    ),
    "automatic1111-hidden.png": ToolFile(
        "AUTOMATIC1111", "PNG", stealth(WEBUI, packed=False), settings=_WEBUI
    ),
}
"""Files whose text lies in their pixels."""
