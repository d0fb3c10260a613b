"""`reindex` makes the index anew: same rows, same vectors, damaged index files repaired."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from imprompt.core.errors import BuildLocked, Checksum, ConfigError, NoIndex
from imprompt.indexer.adding import add_corpora
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.indexer.reindexing import ReindexReport, reindex
from imprompt.store import layout
from imprompt.store.index_version import open_version
from imprompt.store.integrity import repaired_by_reindex, verify
from imprompt.store.locking import write_lock
from imprompt.store.manifest import Manifest
from imprompt.store.publish import current_name, version_names
from tests.conftest import Imprompt
from tests.indexer.doubles import BagOfWords, BagPair, write_corpus
from tests.indexer.small_index import IVF, build_small, flip, manifest_in_service, version_folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small(tmp_path_factory.mktemp("built"))


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "index"))


def assert_same_rows(found: Manifest, before: Manifest) -> None:
    """Rows, counts, spaces, and every byte of prompts and vectors."""
    assert (found.rows, found.rows_digest) == (before.rows, before.rows_digest)
    assert (found.funnel, found.parameters) == (before.funnel, before.parameters)
    assert (found.corpus, found.encoders) == (before.corpus, before.encoders)
    assert found.shards == before.shards
    for file in (layout.PROMPTS, *before.row_sums.values()):
        assert found.files[file] == before.files[file]


def test_another_type_and_back(root: Path) -> None:
    """Only the index changes; what it answers exactly does not; the new settings are kept."""
    before = manifest_in_service(root)
    report = reindex(root, index_factory=IVF)
    found = manifest_in_service(root)
    assert report == ReindexReport(found, built=True)
    assert_same_rows(found, before)
    assert (before.indexes["bag"].factory, found.indexes["bag"].factory) == ("SQfp16", IVF)
    assert found.plan["index_factory"] == IVF
    with open_version(root, before.version) as old, open_version(root) as new:
        queries = old.vectors("bag").block(0, 9)
        one, other = (each.index("bag").search(queries, 5, effort=1.0) for each in (old, new))
        assert (one.ids == other.ids).all()
        assert (one.scores == other.scores).all()
    back = reindex(root, memory_budget_bytes=1 << 30)
    found = manifest_in_service(root)
    assert back.built
    assert found.indexes["bag"].factory == "SQfp16", "with a budget, the planner chooses"
    assert found.indexes["bag"].header_sha256 == before.indexes["bag"].header_sha256
    assert (found.plan["index_factory"], found.plan["memory_budget_bytes"]) == (None, 1 << 30)
    assert_same_rows(found, before)


def test_vectors_are_not_written_twice(root: Path) -> None:
    """The new version links the files of the old one."""
    old = version_folder(root)
    reindex(root, index_factory=IVF)
    for file in (layout.PROMPTS, "vectors/bag/00000.npy", "vectors/second/00005.npy"):
        assert (version_folder(root) / file).samefile(old / file)


@pytest.mark.parametrize(
    "options", [{}, {"index_factory": "SQfp16"}, {"memory_budget_bytes": 8 << 30}]
)
def test_nothing_to_do(root: Path, options: dict[str, str | int]) -> None:
    """An index that is whole and as wanted stays; a second call never makes a third version."""
    first = reindex(root, **options)  # type: ignore[arg-type]
    assert first.built == bool(options), "other settings are kept even if the type is the same"
    names = version_names(root)
    again = reindex(root, **options)  # type: ignore[arg-type]
    assert not again.built
    assert again.manifest == first.manifest
    assert version_names(root) == names


@pytest.mark.parametrize(
    "file",
    ["index/bag.faiss", "index/bag.crc32", "vectors/bag/rows.crc32", "vectors/second/rows.crc32"],
)
@pytest.mark.parametrize("harm", ["flipped", "cut", "missing"])
def test_damaged_index_files_are_made_anew(file: str, harm: str, root: Path) -> None:
    """Also where the index cannot be opened at all; `verify` tells this damage from others."""
    before = manifest_in_service(root)
    path = version_folder(root) / file
    if harm == "flipped":
        flip(path)
    elif harm == "cut":
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    problems = verify(root)
    assert [problem.file for problem in problems] == [file]
    assert repaired_by_reindex(problems)
    assert reindex(root).built
    found = manifest_in_service(root)
    assert_same_rows(found, before)
    own = {layout.PLAN, layout.JOURNAL}
    assert {name: found.files[name] for name in {*found.files} - own} == {
        name: before.files[name] for name in {*before.files} - own
    }
    assert found.indexes == before.indexes
    assert found.check_queries == before.check_queries


@pytest.mark.parametrize(
    "file", ["prompts.duckdb", "vectors/bag/00002.npy", "vectors/second/00000.npy"]
)
def test_what_cannot_be_made_anew_is_refused(file: str, root: Path) -> None:
    """Damaged prompts or vectors never get into a new version; the old one stays as it is."""
    flip(version_folder(root) / file)
    flip(version_folder(root) / "index/bag.faiss")
    problems = verify(root)
    assert not repaired_by_reindex(problems)
    before = current_name(root)
    with pytest.raises(Checksum, match=Path(file).name):
        reindex(root, index_factory=IVF)
    assert current_name(root) == before
    assert len(version_names(root)) == 1


def test_a_changed_manifest_is_refused(root: Path) -> None:
    """It says what is whole, so nothing is made from one that is not."""
    flip(version_folder(root) / layout.MANIFEST, at=30)
    with pytest.raises(Checksum, match=layout.MANIFEST):
        reindex(root, index_factory=IVF)


def test_a_file_that_does_not_belong_there_is_no_case_for_it(root: Path) -> None:
    """`verify` does not send there who has a stray file."""
    stray = version_folder(root) / "index" / "other.faiss"
    stray.write_bytes(b"x")
    assert not repaired_by_reindex(verify(root))
    assert not reindex(root).built


def test_more_may_be_added_afterwards(root: Path, tmp_path: Path) -> None:
    """The new settings hold for the version that an addition makes."""
    reindex(root, index_factory=IVF)
    more = write_corpus(tmp_path / "more.txt", 60, salt="new")
    add_corpora(root, [parse_corpus(str(more))], BagPair(), extra=[BagOfWords("second", dim=7)])
    assert manifest_in_service(root).indexes["bag"].factory == IVF


def test_what_cannot_be(root: Path, tmp_path: Path) -> None:
    """Unknown types, budgets that are too small, another writer, no index: nothing is changed."""
    before = sorted(root.rglob("*"))
    with pytest.raises(ConfigError, match="not known"):
        reindex(root, index_factory="HNSW32")
    with pytest.raises(ConfigError, match="No index of"):
        reindex(root, memory_budget_bytes=10)
    with write_lock(root), pytest.raises(BuildLocked):
        reindex(root, index_factory=IVF)
    with pytest.raises(NoIndex):
        reindex(tmp_path / "none")
    assert sorted(root.rglob("*")) == before
    assert not (tmp_path / "none").exists()


def test_the_command(imprompt: Imprompt, root: Path) -> None:
    """It says what it did, and that there was nothing to do; `verify` names it for its damage."""
    done = imprompt("reindex", "--index", root)
    assert (done.code, "Nothing to do" in done.out, "SQfp16" in done.out) == (0, True, True)
    done = imprompt("reindex", "--index", root, "--index-factory", IVF, "--device", "cpu")
    assert (done.code, f"indexed with {IVF}" in done.out) == (0, True)
    (said,) = imprompt("reindex", "--index", root, "--json").lines
    assert (said["built"], said["manifest"]["indexes"]["bag"]["factory"]) == (False, IVF)
    flip(version_folder(root) / "index/bag.faiss")
    done = imprompt("verify", "--index", root)
    assert done.code == 53
    assert f"imprompt reindex --index {root}" in done.err
    assert imprompt("reindex", "--index", root).code == 0
    assert imprompt("verify", "--index", root).code == 0
    flip(version_folder(root) / "vectors/bag/00001.npy")
    done = imprompt("verify", "--index", root)
    assert (done.code, "reindex" in done.err) == (53, False)
    done = imprompt("reindex", "--index", root, "--memory-budget", "1GiB")
    assert (done.code, len(done.err.strip().splitlines())) == (53, 1), done.err
    for words, code in (
        (["--index-factory", "PQ1"], 10),
        (["--memory-budget", "much"], 10),
        (["--memory-budget", "10"], 10),
    ):
        done = imprompt("reindex", "--index", root, *words)
        assert (done.code, len(done.err.strip().splitlines())) == (code, 1), done.err
    assert imprompt("reindex", "--index", root.parent / "none").code == 51
