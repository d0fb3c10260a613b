"""`imprompt mcp`, driven by the official client: three tools, and folders that nobody leaves."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from PIL import Image

from imprompt.core.errors import ConfigError
from tests.commands.test_filter_options import PAINTED, build
from tests.commands.test_query_folder import carrying
from tests.conftest import Imprompt

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
Ask = Callable[[Client], Awaitable[None]]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("mcp"), PAINTED)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with one image that carries a prompt, one that does not, and a link out of it."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    carrying(folder / "carried.png", "a red fox, oil painting")
    Image.effect_noise((64, 64), 60).convert("RGB").save(folder / "sub" / "plain.png")
    carrying(tmp_path / "secret.png", "nobody may read this")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


def with_client(ask: Ask, *words: str | Path) -> None:
    """Start `imprompt mcp WORD…` as an assistant does, and talk to it."""
    program = StdioServerParameters(
        command=sys.executable, args=[str(ROOT / "cli.py"), "mcp", *map(str, words)]
    )

    async def run() -> None:
        async with Client(program) as client:
            await ask(client)

    anyio.run(run)


async def call(client: Client, tool: str, **named: Any) -> tuple[bool, Any]:
    """Return whether the call failed, and its value or the text of the error."""
    result: Any = await client.call_tool(tool, named)
    return bool(result.is_error), result.structured_content or result.content[0].text


def test_an_assistant_reads_finds_and_searches(
    index: Path, images: Path, imprompt: Imprompt
) -> None:
    """What the command line says, without what only programs need."""
    (said,) = imprompt(
        "query", images / "sub" / "plain.png", "--index", index, "-k", "2", "--json"
    ).lines

    async def ask(client: Client) -> None:
        listed = await client.list_tools()
        assert {tool.name for tool in listed.tools} == {
            "read_prompt",
            "find_prompt",
            "search_prompts",
        }
        assert all(tool.description for tool in listed.tools)
        failed, value = await call(client, "read_prompt", path=str(images / "carried.png"))
        assert (failed, value["prompt"], value["how"]) == (
            False,
            "a red fox, oil painting",
            "exact",
        )
        assert value["negative"] == "blur"
        _, value = await call(client, "read_prompt", path="sub/plain.png")
        assert value["prompt"] is None
        _, value = await call(client, "find_prompt", path="sub/plain.png", nearest=2)
        assert (value["prompt"], value["how"]) == (said["prompt"], "estimated")
        assert [hit["prompt"] for hit in value["nearest"]] == [
            hit["prompt"] for hit in said["nearest"]
        ]
        assert "row_ids" not in value["phrases"][0]
        _, value = await call(client, "find_prompt", path="carried.png")
        assert value["how"] == "exact"
        _, value = await call(client, "search_prompts", text="a fox", count=3, contains="oil")
        assert len(value["nearest"]) == 3
        assert all("oil" in hit["prompt"] for hit in value["nearest"])

    with_client(ask, images, "--index", index)


def test_nothing_outside_of_the_folders_is_read(index: Path, images: Path) -> None:
    """By a path, by dots, by a link, by a folder that begins alike; each says which may be read."""
    beside = images.with_name("images-of-others")
    beside.mkdir()
    carrying(beside / "a.png", "nobody may read this")
    names = [
        str(images.parent / "secret.png"),
        "../secret.png",
        str(images / ".." / "secret.png"),
        "link.png",
        str(images / "link.png"),
        str(beside / "a.png"),
        "/etc/passwd",
        "\0",
    ]

    async def ask(client: Client) -> None:
        for tool in ("read_prompt", "find_prompt"):
            for name in names:
                failed, text = await call(client, tool, path=name)
                assert failed, (tool, name)
                assert "is not in a folder that may be read" in text
                assert str(images) in text
                assert "nobody" not in text

    with_client(ask, images, "--index", index)


def test_errors_are_lines_that_an_assistant_can_act_on(
    index: Path, images: Path, tmp_path: Path
) -> None:
    """A missing file, a count, no index: the message and its remedy, never a traceback."""
    (images / "broken.png").write_bytes(b"no image")

    async def ask(client: Client) -> None:
        calls: list[tuple[str, dict[str, Any], str]] = [
            ("read_prompt", {"path": str(images / "none.png")}, "there is no such file"),
            ("find_prompt", {"path": "broken.png"}, "broken.png"),
            ("find_prompt", {"path": "carried.png", "nearest": 51}, "Ask for 0 to 50"),
            ("search_prompts", {"text": "a fox", "count": 0}, "Ask for 1 to 50"),
            ("search_prompts", {"text": " "}, "Neither an image nor a text"),
        ]
        for tool, named, said in calls:
            failed, text = await call(client, tool, **named)
            assert failed, (tool, named)
            assert said in text
            assert "Traceback" not in text

    with_client(ask, images, "--index", index)

    async def ask_without(client: Client) -> None:
        failed, text = await call(client, "read_prompt", path="carried.png")
        assert not failed, "a file's own prompt needs no index"
        failed, text = await call(client, "search_prompts", text="a fox")
        assert failed
        assert "There is no index" in text

    with_client(ask_without, images, "--index", tmp_path / "none")


def test_it_starts_with_folders_only(imprompt: Imprompt, tmp_path: Path) -> None:
    """A file or nothing is no folder."""
    done = imprompt("mcp", tmp_path / "none")
    assert done.code == ConfigError.exit_code
    assert f"{tmp_path / 'none'} is not a folder" in done.err
    assert imprompt("mcp").code == 2
