"""The prompt of ComfyUI's graphs, computed node by node by the rules in `nodes.toml`.

`workflow` converts the editor's graph, `graph` parses the API's, `graph_prompt` finds the sampler
of the saved picture, `node_values` computes its texts by `node_table` and `text_operations`.
"""

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
