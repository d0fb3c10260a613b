"""SIGKILL at any moment of a change: an index is in service, and the same command does the rest."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imprompt.indexer.build import BuildOptions, build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.manifest import Manifest
from imprompt.store.publish import version_names
from tests.indexer.change_driver import (
    ADDING,
    DEDUPING,
    REINDEXING,
    REMOVING,
    WORD,
    add,
    dedupe,
    reindex,
    remove,
)
from tests.indexer.doubles import BagOfWords, BagPair, write_corpus, write_image
from tests.indexer.test_kills import environment

pytestmark = pytest.mark.slow

N_IMAGES = 12
DRIVER = [sys.executable, str(Path(__file__).with_name("change_driver.py"))]


def kill(verb: str, root: Path, point: str, *words: Path) -> None:
    """Run the change until it kills itself."""
    done = subprocess.run(
        [*DRIVER, verb, root, point, *words],
        env=environment(),
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def digest_in_service(root: Path) -> str:
    """The index opens, checks included."""
    with open_version(root) as version:
        return version.manifest.rows_digest


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 300 prompts in two spaces, of which every ninth holds the word.

    Twelve more come from images, with negative prompts and settings.
    """
    folder = tmp_path_factory.mktemp("old")
    lines = [
        f"prompt {i} of a {f'{WORD}{i}' if i % 9 == 4 else 'thing'}, oil on canvas"
        for i in range(300)
    ]
    (folder / "corpus.txt").write_text("\n".join(lines) + "\n", "utf-8")
    for i in range(N_IMAGES):
        held = f"{WORD}{i}" if i % 3 == 0 else "lake"
        write_image(folder / "images" / f"{i}.png", f"image {i} of a {held}", negative=f"blur {i}")
    options = BuildOptions(shard_rows=50)
    build_index(
        folder / "index",
        [parse_corpus(str(folder / "corpus.txt")), parse_corpus(f"images:{folder / 'images'}")],
        BagPair(),
        options=options,
        extra=[BagOfWords("second")],
    )
    return folder / "index"


@pytest.fixture(scope="module")
def unbroken(old: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The result of an uninterrupted removal."""
    root = Path(shutil.copytree(old, tmp_path_factory.mktemp("unbroken") / "index"))
    return remove(root).manifest


@pytest.mark.parametrize("point", REMOVING)
def test_a_kill_while_prompts_are_removed(
    point: str, old: Path, unbroken: Manifest, tmp_path: Path
) -> None:
    """The old or new index answers; then the result is that of an unbroken run."""
    root = Path(shutil.copytree(old, tmp_path / "index"))
    kill("remove", root, point)
    published = point in ("after publishing", "before purging", "in the middle of purging")
    assert (digest_in_service(root) == unbroken.rows_digest) == published
    remove(root)
    assert verify(root) == []
    with open_version(root) as version:
        found = version.manifest
    assert found.rows_digest == unbroken.rows_digest
    assert found.funnel == unbroken.funnel
    assert found.parameters == unbroken.parameters == N_IMAGES * 2 // 3
    for space, records in unbroken.shards.items():
        assert [record.sha256 for record in found.shards[space]] == [
            record.sha256 for record in records
        ]
    assert len(version_names(root)) == 1
    assert not any((root / "staging").iterdir())
    assert not any(
        WORD.encode() in path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".duckdb"
    )


@pytest.fixture(scope="module")
def deduped(old: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The result of an uninterrupted pass."""
    root = Path(shutil.copytree(old, tmp_path_factory.mktemp("deduped") / "index"))
    return dedupe(root).manifest


@pytest.mark.parametrize("point", DEDUPING)
def test_a_kill_while_prompts_are_folded(
    point: str, old: Path, deduped: Manifest, tmp_path: Path
) -> None:
    """The old or new index answers; rows, counts and vectors are those of an unbroken run."""
    root = Path(shutil.copytree(old, tmp_path / "index"))
    before = digest_in_service(root)
    kill("dedupe", root, point)
    assert digest_in_service(root) == (
        deduped.rows_digest if point == "after publishing" else before
    )
    dedupe(root)
    assert verify(root) == []
    with open_version(root) as version:
        found = version.manifest
    assert found.rows_digest == deduped.rows_digest
    assert found.funnel == deduped.funnel
    assert found.parameters == deduped.parameters > 0
    for space, records in deduped.shards.items():
        assert [record.sha256 for record in found.shards[space]] == [
            record.sha256 for record in records
        ]
    assert not any((root / "staging").iterdir())


@pytest.mark.parametrize("point", REINDEXING)
def test_a_kill_while_the_index_is_made_anew(point: str, old: Path, tmp_path: Path) -> None:
    """The old or new index answers, of the same rows; then the new one, with nothing left over."""
    root = Path(shutil.copytree(old, tmp_path / "index"))
    before = digest_in_service(root)
    kill("reindex", root, point)
    assert digest_in_service(root) == before
    assert reindex(root).built == (point != "after publishing")
    assert verify(root) == []
    with open_version(root) as version:
        assert version.manifest.rows_digest == before
        assert version.manifest.indexes["bag"].factory == "IVF4,SQ8"
    assert len(version_names(root)) == 2
    assert not any((root / "staging").iterdir())


@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_while_the_index_is_made_anew(seed: int, old: Path, tmp_path: Path) -> None:
    """Killed up to three times at any moment: the same rows answer, and a rerun does the rest."""
    rng = random.Random(seed)  # noqa: S311 moments, not secrets
    root = Path(shutil.copytree(old, tmp_path / "index"))
    before = digest_in_service(root)
    for _ in range(rng.randint(1, 3)):
        with subprocess.Popen(
            [*DRIVER, "reindex", root, "signal"], env=environment(), stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.5))
            process.kill()
        assert digest_in_service(root) == before
    reindex(root)
    assert verify(root) == []
    with open_version(root) as version:
        assert version.manifest.indexes["bag"].factory == "IVF4,SQ8"
    assert not any((root / "staging").iterdir())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Further prompts, some of which the index has."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "more.txt", 260)


@pytest.fixture(scope="module")
def grown(old: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The result of an uninterrupted addition."""
    root = Path(shutil.copytree(old, tmp_path_factory.mktemp("grown") / "index"))
    return add(root, corpus, BagPair(), BagOfWords("second")).manifest


@pytest.mark.parametrize("point", ADDING)
def test_a_kill_while_a_corpus_is_added(
    point: str, old: Path, corpus: Path, grown: Manifest, tmp_path: Path
) -> None:
    """The old index answers until the new one is in service, which equals an unbroken run's.

    A kill costs at most the shard that was being made, and nothing of the old index is encoded.
    """
    root = Path(shutil.copytree(old, tmp_path / "index"))
    kill("add", root, point, corpus)
    assert (digest_in_service(root) == grown.rows_digest) == (point == "after publishing")
    pair, second = BagPair(), BagOfWords("second")
    report = add(root, corpus, pair, second)
    assert verify(root) == []
    assert report.manifest.rows_digest == grown.rows_digest
    assert report.manifest.funnel == grown.funnel
    assert report.manifest.parameters == grown.parameters == N_IMAGES
    for space, records in grown.shards.items():
        assert [record.sha256 for record in report.manifest.shards[space]] == [
            record.sha256 for record in records
        ]
    assert not any((root / "staging").iterdir())
    n_new = 2 * (grown.rows - 300 - N_IMAGES)
    begun = (
        "in the middle of a shard",
        "between a shard and its journal line",
        "in the middle of a journal line",
    )
    first = list(ADDING).index("before publishing")
    expected = 0 if list(ADDING).index(point) >= first else n_new - (100 if point in begun else 0)
    assert report.encoded == sum(pair.texts.seen) + sum(second.seen) == expected
