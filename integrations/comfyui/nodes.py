"""The three nodes, in the form that ComfyUI documents for custom nodes.

See https://docs.comfy.org/custom-nodes/backend/server_overview.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
from pathlib import Path
from typing import Any

from . import client

_ADDRESS = ("STRING", {"default": client.ADDRESS})
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".tif", ".tiff", ".bmp")


class ImpromptFind:
    """Images to prompts: one prompt, one negative prompt and one list of prompts for each image.

    A picture in a workflow carries no prompt, so each is an estimate. The negative prompt is the
    commonest of the prompts around the image, or empty.
    """

    CATEGORY = "imprompt"
    FUNCTION = "find"
    RETURN_TYPES = ("STRING", "STRING", "STRING", "FLOAT")
    RETURN_NAMES = ("prompt", "negative", "nearest", "confidence")
    OUTPUT_IS_LIST = (True, True, True, True)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 ComfyUI's name
        return {
            "required": {
                "image": ("IMAGE",),
                "address": _ADDRESS,
                "nearest": ("INT", {"default": 5, "min": 1, "max": 50}),
            },
            "optional": {
                "contains": ("STRING", {"default": ""}),
                "exclude": ("STRING", {"default": ""}),
                "no_artists": ("BOOLEAN", {"default": False}),
            },
        }

    def find(
        self,
        image: Any,
        address: str,
        nearest: int = 5,
        contains: str = "",
        exclude: str = "",
        no_artists: bool = False,
    ) -> tuple[list[str], list[str], list[str], list[float]]:
        """Return (prompts, negative prompts, nearest prompts a line each, confidences).

        Args:
            image: (n, height, width, 3) from 0 to 1, ComfyUI's IMAGE.
        """
        filters = _filters(contains, exclude, no_artists)
        files = [_png(picture) for picture in image]
        results = client.query(address, files, k=nearest, filters=filters)
        for number, result in enumerate(results, 1):
            if result.get("error"):
                raise RuntimeError(f"imprompt: image {number}: {result['error']['detail']}")
        return (
            [result["prompt"] for result in results],
            [_negative(result) for result in results],
            ["\n".join(hit["shown"] for hit in result["nearest"]) for result in results],
            [float(result.get("confidence") or 0) for result in results],
        )


class ImpromptRead:
    """What an image file itself carries: prompt, negative prompt, settings as JSON, and how."""

    CATEGORY = "imprompt"
    FUNCTION = "read"
    RETURN_TYPES = ("STRING", "STRING", "STRING", "STRING")
    RETURN_NAMES = ("prompt", "negative", "settings", "how")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 ComfyUI's name
        folder = Path(_folders().get_input_directory())
        files = [path.name for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES]
        return {"required": {"image": (sorted(files), {"image_upload": True}), "address": _ADDRESS}}

    def read(self, image: str, address: str) -> tuple[str, str, str, str]:
        """Return (prompt, negative prompt, settings, how); empty texts if the file has none."""
        content = Path(_folders().get_annotated_filepath(image)).read_bytes()
        encoded = base64.b64encode(content).decode()
        found = client.ask(address, "v1/extract", {"image": encoded})
        settings = json.dumps(found.get("settings") or {}, ensure_ascii=False)
        prompt, negative, how = (found.get(name) or "" for name in ("prompt", "negative", "how"))
        return prompt, negative, settings, how

    @classmethod
    def IS_CHANGED(cls, image: str, address: str) -> float:  # noqa: N802, ARG003 ComfyUI's names
        """Run again once the file has changed."""
        return Path(_folders().get_annotated_filepath(image)).stat().st_mtime


class ImpromptSearch:
    """Real prompts near a text, the nearest first."""

    CATEGORY = "imprompt"
    FUNCTION = "search"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("prompts",)
    OUTPUT_IS_LIST = (True,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 ComfyUI's name
        return {
            "required": {
                "text": ("STRING", {"default": "", "multiline": True}),
                "address": _ADDRESS,
                "count": ("INT", {"default": 5, "min": 1, "max": 50}),
            },
            "optional": {
                "contains": ("STRING", {"default": ""}),
                "exclude": ("STRING", {"default": ""}),
            },
        }

    def search(
        self, text: str, address: str, count: int = 5, contains: str = "", exclude: str = ""
    ) -> tuple[list[str]]:
        """Return (prompts,)."""
        body = {"text": text, "k": count, "filters": _filters(contains, exclude, False)}
        (result,) = client.ask(address, "v1/search", body)["results"]
        return ([hit["shown"] for hit in result["nearest"]],)


def _filters(contains: str, exclude: str, no_artists: bool) -> dict[str, Any]:
    filters: dict[str, Any] = {"no_artists": True} if no_artists else {}
    for name, words in (("contains", contains), ("exclude", exclude)):
        if parts := [part.strip() for part in words.split(",") if part.strip()]:
            filters[name] = parts
    return filters


def _png(picture: Any) -> bytes:
    """Return a PNG of (height, width, 3) values from 0 to 1."""
    from PIL import Image

    pixels = (picture.clamp(0, 1) * 255).round().byte().cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _negative(result: dict[str, Any]) -> str:
    if result.get("negative"):
        return str(result["negative"])
    common = (result.get("suggested") or {}).get("negative")
    return str(common["text"]) if common else ""


def _folders() -> Any:
    """Return ComfyUI's module of its folders."""
    return importlib.import_module("folder_paths")
