"""Corpora that change under a build, and rows that may not be left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from imprompt.core.errors import CorpusError
from imprompt.core.values import Vectors
from imprompt.indexer.build import BuildOptions, build_index, make_plan
from imprompt.indexer.readers.rows import Row, StreamedSource
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store import layout
from imprompt.store.index_version import open_version
from imprompt.store.publish import current_name
from tests.conftest import Imprompt
from tests.indexer.doubles import BagOfWords, BagPair, write_corpus

OPTIONS = BuildOptions(shard_rows=50)


class Broken(BagOfWords):
    """An encoder that gives up at its third shard."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def encode(self, items: Sequence[str]) -> Vectors:
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return super().encode(items)


class BrokenPair(BagPair):
    """A pair whose text tower gives up at its third shard."""

    def __init__(self) -> None:
        super().__init__()
        self.texts = Broken()


@pytest.fixture
def broken_build(tmp_path: Path) -> tuple[Path, Path]:
    """(root, corpus) of a build that was interrupted while it encoded."""
    corpus = write_corpus(tmp_path / "corpus.txt", 230)
    root = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        build_index(root, [parse_corpus(str(corpus))], BrokenPair(), options=OPTIONS)
    return root, corpus


def staged(root: Path) -> list[str]:
    folder = layout.staging_root(root)
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


class TestBetweenABrokenBuildAndItsResume:
    def test_a_changed_corpus_is_refused_with_both_fingerprints(
        self, broken_build: tuple[Path, Path]
    ) -> None:
        """The old build stays, nothing is published, and the message has both and the remedy."""
        root, corpus = broken_build
        before = parse_corpus(str(corpus)).fingerprint()
        kept = staged(root)
        corpus.write_bytes(corpus.read_bytes() + b"one more prompt\n")
        with pytest.raises(
            CorpusError, match=r"corpus\.txt has changed since the interrupted build"
        ) as caught:
            build_index(root, [parse_corpus(str(corpus))], BagPair(), options=OPTIONS)
        assert before in caught.value.message
        assert parse_corpus(str(corpus)).fingerprint() in caught.value.message
        assert "--replace" in caught.value.hint
        assert staged(root) == kept
        assert current_name(root) is None

    def test_the_old_corpus_goes_on(self, broken_build: tuple[Path, Path]) -> None:
        """Put back as it was, the corpus is built to its end from where the build stopped."""
        root, corpus = broken_build
        content = corpus.read_bytes()
        corpus.write_text("something else\n")
        with pytest.raises(CorpusError):
            build_index(root, [parse_corpus(str(corpus))], BagPair(), options=OPTIONS)
        corpus.write_bytes(content)
        report = build_index(root, [parse_corpus(str(corpus))], BagPair(), options=OPTIONS)
        assert 0 < report.encoded < report.manifest.rows

    def test_replace_drops_the_broken_build(self, broken_build: tuple[Path, Path]) -> None:
        """With `replace` the changed corpus is built, and nothing of the other build is left."""
        root, corpus = broken_build
        corpus.write_bytes(corpus.read_bytes() + b"one more prompt\n")
        options = BuildOptions(shard_rows=50, replace=True)
        report = build_index(root, [parse_corpus(str(corpus))], BagPair(), options=options)
        assert report.encoded == report.manifest.rows
        assert staged(root) == []

    def test_another_corpus_is_another_build(
        self, broken_build: tuple[Path, Path], tmp_path: Path
    ) -> None:
        """A corpus of another name does not mind the broken build, and leaves it as it is."""
        root, _ = broken_build
        kept = staged(root)
        other = write_corpus(tmp_path / "other.txt", 60)
        build_index(root, [parse_corpus(str(other))], BagPair(), options=OPTIONS)
        assert staged(root) == kept


class TestWhileItIsRead:
    def test_a_file_that_grows_is_refused(self, tmp_path: Path) -> None:
        """A row appended while the corpus is read ends the build; nothing is published."""
        corpus = write_corpus(tmp_path / "corpus.txt", 100)
        source = parse_corpus(str(corpus))

        def grown(start: int) -> object:
            with corpus.open("a") as file:
                file.write("one more prompt\n")
            return source.open_rows(start)

        growing = StreamedSource(source.name, False, grown, source.digest, source.count)  # type: ignore[arg-type]
        before = source.fingerprint()
        with pytest.raises(CorpusError, match="changed while it was read") as caught:
            build_index(tmp_path / "index", [growing], BagPair(), options=OPTIONS)
        assert before in caught.value.message
        assert source.fingerprint() in caught.value.message
        assert current_name(tmp_path / "index") is None
        assert staged(tmp_path / "index") == []

    def test_an_unchanged_file_is_hashed_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The second fingerprint of an unchanged source costs a look at the file's status."""
        hashed: list[Path] = []

        def hash_once(path: Path) -> str:
            hashed.append(path)
            return "0" * 64

        monkeypatch.setattr("imprompt.indexer.readers.columns.sha256_file", hash_once)
        build_index(
            tmp_path / "index",
            [parse_corpus(str(write_corpus(tmp_path / "a.txt", 60)))],
            BagPair(),
            options=OPTIONS,
        )
        assert len(hashed) == 1

    def test_the_origin_of_a_corpus_is_in_the_plan(self) -> None:
        """A data set's commit stands in the plan beside its fingerprint, and so in the manifest."""

        def rows(start: int) -> Sequence[Row]:
            return []

        source = StreamedSource("set", False, rows, lambda: "f", lambda: 0, "hf:a/b@c")  # type: ignore[arg-type]
        assert (
            make_plan([source], [BagOfWords().spec], options=OPTIONS).corpora[0].origin
            == "hf:a/b@c"
        )


class TestStrict:
    @pytest.fixture
    def table(self, tmp_path: Path) -> Path:
        """A table with an empty cell and twelve rows that cannot be read."""
        path = tmp_path / "table.csv"
        bad = "".join(f"{i}\n" for i in range(11))
        path.write_bytes(
            b"id,prompt\n1,a red fox\n2,\n"
            + bad.encode()
            + b"3,broken \xff bytes\n4,a bowl of ramen\n"
        )
        return path

    def test_names_the_rows_and_publishes_nothing(
        self, table: Path, tmp_path: Path, imprompt: Imprompt
    ) -> None:
        """The first ten are named with reasons, the rest counted; without --strict, left out."""
        words = ("build-index", "--corpus", table, "--index", tmp_path / "index")
        done = imprompt(*words, "--strict")
        assert done.code == CorpusError.exit_code
        assert (
            "12 rows cannot be read, and --strict is set: "
            "table.csv, line 4: fields do not match the header;" in done.err
        )
        assert "line 13" in done.err
        assert "line 14" not in done.err
        assert "and 2 more" in done.err
        assert current_name(tmp_path / "index") is None
        done = imprompt(*words)
        assert done.code == 0
        assert "left out: table.csv:line 4: fields do not match the header" in done.out
        assert current_name(tmp_path / "index") is not None

    def test_is_no_other_build(self, tmp_path: Path) -> None:
        """A table without bad rows gives the same plan; a cell without a prompt is not bad."""
        path = tmp_path / "table.csv"
        path.write_text("id,prompt\n1,a red fox\n2,\n3,a bowl of ramen\n")
        strict = BuildOptions(shard_rows=50, strict=True)
        report = build_index(
            tmp_path / "index", [parse_corpus(str(path))], BagPair(), options=strict
        )
        assert report.manifest.rows == 2
        assert not build_index(
            tmp_path / "index", [parse_corpus(str(path))], BagPair(), options=OPTIONS
        ).built
        with open_version(tmp_path / "index") as version:
            assert len(version.prompts) == 2
