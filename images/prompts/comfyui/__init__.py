"""ComfyUI's graphs: what each node holds is computed, by rules that are data (`nodes.toml`)."""

from imprompt.images.prompts.comfyui.graph import MAX_LINKS, MAX_NODES, is_graph
from imprompt.images.prompts.comfyui.graph_prompt import read_graph
from imprompt.images.prompts.comfyui.workflow import api_graph, is_workflow, read_workflow

__all__ = [
    "MAX_LINKS",
    "MAX_NODES",
    "api_graph",
    "is_graph",
    "is_workflow",
    "read_graph",
    "read_workflow",
]
