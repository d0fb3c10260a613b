"""Corpora with a name come from the hub's cache, or end in one line that names the file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import WeightsMissing
from indexer.sources import PRESETS, parse_corpus


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache in the hub's own layout, of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_preset_is_read_from_the_hubs_cache(hub_cache: Path) -> None:
    """DiffusionDB's columns, its prompts, the preset's name as the source; nothing is fetched."""
    repo = hub_cache / "datasets--poloclub--diffusiondb"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40, "utf-8")
    columns = {"prompt": ["a red fox", "a bowl of ramen"], "seed": [1, 2], "cfg": [7.0, 7.0], "user_name": ["x", "y"]}
    pq.write_table(pa.table(columns), snapshot / "metadata.parquet")
    (batch,) = parse_corpus("diffusiondb-2m", offline=True).batches(10)
    assert [(row.text, row.source) for row in batch.prompts] == [
        ("a red fox", "diffusiondb-2m"),
        ("a bowl of ramen", "diffusiondb-2m"),
    ]


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_that_is_not_there_names_its_file(hub_cache: Path, preset: str) -> None:
    """Offline and not in the cache: the file, its repository and what to do."""
    with pytest.raises(WeightsMissing, match=rf"poloclub/diffusiondb/{PRESETS[preset].filename}.*copy its hub cache"):
        parse_corpus(preset, offline=True)
