"""A tab for AUTOMATIC1111's web UI and Forge: the prompt behind an image, sent to txt2img.

Copy the folder above this one to the web UI's `extensions/`. It asks a running `imprompt serve` and
needs nothing that the web UI does not bring.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import gradio as gr
import imprompt_client as client
from modules import script_callbacks

try:
    from modules import infotext_utils as infotexts
except ImportError:  # before version 1.8
    from modules import generation_parameters_copypaste as infotexts

_NOTHING = ("", "", "", "")


def find(path: str | None, address: str, nearest: float) -> tuple[str, str, str, str]:
    """Return (prompt, negative prompt, how it was found, nearest prompts) of an image file.

    What goes wrong is in the third text.
    """
    if not path:
        return ("", "", "Choose an image first.", "")
    content = Path(path).read_bytes()
    try:
        (result,) = client.query(address, [content], k=int(nearest))
    except RuntimeError as error:
        return ("", "", str(error), "")
    if result.get("error"):
        return ("", "", f"imprompt: {result['error']['detail']}", "")
    suggested = (result.get("suggested") or {}).get("negative")
    negative = result.get("negative") or (suggested["text"] if suggested else "")
    hits = "\n".join(f"{hit['score']:.3f}  {hit['shown']}" for hit in result["nearest"])
    return (result["prompt"], negative, _how(result), hits)


def infotext(path: str | None, address: str, prompt: str, negative: str, how: str) -> str:
    """Return what the web UI pastes: the file's own parameters, if it carries some, else the texts.

    Edits of the prompt are kept: then only the texts are pasted.
    """
    written = f"{prompt}\nNegative prompt: {negative}" if negative else prompt
    if path and how.startswith("Exact"):
        encoded = base64.b64encode(Path(path).read_bytes()).decode()
        try:
            found = str(
                client.ask(address, "sdapi/v1/png-info", {"image": encoded}).get("info", "")
            )
        except RuntimeError:
            return written
        if found.startswith(written):
            return found
    return written


def tab() -> list[tuple[Any, str, str]]:
    """Return the tab, as the web UI's callback `on_ui_tabs` wants it."""
    with gr.Blocks(analytics_enabled=False) as page:
        with gr.Row():
            with gr.Column():
                image = gr.Image(type="filepath", label="Image", elem_id="imprompt_image")
                address = gr.Textbox(value=client.ADDRESS, label="Address of imprompt serve")
                nearest = gr.Slider(1, 20, value=5, step=1, label="Nearest prompts")
                button = gr.Button("Find prompt", variant="primary")
            with gr.Column():
                prompt = gr.Textbox(label="Prompt", lines=3, interactive=True)
                negative = gr.Textbox(label="Negative prompt", lines=2, interactive=True)
                how = gr.Textbox(label="How it was found", interactive=False)
                hits = gr.Textbox(label="Nearest prompts", lines=6, interactive=False)
                pasted = gr.Textbox(visible=False, elem_id="imprompt_infotext")
                buttons = infotexts.create_buttons(["txt2img", "img2img"])
        for name, send in buttons.items():
            infotexts.register_paste_params_button(
                infotexts.ParamBinding(
                    paste_button=send,
                    tabname=name,
                    source_text_component=pasted,
                    source_image_component=image,
                )
            )
        found = [prompt, negative, how, hits]
        button.click(fn=find, inputs=[image, address, nearest], outputs=found)
        image.clear(fn=lambda: _NOTHING, inputs=[], outputs=found)
        texts = [image, address, prompt, negative, how]
        for box in (prompt, negative):
            box.change(fn=infotext, inputs=texts, outputs=[pasted])
    return [(page, "imprompt", "imprompt")]


def _how(result: dict[str, Any]) -> str:
    if result["how"] in ("exact", "carried"):
        doubt = f", but not exact: {result['doubt']}" if result.get("doubt") else ""
        kind = "Exact" if result["how"] == "exact" else "Carried"
        return f"{kind}: written in the file by {result.get('tool') or 'its tool'}{doubt}"
    if result.get("close") is False:
        return "Nothing in the corpus is close to this image; this is the best guess."
    confidence = result.get("confidence")
    sure = "" if confidence is None else f", {confidence:.0%} likely to be close"
    return f"Estimated from the prompts of similar images{sure}"


script_callbacks.on_ui_tabs(tab)
