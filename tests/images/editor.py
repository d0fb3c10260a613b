"""ComfyUI's editor graphs: what its "workflow" text holds, made from a short notation."""

from __future__ import annotations

from typing import Any


def box(
    key: int,
    kind: str,
    *values: Any,
    links: dict[str, tuple[int, int]] | None = None,
    types: str = "",
    out: str = "",
    mode: int = 0,
    widgets: str = "",
) -> dict[str, Any]:
    """A node of the editor.

    Args:
        values: of its widgets, in the editor's order.
        links: input name to (id of the node it comes from, output).
        types: those of the linked inputs, in their order, one word each.
        out: the types of the outputs, one word each.
        widgets: names of the inputs that are widgets; files of 2025 and later have them all.
    """
    kinds = types.split() + ["*"] * 20
    inputs: list[dict[str, Any]] = [
        {"name": name, "type": kind, "from": place}
        for (name, place), kind in zip((links or {}).items(), kinds, strict=False)
    ]
    known = {row["name"] for row in inputs}
    for row in inputs:
        if row["name"] in widgets.split():
            row["widget"] = {"name": row["name"]}
    inputs += [
        {"name": name, "type": "*", "widget": {"name": name}}
        for name in widgets.split()
        if name not in known
    ]
    outputs = [{"name": kind, "type": kind} for kind in out.split()]
    return {
        "id": key,
        "type": kind,
        "mode": mode,
        "inputs": inputs,
        "outputs": outputs,
        "widgets_values": list(values),
    }


def workflow(
    *boxes: dict[str, Any], subgraphs: list[dict[str, Any]] | None = None, as_objects: bool = False
) -> dict[str, Any]:
    """A graph of them, with its table of links; inside a subgraph links are objects."""
    links: list[Any] = []
    for node in boxes:
        for place, row in enumerate(node["inputs"]):
            source = row.pop("from", None)
            if source is None:
                row["link"] = None
                continue
            number = len(links) + 1
            row["link"] = number
            if as_objects:
                ends = {
                    "origin_id": source[0],
                    "origin_slot": source[1],
                    "target_id": node["id"],
                    "target_slot": place,
                }
                links.append({"id": number, **ends, "type": row["type"]})
            else:
                links.append([number, *source, node["id"], place, row["type"]])
    shown = [node for node in boxes if node["id"] >= 0]
    made: dict[str, Any] = {"last_node_id": 99, "version": 0.4, "nodes": shown, "links": links}
    return made | ({"definitions": {"subgraphs": subgraphs}} if subgraphs else {})


def plain(
    *more: dict[str, Any], positive: tuple[int, int] = (6, 0), negative: tuple[int, int] = (7, 0)
) -> dict[str, Any]:
    """Text to image, where `more` adds nodes and replaces them by their ids."""
    return {
        node["id"]: node
        for node in (
            box(4, "CheckpointLoaderSimple", "own.safetensors", out="MODEL CLIP VAE"),
            box(5, "EmptyLatentImage", 512, 512, 1, out="LATENT"),
            box(
                6,
                "CLIPTextEncode",
                "a red fox",
                links={"clip": (4, 1)},
                types="CLIP",
                out="CONDITIONING",
            ),
            box(
                7,
                "CLIPTextEncode",
                "blurry",
                links={"clip": (4, 1)},
                types="CLIP",
                out="CONDITIONING",
            ),
            box(
                3,
                "KSampler",
                *(7, "randomize", 20, 8.0, "euler", "normal", 1.0),
                links={
                    "model": (4, 0),
                    "positive": positive,
                    "negative": negative,
                    "latent_image": (5, 0),
                },
                types="MODEL CONDITIONING CONDITIONING LATENT",
                out="LATENT",
            ),
            box(
                8,
                "VAEDecode",
                links={"samples": (3, 0), "vae": (4, 2)},
                types="LATENT VAE",
                out="IMAGE",
            ),
            box(9, "SaveImage", "own", links={"images": (8, 0)}, types="IMAGE"),
            *more,
        )
    }
