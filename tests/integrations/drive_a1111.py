"""Loads the extension as the web UI does, and prints what it does as JSON.

    python drive_a1111.py EXTENSION ADDRESS IMAGE…

Runs where gradio is. The web UI's own modules are in no package; these have the names and the
signatures of its version 1.10.
"""

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr

registered: list[Any] = []
bound: list[Any] = []


@dataclass
class ParamBinding:
    """As in the web UI's `infotext_utils`."""

    paste_button: Any
    tabname: str
    source_text_component: Any = None
    source_image_component: Any = None
    source_tabname: Any = None
    override_settings_component: Any = None
    paste_field_names: Any = None


def create_buttons(names: list[str]) -> dict[str, Any]:
    return {name: gr.Button(f"Send to {name}", elem_id=f"{name}_tab") for name in names}


def web_ui() -> None:
    """Give `modules` the names that extensions import."""
    modules = ModuleType("modules")
    callbacks, infotexts = ModuleType("script_callbacks"), ModuleType("infotext_utils")
    vars(callbacks)["on_ui_tabs"] = registered.append
    vars(infotexts).update(
        create_buttons=create_buttons,
        ParamBinding=ParamBinding,
        register_paste_params_button=bound.append,
    )
    vars(modules).update(script_callbacks=callbacks, infotext_utils=infotexts)
    sys.modules["modules"] = modules
    sys.modules["modules.script_callbacks"] = callbacks
    sys.modules["modules.infotext_utils"] = infotexts


def main(extension: Path, address: str, images: list[str]) -> None:
    web_ui()
    sys.path.insert(0, str(extension))  # as the web UI does for the scripts of an extension
    path = extension / "scripts" / "imprompt_tab.py"
    spec = importlib.util.spec_from_file_location(path.name, path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    (callback,) = registered
    ((page, title, name),) = callback()
    found = [script.find(image, address, 3) for image in [*images, ""]]
    pasted = [
        script.infotext(image, address, *answer[:2], answer[2])
        for image, answer in zip(images, found, strict=False)
    ]
    edited = script.infotext(images[0], address, "edited", "", found[0][2])
    away = script.find(images[0], "http://127.0.0.1:9", 3)
    sys.stdout.write(
        json.dumps(
            {
                "gradio": gr.__version__,
                "blocks": isinstance(page, gr.Blocks),
                "tab": [title, name],
                "bound": [each.tabname for each in bound],
                "found": found,
                "pasted": pasted,
                "edited": edited,
                "away": away,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
