"""A program that does one step of a build on a full disk or in a read-only folder.

It prints the outcome. Run by test_storage.py.

    python hardship.py full ROOT STEP | python hardship.py readonly ROOT STEP

It prints one JSON object. A process of its own, because limits and capabilities belong to a
process.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from imprompt.core.errors import StoreError
from imprompt.indexer.reindexing import reindex
from imprompt.store import layout
from imprompt.store.check_queries import index_space
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.locking import write_lock
from imprompt.store.manifest import Manifest
from imprompt.store.publish import collect_garbage, publish
from imprompt.store.staged_prompts import CorpusState, StagedPrompts
from tests.store.builders import SPACE, build, clean_prompt, random_vectors, stage, write_shards


def add(root: Path, staging: Path, manifest: Manifest) -> None:
    with StagedPrompts(staging) as staged:
        prompts = [clean_prompt(f"{i} {os.urandom(200).hex()}") for i in range(5000)]
        staged.add(prompts, corpus=0, state=CorpusState(5000))


def number(root: Path, staging: Path, manifest: Manifest) -> None:
    (staging / layout.PROMPTS).unlink()
    with StagedPrompts(staging) as staged:
        staged.number()


def shard(root: Path, staging: Path, manifest: Manifest) -> None:
    write_shards(staging, random_vectors(20_000), space="big", shard_rows=20_000)


def index(root: Path, staging: Path, manifest: Manifest) -> None:
    index_space(staging, SPACE, manifest.shards[SPACE])


def publishing(root: Path, staging: Path, manifest: Manifest) -> None:
    publish(root, staging, manifest)


# What is done, and the length that no file may exceed while it is done.
FULL: dict[str, tuple[Callable[[Path, Path, Manifest], None], int]] = {
    "add": (add, 200_000),
    "number": (number, 200_000),
    "shard": (shard, 100_000),
    "index": (index, 1000),
    "publish": (publishing, 100),
}
READ_ONLY: dict[str, Callable[[Path], object]] = {
    "lock": lambda root: write_lock(root).__enter__(),
    "build": lambda root: build(root, seed=1),
    "gc": lambda root: collect_garbage(root, keep=0),
    "reindex": lambda root: reindex(root, index_factory="IVF4,SQ8"),
}


def full(root: Path, step: str) -> str:
    """Like a full disk: the kernel refuses to let a file grow. Holds for root as for anyone."""
    work, limit = FULL[step]
    with write_lock(root):
        staging, manifest = stage(root, seed=1)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            return attempt(lambda: work(root, staging, manifest))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def read_only(root: Path, step: str) -> str:
    """The folder's permission bits forbid writing, and root obeys them."""
    obey_permissions()
    return attempt(lambda: READ_ONLY[step](root))


def obey_permissions() -> None:
    """Give up root's capabilities to ignore the permissions and owners of files.

    They are CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER; see capset(2).
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()  # two of (effective, permitted, inheritable)
    if libc.capget(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    for word in range(3):
        data[word] &= ~0b1111
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def attempt(work: Callable[[], object]) -> str:
    try:
        work()
    except StoreError as error:
        return f"{type(error).__name__}: {error.message}"
    return "no error"


def old_index(root: Path) -> dict[str, object]:
    """What the index that was there before says now."""
    with open_version(root) as version:
        hits = version.index(SPACE).search(version.vectors(SPACE).block(3, 4), 1)
        text = version.prompts.get_many(hits.ids[0])[0].text
        return {"seed": version.manifest.plan["seed"], "text": text, "problems": len(verify(root))}


def main() -> None:
    kind, root, step = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    said = full(root, step) if kind == "full" else read_only(root, step)
    leftovers = [path.name for path in root.rglob("*.tmp*")]
    sys.stdout.write(json.dumps({"said": said, "leftovers": leftovers, "old": old_index(root)}))


if __name__ == "__main__":
    main()
