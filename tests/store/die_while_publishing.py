"""A program that publishes a staged build, and is killed before its first, second, … step.

Run by test_publish.py.

    python die_while_publishing.py TEMPLATE FOLDER

Each copy FOLDER/000, FOLDER/001, … of TEMPLATE is published by a process that SIGKILLs itself
before its n-th call of fsync, rename or replace; the last copy is the one that was published
without being killed. TEMPLATE/draft.json is the manifest.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from imprompt.store import layout
from imprompt.store.locking import write_lock
from imprompt.store.manifest import decode_manifest
from imprompt.store.publish import publish


def die_before(step: int) -> None:
    """Arm the process: SIGKILL in place of the n-th call (from 0) whose order matters on disk."""
    calls = count()

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args)

        return counted

    os.fsync, os.rename, os.replace = deadly(os.fsync), deadly(os.rename), deadly(os.replace)


def publish_copy(root: Path, step: int) -> None:
    draft = root / "draft.json"
    manifest = decode_manifest(draft.read_bytes(), path=draft)
    die_before(step)
    with write_lock(root):
        publish(root, layout.staging_folder(root, manifest.plan_sha256), manifest)


def main() -> None:
    template, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for step in count():
        root = folder / f"{step:03d}"
        shutil.copytree(template, root)
        child = os.fork()
        if child == 0:
            publish_copy(root, step)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
