"""Opening a version: what is there, what is not, and formats of other versions."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import duckdb
import pytest

from imprompt.core.errors import Checksum, FormatVersion, NoIndex, SpaceMismatch
from imprompt.store import layout
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.locking import write_lock
from imprompt.store.manifest import decode_manifest, encode_manifest, sha256_bytes
from imprompt.store.prompts import DuckPrompts
from imprompt.store.publish import collect_garbage, current_name, purge_others
from tests.store.builders import SPACE, build


def rewrite_manifest(root: Path, **changes: Any) -> None:
    """Change the manifest in service, and `CURRENT` with it, as another release would."""
    name = layout.current_path(root).read_text().split()[0]
    path = layout.version_folder(root, name) / layout.MANIFEST
    content = json.dumps(json.loads(path.read_text()) | changes).encode()
    path.chmod(0o644)
    path.write_bytes(content)
    layout.current_path(root).write_text(f"{name} {sha256_bytes(content)}\n")


def test_a_version_may_be_open_twice(tmp_path: Path) -> None:
    """In one process, as a server does that swaps to a version which it has open."""
    build(tmp_path)
    with open_version(tmp_path) as first, open_version(tmp_path) as second:
        assert first.prompts.get_many([0]) == second.prompts.get_many([0])


def test_no_index(tmp_path: Path) -> None:
    """An absent index says how to build one, in that place; the folder is not created."""
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(NoIndex) as caught:
            open_version(root)
        assert caught.value.hint == f"Build one: imprompt build-index --index {root}"
        with pytest.raises(NoIndex):
            verify(root)
    assert not (tmp_path / "absent").exists()


def test_a_file_in_place_of_the_index(tmp_path: Path) -> None:
    """A root that is a file holds no index."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(NoIndex):
        open_version(tmp_path / "file")


def test_by_name(tmp_path: Path) -> None:
    """A version that is not in service is opened by its name; an unknown name lists those there."""
    first, second = build(tmp_path, rows=20, seed=0), build(tmp_path, rows=20, seed=1)
    with open_version(tmp_path, first.version) as version:
        assert version.manifest == first
    with pytest.raises(NoIndex, match=second.version):
        open_version(tmp_path, "../staging")


def test_newer_format(tmp_path: Path) -> None:
    """A newer major format is refused, by opening and by verifying, naming both formats."""
    build(tmp_path, rows=20)
    rewrite_manifest(tmp_path, format=[4, 3], rows="another type")
    for work in (open_version, verify):
        with pytest.raises(FormatVersion, match=r"format 4\.3.* format 3\.x") as caught:
            work(tmp_path)
        assert caught.value.hint == "Update imprompt."


@pytest.mark.parametrize("factory", ["IVF8,RaBitQ", "SQfp16"])
@pytest.mark.parametrize("older", [[1, 0], [1, 2], [2, 0], [2, 1]])
def test_older_format(tmp_path: Path, factory: str, older: list[int]) -> None:
    """Every index of an older major format is refused, with what to do."""
    manifest = build(tmp_path, rows=100, factory=factory)
    rewrite_manifest(tmp_path, format=older, rows="another type")
    for work in (open_version, verify):
        with pytest.raises(FormatVersion, match=rf"format {older[0]}\.{older[1]};") as caught:
            work(tmp_path)
        assert "imprompt build-index --replace" in caught.value.hint
    with pytest.raises(FormatVersion):
        open_version(tmp_path, manifest.version)


def test_the_folders_of_an_older_format(tmp_path: Path) -> None:
    """An index whose versions lie where older formats had them is refused, not called damaged."""
    build(tmp_path, rows=20)
    layout.versions_folder(tmp_path).rename(tmp_path / "generations")
    for work in (open_version, verify):
        with pytest.raises(FormatVersion, match=r"format before 3\.0") as caught:
            work(tmp_path)
        assert "imprompt build-index --replace" in caught.value.hint
    with pytest.raises(FormatVersion):
        collect_garbage(tmp_path)


def test_what_is_left_of_an_older_format(tmp_path: Path) -> None:
    """Beside a version of today it goes with `gc` and `remove`; a lost version is damage."""
    for clean in (collect_garbage, lambda root: purge_others(root, current_name(root) or "")):
        manifest = build(tmp_path, rows=20)
        old = layout.older_versions_folder(tmp_path) / manifest.version
        shutil.copytree(layout.version_folder(tmp_path, manifest.version), old)
        with open_version(tmp_path) as version:
            assert version.manifest.rows == 20
        with write_lock(tmp_path) if clean is not collect_garbage else nullcontext():
            assert old.parent.name in dict(clean(tmp_path))
        assert not old.parent.exists()
    layout.older_versions_folder(tmp_path).mkdir()
    layout.version_folder(tmp_path, manifest.version).rename(tmp_path / "elsewhere")
    with pytest.raises(Checksum):
        open_version(tmp_path)


def test_newer_minor_format(tmp_path: Path) -> None:
    """A newer minor format with fields that this version does not know is read."""
    build(tmp_path, rows=20)
    rewrite_manifest(tmp_path, format=[3, 9], something_new={"a": 1})
    with open_version(tmp_path) as version:
        assert version.manifest.format == (3, 9)
    assert verify(tmp_path) == []


def test_a_manifest_without_dtype(tmp_path: Path) -> None:
    """Encoders of older manifests record no type to compute in: the device chose it."""
    build(tmp_path, rows=20)
    name = layout.current_path(tmp_path).read_text().split()[0]
    manifest = json.loads((layout.version_folder(tmp_path, name) / layout.MANIFEST).read_text())
    for encoder in manifest["encoders"]:
        del encoder["dtype"]
    rewrite_manifest(tmp_path, encoders=manifest["encoders"])
    with open_version(tmp_path) as version:
        assert [encoder.dtype for encoder in version.manifest.encoders] == [""]
    assert verify(tmp_path) == []


def test_a_manifest_without_sums(tmp_path: Path) -> None:
    """Rows or lists that nothing vouches for are not read.

    No manifest of this format lacks sums.
    """
    build(tmp_path, rows=20)
    name = layout.current_path(tmp_path).read_text().split()[0]
    manifest = json.loads((layout.version_folder(tmp_path, name) / layout.MANIFEST).read_text())
    info = manifest["indexes"][SPACE]
    without: list[dict[str, Any]] = [{"row_sums": {}}, {"indexes": {SPACE: info | {"sums": ""}}}]
    for changes in without:
        rewrite_manifest(tmp_path, **{**manifest, **changes})
        with pytest.raises(Checksum, match="not a manifest"):
            open_version(tmp_path)


@pytest.mark.parametrize(
    "change", [{"rows": 19}, {"rows_digest": "0" * 64}, {"shards": {}}, {"encoders": []}]
)
def test_a_manifest_that_does_not_fit(tmp_path: Path, change: dict[str, Any]) -> None:
    """Counts and the digest of rows are compared with the files, not believed."""
    build(tmp_path, rows=20)
    rewrite_manifest(tmp_path, **change)
    assert verify(tmp_path) != []
    if "rows_digest" not in change:  # only verify reads every row
        with pytest.raises(Checksum):
            open_version(tmp_path)


def test_a_wrong_check_query(tmp_path: Path) -> None:
    """An index that answers a check query otherwise than recorded is not opened."""
    manifest = build(tmp_path, rows=50)
    check_queries = json.loads(encode_manifest(manifest))["check_queries"]
    check_queries[SPACE][3]["scores"][4] += 1e-3
    rewrite_manifest(tmp_path, check_queries=check_queries)
    with pytest.raises(Checksum, match=f"row {check_queries[SPACE][3]['row_id']} is nearest"):
        open_version(tmp_path)
    assert [problem.file for problem in verify(tmp_path)] == [f"vectors of {SPACE}"]


def test_another_space(tmp_path: Path) -> None:
    """A space that the version does not have is a mismatch that names the encoder that fits."""
    build(tmp_path, rows=20)
    with open_version(tmp_path) as version:
        assert version.space == SPACE
        for ask in (version.index, version.vectors):
            with pytest.raises(SpaceMismatch, match="--encoder toy") as caught:
                ask("clip")
            assert (caught.value.expected, caught.value.found) == (SPACE, "clip")


def test_check_queries_are_the_exact_answers(tmp_path: Path) -> None:
    """Sixteen rows, each nearest to itself with cosine 1, five hits each.

    Recall was measured and is 1.
    """
    manifest = build(tmp_path)
    check_queries = manifest.check_queries[SPACE]
    assert len({check_query.row_id for check_query in check_queries}) == 16
    for check_query in check_queries:
        assert check_query.ids[0] == check_query.row_id
        assert check_query.scores[0] == pytest.approx(1, abs=1e-6)
        assert len(check_query.ids) == len(check_query.scores) == 5
        assert check_query.scores == sorted(check_query.scores, reverse=True)
    assert manifest.indexes[SPACE].recall_at_10 == 1


def test_an_index_of_three_rows(tmp_path: Path) -> None:
    """Fewer rows than check queries and hits are no trouble."""
    manifest = build(tmp_path, rows=3)
    assert [len(check_query.ids) for check_query in manifest.check_queries[SPACE]] == [3, 3, 3]
    assert verify(tmp_path) == []
    with open_version(tmp_path) as version:
        assert len(version.index(SPACE)) == 3


def test_manifest_comes_back(tmp_path: Path) -> None:
    """Encoding and decoding a manifest gives an equal one; its bytes are the same every time."""
    manifest = build(tmp_path, rows=20)
    content = encode_manifest(manifest)
    assert decode_manifest(content, path=tmp_path / layout.MANIFEST) == manifest
    assert encode_manifest(decode_manifest(content, path=tmp_path / layout.MANIFEST)) == content


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": [3, 0]}', b'{"format": "1"}', b"\xff\xfe"]
)
def test_no_manifest(tmp_path: Path, content: bytes) -> None:
    """What is not a manifest is a damaged file, whatever it is."""
    with pytest.raises(Checksum, match="not a manifest"):
        decode_manifest(content, path=tmp_path / layout.MANIFEST)


def test_a_table_of_an_older_format(tmp_path: Path) -> None:
    """Prompts without `n_duplicates`, as before format 1.1, are not prompts of this format."""
    manifest = build(tmp_path, rows=20)
    path = layout.version_folder(tmp_path, manifest.version) / layout.PROMPTS
    path.chmod(0o644)
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE prompts DROP COLUMN n_duplicates")
    with pytest.raises(Checksum, match="another form than imprompt writes"):
        DuckPrompts(path)


def test_a_version_can_be_open_twice(tmp_path: Path) -> None:
    """A process may read a version in two places at once.

    Both answer, whichever is closed first.
    """
    build(tmp_path)
    first, second = open_version(tmp_path), open_version(tmp_path)
    first.close()
    assert second.prompts.get_many([0])[0].row_id == 0
    second.close()


def test_published_files_may_not_be_written(tmp_path: Path) -> None:
    """No file of a version has the right to write, so an accident is refused."""
    manifest = build(tmp_path)
    folder = layout.version_folder(tmp_path, manifest.version)
    assert {
        (folder / file).stat().st_mode & 0o777 for file in (layout.MANIFEST, *manifest.files)
    } == {0o444}


def test_a_file_that_was_written_into_is_noticed(tmp_path: Path) -> None:
    """One changed byte, or a cut, in a file that is still read.

    Not the index that lies in memory, and not what was removed.
    """
    manifest = build(tmp_path)
    folder = layout.version_folder(tmp_path, manifest.version)
    with open_version(tmp_path, mapped=False) as version:
        query = version.vectors(SPACE).block(0, 1)
        hits = version.index(SPACE).search(query, 5)
        (folder / f"index/{SPACE}.faiss").chmod(0o644)
        (folder / f"index/{SPACE}.faiss").write_bytes(b"gone")
        (folder / layout.PLAN).chmod(0o644)
        (folder / layout.PLAN).write_bytes(b"gone")
        version.check_untouched()
        assert (version.index(SPACE).search(query, 5).ids == hits.ids).all()
        shard = folder / f"vectors/{SPACE}/00000.npy"
        shard.chmod(0o644)
        with shard.open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"x")
        with pytest.raises(Checksum, match=r"00000\.npy was changed"):
            version.check_untouched()
