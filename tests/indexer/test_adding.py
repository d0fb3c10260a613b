"""What `add` gives: what was there as it was, what is new behind it, and nothing encoded twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imprompt.core.errors import (
    BuildLocked,
    Checksum,
    ConfigError,
    CorpusError,
    IndexDiffers,
    NoIndex,
)
from imprompt.core.values import Prompt
from imprompt.indexer.adding import add_corpora
from imprompt.indexer.build import BuildOptions, BuildReport, build_index
from imprompt.indexer.build_plan import ONLY_EQUAL, BuildPlan
from imprompt.indexer.cleaning_rules import Cleaning, UnsafeWords
from imprompt.indexer.readers.rows import StreamedSource
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.indexer.removing import remove_prompts, rules_where
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.locking import write_lock
from imprompt.store.publish import collect_garbage, version_names
from tests.indexer.doubles import BagOfWords, BagPair, listed, write_corpus

OPTIONS = BuildOptions(shard_rows=50, cleaning=Cleaning(near_duplicates=None))
EARLY = BuildOptions(shard_rows=50, cleaning=ONLY_EQUAL)
NEAR = BuildOptions(shard_rows=50, cleaning=Cleaning(near_duplicates=0.8))


def build(root: Path, *sources: StreamedSource, options: BuildOptions = OPTIONS) -> BuildReport:
    return build_index(
        root, sources, BagPair(), options=options, extra=[BagOfWords("second", dim=7)]
    )


def add(
    root: Path,
    *sources: StreamedSource,
    pair: BagPair | None = None,
    second: BagOfWords | None = None,
    **named: Any,
) -> BuildReport:
    return add_corpora(
        root, sources, pair or BagPair(), extra=[second or BagOfWords("second", dim=7)], **named
    )


def prompts_of(root: Path) -> list[Prompt]:
    with open_version(root) as version:
        return version.prompts.get_many(range(len(version.prompts)))


def corpus(folder: Path, name: str, n: int, *, salt: str) -> StreamedSource:
    return parse_corpus(str(write_corpus(folder / name, n, salt=salt)))


def test_what_is_there_is_not_encoded_again(tmp_path: Path) -> None:
    """Row ids, texts and bytes of old shards stay; encoders see the new prompts only, once."""
    first, second = (
        corpus(tmp_path, "a.txt", 230, salt="old"),
        corpus(tmp_path, "b.txt", 150, salt="new"),
    )
    build(tmp_path / "index", first)
    before = prompts_of(tmp_path / "index")
    with open_version(tmp_path / "index") as version:
        old_shards = version.manifest.shards
    pair, extra = BagPair(), BagOfWords("second", dim=7)
    report = add(tmp_path / "index", second, pair=pair, second=extra)
    after = prompts_of(tmp_path / "index")
    assert after[: len(before)] == before
    n_new = len(after) - len(before)
    assert n_new > 100
    assert sum(pair.texts.seen) == sum(extra.seen) == n_new
    assert report.encoded == 2 * n_new
    for space, records in old_shards.items():
        assert report.manifest.shards[space][: len(records)] == records
    assert verify(tmp_path / "index") == []


def test_it_answers_like_an_index_of_both(tmp_path: Path) -> None:
    """Prompts, counts and vectors equal those of a build of both corpora; all are indexed."""
    first, second = corpus(tmp_path, "a.txt", 230, salt=""), corpus(tmp_path, "b.txt", 300, salt="")
    build(tmp_path / "grown", first)
    grown = add(tmp_path / "grown", second).manifest
    whole = build(tmp_path / "whole", first, second).manifest
    assert grown.rows_digest == whole.rows_digest
    assert grown.funnel == whole.funnel
    assert [info.fingerprint for info in grown.corpus] == [
        info.fingerprint for info in whole.corpus
    ]
    with open_version(tmp_path / "grown") as one, open_version(tmp_path / "whole") as other:
        for space in whole.shards:
            np.testing.assert_array_equal(
                one.vectors(space).block(0, whole.rows), other.vectors(space).block(0, whole.rows)
            )
        queries = other.vectors("bag").block(0, whole.rows)
        assert (
            one.index("bag").search(queries, 5).ids.tolist()
            == other.index("bag").search(queries, 5).ids.tolist()
        )
    assert grown.indexes["bag"].recall_at_10 == 1.0


def test_equal_and_near_prompts_count_for_what_is_there(tmp_path: Path) -> None:
    """Equal and near prompts are dropped and counted, new ones follow; old groups stay."""
    old = [
        "a red fox in the deep snow at night",
        "one bowl of ramen",
        "a red fox in the deep snow at night !",
    ]
    build(tmp_path, listed(old, name="old", n_submitted=2), options=NEAR)
    assert [(p.n_submitted, p.n_duplicates) for p in prompts_of(tmp_path)] == [(4, 1), (2, 0)]
    new = [
        "one bowl  of ramen",
        "the night at deep snow, in a red fox",
        "a lighthouse",
        "a lighthouse !",
    ]
    report = add(tmp_path, listed(new, name="new", n_submitted=5))
    assert [(p.text, p.source, p.n_submitted, p.n_duplicates) for p in prompts_of(tmp_path)] == [
        (old[0], "old", 9, 2),
        (old[1], "old", 7, 0),
        ("a lighthouse", "new", 10, 1),
    ]
    assert report.encoded == 2
    assert report.manifest.funnel == {"read": 7, "duplicate": 1, "near duplicate": 3, "kept": 3}


def test_a_marked_group_takes_new_members(tmp_path: Path) -> None:
    """Where near duplicates are kept and grouped, a new one joins its neighbour's group."""
    cleaning = Cleaning(near_duplicates=0.8, mark_near=True)
    old = [
        "a red fox in the deep snow at night",
        "one bowl of ramen",
        "a red fox in the deep snow at night !",
    ]
    build(tmp_path, listed(old, name="old"), options=BuildOptions(shard_rows=2, cleaning=cleaning))
    add(
        tmp_path,
        listed(
            ["one bowl of ramen ?", "at night the deep snow in a red fox", "x", "x ?"], name="new"
        ),
    )
    groups = [p.group_id for p in prompts_of(tmp_path)]
    assert groups == [0, 1, 0, 1, 0, 5, 5]


def test_a_corpus_is_not_added_twice(tmp_path: Path) -> None:
    """The same command again, or with the corpus of the build, finds nothing to do."""
    first, second = listed(["a", "b"], name="first"), listed(["c"], name="second")
    build(tmp_path, first)
    assert add(tmp_path, second, second).built
    for sources in ([second], [first, second]):
        report = add(tmp_path, *sources)
        assert (report.built, report.encoded, report.manifest.rows) == (False, 0, 3)
    assert len(version_names(tmp_path)) == 2
    assert add(tmp_path, first, listed(["d"], name="third")).manifest.rows == 4


def test_nothing_new_is_only_counted(tmp_path: Path) -> None:
    """A corpus of prompts that are all there changes counts; no encoder is called."""
    build(tmp_path, listed(["a", "b"], name="first"))
    pair = BagPair()
    report = add(tmp_path, listed(["b", "a", "a"], name="second"), pair=pair)
    assert (report.built, report.encoded, pair.texts.seen) == (True, 0, [])
    assert [p.n_submitted for p in prompts_of(tmp_path)] == [3, 2]


def test_after_removing_and_before(tmp_path: Path) -> None:
    """Grow, shrink, grow: ids are dense, vectors follow their texts, the funnel adds up."""
    build(tmp_path / "index", corpus(tmp_path, "a.txt", 230, salt="old"))
    add(tmp_path / "index", corpus(tmp_path, "b.txt", 150, salt="new"))
    remove_prompts(tmp_path / "index", rules_where("text LIKE '%red%'"))
    report = add(tmp_path / "index", corpus(tmp_path, "c.txt", 70, salt="third"))
    funnel = dict(report.manifest.funnel)
    assert funnel.pop("read") == sum(funnel.values())
    assert funnel["removed"] > 50
    with open_version(tmp_path / "index") as version:
        rows = len(version.prompts)
        texts = [p.embedded_text for p in version.prompts.get_many(range(rows))]
        for encoder in (BagOfWords(), BagOfWords("second", dim=7)):
            np.testing.assert_allclose(
                version.vectors(encoder.spec.space).block(0, rows), encoder.encode(texts), atol=1e-3
            )
    assert verify(tmp_path / "index") == []
    assert report.manifest.corpus[0].name == "a.txt"


def test_an_index_of_an_early_version_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan without cleaning rules dropped equal prompts only; so does an addition to it."""
    with monkeypatch.context() as patch:
        patch.setattr(
            BuildPlan,
            "plain",
            lambda self: {"cleaning": "1: NFC", "shard_rows": 2, "index_factory": "SQfp16"},
        )
        build(
            tmp_path,
            listed(["a red fox in the deep snow at night"], name="early"),
            options=replace(EARLY, replace=True),
        )
    add(
        tmp_path,
        listed(["a red fox in the deep snow at night !", "mail me@example.com"], name="second"),
    )
    assert [p.text for p in prompts_of(tmp_path)] == [
        "a red fox in the deep snow at night",
        "a red fox in the deep snow at night !",
        "mail me@example.com",
    ]


def test_the_older_version_can_go(tmp_path: Path) -> None:
    """Shards are shared by hard link: without the older version, the new one is complete."""
    build(tmp_path, listed(["a", "b"], name="first"))
    add(tmp_path, listed(["c"], name="second"))
    assert len(collect_garbage(tmp_path, keep=0)) == 1
    assert verify(tmp_path) == []


def test_vectors_of_another_encoder_are_refused(tmp_path: Path) -> None:
    """In either space; nothing is written."""
    build(tmp_path, listed(["a", "b"], name="first"))
    before = sorted(tmp_path.rglob("*"))
    for pair, extra in (
        (BagPair("other"), BagOfWords("second", dim=7)),
        (BagPair(), BagOfWords("third")),
    ):
        with pytest.raises(
            IndexDiffers, match=r"holds vectors of bag \(bag\) \+ second \(second\)"
        ):
            add(tmp_path, listed(["c"], name="second"), pair=pair, second=extra)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_added(tmp_path: Path) -> None:
    """Whatever cannot be added, the index stays the same: no index, no row, other words, a lock."""
    with pytest.raises(NoIndex):
        add(tmp_path / "none", listed(["a"]))
    assert not (tmp_path / "none").exists()
    build(tmp_path, listed(["a", "b"], name="first"), options=BuildOptions(shard_rows=50))
    before = (tmp_path / "CURRENT").read_bytes()
    (tmp_path / "bad.txt").write_bytes(b"\xff\n")
    with pytest.raises(CorpusError):
        add(tmp_path, parse_corpus(str(tmp_path / "bad.txt")))
    with pytest.raises(ConfigError, match="another list of unsafe words"):
        add(
            tmp_path,
            listed(["c"], name="second"),
            unsafe_words=UnsafeWords(frozenset({"zebra"}), ()),
        )
    with write_lock(tmp_path), pytest.raises(BuildLocked):
        add(tmp_path, listed(["c"], name="second"))
    assert (tmp_path / "CURRENT").read_bytes() == before


def test_damage_is_not_carried_on(tmp_path: Path) -> None:
    """A flipped byte in an old shard is found before it gets into another version."""
    manifest = build(tmp_path, corpus(tmp_path, "a.txt", 230, salt="old")).manifest
    shard = tmp_path / "versions" / manifest.version / manifest.shards["second"][1].file
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(content)
    with pytest.raises(Checksum, match=r"second/00001\.npy"):
        add(tmp_path, listed(["c"], name="second"))
