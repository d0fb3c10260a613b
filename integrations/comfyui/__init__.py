"""Nodes for ComfyUI: the prompt behind an image, by a running `imprompt serve`.

Copy this folder to ComfyUI's `custom_nodes/`. It needs nothing that ComfyUI does not bring.
"""

from .nodes import ImpromptFind, ImpromptRead, ImpromptSearch

NODE_CLASS_MAPPINGS = {
    "ImpromptFind": ImpromptFind,
    "ImpromptRead": ImpromptRead,
    "ImpromptSearch": ImpromptSearch,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ImpromptFind": "Find prompt (imprompt)",
    "ImpromptRead": "Read prompt of file (imprompt)",
    "ImpromptSearch": "Search prompts (imprompt)",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
