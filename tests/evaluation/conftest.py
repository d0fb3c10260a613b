"""Fixtures: pictures of noise, from which nothing can be learned, and a small index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.encoders.registry import output_encoder
from imprompt.ensemble.training.head_training import train_head
from imprompt.evaluation.study import Options, Study, run_study
from imprompt.indexer.build import build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.index_version import open_version
from tests.evaluation.worlds import BLEND_CONFIG, THINGS


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pairs of a picture of noise and a thing; every fourth is a photograph."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    rows = []
    for number, thing in enumerate(THINGS):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((64, 64)).save(
            folder / f"{number}.png"
        )
        kind = "photo" if number % 4 == 3 else "generated"
        rows.append(
            {
                "image": f"{number}.png",
                "prompt": thing,
                "kind": kind,
                "generator": f"maker {number % 2}",
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    return folder / "pairs.parquet"


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of an index by `lite`; two of its prompts are true texts of the pairs."""
    folder = tmp_path_factory.mktemp("index")
    texts = [f"{thing} in the rain" for thing in THINGS[::3]] + [
        "a volcano",
        "a dentist",
        "a red fox",
        "a blue lake",
    ]
    (folder / "p.txt").write_text("\n".join(texts), "utf-8")
    pair = load_lite()
    build_index(
        folder / "index", [parse_corpus(str(folder / "p.txt"))], pair, extra=[output_encoder(pair)]
    )
    return folder / "index"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of the trunks' activations, shared by the tests."""
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="session")
def memorising(
    pairs_file: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> LiteEncoder:
    """`lite` with a head trained on these pairs, which it can only memorize."""
    out = tmp_path_factory.mktemp("head") / "head.safetensors"
    train_head([pairs_file], out, cache=cache)
    return load_lite(out)


@pytest.fixture(scope="session")
def honest(pairs_file: Path, index: Path, memorising: LiteEncoder, cache: Path) -> Study:
    with open_version(index) as version:
        return run_study(pairs_file, BLEND_CONFIG, version, memorising, Options(cache=cache))
