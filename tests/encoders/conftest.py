"""Fixtures of the encoders' tests: small open_clip models, and names and caches that know them."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an architecture's model; written once."""
    from tests.encoders.clip_models import write_model

    root = tmp_path_factory.mktemp("models")
    return lambda architecture: (
        root / architecture
        if (root / architecture).is_dir()
        else write_model(root / architecture, architecture)
    )


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model of `transformers_models.MODELS`; written once, not to be changed."""
    from tests.encoders.transformers_models import MODELS

    return functools.cache(lambda name: MODELS[name](tmp_path_factory.mktemp("transformers")))


@pytest.fixture
def tiny_architecture(monkeypatch: pytest.MonkeyPatch) -> str:
    """open_clip knows the small ViT by a name of its own, for the time of one test."""
    import open_clip

    from tests.encoders.clip_models import ARCHITECTURES

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-ViT", ARCHITECTURES["vit"])
    return "Tiny-ViT"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """Puts a folder into a hub cache, in the cache's own layout, as the repository of that name."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return lambda repo, source: _to_cache(cache, repo, source)


def _to_cache(cache: Path, repo: str, source: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    (root / "blobs").mkdir()
    (root / "snapshots" / commit).mkdir(parents=True)
    for number, path in enumerate(sorted(source.iterdir())):
        shutil.copy(path, root / "blobs" / f"{number:064x}")
        (root / "snapshots" / commit / path.name).symlink_to(f"../../blobs/{number:064x}")
