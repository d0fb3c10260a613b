"""Pairs files, good and bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imprompt.core.errors import CorpusError
from imprompt.ensemble.training.pairs import read_pairs


def pairs_file(folder: Path, **columns: list[Any]) -> Path:
    """A Parquet file of the columns, beside two images: one in the folder, one in `images`."""
    (folder / "images").mkdir()
    for path in (folder / "one.png", folder / "images" / "two.png"):
        Image.new("RGB", (4, 4)).save(path)
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def test_every_column_is_read(tmp_path: Path) -> None:
    """Images are found in both folders, captions as list or JSON; a source is its collection."""
    path = pairs_file(
        tmp_path,
        image=["one.png", "two.png"],
        prompt=["a cat", "a dog"],
        alt_captions=[json.dumps(["cat", " "]), None],
        source=["shop:shelf/1", "other"],
        kind=["generated", None],
    )
    first, second = read_pairs(path)
    assert first.texts == ("a cat", "cat")
    assert second.texts == ("a dog",)
    assert (first.source, second.source, first.kind, second.kind) == (
        "shop",
        "other",
        "generated",
        "",
    )
    assert second.image == tmp_path / "images" / "two.png"


def test_two_columns_are_enough(tmp_path: Path) -> None:
    """What is optional may be absent."""
    (pair,) = read_pairs(pairs_file(tmp_path, image=["one.png"], prompt=["a cat"]))
    assert pair.texts == ("a cat",)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["one.png"]}, "lacks the column prompt"),
        ({"image": ["one.png", "gone.png"], "prompt": ["a", "b"]}, "1 of 2 images do not exist"),
        ({"image": ["one.png", "two.png"], "prompt": ["a", " "]}, "Row 2 of"),
        ({"image": ["one.png"], "prompt": ["a"], "alt_captions": ["[broken"]}, "are not JSON"),
        ({"image": ["one.png"], "prompt": ["a"], "alt_captions": ["[1]"]}, "not a list of texts"),
        (
            {"image": pa.array([], pa.string()), "prompt": pa.array([], pa.string())},
            "holds no pairs",
        ),
    ],
)
def test_a_bad_file_gets_its_own_message(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    """Each fault is named, with the row where there is one."""
    with pytest.raises(CorpusError, match=message):
        read_pairs(pairs_file(tmp_path, **columns))


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    """A text file and a missing file are reported as what they are."""
    (tmp_path / "text.parquet").write_text("image,prompt\n")
    for name, said in (
        ("text.parquet", "cannot be read as Parquet"),
        ("gone.parquet", r"gone.parquet: there is no such file\."),
    ):
        with pytest.raises(CorpusError, match=said):
            read_pairs(tmp_path / name)
