"""Cached encoders and members of a study: each pair is seen once, under any number of heads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imprompt.encoders.efficientnet import CLASSES, POOLED_DIM, STAGES_DIM, Activations
from imprompt.encoders.lite import load_lite
from imprompt.ensemble.blend_config import BlendConfig
from imprompt.ensemble.members import LOADERS
from imprompt.evaluation.cached_members import CachedLite, CachedTrunk, pair_pictures, row_of
from imprompt.evaluation.nested_cv import BLEND
from imprompt.evaluation.study import Options, run_study
from imprompt.store.index_version import open_version
from tests.ensemble.worlds import WORDS, Sayer, build_world
from tests.retriever.colours import PROMPTS, ColourPair

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def coloured_pairs(folder: Path) -> Path:
    """Write pairs of one-colour pictures, each with a different prompt that names the colour."""
    rows = []
    for number in range(24):
        name = list(COLOURS)[number % 3]
        Image.new("RGB", (16, 16), COLOURS[name]).save(folder / f"{number}.png")
        rows.append(
            {
                "image": f"{number}.png",
                "prompt": f"{name} {' '.join(f'w{number}x{word}' for word in range(6))}",
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def test_towers_and_captioners_look_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image tower and a captioner see 24 pictures each, though each is asked about twice."""
    for module in (
        "imprompt.evaluation.study",
        "imprompt.evaluation.member_cache",
        "imprompt.ensemble.members",
    ):
        monkeypatch.setattr(f"{module}.output_encoder", lambda *_, **__: WORDS)
    sayer = Sayer("caption", "red green")
    monkeypatch.setitem(LOADERS, "caption", lambda pool: sayer)
    encoder = ColourPair()
    blend_config = BlendConfig(name="test", weights={"knn": 1, "caption": 1})
    with open_version(build_world(tmp_path)) as version:
        study = run_study(
            coloured_pairs(tmp_path), blend_config, version, encoder, Options(n_folds=3)
        )
    assert sum(sayer.batches) == sum(encoder.images.batches) == 24
    assert set(study.names) == {"knn", "caption"}
    assert not study.head_refitted
    assert {prediction.prompt for prediction in study.predictions} <= {*PROMPTS, "red green"}
    answered = [
        prediction.vector @ truth
        for prediction, truth in zip(study.predictions, study.pairs.truth, strict=True)
    ]
    assert answered == pytest.approx(study.scores[BLEND].tolist(), abs=1e-4)


def test_pictures_of_pairs_are_new_objects_and_know_their_rows() -> None:
    """They share their pixels with the decoded picture; other pictures have no row."""
    picture = Image.new("RGB", (2, 2), "teal")
    first = pair_pictures([picture, picture], np.array([5, 7]))
    assert [row_of(shown) for shown in first[::-1]] == [7, 5]
    second = pair_pictures([picture], np.array([9]))
    assert [row_of(shown) for shown in second] == [9]
    assert len({id(shown) for shown in (picture, *first, *second)}) == 4
    assert second[0].tobytes() == picture.tobytes()
    assert second[0].im is picture.im
    with pytest.raises(TypeError, match="not of a pair"):
        row_of(picture)


def test_each_picture_is_seen_with_its_head() -> None:
    """One tower answers under the head that the pictures name, in any order of questions."""
    lite = load_lite(device="cpu")
    other = dataclasses.replace(lite.head, output_bias=lite.head.output_bias[::-1].copy())
    rng = np.random.default_rng(0)
    widths = (POOLED_DIM, STAGES_DIM["lite2"], CLASSES), (POOLED_DIM, STAGES_DIM["lite0"], CLASSES)
    trunks = {
        name: CachedTrunk(Activations(*(rng.random((3, width), np.float32) for width in row)))
        for name, row in zip(("lite2", "lite0"), widths, strict=True)
    }
    seen = {name: trunk.cached for name, trunk in trunks.items()}
    images = CachedLite(lite, trunks).images
    picture = Image.new("RGB", (2, 2))
    plain = pair_pictures([picture] * 3, np.arange(3))
    changed = pair_pictures([picture] * 3, np.arange(3), head=other)
    for _ in range(2):
        np.testing.assert_array_equal(images.output(plain), lite.head.outputs(seen))
        np.testing.assert_array_equal(images.output(changed), other.outputs(seen))
    assert np.abs(images.output(plain) - images.output(changed)).max() > 1e-3
