"""Import all modules and use an index where Python has no more than on Windows.

    python tests/without_posix_driver.py FOLDER

Run by `test_other_systems.py`, in a folder with `corpus.txt`, `more.txt` and `a ü.png`. Prints a
JSON object: what each step returned.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imprompt.store.shards import ShardedVectors

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    *("commands", "core", "encoders", "ensemble", "environment", "evaluation", "images"),
    *("indexer", "retriever", "server", "store"),
)


def modules() -> list[str]:
    """Return the names of all modules of the product."""
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return ["imprompt.cli", *(f"imprompt.{name}".removesuffix(".__init__") for name in names)]


def imprompt(*words: str | Path) -> tuple[int, str, str]:
    """Return (exit code, standard output, standard error) of a command."""
    from imprompt import cli

    sys.argv = ["imprompt", *map(str, words)]
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = cli.run()
    return code, out.getvalue(), err.getvalue()


def refusal(call: Callable[[], object]) -> str:
    """Return the name of the error of the product that a call raises, "" if it raises none."""
    from imprompt.core.errors import ImpromptError

    try:
        call()
    except ImpromptError as error:
        return type(error).__name__
    return ""


def read_alike(vectors: ShardedVectors) -> bool:
    """Return whether threads that read row by row get what one reading of all rows gets."""
    import numpy as np

    sys.setswitchinterval(1e-6)
    rows = np.arange(len(vectors))
    one_row = [rows[number : number + 1] for number in [*range(len(rows))] * 500]
    with ThreadPoolExecutor(4) as threads:
        found = [*threads.map(vectors.rows, one_row)]
    return bool((np.concatenate(found) == np.tile(vectors.rows(rows), (500, 1))).all())


def pinned(root: Path) -> dict[str, Any]:
    """Collect garbage while a reader has the version that is not in service any more."""
    from imprompt.store.index_version import open_version
    from imprompt.store.publish import collect_garbage, version_names

    first, *_ = version_names(root)
    with open_version(root, first, mapped=False) as version:
        kept = collect_garbage(root, keep=0)
        alike = read_alike(version.vectors(version.space))
    del version
    removed = [name for name, _ in collect_garbage(root, keep=0)]
    return {"kept": kept, "alike": alike, "removed": removed == [f"versions/{first}"]}


def two_writers(root: Path) -> str:
    """Return how a second writer is refused."""
    from imprompt.store.locking import write_lock

    with write_lock(root):
        return refusal(lambda: write_lock(root).__enter__())


def links(root: Path, folder: Path) -> dict[str, str]:
    """Return the error for an index in which one file or folder is a link, by its name."""
    from imprompt.store.index_version import open_version
    from imprompt.store.integrity import verify
    from imprompt.store.locking import write_lock

    errors = {}
    for name in ("CURRENT", "LOCK", "versions", "MANIFEST.json", "vectors", "prompts.duckdb"):
        copy = folder / f"with a link {name}"
        shutil.copytree(root, copy)
        (version,) = (copy / "versions").iterdir()
        path = (copy if name in ("CURRENT", "LOCK", "versions") else version) / name
        path.rename(folder / f"outside {name}")
        path.symlink_to(folder / f"outside {name}")
        use = write_lock(copy).__enter__ if name == "LOCK" else lambda copy=copy: open_version(copy)
        errors[name] = refusal(use)
        if name not in ("LOCK", "CURRENT", "versions", "MANIFEST.json"):
            errors[f"verify: {name}"] = "" if not verify(copy) else "found"
    return errors


def main(folder: Path) -> dict[str, Any]:
    """Return what happened, step by step."""
    failed = {}
    names = modules()
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 whatever it is, the module is the finding
            failed[name] = repr(error)
    index = folder / "the index"
    place = ("--index", index)
    commands = {
        "build": ("build-index", "--corpus", folder / "corpus.txt", *place),
        "query": ("query", "--text", "a red fox in the snow", "-k", "1", "--json", *place),
        "verify": ("verify", *place),
        "add": ("add", folder / "more.txt", *place),
        "verify what was added": ("verify", *place),
    }
    done = {step: imprompt(*words) for step, words in commands.items()}
    steps: dict[str, Any] = {"pinned": pinned(index), "writers": two_writers(index)}
    commands = {
        "remove": ("remove", "--where", "text LIKE '%castle%'", *place),
        "verify what is left": ("verify", *place),
        "query an image": ("query", folder / "a ü.png", "-k", "1", "--json", *place),
        "submit": ("submit", folder, "--out", folder / "out.csv", *place),
        "doctor": ("doctor", *place),
    }
    done |= {step: imprompt(*words) for step, words in commands.items()}
    steps["links"] = links(index, folder)
    steps["left"] = sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
    from imprompt.server.serving import _raise_file_limit

    _raise_file_limit()
    return {"modules": len(names), "failed": failed, "done": done, **steps}


if __name__ == "__main__":
    sys.path.append(str(ROOT))
    from tests.without_posix import hide_posix

    hide_posix()
    print(json.dumps(main(Path(sys.argv[1]))))  # noqa: T201 for the test
