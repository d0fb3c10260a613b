"""The files of deploy/ keep to their formats and to what the docs say of them.

Containers are not built or run here.
"""

from __future__ import annotations

import json
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.test_architecture import FLOOR_OF

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
VARIABLE = re.compile(r"\$\{\w+(?::[-?]([^}]*))?\}")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The Compose specification's own, as check-jsonschema carries it."""
    file = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def filled(value: Any) -> Any:
    """With the defaults of its variables, as Compose fills them in; a number becomes one."""
    if isinstance(value, dict):
        return {name: filled(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner) for inner in value]
    if isinstance(value, str) and VARIABLE.search(value):
        text = VARIABLE.sub(lambda found: found[1] or "x", value)
        return int(text) if text.isdecimal() else text
    return value


def test_the_compose_file_keeps_to_the_specification(schema: dict[str, Any]) -> None:
    """And the specification refuses a word that it does not know, so the check is one."""
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(filled(COMPOSE), schema)
    wrong = filled(COMPOSE)
    wrong["services"]["serve"]["replicas"] = 2
    with pytest.raises(jsonschema.ValidationError, match="replicas"):
        jsonschema.validate(wrong, schema)


def test_only_this_machine_reaches_the_proxy_and_nobody_writes_the_index() -> None:
    """Ports only on loopback, read-only servers, no token in the file, public image names."""
    services = COMPOSE["services"]
    assert [port for service in services.values() for port in service.get("ports", [])] == [
        "127.0.0.1:${IMPROMPT_PORT:-7861}:7861"
    ]
    for name, service in services.items():
        assert not re.match(r"[^/]*[.:][^/]*/", service["image"]), f"{name} names a registry's host"
        if name != "milvus":  # it writes, into a volume of its own
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        if "build" not in service.get("profiles", []):
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] == "CMD", name
    assert all(volume["read_only"] for volume in services["serve"]["volumes"])
    assert services["serve"]["environment"]["IMPROMPT_TOKEN"].startswith("${IMPROMPT_TOKEN:?")


def test_a_server_has_time_to_drain() -> None:
    """Longer than the server itself waits for what it has taken."""
    from imprompt.server.serving import _DRAIN_S

    assert int(COMPOSE["services"]["serve"]["stop_grace_period"].removesuffix("s")) > _DRAIN_S


def test_the_probes_ask_what_is_there() -> None:
    """The paths that proxy and health checks ask are routes that need no token."""
    from imprompt.server.middleware import _OPEN_PATHS

    texts = [(DEPLOY / "haproxy.cfg").read_text("utf-8"), json.dumps(COMPOSE)]
    asked = {path for text in texts for path in re.findall(r"/(?:healthz|readyz)\b", text)}
    assert asked == _OPEN_PATHS
    assert "server-template serve 8 serve:7861" in texts[0]


def test_the_image_gets_every_room_and_nothing_that_is_not_there() -> None:
    """What the Dockerfile copies exists, is not ignored, and holds every package."""
    copied = re.findall(
        r"^COPY (.*) \S+$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE
    )
    names = {name for line in copied for name in line.split()}
    assert all((ROOT / name).exists() for name in names)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == names
    assert {room for room in FLOOR_OF if (ROOT / room).is_dir()} <= names


def test_the_extras_of_the_image_exist() -> None:
    """Those that it has by itself, and those that the head of the Compose file names for Milvus."""
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    texts = [(DEPLOY / name).read_text("utf-8") for name in ("Dockerfile", "compose.yaml")]
    asked = {
        extra
        for text in texts
        for found in re.findall(r"EXTRAS(?:=|:-)([a-z,]+)", text)
        for extra in found.split(",")
    }
    assert asked == {"cpu", "milvus"} <= offered.keys()


def test_the_commands_that_are_started_exist() -> None:
    """Each service of ours starts a verb with options that it has."""
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for service in ("serve", "builder"):
        verb, *words = COMPOSE["services"][service]["command"]
        section = re.search(rf"^## {verb}$.*?(?=^## )", page, re.MULTILINE | re.DOTALL)
        assert section, verb
        assert all(word in section.group() for word in words if word.startswith("--"))
