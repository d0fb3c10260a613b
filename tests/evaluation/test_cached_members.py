"""Studies of other encoders than `lite`: everybody looks at each pair once, whatever is asked about it later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imprompt.ensemble.blend_config import BlendConfig
from imprompt.ensemble.members import LOADERS
from imprompt.evaluation.cached_members import ShownImages
from imprompt.evaluation.nested_cv import BLEND
from imprompt.evaluation.study import Options, run_study
from imprompt.store.index_version import open_version
from tests.ensemble.builders import WORDS, FixedMember, build_colour_index
from tests.retriever.colours import PROMPTS, ColourPair

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def coloured_pairs(folder: Path) -> Path:
    """Pairs of pictures of one colour, each with a prompt of its own that names it."""
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
    """The image tower and a captioner see 24 pictures each, though every one is asked about twice; the words are the product's."""
    for module in (
        "imprompt.evaluation.study",
        "imprompt.evaluation.member_cache",
        "imprompt.ensemble.members",
    ):
        monkeypatch.setattr(f"{module}.output_encoder", lambda *_, **__: WORDS)
    sayer = FixedMember("caption", "red green")
    monkeypatch.setitem(LOADERS, "caption", lambda bench: sayer)
    pair = ColourPair()
    blend_config = BlendConfig(name="test", weights={"knn": 1, "caption": 1})
    with open_version(build_colour_index(tmp_path)) as version:
        study = run_study(coloured_pairs(tmp_path), blend_config, version, pair, Options(n_folds=3))
    assert sum(sayer.batches) == sum(pair.images.batches) == 24
    assert set(study.names) == {"knn", "caption"}
    assert not study.head_refitted
    assert {prediction.prompt for prediction in study.predictions} <= {*PROMPTS, "red green"}
    answered = [
        prediction.vector @ truth
        for prediction, truth in zip(study.predictions, study.pairs.truth, strict=True)
    ]
    assert answered == pytest.approx(study.scores[BLEND].tolist(), abs=1e-4)


def test_pictures_on_show_are_new_and_known() -> None:
    """Copies are shown, so nobody answers from memory, and each knows its row."""
    picture = Image.new("RGB", (2, 2))
    sitting = ShownImages()
    first = sitting.show([picture, picture], np.array([5, 7]))
    assert sitting.rows(first[::-1]).tolist() == [7, 5]
    second = sitting.show([picture], np.array([9]))
    assert sitting.rows(second).tolist() == [9]
    assert len({id(shown) for shown in (picture, *first, *second)}) == 4
