"""Files in the form of public reports, each with its right prompt, settings, tool and `how`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, read_embedded_prompt

FOLDER = Path(__file__).parent / "reported"
CASES: list[dict[str, Any]] = [
    json.loads(line) for line in (FOLDER / "cases.jsonl").read_text("utf-8").splitlines()
]
# What the graph made of these texts is not in the file: another node's JSON, a list of trigger
# words.
CARRIED = {"043-ideogram-builder-kj"}


def read(case: dict[str, Any]) -> EmbeddedPrompt | None:
    return read_embedded_prompt(FOLDER / case["file"], hidden="--hidden" in case.get("options", ()))


def fits(text: str, wanted: str | list[str] | None) -> bool:
    return text in (wanted if isinstance(wanted, list) else [wanted or ""])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_a_file_in_the_form_of_a_report_is_read_right(case: dict[str, Any]) -> None:
    """A list of texts means any of them."""
    found, wanted = read(case), case["expect"]
    if wanted["prompt"] is None:
        assert found is None
        return
    assert found is not None
    assert fits(found.prompt, wanted["prompt"])
    assert "negative" not in wanted or fits(found.negative, wanted["negative"])
    assert wanted.get("settings", {}).items() <= found.settings.items()
    assert found.tool == wanted.get("tool", found.tool)
    assert found.how == ("carried" if case["case"] in CARRIED else "exact")


def test_each_file_has_its_case() -> None:
    """None lies there unread."""
    assert {case["file"] for case in CASES} == {path.name for path in FOLDER.iterdir()} - {
        "cases.jsonl"
    }
