"""Each tool and container in docs/embedded-prompts.md has a self-made file that is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imprompt.images.prompts.comfyui.node_table import node_kinds
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, read_embedded_prompt
from tests.images.tool_files import HIDDEN_FILES, TOOL_FILES, ToolFile
from tests.images.tool_texts import NEGATIVE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "embedded-prompts.md"


def check(found: EmbeddedPrompt | None, wanted: ToolFile) -> None:
    assert found is not None
    assert (found.prompt, found.negative, found.tool) == (wanted.prompt, NEGATIVE, wanted.tool)
    assert wanted.settings
    assert wanted.settings.items() <= found.settings.items()


@pytest.mark.parametrize("name", TOOL_FILES)
def test_what_a_tool_wrote_is_read(name: str, tmp_path: Path) -> None:
    """From the file's header alone."""
    (tmp_path / name).write_bytes(TOOL_FILES[name].data)
    check(read_embedded_prompt(tmp_path / name), TOOL_FILES[name])


@pytest.mark.parametrize("name", HIDDEN_FILES)
def test_what_lies_in_the_pixels_is_read_when_asked_for(name: str, tmp_path: Path) -> None:
    """The header says nothing."""
    (tmp_path / name).write_bytes(HIDDEN_FILES[name].data)
    assert read_embedded_prompt(tmp_path / name) is None
    check(read_embedded_prompt(tmp_path / name, hidden=True), HIDDEN_FILES[name])


def test_the_page_lists_these_files_and_no_others() -> None:
    """Tool, container and file of each row are those of the tests."""
    rows = re.findall(
        r"^\| ([^|(]+?) (?:\([^|]*\) )?\| (\w+) \| [^|]+ \| `([^`]+)` \|$",
        PAGE.read_text("utf-8"),
        re.MULTILINE,
    )
    files = TOOL_FILES | HIDDEN_FILES
    assert sorted(rows) == sorted((file.tool, file.container, name) for name, file in files.items())


def test_the_page_says_exact_of_what_is_held_here_and_of_nothing_else() -> None:
    """Its table of tools and containers, and the number of nodes."""
    page = PAGE.read_text("utf-8")
    table = page.partition("## Tools and containers")[2].partition("## Files")[0]
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line[:1] == "|"
    )
    said = {
        (row[0], container)
        for row in rows
        for container, cell in zip(head[1:], row[1:], strict=True)
        if cell != "unknown"
    }
    assert said == {(file.tool, file.container) for file in (TOOL_FILES | HIDDEN_FILES).values()}
    assert f"What each of {len(node_kinds())} nodes does" in page
