"""Rules a reader relies on: imports run one way, and heavy libraries are imported late."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [
    {"core"},
    {"images", "store", "encoders"},
    {"indexer", "retriever"},
    {"ensemble"},
    {"evaluation"},
    {"server"},
    {"environment"},
    {"commands"},
    {"cli", "notebook"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in sorted(rooms)}
HEAVY = {
    "torch",
    "faiss",
    "duckdb",
    "open_clip",
    "timm",
    "transformers",
    "sentence_transformers",
    "torchvision",
    "pyarrow",
    "sklearn",
    "fastapi",
    "starlette",
    "uvicorn",
    "pydantic",
    "prometheus_client",
    "ray",
    "pymilvus",
    "milvus_lite",
    "grpc",
}
FRAMEWORK = {"fastapi", "starlette", "pydantic", "prometheus_client"}
"""Libraries of the server room; a command imports that room inside its function."""

HOME = {
    "torch": {"encoders", "ensemble"},
    "faiss": {"store"},
    "open_clip": {"encoders"},
    "fastapi": {"server"},
    "ray": {"indexer"},
    "pymilvus": {"store"},
    "milvus_lite": {"store"},
}
NETWORKS = {"ensemble/ofa/network.py"}
"""Files of torch modules: a class needs its base when the file is read.

They are themselves imported inside of functions.
"""
SCRIPTS = {"encoders/graphs/write_graphs.py"}
"""Scripts that write data of the package, and are no part of it."""


def product_files() -> list[Path]:
    rooms = [ROOT / room for room in FLOOR_OF if (ROOT / room).is_dir()]
    files = [ROOT / "cli.py", *(path for room in rooms for path in sorted(room.rglob("*.py")))]
    return [path for path in files if path.relative_to(ROOT).as_posix() not in SCRIPTS]


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the library or, of imprompt's own modules, the room that each import names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_library_or_room(name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = (
                [node.module]
                if node.module != "imprompt"
                else [f"imprompt.{name.name}" for name in node.names]
            )
            yield from map(_library_or_room, names)


def _library_or_room(module: str) -> str:
    return module.removeprefix("imprompt.").split(".")[0]


def top_level_imports(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(node)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", product_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    """A room imports rooms of lower floors and itself, never a sibling and nothing above."""
    room = room_of(path)
    wrong = [
        other
        for other in imports(ast.parse(path.read_text("utf-8")))
        if other in FLOOR_OF and other != room and FLOOR_OF[other] >= FLOOR_OF[room]
    ]
    assert not wrong, f"{path} imports {wrong}"


@pytest.mark.parametrize("path", product_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    """No file imports a heavy or network library at its top; torch, faiss, open_clip stay home."""
    tree = ast.parse(path.read_text("utf-8"))
    heavy = HEAVY - FRAMEWORK if room_of(path) == "server" else HEAVY
    assert not set(top_level_imports(tree)) & heavy or path.relative_to(ROOT).as_posix() in NETWORKS
    networks = {"imprompt." + name.removesuffix(".py").replace("/", ".") for name in NETWORKS}
    assert not networks & {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    for library, homes in HOME.items():
        if library in set(imports(tree)):
            assert room_of(path) in homes, f"{library} belongs into {homes}"


def test_every_folder_at_the_top_is_a_known_room() -> None:
    """A new folder of code has to be given its floor here."""
    folders = {path.parent.name for path in ROOT.glob("*/*.py")} - {
        "tests",
        "examples",
        "benchmarks",
        "docs",
    }
    assert folders <= set(FLOOR_OF)


def test_every_import_of_our_own_spells_the_package() -> None:
    """A room is `imprompt.store`, never `store`: another package may have that name."""
    for path in product_files():
        modules: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                modules |= {name.name.split(".")[0] for name in node.names}
        assert not modules & set(FLOOR_OF), path


def test_no_two_modules_and_no_two_classes_share_a_name() -> None:
    """One name, one thing: whoever searches for it finds one place."""
    modules = Counter(path.stem for path in product_files() if path.stem != "__init__")
    trees = [ast.parse(path.read_text("utf-8")) for path in product_files()]
    classes = Counter(
        node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )
    assert [
        name for names in (modules, classes) for name, count in names.items() if count > 1
    ] == []


def test_help_imports_nothing_heavy() -> None:
    """`--help` answers at once because neither numpy nor any heavier library is imported for it."""
    script = (
        "import sys, runpy\nsys.argv = ['cli.py', '--help']\n"
        "try: runpy.run_path('cli.py', run_name='__main__')\n"
        "except SystemExit: pass\nprint(sorted(set(sys.modules) & "
        + repr(HEAVY | {"numpy", "msgspec", "PIL"})
        + "))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
