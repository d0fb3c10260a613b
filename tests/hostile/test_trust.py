"""Foreign things are loaded, connected to or opened in one place each, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "commands",
    "core",
    "encoders",
    "ensemble",
    "environment",
    "evaluation",
    "images",
    "indexer",
    "retriever",
    "server",
    "store",
)
NOWHERE = "nowhere"
INDEX_FILES = ("store/", "indexer/")


class Rule(NamedTuple):
    """Assert that calls ending in these names, as "duckdb.connect", are in these files alone."""

    calls: tuple[str, ...]
    only_in: tuple[str, ...]
    why: str
    within: tuple[str, ...] = ("",)


RULES = (
    Rule(
        ("duckdb.connect", "duckdb.sql", "duckdb.query", "duckdb.execute"),
        ("store/databases.py",),
        "foreign SQL files",
    ),
    Rule(
        ("faiss.read_index", "faiss.read_VectorTransform", "faiss.read_ProductQuantizer"),
        ("store/faiss_index.py",),
        "FAISS files",
    ),
    Rule(("faiss.deserialize_index",), ("store/ivf/ivf_files.py",), "FAISS headers"),
    Rule(
        ("np.load", "numpy.load", "np.fromfile", "np.lib.format.read_array"),
        (
            "ensemble/submission/formats.py",
            "ensemble/training/activation_cache.py",
            "ensemble/interrogator/phrase_vectors.py",
        ),
        "arrays",
    ),
    Rule(
        ("np.memmap", "np.lib.format.open_memmap"),
        ("ensemble/submission/submission_job.py",),
        "mapped arrays",
    ),
    Rule(
        ("mmap.mmap", "libc.mmap"),
        ("indexer/scratch_arrays.py", "store/mapping.py"),  # the first maps files of its own
        "maps of files",
    ),
    Rule(
        ("torch.load", "torch.jit.load", "torch.package.PackageImporter"),
        ("encoders/checkpoints.py", "encoders/graphs/write_graphs.py"),
        "pickled checkpoints",
    ),
    Rule(
        ("runtime.InferenceSession", "onnxruntime.InferenceSession"),
        ("encoders/onnx_runtime.py",),
        "networks in ONNX",
    ),
    Rule(
        ("load_file", "safetensors.safe_open"),
        ("encoders/", "ensemble/vit/vit_checkpoint.py"),
        "tensors",
    ),
    Rule(
        (
            "from_pretrained",
            "timm.create_model",
            "HFTokenizer",
            "SimpleTokenizer",
            "AutoConfig",
            "AutoModel",
        ),
        ("encoders/foreign.py",),
        "models of open_clip, timm and transformers",
    ),
    Rule(
        (
            "open_clip.create_model",
            "open_clip.create_model_and_transforms",
            "open_clip.CLIP",
            "open_clip.CustomTextCLIP",
        ),
        (NOWHERE,),
        "open_clip's own ways to build, which fetch",
    ),
    Rule(
        ("yaml.load", "yaml.safe_load", "metadata_load"),
        ("indexer/readers/hub_datasets.py",),
        "YAML",
    ),
    Rule(
        ("fromstring", "ElementTree.parse", "minidom.parseString"),
        ("images/metadata/xmp.py",),
        "XML",
    ),
    Rule(
        ("tarfile.open", "as_streaming_dataset"),
        ("indexer/readers/webdatasets.py",),
        "archives, and the library `datasets`",
    ),
    Rule(
        ("load_dataset", "load_dataset_builder", "load_from_disk"),
        (NOWHERE,),
        "the ways of `datasets` to load, which ask servers and follow paths in files",
    ),
    Rule(
        ("Image.open", "PIL.Image.open"),
        ("ensemble/training/image_batches.py",),
        "pictures, which `imprompt.images.image_opening` opens",
    ),
    Rule(
        ("os.system", "os.popen", "subprocess.run", "subprocess.Popen", "runpy.run_path"),
        (
            "core/signatures.py",
            "environment/packages.py",
            "encoders/torch_devices.py",
            "indexer/ray_session.py",
        ),
        "programs",
    ),
    Rule(
        ("pickle.load", "pickle.loads", "marshal.loads", "shelve.open"),
        ("indexer/ray_blocks.py",),
        "pickles",
    ),
    Rule(("os.open",), ("store/paths.py", "store/publish.py"), "paths below an index", INDEX_FILES),
    Rule(
        ("read_bytes", "read_text"),
        ("indexer/", "store/conditions.py"),  # corpora, word lists and rules that the user names
        "files of an index, which `imprompt.store.paths` reads",
        ("store/",),
    ),
    Rule(("manifest_in", "read_manifest"), ("store/", "indexer/staging.py"), "manifests"),
)
"""Why these are allowed: `ensemble/` loads the user's tables without pickles, features that it
wrote itself, and safetensors; `indexer/ray_blocks.py` unpickles from the user's own cluster."""


def product_files() -> list[Path]:
    return [
        ROOT / "cli.py",
        *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))),
    ]


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what is called, with dots) of every call, names of imports written out."""
    named: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            named |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            named |= {name.asname: name.name for name in node.names if name.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            first, dot, rest = called.partition(".")
            yield node.lineno, called
            if first in named:
                yield node.lineno, named[first] + dot + rest


@cache
def calls_of(source: str) -> tuple[tuple[int, str], ...]:
    """The calls of a file; parsed once for all rules."""
    return tuple(calls(ast.parse(source)))


def broken(source: str, file: str, rule: Rule) -> list[tuple[int, str]]:
    """The calls in a file that the rule does not allow there."""
    if not file.startswith(rule.within) or (rule.only_in and file.startswith(rule.only_in)):
        return []
    found = calls_of(source)
    return [
        (line, called)
        for line, called in found
        if any(called == name or called.endswith(f".{name}") for name in rule.calls)
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.why)
def test_only_there(rule: Rule) -> None:
    """Whoever needs another place has to say so here."""
    found = {}
    for path in product_files():
        file = path.relative_to(ROOT).as_posix()
        if wrong := broken(path.read_text("utf-8"), file, rule):
            found[file] = wrong
    assert not found, f"{rule.why}: {found}"


@pytest.mark.parametrize(
    "source",
    [
        "import duckdb\nduckdb.connect('x')",
        "import duckdb as d\nd.connect('x')",
        "from duckdb import connect\nconnect('x')",
        "from duckdb import connect as c\ndef f():\n    return c('x')",
    ],
)
def test_other_names_are_seen(source: str) -> None:
    assert broken(source, "retriever/search.py", RULES[0])


def test_every_rule_is_about_something() -> None:
    """A place that is allowed and has no such call any more is taken out of its rule."""
    for rule in RULES:
        for place in rule.only_in:
            inside = [
                path
                for path in product_files()
                if path.relative_to(ROOT).as_posix().startswith(place)
            ]
            assert inside or place == NOWHERE, place
