"""clip-interrogator as its users run it: lists in a folder, a model of open_clip."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from imprompt.ensemble.interrogator.phrase_lists import PhraseLists


def library(folder: Path, lists: PhraseLists, data: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the library over the model of a folder; it encodes the lists in `data` itself."""
    import open_clip

    data.mkdir()
    for kind in PhraseLists.__slots__:
        (data / f"{kind}.txt").write_text("\n".join(getattr(lists, kind)) + "\n", "utf-8")
    config = json.loads((folder / "open_clip_config.json").read_text("utf-8"))["model_cfg"]
    monkeypatch.setitem(
        open_clip.factory._MODEL_CONFIGS, "Local", config
    )  # its tokenizer, by the name below
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls names of torch that are going away
        import clip_interrogator

        chosen = clip_interrogator.Config(
            clip_model_name="Local/folder",
            caption_model_name=None,
            cache_path=None,
            download_cache=False,
            device="cpu",
            quiet=True,
        )
        chosen.data_path = str(data)
        chosen.clip_model, _, chosen.clip_preprocess = open_clip.create_model_and_transforms(
            f"local-dir:{folder}"
        )
        chosen.clip_model.eval()
        return clip_interrogator.Interrogator(chosen)
