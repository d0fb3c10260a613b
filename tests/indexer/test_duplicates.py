"""Duplicates in a whole build: what is dropped, what is reported, and what a plan depends on."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from imprompt.core.values import Prompt
from imprompt.indexer.build import BuildOptions, build_index, make_plan
from imprompt.indexer.cleaning_rules import Cleaning, UnsafeWords
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from tests.indexer.doubles import BagPair, listed

TAIL = " ".join(f"word{i}" for i in range(20))
TEXTS = [
    *(f"{TAIL} one", f"{TAIL} two", "a castle", f"{TAIL} TWO"),
    *("write to me@mail.org", "a castle", "nsfw", f"{TAIL} three, (four:1.2)"),
]


def build(
    root: Path, *, dropped: Path | None = None, **cleaning: object
) -> tuple[list[Prompt], dict[str, int]]:
    """The rows and the funnel of a build with these settings."""
    settings = msgspec.structs.replace(Cleaning(), **cleaning)
    options = BuildOptions(shard_rows=50, cleaning=settings, dropped=dropped)
    report = build_index(root, [listed(TEXTS, n_submitted=2)], BagPair(), options=options)
    assert verify(root) == []
    with open_version(root) as version:
        return version.prompts.get_many(range(len(version.prompts))), report.manifest.funnel


def shown(prompts: list[Prompt]) -> list[tuple[str, int, int, int]]:
    return [
        (row.text.removeprefix(f"{TAIL} "), row.n_submitted, row.n_duplicates, row.group_id)
        for row in prompts
    ]


def test_near_duplicates_are_dropped(tmp_path: Path) -> None:
    """By default one row of each near group is kept and takes all submissions; sums agree."""
    prompts, funnel = build(tmp_path)
    assert shown(prompts) == [
        ("one", 6, 2, 0),
        ("a castle", 4, 0, 1),
        ("three, (four:1.2)", 2, 0, 2),
    ]
    assert funnel == {
        "read": 8,
        "e-mail address": 1,
        "unsafe": 1,
        "duplicate": 1,
        "near duplicate": 2,
        "kept": 3,
    }
    assert prompts[2].embedded_text.endswith("three, four")


def test_near_duplicates_are_marked(tmp_path: Path) -> None:
    """Marked, they stay, and share the group of the row that would have been kept."""
    prompts, funnel = build(tmp_path, mark_near=True)
    assert shown(prompts) == [
        ("one", 2, 0, 0),
        ("two", 2, 0, 0),
        ("a castle", 4, 0, 2),
        ("TWO", 2, 0, 0),
        ("three, (four:1.2)", 2, 0, 4),
    ]
    assert funnel == {"read": 8, "e-mail address": 1, "unsafe": 1, "duplicate": 1, "kept": 5}


def test_near_duplicates_are_not_looked_for(tmp_path: Path) -> None:
    """Switched off, every different prompt is a row, and the funnel does not speak of them."""
    prompts, funnel = build(tmp_path, near_duplicates=None)
    assert [row.group_id for row in prompts] == [0, 1, 2, 3, 4]
    assert "near duplicate" not in funnel


def test_a_looser_threshold_drops_more(tmp_path: Path) -> None:
    """At .8, two other words of twenty-two are near enough too."""
    prompts, _ = build(tmp_path, near_duplicates=0.8)
    assert shown(prompts) == [("one", 8, 3, 0), ("a castle", 4, 0, 1)]


def test_examples_of_what_was_left_out(tmp_path: Path) -> None:
    """The file names rule, source and kept text with its similarity; no version holds it."""
    path = tmp_path / "dropped.jsonl"
    build(tmp_path / "index", dropped=path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["rule"], row["source_key"]) for row in rows] == [
        ("e-mail address", "row 4"),
        ("unsafe", "row 6"),
        ("duplicate", "row 5"),
        ("near duplicate", "row 1"),
        ("near duplicate", "row 3"),
    ]
    assert (rows[3]["text"], rows[3]["kept"], rows[3]["likeness"]) == (
        TEXTS[1],
        TEXTS[0],
        pytest.approx(20 / 22),
    )
    assert not list((tmp_path / "index").rglob("dropped*"))


def test_examples_are_bounded(tmp_path: Path) -> None:
    """Twenty of a rule, the first ones, however many it left out; the rest is counted."""
    texts = [f"person{i}@mail.org" for i in range(50)] + ["fine"] + ["fine"] * 50
    path = tmp_path / "dropped.jsonl"
    options = BuildOptions(dropped=path)
    report = build_index(tmp_path / "index", [listed(texts)], BagPair(), options=options)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["source_key"] for row in rows] == [f"row {i}" for i in [*range(20), *range(51, 71)]]
    assert report.manifest.funnel["e-mail address"] == 50


def test_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, counts and examples are the same for any batch size."""
    results = set()
    for size in (1, 3, 1000):
        monkeypatch.setattr("imprompt.indexer.engine.READ_ROWS", size)
        monkeypatch.setattr("imprompt.indexer.duplicates._READ_ROWS", size)
        dropped = tmp_path / f"{size}.jsonl"
        prompts, funnel = build(tmp_path / str(size), dropped=dropped)
        results.add((tuple(prompts), tuple(funnel.items()), dropped.read_bytes()))
    assert len(results) == 1


def test_every_setting_is_part_of_the_plan() -> None:
    """Another setting is another plan; the words count, the file for examples does not."""
    spec, source = BagPair().spec, [listed(["a"])]
    settings = [
        Cleaning(),
        Cleaning(min_words=1),
        Cleaning(max_words=9),
        Cleaning(min_tokens=1),
        Cleaning(max_tokens=77),
        Cleaning(languages=("en",)),
        Cleaning(contacts=False),
        Cleaning(unsafe=False),
        Cleaning(nsfw_limit=0.9),
        Cleaning(near_duplicates=0.8),
        Cleaning(near_duplicates=None),
        Cleaning(mark_near=True),
    ]
    options = [BuildOptions(cleaning=cleaning) for cleaning in settings]
    options.append(BuildOptions(unsafe_words=UnsafeWords(frozenset({"word"}), ())))
    plans = [make_plan(source, [spec], options=option).sha256 for option in options]
    assert len(set(plans)) == len(plans)
    assert make_plan(source, [spec], options=BuildOptions(dropped=Path("x"))).sha256 == plans[0]
