"""What a build gives, refuses, and leaves alone."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from imprompt.core.errors import (
    BuildLocked,
    ConfigError,
    CorpusError,
    EncoderError,
    FormatVersion,
    IndexDiffers,
)
from imprompt.core.protocols import TextEncoder
from imprompt.core.values import CorpusBatch, RawPrompt, Vectors, prompt_key
from imprompt.indexer.build import BuildOptions, build_index, make_plan
from imprompt.indexer.build_plan import BuildPlan
from imprompt.indexer.cleaning_rules import Cleaning
from imprompt.indexer.engine import LocalEngine
from imprompt.indexer.readers.rows import StreamedSource
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.indexer.staging import choose_factory
from imprompt.store import layout
from imprompt.store.index_plan import read_factory
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.locking import write_lock
from imprompt.store.publish import current_name
from tests.indexer.doubles import MAX_TOKENS, BagOfWords, BagPair, listed, write_corpus

OPTIONS = BuildOptions(shard_rows=50)


class TestWhatABuildGives:
    def test_rows_are_the_corpus_cleaned(self, tmp_path: Path) -> None:
        """Row ids follow first appearance across corpora; equal prompts are one; texts stay."""
        first = listed(["b  b", "a", "b b", "cafe\u0301"], name="first", n_submitted=2)
        second = listed(["caf\u00e9", "A", " a\t", "last"], name="second", n_submitted=10)
        report = build_index(tmp_path, [first, second], BagPair(), options=OPTIONS)
        with open_version(tmp_path) as version:
            prompts = version.prompts.get_many(range(len(version.prompts)))
        assert [
            (
                row.text,
                row.embedded_text,
                row.source,
                row.source_key,
                row.n_submitted,
                row.n_duplicates,
            )
            for row in prompts
        ] == [
            ("b  b", "b b", "first", "row 0", 4, 0),
            ("a", "a", "first", "row 1", 22, 1),
            ("cafe\u0301", "caf\u00e9", "first", "row 3", 12, 0),
            ("last", "last", "second", "row 3", 10, 0),
        ]
        assert [prompt.prompt_key for prompt in prompts] == [
            prompt_key(prompt.text) for prompt in prompts
        ]
        assert report.manifest.funnel == {"read": 8, "duplicate": 3, "near duplicate": 1, "kept": 4}

    def test_vectors_are_the_encoders(self, tmp_path: Path) -> None:
        """Row i of every space is its encoder's vector of prompt i; the index finds each row."""
        pair, extra = BagPair(), BagOfWords("second", dim=7)
        source = parse_corpus(str(write_corpus(tmp_path / "corpus.txt", 230)))
        report = build_index(tmp_path / "index", [source], pair, options=OPTIONS, extra=[extra])
        with open_version(tmp_path / "index") as version:
            rows = len(version.prompts)
            texts = [prompt.embedded_text for prompt in version.prompts.get_many(range(rows))]
            for encoder in (BagOfWords(), extra):
                stored = version.vectors(encoder.spec.space).block(0, rows)
                np.testing.assert_allclose(stored, encoder.encode(texts), atol=1e-3)
            hits = version.index("bag").search(version.vectors("bag").block(0, rows), 5)
            assert (hits.scores[:, 0] > 0.999).all()
        assert [record.rows for record in report.manifest.shards["bag"]] == [
            50,
            50,
            50,
            50,
            rows - 200,
        ]
        assert [spec.space for spec in report.manifest.encoders] == ["bag", "second"]
        assert list(report.manifest.indexes) == ["bag"]
        assert report.manifest.indexes["bag"].recall_at_10 == 1.0
        assert report.encoded == 2 * rows

    def test_spaces_take_turns_shard_by_shard(self, tmp_path: Path) -> None:
        """A shard is encoded in every space before the next one, so that spaces can share work."""
        order: list[str] = []

        class Noting(BagOfWords):
            def encode(self, items: Sequence[str]) -> Vectors:
                order.append(self.spec.space)
                return super().encode(items)

        pair = BagPair()
        pair.texts = Noting("first")
        source = parse_corpus(str(write_corpus(tmp_path / "corpus.txt", 100)))
        build_index(tmp_path / "index", [source], pair, options=OPTIONS, extra=[Noting("second")])
        assert order == ["first", "second"] * 2

    def test_an_index_that_could_not_be_opened_is_not_encoded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """FAISS for Windows opens no inverted file; that is said before anything is encoded."""
        monkeypatch.delattr("faiss.OnDiskInvertedLists")
        source, pair = parse_corpus(str(write_corpus(tmp_path / "corpus.txt", 60))), BagPair()
        options = replace(OPTIONS, index_factory="IVF4,SQ8")
        with pytest.raises(ConfigError, match="inverted file"):
            build_index(tmp_path / "index", [source], pair, options=options)
        assert not [*(tmp_path / "index").rglob("*.npy")]

    @pytest.mark.parametrize(
        ("rows", "budget_bytes", "factory"),
        [(100_000, 4 << 30, "SQfp16"), (100_001, 4 << 30, None), (30_000, 1 << 20, None)],
    )
    def test_without_inverted_files_few_rows_are_scanned(
        self, monkeypatch: pytest.MonkeyPatch, rows: int, budget_bytes: int, factory: str | None
    ) -> None:
        """There a planned index is flat, if its vectors fit into the budget."""
        plan = BuildPlan(
            corpora=[],
            cleaning=Cleaning(),
            encoders=[BagPair().spec],
            shard_rows=4096,
            index_factory=None,
            memory_budget_bytes=budget_bytes,
            seed=0,
        )
        assert read_factory(choose_factory(plan, rows)).n_lists > 0
        monkeypatch.delattr("faiss.OnDiskInvertedLists")
        if factory is None:
            with pytest.raises(ConfigError, match="inverted file"):
                choose_factory(plan, rows)
        else:
            assert choose_factory(plan, rows) == factory

    @pytest.mark.parametrize(("budget_bytes", "told"), [(1_000_000, 1), (1 << 40, 0)])
    def test_encoding_that_takes_more_than_the_budget_says_so_once(
        self, tmp_path: Path, budget_bytes: int, told: int
    ) -> None:
        """After the first of four shards, with both sizes; the index is made all the same."""
        lines: list[str] = []
        engine = LocalEngine(memory_budget_bytes=budget_bytes, announce=lines.append)
        source = parse_corpus(str(write_corpus(tmp_path / "corpus.txt", 200)))
        report = build_index(
            tmp_path / "index", [source], BagPair(), options=OPTIONS, engine=engine
        )
        assert len(report.manifest.shards["bag"]) == 4
        assert len(lines) == told
        assert all(
            re.match(r"Encoding takes [\d,]{2,} MB of memory, more than the budget of 1 MB, ", line)
            for line in lines
        )

    @pytest.mark.parametrize(("at_least", "announced"), [(40, 1), (400, 0)])
    def test_the_duration_of_a_long_build_is_announced_once(
        self, at_least: int, announced: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is measured on this machine; a short build measures nothing."""
        monkeypatch.setattr("imprompt.indexer.engine._ANNOUNCED_ROWS", at_least)
        monkeypatch.setattr("imprompt.indexer.engine.seconds_each", lambda encode, texts: 3.6)
        lines: list[str] = []
        source = parse_corpus(str(write_corpus(tmp_path / "corpus.txt", 200)))
        engine = LocalEngine(announce=lines.append)
        report = build_index(tmp_path / "index", [source], BagPair(), engine=engine)
        rows = report.manifest.rows
        minutes = f"{rows * 3.6 / 60:.0f} min"
        assert [line.partition(" on this machine")[0] for line in lines] == [
            f"Encoding {rows} prompts with bag takes about {minutes}"
        ] * announced

    def test_the_next_shard_is_tokenized_while_one_is_encoded(self, tmp_path: Path) -> None:
        """The lengths of the next texts are asked for early, those of later ones are not."""
        at_hand, asked = 0, 0
        second = threading.Event()

        class Noting(BagOfWords):
            def encode(self, items: Sequence[str]) -> Vectors:
                nonlocal at_hand
                at_hand += 1
                assert at_hand > 1 or second.wait(10)
                assert asked <= at_hand + 1
                return super().encode(items)

            def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
                nonlocal asked
                if threading.current_thread() is not threading.main_thread():
                    asked += 1
                    if asked == 2:
                        second.set()
                return super().token_lengths(texts)

        pair = BagPair()
        pair.texts = Noting("first")
        source = parse_corpus(str(write_corpus(tmp_path / "corpus.txt", 200)))
        build_index(tmp_path / "index", [source], pair, options=OPTIONS)
        assert at_hand == asked == 4

    def test_says_what_became_of_every_row(self, tmp_path: Path) -> None:
        """The funnel adds up to the rows read; ten rejected rows are named; long ones counted."""
        source = parse_corpus(str(write_corpus(tmp_path / "corpus.txt", 400)))
        report = build_index(tmp_path / "index", [source], BagPair(), options=OPTIONS)
        funnel = dict(report.manifest.funnel)
        read = funnel.pop("read")
        assert read == sum(funnel.values()) == 400 + 36
        assert funnel["bad UTF-8"] == 36
        assert [row.source_key for row in report.rejected] == [
            f"line {12 * i}" for i in range(1, 11)
        ]
        with open_version(tmp_path / "index") as version:
            prompts = version.prompts.get_many(range(len(version.prompts)))
        assert (
            report.truncated
            == sum(len(prompt.embedded_text.split()) + 2 > MAX_TOKENS for prompt in prompts)
            > 0
        )

    def test_the_manifest_says_from_what(self, tmp_path: Path) -> None:
        """The manifest holds plan, corpora, encoder and provenance of each shard, and no path."""
        source = listed(["a", "b"], synthetic=True)
        manifest = build_index(
            tmp_path, [source, listed(["c"], name="other")], BagPair(), options=OPTIONS
        ).manifest
        assert [(corpus.name, corpus.synthetic) for corpus in manifest.corpus] == [
            ("listed", True),
            ("other", False),
        ]
        assert manifest.corpus[0].fingerprint == source.fingerprint()
        assert (
            manifest.plan_sha256
            == make_plan(
                [source, listed(["c"], name="other")], [BagPair().spec], options=OPTIONS
            ).sha256
        )
        provenance = manifest.shards["bag"][0].provenance
        assert provenance["backend"] == "words"
        assert provenance["processor"]
        assert provenance["libraries"]["numpy"] == np.__version__
        assert (
            str(tmp_path)
            not in (tmp_path / "versions" / manifest.version / layout.MANIFEST).read_text()
        )

    def test_leaves_nothing_lying_about(self, tmp_path: Path) -> None:
        """After a build there is no staging and no file that the manifest does not know."""
        build_index(tmp_path, [listed(["a", "b"])], BagPair(), options=OPTIONS)
        assert verify(tmp_path) == []
        assert not any((tmp_path / "staging").iterdir())


class TestAskedAgain:
    def test_the_same_command_has_nothing_to_do(self, tmp_path: Path) -> None:
        """A second build of the same plan reads, encodes and publishes nothing, and says so."""
        first = build_index(tmp_path, [listed(["a", "b"])], BagPair(), options=OPTIONS)
        pair = BagPair()
        second = build_index(tmp_path, [listed(["a", "b"])], pair, options=OPTIONS)
        assert first.built
        assert not second.built
        assert second.manifest == first.manifest
        assert pair.texts.seen == []

    def test_a_damaged_index_is_rebuilt(self, tmp_path: Path) -> None:
        """Whoever is told by `verify` to build again gets a whole index by the same command."""
        first = build_index(tmp_path, [listed(["a", "b"])], BagPair(), options=OPTIONS).manifest
        shard = tmp_path / "versions" / first.version / first.shards["bag"][0].file
        content = bytearray(shard.read_bytes())
        content[-3] ^= 1
        shard.chmod(0o644)
        shard.write_bytes(content)
        assert verify(tmp_path) != []
        second = build_index(tmp_path, [listed(["a", "b"])], BagPair(), options=OPTIONS)
        assert second.built
        assert second.manifest.rows_digest == first.rows_digest
        assert second.manifest.shards == first.shards
        assert verify(tmp_path) == []

    @pytest.mark.parametrize("damage", [b"", b"nonsense", b"\xff\xfe"])
    def test_a_damaged_pointer_is_rewritten(self, damage: bytes, tmp_path: Path) -> None:
        """A torn CURRENT does not stop the command that repairs it."""
        build_index(tmp_path, [listed(["a", "b"])], BagPair(), options=OPTIONS)
        layout.current_path(tmp_path).write_bytes(damage)
        build_index(tmp_path, [listed(["a", "b"])], BagPair(), options=OPTIONS)
        assert verify(tmp_path) == []


class TestRefusals:
    def test_another_corpus_or_encoder_needs_replace(self, tmp_path: Path) -> None:
        """Another corpus or encoder is refused, and both are named, unless `replace` is set."""
        build_index(tmp_path, [listed(["a"], name="mine")], BagPair(), options=OPTIONS)
        for source, pair in (
            (listed(["b"], name="yours"), BagPair()),
            (listed(["a"], name="mine"), BagPair("other")),
        ):
            with pytest.raises(IndexDiffers) as caught:
                build_index(tmp_path, [source], pair, options=OPTIONS)
            for name in ("mine", "bag", source.name, pair.spec.space):
                assert name in caught.value.message
            assert "--replace" in caught.value.hint
            with open_version(tmp_path) as version:
                assert version.prompts.get_many([0])[0].text == "a"
        build_index(tmp_path, [listed(["b"])], BagPair("other"), options=BuildOptions(replace=True))
        with open_version(tmp_path) as version:
            assert version.prompts.get_many([0])[0].text == "b"

    def test_an_index_of_an_older_format_needs_replace(self, tmp_path: Path) -> None:
        """It may hold another corpus, or be one from which prompts were removed."""
        root = tmp_path / "index"
        build_index(root, [listed(["a"])], BagPair())
        layout.versions_folder(root).rename(layout.older_versions_folder(root))
        current = layout.current_path(root).read_bytes()
        with pytest.raises(FormatVersion, match=r"before 3\.0"):
            build_index(root, [listed(["a"])], BagPair())
        assert layout.current_path(root).read_bytes() == current
        replaced = build_index(root, [listed(["a"])], BagPair(), options=BuildOptions(replace=True))
        assert replaced.manifest.rows > 0

    def test_other_weights_of_one_name_are_named(self, tmp_path: Path) -> None:
        """Corpus, name and space are equal: the message names the weight file that differs."""
        build_index(tmp_path, [listed(["a"])], BagPair(), options=OPTIONS)
        pair = BagPair()
        pair.texts.spec = replace(pair.spec, weights_sha256={"text": "feedc0de" * 8})
        with pytest.raises(
            IndexDiffers, match=r"the text weights of bag were sha256 bag, here feedc0de\."
        ):
            build_index(tmp_path, [listed(["a"])], pair, options=OPTIONS)

    def test_going_back_encodes_nothing(self, tmp_path: Path) -> None:
        """Replacing by what is still there in an older version puts that one back in service."""
        first = build_index(tmp_path, [listed(["a"])], BagPair(), options=OPTIONS).manifest
        build_index(tmp_path, [listed(["b"])], BagPair(), options=BuildOptions(replace=True))
        pair = BagPair()
        build_index(
            tmp_path, [listed(["a"])], pair, options=BuildOptions(shard_rows=50, replace=True)
        )
        assert current_name(tmp_path) == first.version
        assert pair.texts.seen == []

    def test_another_shard_size_needs_no_replace(self, tmp_path: Path) -> None:
        """Only corpus and encoder are guarded: the rest changes how, not what."""
        first = build_index(tmp_path, [listed(["a", "b"])], BagPair(), options=OPTIONS).manifest
        second = build_index(
            tmp_path, [listed(["a", "b"])], BagPair(), options=BuildOptions(shard_rows=1)
        ).manifest
        assert second.rows_digest == first.rows_digest
        assert len(second.shards["bag"]) == 2

    @pytest.mark.parametrize("content", [b"\xff\n" * 3, b"\n \n\t\n", b"a\0b\n"])
    def test_nothing_usable_publishes_nothing(self, content: bytes, tmp_path: Path) -> None:
        """Only rejected rows: an error that counts the reasons; no index, no staging folder."""
        path = tmp_path / "bad.txt"
        path.write_bytes(content)
        with pytest.raises(
            CorpusError, match=r"bad\.txt: no usable prompt in \d rows \(\d .*line 1"
        ):
            build_index(tmp_path / "index", [parse_corpus(str(path))], BagPair(), options=OPTIONS)
        assert current_name(tmp_path / "index") is None
        assert not any((tmp_path / "index" / "staging").iterdir())

    def test_only_duplicates_are_one_row(self, tmp_path: Path) -> None:
        """A corpus of one prompt over and over is an index of one row."""
        report = build_index(tmp_path, [listed(["a b", " a  b"] * 50)], BagPair(), options=OPTIONS)
        assert report.manifest.funnel == {"read": 100, "duplicate": 99, "kept": 1}
        with open_version(tmp_path) as version:
            assert version.prompts.get_many([0])[0].n_submitted == 100

    def test_a_failing_source_leaves_the_old_index(self, tmp_path: Path) -> None:
        """An error in the middle of reading ends the build; the old index still answers."""

        def rows(start: int) -> Iterator[RawPrompt]:
            yield RawPrompt("fine", "torn", "row 0")
            raise CorpusError("torn", hint="mend it")

        build_index(tmp_path, [listed(["a"])], BagPair(), options=OPTIONS)
        with pytest.raises(CorpusError, match="torn"):
            build_index(
                tmp_path,
                [StreamedSource("torn", False, rows, lambda: "x", lambda: 2)],
                BagPair(),
                options=BuildOptions(replace=True),
            )
        assert verify(tmp_path) == []

    def test_a_second_builder_is_turned_away(self, tmp_path: Path) -> None:
        """While one build holds the folder, another ends at once and changes nothing."""
        build_index(tmp_path, [listed(["a"])], BagPair(), options=OPTIONS)
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with write_lock(tmp_path):
                held.set()
                done.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            assert held.wait(30)
            with pytest.raises(BuildLocked):
                build_index(
                    tmp_path, [listed(["b"])], BagPair(), options=BuildOptions(replace=True)
                )
        finally:
            done.set()
            thread.join()
        assert verify(tmp_path) == []

    def test_senseless_plans(self, tmp_path: Path) -> None:
        """No corpus, a shared space, an empty shard, an unknown index type: all are refused."""
        source = [listed(["a"])]
        for sources, options, extra in (
            ([], OPTIONS, []),
            (source, BuildOptions(shard_rows=0), []),
            (source, BuildOptions(index_factory="Flat7"), []),
            (source, OPTIONS, [BagOfWords("bag")]),
        ):
            with pytest.raises(ConfigError):
                build_index(tmp_path, sources, BagPair(), options=options, extra=extra)
            assert current_name(tmp_path) is None

    def test_a_lying_encoder(self, tmp_path: Path) -> None:
        """Vectors of another shape than the spec says, or with NaN, never reach an index."""

        class Lying(BagPair):
            def __init__(self, wrong: Vectors) -> None:
                super().__init__()
                self.texts.encode = lambda items: wrong  # type: ignore[method-assign]

        for wrong, error in (
            (np.ones((1, 3), np.float32), EncoderError),
            (np.ones((2, 24), np.float32), EncoderError),
            (np.full((1, 24), np.nan, np.float32), EncoderError),
        ):
            with pytest.raises(error):
                build_index(tmp_path, [listed(["a"])], Lying(wrong), options=OPTIONS)
            assert current_name(tmp_path) is None


class TestPlan:
    def test_everything_counts(self) -> None:
        """Another corpus, order, encoder, shard size, index or seed gives another plan."""
        one, two = listed(["a"]), listed(["b"])
        encoder: TextEncoder = BagOfWords()
        assert encoder.encode(["a"]).shape == (1, 24)
        variants = [
            make_plan([one, two], [BagOfWords().spec], options=OPTIONS),
            make_plan([two, one], [BagOfWords().spec], options=OPTIONS),
            make_plan([one], [BagOfWords().spec], options=OPTIONS),
            make_plan([one, two], [BagOfWords("other").spec], options=OPTIONS),
            make_plan([one, two], [BagOfWords().spec, BagOfWords("other").spec], options=OPTIONS),
            make_plan([one, two], [BagOfWords().spec], options=BuildOptions(shard_rows=51)),
            make_plan(
                [one, two],
                [BagOfWords().spec],
                options=BuildOptions(shard_rows=50, index_factory="IVF16,SQ8"),
            ),
            make_plan(
                [one, two],
                [BagOfWords().spec],
                options=BuildOptions(shard_rows=50, memory_budget_bytes=1 << 20),
            ),
            make_plan([one, two], [BagOfWords().spec], options=BuildOptions(shard_rows=50, seed=1)),
        ]
        assert len({plan.sha256 for plan in variants}) == len(variants)
        again = make_plan(
            [one, two], [BagOfWords().spec], options=BuildOptions(shard_rows=50, replace=True)
        )
        assert again.sha256 == variants[0].sha256
        assert json.loads(again.canonical()) == again.plain()


class TestCleaning:
    def test_rows_are_the_same_whatever_the_batches(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reading 3 rows at a time gives the same digest of rows as reading 1,000."""
        source = parse_corpus(str(write_corpus(tmp_path / "corpus.txt", 60)))
        digests = set()
        for size in (3, 1000):
            monkeypatch.setattr("imprompt.indexer.engine.READ_ROWS", size)
            digests.add(
                build_index(
                    tmp_path / str(size), [source], BagPair(), options=OPTIONS
                ).manifest.rows_digest
            )
        assert len(digests) == 1
        assert isinstance(next(source.batches(1)), CorpusBatch)
