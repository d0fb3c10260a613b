"""`evaluate` and `fit-weights` from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imprompt.core.atomic_files import check_place
from imprompt.core.errors import ConfigError, CorpusError, NoIndex, PartialFailure, StorageFull
from tests.conftest import Imprompt


@pytest.fixture
def seen(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the command line find the activations of earlier tests."""
    (tmp_path / "xdg").mkdir()
    (tmp_path / "xdg" / "imprompt").symlink_to(cache)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def rewrite(pairs_file: Path, folder: Path, rows: list[dict[str, str]]) -> Path:
    """Write another table next to copies of the pictures."""
    shutil.copytree(pairs_file.parent, folder, dirs_exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    return folder / "pairs.parquet"


@pytest.mark.usefixtures("seen")
def test_evaluate_writes_a_page_and_tells_the_figures(
    imprompt: Imprompt, pairs_file: Path, index: Path, tmp_path: Path
) -> None:
    """JSON and page agree; images that cannot be read are listed, the others measured."""
    rows = pq.read_table(pairs_file).to_pylist()
    broken = rewrite(pairs_file, tmp_path / "broken", rows)
    (tmp_path / "broken" / "5.png").write_bytes(b"no image")
    page = tmp_path / "page.html"
    result = imprompt(
        "evaluate", "--pairs", broken, "--index", index, "--out", page, "--json", "--unseen"
    )
    assert result.code == PartialFailure.exit_code
    assert "5.png" in result.err
    (report,) = result.lines
    assert report["pairs"] == 39
    assert [part["name"] for part in report["slices"]][:3] == ["all", "generated", "photo"]
    blend = next(score for score in report["slices"][0]["scores"] if score["answer"] == "blend")
    assert f"{blend['cosine']['mean']:.3f}" in page.read_text("utf-8")


@pytest.mark.usefixtures("seen")
def test_a_fitted_recipe_is_used_by_query(
    imprompt: Imprompt, pairs_file: Path, index: Path, tmp_path: Path
) -> None:
    """`fit-weights` says who earns its place, and `--blend` takes what it wrote."""
    out = tmp_path / "mine.json"
    result = imprompt(
        "fit-weights",
        "--pairs",
        pairs_file,
        "--index",
        index,
        "--out",
        out,
        "--unseen",
        "--folds",
        "3",
    )
    assert result.code == 0, result.err
    assert "earn" in result.out
    assert "against its best member" in result.out
    written = json.loads(out.read_text())
    assert written["name"] == "mine"
    assert sum(written["weights"].values()) == pytest.approx(1)
    answer = imprompt(
        "query",
        pairs_file.parent / "0.png",
        "--explain",
        "--blend",
        out,
        "--index",
        index,
        "--json",
    )
    assert answer.code == 0
    assert answer.lines[0]["explanation"]["blend"] == "mine"
    assert (answer.lines[0]["confidence"], answer.lines[0]["close"]) == (None, None)


def test_pairs_that_cannot_be_used(
    imprompt: Imprompt, pairs_file: Path, index: Path, tmp_path: Path
) -> None:
    """A missing file, column, row or image, and a single group: one line each, and no page."""
    rows = pq.read_table(pairs_file).to_pylist()
    page = tmp_path / "page.html"
    cases = {
        "there is no such file": tmp_path / "none.parquet",
        "lacks the column image": rewrite(
            pairs_file, tmp_path / "a", [{"prompt": row["prompt"]} for row in rows]
        ),
        "do not exist": rewrite(
            pairs_file, tmp_path / "b", [row | {"image": "gone.png"} for row in rows]
        ),
        "1 groups of different prompts": rewrite(
            pairs_file, tmp_path / "c", [row | {"prompt": "a volcano"} for row in rows]
        ),
    }
    empty = rewrite(pairs_file, tmp_path / "d", rows)
    pq.write_table(pq.read_table(pairs_file).slice(0, 0), empty)
    cases["holds no pair"] = empty
    for words, path in cases.items():
        result = imprompt("evaluate", "--pairs", path, "--index", index, "--out", page)
        assert result.code == CorpusError.exit_code, (words, result.err)
        assert words in result.err
        assert result.err.count("\n") == 1
    assert not page.exists()


def test_few_pairs_cannot_train_a_head(
    imprompt: Imprompt, pairs_file: Path, index: Path, tmp_path: Path
) -> None:
    """The remedy for pairs of one's own is named."""
    few = rewrite(pairs_file, tmp_path / "few", pq.read_table(pairs_file).to_pylist()[:12])
    result = imprompt(
        "evaluate",
        "--pairs",
        few,
        "--index",
        index,
        "--out",
        tmp_path / "page.html",
        "--folds",
        "3",
    )
    assert result.code == CorpusError.exit_code
    assert "--unseen" in result.err


def test_what_else_is_refused(
    imprompt: Imprompt, pairs_file: Path, index: Path, tmp_path: Path
) -> None:
    """A folder as page, an unknown blend config, two folds, no index: refused before any work."""
    shared = ("evaluate", "--pairs", pairs_file)
    page = tmp_path / "page.html"
    assert imprompt(*shared, "--index", index, "--out", tmp_path).code == ConfigError.exit_code
    assert (
        imprompt(*shared, "--index", index, "--out", page, "--blend", "nobody").code
        == ConfigError.exit_code
    )
    assert (
        imprompt(*shared, "--index", index, "--out", page, "--folds", "2").code
        == ConfigError.exit_code
    )
    assert imprompt(*shared, "--index", tmp_path / "no", "--out", page).code == NoIndex.exit_code
    assert (
        imprompt("fit-weights", "--pairs", pairs_file, "--index", index, "--out", tmp_path).code
        == ConfigError.exit_code
    )


def test_a_place_is_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of that name, a file as folder, no right to write; an older file stays as it is."""
    (tmp_path / "old.json").write_text("old")
    check_place(tmp_path / "old.json")
    assert (tmp_path / "old.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    for place in (tmp_path, tmp_path / "old.json" / "new.json"):
        with pytest.raises(ConfigError, match="folder"):
            check_place(place)

    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(StorageFull, match="cannot be written"):
        check_place(tmp_path / "new.json")
