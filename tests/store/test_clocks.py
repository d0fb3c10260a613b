"""A clock that stands, goes back or jumps ahead: order, `gc` and what is in service stay right."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from imprompt.store import layout
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.publish import collect_garbage, current_name, find_version, version_names
from tests.store.builders import build

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEPS = {
    "stands": [timedelta(0)] * 4,
    "goes back": [timedelta(0), timedelta(days=-400), timedelta(hours=-1), timedelta(seconds=-1)],
    "jumps ahead and back": [
        timedelta(0),
        timedelta(days=40_000),
        timedelta(microseconds=1),
        timedelta(days=-1),
    ],
}


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Sets the clock that publishing reads."""

    def run(now: datetime) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
                return now

        monkeypatch.setattr("imprompt.store.publish.datetime", Clock)

    return run


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_names_rise_whatever_the_clock_does(
    steps: list[timedelta], set_clock: Callable[[datetime], None], tmp_path: Path
) -> None:
    """The version published last is the last by name and in service, and `gc` keeps the latest.

    The manifest says what the clock said.
    """
    published = []
    for seed, step in enumerate(steps):
        set_clock(NOON + step)
        manifest = build(tmp_path, seed=seed, rows=20)
        published.append(manifest.version)
        assert manifest.created == (NOON + step).isoformat(timespec="seconds")
        assert current_name(tmp_path) == manifest.version
    assert version_names(tmp_path) == published
    collect_garbage(tmp_path, keep=1)
    assert version_names(tmp_path) == published[-2:]
    layout.current_path(tmp_path).unlink()  # then the last one counts
    collect_garbage(tmp_path, keep=0)
    assert version_names(tmp_path) == published[-1:]


def test_one_plan_twice_in_a_moment(set_clock: Callable[[datetime], None], tmp_path: Path) -> None:
    """As after damage, on a clock that stands: the second is another version, and in service."""
    set_clock(NOON)
    first = build(tmp_path, seed=3, rows=20).version
    second = build(tmp_path, seed=3, rows=20).version
    assert [first, second] == version_names(tmp_path)
    assert find_version(tmp_path, f"{3:064x}") == current_name(tmp_path) == second
    with open_version(tmp_path) as version:
        assert version.manifest.version == second
    assert verify(tmp_path) == []


def test_a_foreign_name_is_no_time(tmp_path: Path) -> None:
    """A version that somebody renamed stays one, and the next one is named by the clock."""
    name = build(tmp_path, seed=0, rows=20).version
    folder = layout.versions_folder(tmp_path)
    (folder / name).rename(folder / "before-the-move")
    layout.current_path(tmp_path).unlink()
    second = build(tmp_path, seed=1, rows=20).version
    assert second[:4] == f"{datetime.now(UTC):%Y}"
    assert current_name(tmp_path) == second
