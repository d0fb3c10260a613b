"""`train`: pairs in, a head out that the encoder takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imprompt.core.errors import CorpusError
from imprompt.encoders.efficientnet import EfficientNetLite
from imprompt.encoders.lite import load_lite
from imprompt.ensemble.training.head_training import main_kind, train_head
from imprompt.ensemble.training.pairs import Pair

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "purple", "orange")


def drawn_pairs(folder: Path, *, count: int) -> Path:
    """Drawn squares with a text each."""
    rows = []
    for number in range(count):
        ground, colour = COLOURS[number % 8], COLOURS[(number // 8 + number + 1) % 8]
        image = Image.new("RGB", (48, 48), ground)
        image.paste(colour, (12, 12, 36, 36))
        image.save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "prompt": f"a {colour} square on {ground} ground"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def test_a_head_is_trained_and_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new head fits its pairs better, in one index space; a second run encodes no image."""
    path = drawn_pairs(tmp_path, count=24)
    out = tmp_path / "head.safetensors"
    report = train_head([path], out, cache=tmp_path / "cache")
    assert report.pairs == 24
    new, old = load_lite(out), load_lite()
    assert new.spec.space == old.spec.space
    images = [Image.open(tmp_path / f"{number}.png").convert("RGB") for number in range(6)]
    prompts = new.minilm.encode(pq.read_table(path).column("prompt").to_pylist()[:6])
    trained, shipped = (
        np.einsum("nd,nd->n", pair.images.output(images), prompts).mean() for pair in (new, old)
    )
    assert report.cosine_seen > 0.7
    assert trained > shipped + 0.1

    def refuse(self: EfficientNetLite, images: object) -> None:
        raise AssertionError("an image was looked at again")

    monkeypatch.setattr(EfficientNetLite, "activations", refuse)
    again = tmp_path / "again.safetensors"
    train_head([path], again, cache=tmp_path / "cache")
    assert again.read_bytes() == out.read_bytes()


def test_too_few_pairs_are_refused(tmp_path: Path) -> None:
    """The limit is named."""
    with pytest.raises(CorpusError, match="at least 20"):
        train_head([drawn_pairs(tmp_path, count=3)], tmp_path / "head.safetensors", cache=tmp_path)


def test_the_wording_is_that_of_generated_images() -> None:
    """Where there are generated images they give the wording, or else the commonest kind."""
    photo, drawing, generated = (
        Pair(Path("x"), ("x",), kind=kind) for kind in ("photo", "drawing", "generated")
    )
    assert main_kind([photo, photo, generated]) == 0
    assert main_kind([photo, photo, drawing]) == 1
