"""Publishing: one step that a crash cannot halve, one writer, readers that keep theirs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from imprompt.core.errors import BuildLocked, Checksum, NoIndex, StoreError
from imprompt.store import layout
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.locking import write_lock
from imprompt.store.manifest import Manifest, encode_manifest, sha256_bytes
from imprompt.store.publish import (
    collect_garbage,
    current_name,
    find_version,
    make_current,
    publish,
    version_names,
)
from tests.store.builders import SPACE, build, stage


def finish(root: Path, manifest: Manifest) -> None:
    """What the same build does when it is started again."""
    with write_lock(root):
        name = find_version(root, manifest.plan_sha256)
        if name is None:
            publish(root, layout.staging_folder(root, manifest.plan_sha256), manifest)
        elif name != current_name(root):
            make_current(root, name)


def test_published_index_answers(tmp_path: Path) -> None:
    """What was staged is in service.

    Manifest, prompts and vectors, and `CURRENT` names it with its manifest's sha256.
    """
    manifest = build(tmp_path)
    content = (layout.version_folder(tmp_path, manifest.version) / layout.MANIFEST).read_bytes()
    assert (
        layout.current_path(tmp_path).read_text() == f"{manifest.version} {sha256_bytes(content)}\n"
    )
    with open_version(tmp_path) as version:
        assert version.manifest == manifest
        assert (
            len(version.prompts)
            == len(version.vectors(SPACE))
            == len(version.index(SPACE))
            == manifest.rows
        )
    assert list(layout.staging_root(tmp_path).iterdir()) == []


def test_only_what_belongs_is_kept(tmp_path: Path) -> None:
    """The working files of a build do not enter the version, and no write-ahead log remains."""
    manifest = build(tmp_path)
    folder = layout.version_folder(tmp_path, manifest.version)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {layout.MANIFEST, *manifest.files}
    assert layout.STAGED not in found
    assert {
        layout.PROMPTS,
        layout.PLAN,
        f"index/{SPACE}.faiss",
        f"vectors/{SPACE}/00000.npy",
    } <= found


def test_killed_before_every_step(tmp_path: Path) -> None:
    """SIGKILL before each step of publishing: the old or the new index answers, whole.

    The same build then completes.
    """
    template = tmp_path / "template"
    build(template, rows=40, seed=0)
    _, manifest = stage(template, rows=40, seed=1)
    (template / "draft.json").write_bytes(encode_manifest(manifest))
    program = Path(__file__).with_name("die_while_publishing.py")
    subprocess.run([sys.executable, program, template, tmp_path / "killed"], check=True)
    roots = sorted((tmp_path / "killed").iterdir())
    assert len(roots) > 12
    in_service = []
    for root in roots:
        with open_version(root) as version:
            in_service.append(version.manifest.plan["seed"])
            assert version.prompts.digest() == version.manifest.rows_digest
        finish(root, manifest)
        with open_version(root) as version:
            assert version.manifest.plan == {"seed": 1}
            assert version.manifest.rows_digest == manifest.rows_digest
            assert version.manifest.shards == manifest.shards
        assert verify(root) == []
        collect_garbage(root, keep=0)
        assert version_names(root) == [current_name(root)]
    assert in_service[0] == 0
    assert in_service[-1] == 1
    assert in_service == sorted(in_service), "once the new index is in service, it stays"


def test_open_database_is_not_published(tmp_path: Path) -> None:
    """A write-ahead log beside the prompts says that the database was not closed.

    Nothing is published.
    """
    with write_lock(tmp_path):
        staging, manifest = stage(tmp_path)
        (staging / f"{layout.PROMPTS}.wal").write_bytes(b"x")
        with pytest.raises(StoreError, match="not closed"):
            publish(tmp_path, staging, manifest)
    assert current_name(tmp_path) is None


def test_shard_of_another_length_is_not_published(tmp_path: Path) -> None:
    """A shard that is not as long as its record is found before anything is in service."""
    with write_lock(tmp_path):
        staging, manifest = stage(tmp_path)
        with (staging / manifest.shards[SPACE][0].file).open("ab") as file:
            file.write(b"x")
        with pytest.raises(Checksum, match=r"00000\.npy"):
            publish(tmp_path, staging, manifest)
    assert current_name(tmp_path) is None


def test_find_and_make_current(tmp_path: Path) -> None:
    """The newest version of a plan is found by the plan's hash, and can be put back in service."""
    first, second = build(tmp_path, rows=20, seed=0), build(tmp_path, rows=20, seed=1)
    assert find_version(tmp_path, first.plan_sha256) == first.version
    assert find_version(tmp_path, "f" * 64) is None
    assert current_name(tmp_path) == second.version
    with write_lock(tmp_path):
        make_current(tmp_path, first.version)
        with pytest.raises(StoreError, match="nothing-there"):
            make_current(tmp_path, "nothing-there")
    assert current_name(tmp_path) == first.version
    assert verify(tmp_path) == []


def test_second_writer(tmp_path: Path) -> None:
    """A second writer is refused with the first one's process id.

    When that one is killed, the lock is free.
    """
    program = (
        f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\nfrom pathlib import Path\n"
        "from imprompt.store.locking import write_lock\n"
    )
    program += (
        f"with write_lock(Path({str(tmp_path)!r})): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(BuildLocked, match=f"process {holder.pid}"), write_lock(tmp_path):
            pass
        with pytest.raises(BuildLocked, match=f"process {holder.pid}"):
            collect_garbage(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with write_lock(tmp_path):
        pass


def test_garbage(tmp_path: Path) -> None:
    """The current version and the newest others stay.

    Older ones and unfinished builds go, and their bytes are told.
    """
    names = [build(tmp_path, rows=20, seed=seed).version for seed in range(4)]
    with write_lock(tmp_path):
        make_current(tmp_path, names[1])
        staging, _ = stage(tmp_path, rows=20, seed=9)
    sizes = {
        folder: sum(
            path.stat().st_size for path in (tmp_path / folder).rglob("*") if path.is_file()
        )
        for folder in (f"versions/{names[0]}", f"versions/{names[2]}", f"staging/{staging.name}")
    }
    assert collect_garbage(tmp_path, keep=2, keep_staging=True) == [
        (f"versions/{names[0]}", sizes[f"versions/{names[0]}"])
    ]
    assert version_names(tmp_path) == names[1:]
    del sizes[f"versions/{names[0]}"]
    assert dict(collect_garbage(tmp_path, keep=1)) == sizes
    assert [name for name, _ in collect_garbage(tmp_path, keep=0)] == [f"versions/{names[3]}"]
    assert version_names(tmp_path) == [names[1]]
    assert list(layout.staging_root(tmp_path).iterdir()) == []
    assert verify(tmp_path) == []


def test_garbage_without_current(tmp_path: Path) -> None:
    """Where `CURRENT` is missing the newest version stays.

    Where it is damaged nothing is removed.
    """
    names = [build(tmp_path, rows=20, seed=seed).version for seed in range(2)]
    layout.current_path(tmp_path).write_text("damaged")
    with pytest.raises(Checksum, match="CURRENT"):
        collect_garbage(tmp_path, keep=0)
    layout.current_path(tmp_path).unlink()
    collect_garbage(tmp_path, keep=0)
    assert version_names(tmp_path) == names[1:]


def test_garbage_of_nothing(tmp_path: Path) -> None:
    """A folder that is not there has no garbage, and is not created."""
    assert collect_garbage(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_pinned_version_stays(tmp_path: Path) -> None:
    """A reader keeps its version, whatever is published and collected meanwhile."""
    first = build(tmp_path, rows=20, seed=0)
    with open_version(tmp_path) as version:
        build(tmp_path, rows=20, seed=1)
        assert collect_garbage(tmp_path, keep=0) == []
        assert verify(tmp_path, name=first.version) == []
        assert version.prompts.get_many([7])[0].text == "a 7 of 0, Öl auf Leinwand"
    assert [name for name, _ in collect_garbage(tmp_path, keep=0)] == [f"versions/{first.version}"]
    with pytest.raises(NoIndex, match=first.version):
        open_version(tmp_path, first.version)


def test_readers_while_versions_come_and_go(tmp_path: Path) -> None:
    """Readers that open and search in a loop never fail while others publish and collect."""
    build(tmp_path, rows=30, seed=0)
    errors: list[BaseException] = []
    opened: list[int] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                with open_version(tmp_path) as version:
                    seed = version.manifest.plan["seed"]
                    assert (
                        version.prompts.get_many([5])[0].text == f"a 5 of {seed}, Öl auf Leinwand"
                    )
                    opened.append(seed)
        except BaseException as error:  # noqa: BLE001 the thread's error is the test's finding
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for seed in range(1, 6):
        build(tmp_path, rows=30, seed=seed)
        collect_garbage(tmp_path, keep=0)
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert len(set(opened)) > 1
    collect_garbage(tmp_path, keep=0)
    assert len(version_names(tmp_path)) == 1
