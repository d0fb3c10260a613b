"""The nodes for ComfyUI: loaded as it loads them, in its documented form, against a real server."""

from __future__ import annotations

import http.server
import importlib.util
import json
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from tests.commands.test_query_folder import carrying
from tests.conftest import Imprompt
from tests.server.processes import served

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def nodes() -> ModuleType:
    """The package, by its folder, under a name of ComfyUI's choice."""
    folder = ROOT / "integrations" / "comfyui"
    spec = importlib.util.spec_from_file_location("custom_nodes_imprompt", folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's input folder, by the module that it has for it."""
    module = ModuleType("folder_paths")
    module.get_input_directory = lambda: str(tmp_path)  # type: ignore[attr-defined]
    module.get_annotated_filepath = lambda name: str(tmp_path / name)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    return tmp_path


def run(nodes: ModuleType, name: str, **inputs: Any) -> tuple[Any, ...]:
    """Run a node as ComfyUI does: an instance, its function, all inputs by name."""
    kind = nodes.NODE_CLASS_MAPPINGS[name]
    outputs = getattr(kind(), kind.FUNCTION)(**inputs)
    assert isinstance(outputs, tuple)
    assert len(outputs) == len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES)
    for output, is_list in zip(outputs, getattr(kind, "OUTPUT_IS_LIST", []), strict=False):
        assert isinstance(output, list) == is_list
    return outputs


def test_the_form_of_the_nodes(nodes: ModuleType, inputs: Path) -> None:
    """What ComfyUI reads of a class, and a type that it knows for each input and output."""
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()
    carrying(inputs / "b.png", "a fox")
    (inputs / "notes.txt").write_text("no image")
    for kind in nodes.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(kind, kind.FUNCTION))
        assert kind.CATEGORY == "imprompt"
        assert set(kind.RETURN_TYPES) <= {"STRING", "FLOAT"}
        declared = kind.INPUT_TYPES()
        assert declared.keys() <= {"required", "optional"}
        for name, (sort, *options) in {
            **declared["required"],
            **declared.get("optional", {}),
        }.items():
            assert sort in ("IMAGE", "STRING", "INT", "BOOLEAN") or sort == ["b.png"], name
            assert all(isinstance(option, dict) for option in options)


def test_images_to_prompts(
    nodes: ModuleType, address: str, index: Path, tmp_path: Path, imprompt: Imprompt
) -> None:
    """A batch of six, more than a request takes; the answers are those of the command line."""
    torch.manual_seed(0)
    images = torch.nn.functional.interpolate(torch.rand(6, 3, 5, 7), (80, 112), mode="bilinear")
    images = images.permute(0, 2, 3, 1)
    prompts, negatives, nearest, confidences = run(
        nodes, "ImpromptFind", image=images, address=address, nearest=2
    )
    said = []
    for number, picture in enumerate(images):
        path = tmp_path / f"{number}.png"
        Image.fromarray((picture * 255).round().byte().numpy()).save(path)
        said += imprompt("query", path, "--index", index, "-k", "2", "--json").lines
    assert prompts == [each["prompt"] for each in said]
    assert nearest == ["\n".join(hit["shown"] for hit in each["nearest"]) for each in said]
    assert len(negatives) == len(confidences) == 6
    filtered = run(
        nodes, "ImpromptFind", image=images[:1], address=address, exclude="fox, light", contains=""
    )
    assert "fox" not in filtered[2][0]
    assert "light" not in filtered[0][0]


def test_a_file_and_a_text(nodes: ModuleType, address: str, inputs: Path) -> None:
    """What the file says, that it says nothing, and prompts near a text."""
    carrying(inputs / "a.png", "a red fox, oil painting")
    Image.new("RGB", (8, 8)).save(inputs / "plain.png")
    prompt, negative, settings, how = run(nodes, "ImpromptRead", image="a.png", address=address)
    assert (prompt, negative, how) == ("a red fox, oil painting", "blur", "exact")
    assert json.loads(settings)["steps"] == "20"
    assert run(nodes, "ImpromptRead", image="plain.png", address=address) == ("", "", "{}", "")
    kind = nodes.NODE_CLASS_MAPPINGS["ImpromptRead"]
    before = kind.IS_CHANGED(image="a.png", address=address)
    assert before == (inputs / "a.png").stat().st_mtime
    (found,) = run(nodes, "ImpromptSearch", text="a fox", address=address, count=3, contains="oil")
    assert len(found) == 3
    assert all("oil" in prompt for prompt in found)


NOT_OURS = {"/v1/query": b'{"items": []}', "/v1/search": b"[]", "/v1/extract": b"<html>"}


class Other(http.server.BaseHTTPRequestHandler):
    """A server that is not imprompt, or one of another version."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(NOT_OURS[self.path])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_what_goes_wrong_is_one_line(
    nodes: ModuleType, inputs: Path, address: str, index: Path, tmp_path: Path
) -> None:
    """No server, another program, another version, a token, an empty text, a bad address."""
    picture = torch.zeros(1, 8, 8, 3)
    with pytest.raises(RuntimeError, match="Start it with `imprompt serve`"):
        run(nodes, "ImpromptFind", image=picture, address="http://127.0.0.1:9")
    with pytest.raises(RuntimeError, match="is no address"):
        run(nodes, "ImpromptFind", image=picture, address="file:///etc/passwd")
    with pytest.raises(RuntimeError, match="imprompt: "):
        run(nodes, "ImpromptSearch", text=" ", address=address)
    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{other.server_port}"
        with pytest.raises(RuntimeError, match="in another form than this node reads"):
            run(nodes, "ImpromptFind", image=picture, address=place)
        with pytest.raises(RuntimeError, match="is not imprompt"):
            run(nodes, "ImpromptSearch", text="a fox", address=place)
        carrying(inputs / "a.png", "a fox")
        with pytest.raises(RuntimeError, match="does not answer"):
            run(nodes, "ImpromptRead", image="a.png", address=place)
        other.shutdown()


def test_both_integrations_ask_alike() -> None:
    """Each folder is copied alone, so each has the client."""
    client = ROOT / "integrations" / "comfyui" / "client.py"
    copied = ROOT / "integrations" / "a1111" / "imprompt_client.py"
    assert copied.read_bytes() == client.read_bytes()


def test_a_token_is_sent(
    nodes: ModuleType, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment, and a server that asks for one is understood."""
    with served(index, tmp_path / "log", "--token", "secret-of-the-test") as (_, port):
        inputs = {"text": "a fox", "address": f"http://127.0.0.1:{port}/", "count": 1}
        with pytest.raises(RuntimeError, match="Set IMPROMPT_TOKEN"):
            run(nodes, "ImpromptSearch", **inputs)
        monkeypatch.setenv("IMPROMPT_TOKEN", "secret-of-the-test")
        assert len(run(nodes, "ImpromptSearch", **inputs)[0]) == 1
