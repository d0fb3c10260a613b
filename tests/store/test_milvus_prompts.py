"""Reading a version's prompts: whole, once, and with a bound on memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.core.errors import Checksum, StoreError
from imprompt.store.layout import PROMPTS
from imprompt.store.prompts import DuckPrompts
from imprompt.store.staged_prompts import CorpusState, StagedPrompts
from tests.store.builders import clean_prompt


def write(folder: Path, texts: list[str]) -> Path:
    """The numbered table of these texts."""
    with StagedPrompts(folder) as staged:
        staged.add(
            [clean_prompt(text) for text in texts],
            corpus=0,
            state=CorpusState(len(texts), finished=True),
        )
        staged.number()
    return folder / PROMPTS


def test_digest_reads_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ranges it is read in: their borders lose nothing and repeat nothing."""
    texts = [f"prompt {i}" for i in range(101)]
    path = write(tmp_path, texts)
    with DuckPrompts(path) as prompts:
        whole = prompts.digest()
    for rows in (100, 101, 7, 1):
        monkeypatch.setattr("imprompt.store.prompts._DIGEST_ROWS", rows)
        with DuckPrompts(path) as prompts:
            assert prompts.digest() == whole


def test_reading_takes_a_bounded_share_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs more than the share is one error that says so, and not one of damage.

    Nothing is left in the folder.
    """
    path = write(tmp_path, ["x" * 1_000_000 + str(i) for i in range(20)])
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("imprompt.store.prompts._MEMORY", "8MB")
    with (
        DuckPrompts(path) as prompts,
        pytest.raises(StoreError, match="more than 8MB of this machine's memory") as caught,
    ):
        prompts.get_many(range(20))
    assert not isinstance(caught.value, Checksum)
    assert sorted(tmp_path.rglob("*")) == before
