"""Freed memory goes back when the process has grown, and only then."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imprompt.encoders import memory
from imprompt.encoders.memory import FreedMemory, own_bytes, return_freed_memory


def look_at(monkeypatch: pytest.MonkeyPatch, levels: list[int], *, slack_bytes: int) -> list[int]:
    """At which levels memory was given back, of those that the process is found at."""
    given_back: list[int] = []
    left: Iterator[int] = iter(levels)
    last = 0

    def own() -> int:
        nonlocal last
        last = next(left)
        return last

    monkeypatch.setattr(memory, "own_bytes", own)
    monkeypatch.setattr(memory, "return_freed_memory", lambda: given_back.append(last))
    freed = FreedMemory(slack_bytes)
    try:
        while True:
            freed.check()
    except StopIteration:
        return given_back


def test_it_goes_back_once_the_process_has_grown_by_the_slack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert look_at(monkeypatch, [100, 120, 150, 151, 110, 150, 160, 161, 115], slack_bytes=50) == [
        151,
        161,
    ]


def test_the_lowest_level_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there only while a model was loaded is no reason to wait."""
    assert look_at(monkeypatch, [300, 100, 150, 151, 100], slack_bytes=50) == [151]


def test_what_is_in_use_is_not_given_back_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second model has been loaded: the level behind it is the new one to grow from."""
    assert look_at(monkeypatch, [100, 400, 390, 395, 400, 440], slack_bytes=50) == [400]


def test_a_system_that_does_not_say_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_STATM", tmp_path / "statm")
    monkeypatch.setattr(memory, "return_freed_memory", lambda: pytest.fail("given back"))
    assert own_bytes() == 0
    freed = FreedMemory(1)
    freed.check()
    freed.check()


def test_own_memory_is_that_of_the_process_without_files() -> None:
    return_freed_memory()  # else the array may lie in what earlier tests have freed
    before = own_bytes()
    filled = np.ones(64 << 20, dtype=np.uint8)
    grown = own_bytes() - before
    assert 60 << 20 <= grown <= 72 << 20
    del filled
    return_freed_memory()
    assert own_bytes() - before < 8 << 20


def test_the_most_that_was_found_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = iter([100, 400, 300])
    monkeypatch.setattr(memory, "own_bytes", lambda: next(levels))
    freed = FreedMemory(1000)
    for _ in range(3):
        freed.check()
    assert freed.most_bytes == 400


@pytest.mark.slow
def test_encoding_much_takes_no_more_than_encoding_little() -> None:
    """Encoding 3,072 prompts of all lengths stays below a bound: freed memory is returned."""
    done = subprocess.run(
        [sys.executable, "-c", _ENCODE], check=True, capture_output=True, text=True
    )
    grown_mb = int(done.stdout)
    assert 20 < grown_mb < 430  # 272 and 326; 528 where nothing is given back


_ENCODE = """
import random, threading
from imprompt.encoders.memory import own_bytes
from imprompt.encoders.minilm import load_minilm

rng = random.Random(0)
words = "a portrait of the old castle by night in oil detailed fog rococo neon".split()
texts = [" ".join(rng.choices(words, k=rng.randint(1, 120))) for _ in range(3072)]
encoder = load_minilm(device="cpu")
encoder.encode(texts[:1])
before, most, ended = own_bytes(), [0], threading.Event()

def watch():
    while not ended.wait(0.01):
        most[0] = max(most[0], own_bytes())

watcher = threading.Thread(target=watch)
watcher.start()
encoder.encode(texts)
ended.set()
watcher.join()
print((most[0] - before) // 1_000_000)
"""
