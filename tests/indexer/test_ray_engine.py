"""A build on another engine equals the local one despite losses; needs no Ray."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imprompt.core.errors import (
    ClusterError,
    CorpusError,
    ImageRejected,
    WeightsMissing,
    WorkerDiffers,
)
from imprompt.core.values import RawPrompt
from imprompt.indexer.build import BuildOptions, BuildReport, build_index, spaces_of
from imprompt.indexer.engine import BuildSpace, LocalEngine
from imprompt.indexer.ray_engine import RayEngine
from imprompt.indexer.readers.rows import StreamedSource
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.integrity import verify
from imprompt.store.manifest import Manifest
from tests.indexer.doubles import BagOfWords, BagPair, write_corpus
from tests.indexer.lossy import CLUSTER, Lossy, travelled

ROWS = 300
OPTIONS = BuildOptions(shard_rows=40)


def spaces() -> Sequence[BuildSpace]:
    return spaces_of(BagPair(), [BagOfWords("second", dim=7)])


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Read in batches of 50 rows; with rows that cannot be read, duplicates and near duplicates."""
    monkeypatch.setattr("imprompt.indexer.engine.READ_ROWS", 50)
    monkeypatch.setattr("imprompt.indexer.ray_engine.READ_ROWS", 50)
    return write_corpus(tmp_path / "corpus.txt", ROWS)


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An engine whose streams are those that are given."""

    def engine(stream: Lossy, make: Any = spaces, **options: Any) -> RayEngine:
        monkeypatch.setattr("imprompt.indexer.ray_engine.stream", stream)
        return RayEngine(CLUSTER, make, **options)

    return engine


def build(root: Path, corpus: Path, engine: Any = None) -> BuildReport:
    source = parse_corpus(str(corpus))
    engine = engine or LocalEngine()
    return build_index(
        root,
        [source],
        BagPair(),
        options=OPTIONS,
        extra=[BagOfWords("second", dim=7)],
        engine=engine,
    )


def assert_same(root: Path, found: Manifest, whole: Manifest) -> None:
    """Plan, rows, funnel and every byte of the vectors."""
    assert verify(root) == []
    assert found.plan_sha256 == whole.plan_sha256
    assert found.rows_digest == whole.rows_digest
    assert found.funnel == whole.funnel
    assert found.shards == whole.shards


@pytest.mark.parametrize(
    "lost",
    [
        [],
        [{0}],
        [{1, 3}, {2}],
        [{6}],
        [{-1}, {-1}],
        [set(), {0, 4}, {0}],
        [{2}, {-1}, set(), {-1}, {1}],
    ],
    ids=str,
)
def test_it_is_the_local_build(
    lost: list[set[int]], corpus: Path, through: Any, tmp_path: Path
) -> None:
    """Rows in order and vectors to the byte, even if batches, shards or rounds were lost."""
    whole = build(tmp_path / "local", corpus).manifest
    report = build(tmp_path / "far", corpus, through(Lossy(*lost)))
    assert_same(tmp_path / "far", report.manifest, whole)
    assert report.rejected == build(tmp_path / "again", corpus).rejected
    assert whole.funnel["bad UTF-8"] == 27


def test_what_is_lost_again_and_again_ends_in_one_line(
    corpus: Path, through: Any, tmp_path: Path
) -> None:
    """Three empty rounds end a build; the local engine then finishes it."""
    whole = build(tmp_path / "local", corpus).manifest
    none = set(range(99))
    with pytest.raises(ClusterError, match="3 times in a row: the node is gone"):
        build(tmp_path / "far", corpus, through(Lossy(set(), none - {0, 1}, {-1}, none, {-1})))
    report = build(tmp_path / "far", corpus)
    assert report.encoded == 2 * (whole.rows - 2 * OPTIONS.shard_rows)
    assert_same(tmp_path / "far", report.manifest, whole)


def test_a_local_build_is_ended_elsewhere(corpus: Path, through: Any, tmp_path: Path) -> None:
    """Shards that the local engine finished are not made again."""

    class Breaking(LocalEngine):
        def encode(self, *words: Any) -> Any:
            for count, done in enumerate(super().encode(*words)):
                if count == 3:  # one shard in both spaces, and one in the first
                    raise RuntimeError("broken off")
                yield done

    whole = build(tmp_path / "local", corpus).manifest
    with pytest.raises(RuntimeError, match="broken off"):
        build(tmp_path / "far", corpus, Breaking())
    report = build(tmp_path / "far", corpus, through(Lossy()))
    assert report.encoded == 2 * whole.rows - 3 * OPTIONS.shard_rows
    assert_same(tmp_path / "far", report.manifest, whole)


def test_a_shard_that_arrives_damaged_is_made_again(
    corpus: Path, through: Any, tmp_path: Path
) -> None:
    """Its sha256 is looked at before it is journaled."""
    damaged: list[int] = []

    def tamper(result: Any) -> Any:
        if isinstance(result, list) and len(damaged) < 2:
            damaged.append(result[0][0].number)
            done, content = result[0]
            return [(done, content[:-1] + bytes([content[-1] ^ 1])), *result[1:]]
        return result

    report = build(tmp_path / "far", corpus, through(Lossy(tamper=tamper)))
    assert damaged == [0, 1]
    assert_same(tmp_path / "far", report.manifest, build(tmp_path / "local", corpus).manifest)


def test_shards_pass_through_a_folder(corpus: Path, through: Any, tmp_path: Path) -> None:
    """Nothing is left in the shared folder; a shard that is put there twice does no harm."""
    depot = tmp_path / "shared"
    held: list[int] = []

    def look(result: Any) -> Any:
        if isinstance(result, list):
            assert all(content is None for _, content in result)
            held.append(sum(1 for path in depot.rglob("*") if path.is_file()))
        return result

    report = build(
        tmp_path / "far", corpus, through(Lossy(set(), {0}, tamper=look), shards=str(depot))
    )
    assert_same(tmp_path / "far", report.manifest, build(tmp_path / "local", corpus).manifest)
    assert held == [4, 6, 8, 10, 12, 14, 14][: len(held)]
    assert list(depot.iterdir()) == []


def test_a_shard_that_is_gone_from_the_folder_is_made_again(
    corpus: Path, through: Any, tmp_path: Path
) -> None:
    """Somebody swept the shared folder under a running build."""
    depot = tmp_path / "shared"
    swept: list[Path] = []

    def sweep(result: Any) -> Any:
        if isinstance(result, list) and not swept:
            swept.append(depot)
            shutil.rmtree(depot)
        return result

    report = build(tmp_path / "far", corpus, through(Lossy(tamper=sweep), shards=str(depot)))
    assert swept
    assert_same(tmp_path / "far", report.manifest, build(tmp_path / "local", corpus).manifest)


def test_a_worker_with_other_weights_is_refused(corpus: Path, through: Any, tmp_path: Path) -> None:
    """The message names the weights that differ; nothing is published."""

    def other() -> Sequence[BuildSpace]:
        first, second = spaces()
        return [
            BuildSpace(replace(first.spec, weights_sha256={"text": "feedc0de" * 8}), first.texts),
            second,
        ]

    with pytest.raises(
        WorkerDiffers, match="the text weights of bag were sha256 bag, here feedc0de"
    ):
        build(tmp_path / "far", corpus, through(Lossy(), other))
    assert not (tmp_path / "far" / "CURRENT").exists()


def test_a_corpus_that_breaks_off_is_named(through: Any, tmp_path: Path) -> None:
    """What the reading raises comes as it is, and the rows before it are not lost."""

    def rows(start: int) -> Any:
        yield from [RawPrompt(f"prompt {i}", "torn", f"row {i}") for i in range(start, 10)]
        raise CorpusError("torn behind row 10", hint="mend it")

    source = StreamedSource("torn", False, rows, lambda: "x", lambda: 10)
    with pytest.raises(CorpusError, match="torn behind"):
        build_index(tmp_path, [source], BagPair(), options=OPTIONS, engine=through(Lossy()))


@pytest.mark.parametrize(
    "error",
    [
        WeightsMissing("none there", path=Path("/nowhere"), hint="fetch it"),
        ImageRejected(Path("a.png"), "truncated"),
        CorpusError("bad", path=Path("c.txt"), line=7, hint="mend it"),
    ],
)
def test_errors_travel_whole(error: Exception) -> None:
    """An error of another machine arrives with its type, message and fields."""
    arrived = travelled(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
