"""Pack or install an index and be killed; a program that `test_share_kills.py` runs.

    python tests/indexer/share_driver.py pack ROOT POINT PACK
    python tests/indexer/share_driver.py install ROOT POINT PACK

POINT "signal" says "ready" once everything is imported, and waits for nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import imprompt.indexer.installing
import imprompt.store.packs.packing
import imprompt.store.packs.unpacking
import imprompt.store.publish
import imprompt.store.shards
from imprompt.indexer.installing import InstallReport, install_pack
from imprompt.store.index_version import open_version
from imprompt.store.packs.archive import ArchiveWriter
from imprompt.store.packs.packing import pack_version
from tests.killing import after, before, in_the_middle_of_a_file

PACKING: dict[str, Callable[[], None]] = {
    "in the middle of the file": lambda: in_the_middle_of_a_file(
        imprompt.store.packs.packing, call=1
    ),
    "between members": lambda: after(ArchiveWriter, "add", call=4),
    "before its directory": lambda: before(ArchiveWriter, "finish"),
    "before it appears": lambda: before(Path, "replace"),
}
INSTALLING: dict[str, Callable[[], None]] = {
    "in the middle of a member": lambda: in_the_middle_of_a_file(imprompt.store.shards, call=3),
    "between members": lambda: after(imprompt.store.packs.unpacking, "keep_shard", call=3),
    "before the prompts": lambda: before(imprompt.store.packs.unpacking, "write_prompts"),
    "after the prompts": lambda: after(imprompt.store.packs.unpacking, "write_prompts"),
    "before it is compared": lambda: before(imprompt.store.packs.unpacking, "content_problems"),
    "before publishing": lambda: before(imprompt.indexer.installing, "publish"),
    "in the middle of the manifest": lambda: in_the_middle_of_a_file(
        imprompt.store.publish, call=1
    ),
    "between the manifest and the first rename": lambda: before(Path, "rename"),
    "between the renames": lambda: after(Path, "rename"),
    "in the middle of the pointer": lambda: in_the_middle_of_a_file(imprompt.store.publish, call=2),
    "after publishing": lambda: after(imprompt.indexer.installing, "publish"),
}


def pack(root: Path, path: Path) -> None:
    """Run the command that is interrupted and repeated."""
    with open_version(root) as version:
        pack_version(version, path)


def install(root: Path, path: Path) -> InstallReport:
    """Run the command that is interrupted and repeated."""
    return install_pack(root, path, replace=True)


def main() -> None:
    verb, root, point, path = sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    if point == "signal":
        sys.stdout.write("ready\n")
        sys.stdout.flush()
    else:
        (PACKING if verb == "pack" else INSTALLING)[point]()
    (pack if verb == "pack" else install)(root, path)


if __name__ == "__main__":
    main()
