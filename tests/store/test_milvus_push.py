"""A version on Milvus is there whole, or not to be seen."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import imprompt.store.milvus.lease
from imprompt.core.errors import (
    BuildLocked,
    Checksum,
    ConfigError,
    FormatVersion,
    NoIndex,
    StoreError,
)
from imprompt.core.predicates import Column, Comparison, Contains, Length, Literal, Truth
from imprompt.core.settings import MilvusPlace
from imprompt.core.values import Parameters
from imprompt.store.index_version import open_version
from imprompt.store.milvus.connection import Connection
from imprompt.store.milvus.lease import push_lease
from imprompt.store.milvus.meta import Meta
from imprompt.store.milvus.milvus_version import collection_in_service, open_milvus
from imprompt.store.milvus.schema import META, SCHEMA_KEY
from imprompt.store.milvus.upload import PushOptions, push
from imprompt.store.open_index import in_service
from tests.store.builders import SPACE, build
from tests.store.lite_server import LiteServer, lite_server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ROWS = 130


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three folders with an index each, of other rows."""
    folder = tmp_path_factory.mktemp("indexes")
    for seed in range(3):
        build(folder / str(seed), rows=ROWS, seed=seed)
    return [folder / str(seed) for seed in range(3)]


@pytest.fixture
def place(tmp_path: Path) -> MilvusPlace:
    return MilvusPlace(str(tmp_path / "prompts.db"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiteServer]:
    with lite_server(tmp_path / "server") as found:
        yield found


def drive(index: Path, place: MilvusPlace, point: str = "none") -> subprocess.CompletedProcess[str]:
    """A push as a process of its own."""
    words = [sys.executable, "tests/store/push_driver.py", str(index), str(place), point]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=400
    )


def check_equal(index: Path, place: MilvusPlace) -> None:
    """What is on Milvus answers as the folder does.

    Every prompt, every vector, searches to the bit.
    """
    with open_version(index) as local, open_milvus(place) as pushed:
        assert pushed.manifest == local.manifest
        everything = range(len(local.prompts))
        assert pushed.prompts.get_many(everything) == local.prompts.get_many(everything)
        rows = local.vectors(SPACE).rows(np.array(everything))
        assert np.array_equal(pushed.vectors(SPACE).rows(np.array(everything)), rows)
        found, expected = (
            pushed.index(SPACE).search(rows[:20], 10),
            local.index(SPACE).search(rows[:20], 10),
        )
        assert np.array_equal(found.ids, expected.ids)
        assert np.array_equal(found.scores, expected.scores)


def test_generation_parameters_are_pushed_and_only_then_have_fields(
    place: MilvusPlace, tmp_path: Path
) -> None:
    """With every row that has any; a version without them has no fields for them."""
    given = {3: Parameters("blurry, low quality", {"steps": "30"}), 99: Parameters("", {"a": "b"})}
    build(tmp_path / "index", rows=ROWS, parameters=given)
    push(tmp_path / "index", place, options=PushOptions())
    check_equal(tmp_path / "index", place)
    with open_milvus(place) as pushed:
        assert pushed.manifest.parameters == 2
        assert pushed.prompts.parameters(range(ROWS)) == given
    build(tmp_path / "plain", rows=ROWS, seed=1)
    report = push(tmp_path / "plain", place, options=PushOptions())
    check_equal(tmp_path / "plain", place)
    with open_milvus(place) as pushed:
        assert pushed.prompts.parameters(range(ROWS)) == {}
    with Connection(place) as connection:
        fields = connection.call("describe_collection", report.collection)["fields"]
        assert not {"negative", "settings"} & {field["name"] for field in fields}


POINTS = [
    "before insert 1",
    "after insert 2",
    "before insert 1",
    "after upsert 1",
    "before create_index 2",
    "after load_collection 1",
    "before alter_alias 1",
]
"""Where the pushes of one index die, one after the other."""


@pytest.mark.timeout(
    1200
)  # ten processes, of which each imports pymilvus: half a minute, on a busy machine much more
def test_a_push_that_dies_goes_on_and_is_not_seen_before_it_is_whole(
    indexes: list[Path], place: MilvusPlace
) -> None:
    """Killed at seven places in turn.

    Until the last step the old version answers, then the new one, each row once.
    """
    assert drive(indexes[0], place, "before create_alias 1").returncode == -9
    with pytest.raises(NoIndex, match="no index"):
        open_milvus(place)
    assert drive(indexes[0], place).stdout == "sent 0\n"
    for point in POINTS:
        assert drive(indexes[1], place, point).returncode == -9, point
        check_equal(indexes[0], place)
    assert drive(indexes[1], place).stdout == "sent 0\n"
    check_equal(indexes[1], place)


def test_pushed_twice_there_is_nothing_to_do(indexes: list[Path], place: MilvusPlace) -> None:
    """Nothing is sent, nothing changes.

    A version that was in service before comes back without sending, too.
    """
    first = push(indexes[0], place, options=PushOptions())
    assert (first.rows, first.sent, first.changed, first.recall_at_5) == (ROWS, ROWS, True, 1.0)
    again = push(indexes[0], place, options=PushOptions())
    assert (again.sent, again.changed, again.collection) == (0, False, first.collection)
    push(indexes[1], place, options=PushOptions())
    back = push(indexes[0], place, options=PushOptions())
    assert (back.sent, back.changed) == (0, True)
    check_equal(indexes[0], place)


def test_older_versions_go_and_those_to_keep_stay(indexes: list[Path], place: MilvusPlace) -> None:
    """One stays unless it is said otherwise.

    A reader that holds it goes on, one whose version is gone is told.
    """
    push(indexes[0], place, options=PushOptions())
    with open_milvus(place) as oldest:
        first = oldest.published_as
        assert in_service(place, oldest) == first
        assert not push(indexes[1], place, options=PushOptions()).dropped
        assert in_service(place, oldest) != first
        assert len(oldest.prompts.get_many([0, 1])) == 2
        assert push(indexes[2], place, options=PushOptions()).dropped == (first,)
        with pytest.raises(NoIndex, match=first):
            oldest.prompts.get_many([0, 1])
    with Connection(place) as connection:
        assert len(Meta(connection).records()) == 2
    assert len(push(indexes[2], place, options=PushOptions(keep=0)).dropped) == 1
    check_equal(indexes[2], place)


def test_what_was_never_finished_goes_when_asked(indexes: list[Path], place: MilvusPlace) -> None:
    """Another push leaves it, because it may be growing."""
    assert drive(indexes[0], place, "after insert 2").returncode == -9
    assert push(indexes[1], place, options=PushOptions()).dropped == ()
    (gone,) = push(indexes[1], place, options=PushOptions(drop_unfinished=True)).dropped
    with Connection(place) as connection:
        assert not connection.call("has_collection", gone)
    assert drive(indexes[0], place).stdout == f"sent {ROWS}\n"


def test_rows_that_the_server_lost_are_noticed(
    indexes: list[Path], place: MilvusPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They never get into service: all are dropped, and the next push sends them again.

    Also once they were in service.
    """
    call = Connection.call

    def forgetful(self: Connection, method: str, /, *words: object, **options: object) -> object:
        if method == "flush":
            call(self, "delete", words[0], filter="row_id in [3, 4]")
        return call(self, method, *words, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "call", forgetful)
        with pytest.raises(Checksum, match=f"{ROWS - 2} rows of the {ROWS}.*push again"):
            push(indexes[0], place, options=PushOptions())
    with pytest.raises(NoIndex):
        open_milvus(place)
    assert push(indexes[0], place, options=PushOptions()).sent == ROWS
    with Connection(place) as connection:
        connection.call("delete", str(collection_in_service(connection)), filter="row_id in [3, 4]")
    with pytest.raises(Checksum, match=f"{ROWS - 2} rows are there, not {ROWS}"):
        open_milvus(place)


def test_another_schema_is_refused(indexes: list[Path], place: MilvusPlace) -> None:
    """By a reader and by a push, in one line with both versions."""
    push(indexes[0], place, options=PushOptions())
    with Connection(place) as connection:
        Meta(connection).put(SCHEMA_KEY, "2")
    for ask in (lambda: open_milvus(place), lambda: push(indexes[1], place, options=PushOptions())):
        with pytest.raises(
            FormatVersion, match=r"schema 2; this version reads and writes schema 1"
        ):
            ask()


@pytest.mark.parametrize("kind", ["IVF_RABITQ", "DISKANN", "GPU_CAGRA"])
def test_an_index_that_the_server_lacks_is_refused_in_its_words(
    indexes: list[Path], place: MilvusPlace, kind: str
) -> None:
    """Nothing gets into service, and another index can be had at once."""
    with pytest.raises(StoreError, match=kind) as caught:
        push(indexes[0], place, options=PushOptions(index_type=kind))
    assert "refuses" in caught.value.message
    with pytest.raises(NoIndex):
        open_milvus(place)


@pytest.mark.parametrize("kind", ["hnsw", "IVF_FLAT", "IVF_SQ8"])
def test_every_index_of_milvus_lite_answers(
    indexes: list[Path], place: MilvusPlace, kind: str
) -> None:
    """Its effort is the least that finds the check queries' answers; effort 1 is exact.

    The folder's own may lie beside it.
    """
    params = None if kind == "hnsw" else {"nlist": 8}
    report = push(indexes[0], place, options=PushOptions(index_type=kind, index_params=params))
    assert (report.kind, report.recall_at_5 >= 0.96, report.effort < 1) == (
        kind.upper(),
        True,
        True,
    )
    with open_version(indexes[0]) as local, open_milvus(place) as pushed:
        rows = local.vectors(SPACE).rows(np.arange(20))
        exact = local.index(SPACE).search(rows, 10)
        assert np.array_equal(pushed.index(SPACE).search(rows, 10, effort=1.0).ids, exact.ids)
        assert np.isin(pushed.index(SPACE).search(rows, 10).ids, exact.ids).mean() > 0.9
        assert kind.upper() in pushed.index_lines[SPACE]
    assert push(indexes[0], place, options=PushOptions()).sent == ROWS


def test_options_that_cannot_be_used(indexes: list[Path], place: MilvusPlace) -> None:
    """Before anything is sent."""
    for options in (
        PushOptions("LSH"),
        PushOptions("IVF_FLAT", {"nlist": 0}),
        PushOptions("HNSW", {"M": [1]}),
    ):
        with pytest.raises(ConfigError):
            push(indexes[0], place, options=options)
    assert not Path(place.address).exists()


def test_a_file_in_use_is_not_pushed_into(indexes: list[Path], place: MilvusPlace) -> None:
    """Another process that reads or writes it is told of in one line."""
    push(indexes[0], place, options=PushOptions())
    with open_milvus(place):
        done = drive(indexes[1], place)
    assert (done.returncode, "used by another process" in done.stdout) == (55, True)


def test_two_pushes_at_once_do_no_harm(
    indexes: list[Path], server: LiteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One goes through, the other is told; a push that died is waited for, and then forgotten."""
    results: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(target=lambda: results.append(drive(indexes[0], server.place)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.returncode for result in results) in ([0, 0], [0, 55]), [
        result.stdout for result in results
    ]
    check_equal(indexes[0], server.place)
    monkeypatch.setattr(imprompt.store.milvus.lease, "WATCH_S", 3.0)
    monkeypatch.setattr(imprompt.store.milvus.lease, "BEAT_S", 0.3)
    with Connection(server.place) as connection:
        meta = Meta(connection, create=True)
        with push_lease(meta, where="here"), pytest.raises(BuildLocked, match="Another push into"):
            push(indexes[1], server.place, options=PushOptions())
        meta.put("push", "somebody who died 7")
    assert push(indexes[1], server.place, options=PushOptions()).changed
    check_equal(indexes[1], server.place)
    with Connection(server.place) as connection:
        assert Meta(connection).get("push") is None


def test_texts_longer_than_a_field_are_whole_and_found(tmp_path: Path, place: MilvusPlace) -> None:
    """Milvus takes 65,535 bytes; what is behind them is read, matched and counted all the same."""
    from imprompt.store import staged_prompts
    from tests.store import builders

    long = "Öl " * 40_000 + "the end"
    make = builders.clean_prompt
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            builders,
            "clean_prompt",
            lambda text, **words: make(long if words["key"] == "7" else text, **words),
        )
        build(tmp_path / "index", rows=20)
    assert staged_prompts
    push(tmp_path / "index", place, options=PushOptions())
    with open_version(tmp_path / "index") as local, open_milvus(place) as pushed:
        assert pushed.prompts.get_many([7])[0].text == long
        assert pushed.prompts.get_many(range(20)) == local.prompts.get_many(range(20))
        for condition in (
            Contains(Column("text"), Literal("the end")),
            Comparison(">", Length(Column("text")), Literal(100)),
            Truth(True),
        ):
            assert (
                pushed.prompts.matching(condition).tolist()
                == local.prompts.matching(condition).tolist()
            )
        assert pushed.prompts.matching(Contains(Column("text"), Literal("the end"))).tolist() == [7]


def test_the_small_collection_is_all_that_lies_beside_the_rows(
    indexes: list[Path], place: MilvusPlace
) -> None:
    """After a push: one collection of rows, one of texts."""
    report = push(indexes[0], place, options=PushOptions())
    with Connection(place) as connection:
        assert sorted(connection.call("list_collections")) == sorted([META, report.collection])
