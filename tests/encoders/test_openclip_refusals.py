"""open_clip models that are missing or refused: the message has the cause, place and remedy."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from imprompt.core.errors import ConfigError, EncoderError, WeightsMissing, WeightsRejected
from imprompt.core.pip_lines import install_extra
from imprompt.encoders.openclip_source import LONG_POSITIONS
from imprompt.encoders.registry import load_encoder
from tests.encoders.clip_models import random_pictures

Folder = Callable[[str], Path]


@pytest.mark.parametrize("name", ["hf-hub:someone/absent", "ViT-L-14/openai"])
def test_weights_that_are_not_here_are_named_offline(
    name: str, hub: Callable[[str, Path], None]
) -> None:
    """Offline, a model that is not cached is an error with repository and remedy."""
    with pytest.raises(WeightsMissing, match=r"--offline is set.*hub cache"):
        load_encoder(name, device="cpu", offline=True)


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def damaged_checkpoints(
    folder: Path, weights: dict[str, torch.Tensor]
) -> Iterator[tuple[str, str]]:
    """Files that are no checkpoint of the small ViT, and what the error has to say of each."""
    torch.save({**weights, "hook": Evil(folder / "ran")}, folder / "evil.pt")
    yield "evil.pt", "more than tensors"
    torch.save({**weights, "note": "a string"}, folder / "string.pt")
    yield "string.pt", "note is str, not a tensor"
    torch.save({**weights, "ln_final.weight": torch.eye(32).to_sparse()}, folder / "sparse.pt")
    yield "sparse.pt", "ln_final.weight is a sparse"
    torch.save(list(weights.values()), folder / "list.pt")
    yield "list.pt", "holds list"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), folder / "script.pt")
    yield "script.pt", "TorchScript"
    (folder / "empty.pt").touch()
    yield "empty.pt", "empty.pt"
    whole = (folder.parent / "vit" / "open_clip_model.safetensors").read_bytes()
    (folder / "torn.safetensors").write_bytes(whole[:-100])
    yield "torn.safetensors", "not a safetensors file"
    torch.save({**weights, "positional_embedding": torch.zeros(50, 32)}, folder / "shape.pt")
    yield (
        "shape.pt",
        r"does not fit Tiny-ViT: its positional_embedding is \(50, 32\), "
        r"that of Tiny-ViT is \(77, 32\)",
    )
    torch.save(
        {name: tensor for name, tensor in weights.items() if name != "ln_final.weight"},
        folder / "lacking.pt",
    )
    yield "lacking.pt", r"ln_final.weight is missing, that of Tiny-ViT is \(32,\)"
    torch.save({**weights, "extra.weight": torch.zeros(3)}, folder / "extra.pt")
    yield "extra.pt", r"extra.weight is \(3,\), that of Tiny-ViT is missing"
    torch.save({**weights, LONG_POSITIONS: torch.zeros(())}, folder / "number.pt")
    yield "number.pt", rf"{LONG_POSITIONS} is \(\), that of Tiny-ViT is missing"
    torch.save({**weights, LONG_POSITIONS: torch.zeros(1, 32).expand(9999, 32)}, folder / "long.pt")
    yield "long.pt", "a context of 9,999 tokens is more than 8,192"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_files_that_are_no_such_checkpoint_are_refused(
    clip_folder: Folder, tmp_path: Path, tiny_architecture: str
) -> None:
    """Code, damage and other shapes are refused by file and first wrong tensor; no code runs."""
    shutil.copytree(clip_folder("vit"), tmp_path / "vit")
    (tmp_path / "bad").mkdir()
    weights = load_file(clip_folder("vit") / "open_clip_model.safetensors")
    for file, words in damaged_checkpoints(tmp_path / "bad", weights):
        with pytest.raises(WeightsRejected, match=words) as caught:
            load_encoder(
                f"{tiny_architecture}//{tmp_path / 'bad' / file}", device="cpu"
            ).images.encode(random_pictures()[:1])
        assert caught.value.path == tmp_path / "bad" / file
        assert "\n" not in caught.value.message
        assert caught.value.hint
    assert not (tmp_path / "bad" / "ran").exists()


def test_weights_of_another_architecture_are_refused(clip_folder: Folder) -> None:
    """A ResNet's file under a real ViT's name: both are named, and nothing is resized to fit."""
    file = clip_folder("resnet-short-context") / "open_clip_model.safetensors"
    with pytest.raises(
        WeightsRejected,
        match=r"does not fit ViT-S-32: its positional_embedding is \(21, 32\), "
        r"that of ViT-S-32 is \(77, 384\)",
    ):
        load_encoder(f"ViT-S-32//{file}", device="cpu").images.encode(random_pictures())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"model_cfg": {"embed_dim": 24, "vision_cfg": {}, "text_cfg": {"colour": "red"}}},
            "colour",
        ),
        ({"model_cfg": {"embed_dim": 24}}, "vision_cfg"),
        ({"something": 1}, "model_cfg"),
    ],
)
def test_a_configuration_that_open_clip_does_not_know_is_refused(
    clip_folder: Folder, tmp_path: Path, change: Any, words: str
) -> None:
    """The error names the part that is unknown or lacking."""
    shutil.copytree(clip_folder("vit"), tmp_path / "model")
    (tmp_path / "model" / "open_clip_config.json").write_text(json.dumps(change))
    with pytest.raises(WeightsRejected, match=words):
        load_encoder(str(tmp_path / "model"), device="cpu")


def test_weights_that_are_not_finite_are_reported(
    clip_folder: Folder, tmp_path: Path, tiny_architecture: str
) -> None:
    """A checkpoint with NaN in it gives an error, not rows of NaN."""
    weights = load_file(clip_folder("vit") / "open_clip_model.safetensors")
    weights["ln_final.bias"][0] = torch.nan
    torch.save(weights, tmp_path / "nan.pt")
    with pytest.raises(EncoderError, match="not finite"):
        load_encoder(f"{tiny_architecture}//{tmp_path / 'nan.pt'}", device="cpu").texts.encode(
            ["a"]
        )


def test_a_tokenizer_that_drops_words_is_refused(clip_folder: Folder, tmp_path: Path) -> None:
    """A random or grammatical choice of a long text's words is refused, not imitated."""
    shutil.copytree(clip_folder("vit"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"reduction_mask": "random"}
    (tmp_path / "model" / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="drops words"):
        load_encoder(str(tmp_path / "model"), device="cpu").texts.encode(["a"])


def test_a_folder_without_weights_says_which_files_it_looks_for(
    clip_folder: Folder, tmp_path: Path
) -> None:
    """The names are those that open_clip writes."""
    shutil.copy(clip_folder("vit") / "open_clip_config.json", tmp_path)
    with pytest.raises(
        WeightsMissing, match=r"open_clip_model\.safetensors.*open_clip_pytorch_model\.bin"
    ):
        load_encoder(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ViT-L-14/no-such-tag", "laion2b_s32b_b82k"),
        ("ViT-Q-99/openai", "no architecture 'ViT-Q-99'"),
        ("hf-hub:nobody", "hf-hub:OWNER/NAME"),
        ("clip", "Known forms: lite, .*ARCH/PRETRAINED"),
        ("", "Known forms"),
        ("ViT-L14/openai", "ViT-L-14"),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "a repository of the hub is hf-hub:OWNER/NAME"),
        (
            "openai/clip-vit-large-patch14",
            "hf:openai/clip-vit-large-patch14, or for open_clip ViT-L-14/openai",
        ),
        ("https://huggingface.co/laion/CLIP-x/tree/main", "Write hf-hub:laion/CLIP-x"),
        ("https://hf.co/openai/clip-vit-base-patch32", "Write ViT-B-32/openai"),
    ],
)
def test_names_that_mean_nothing_are_explained(name: str, words: str) -> None:
    """An unknown architecture, tag or form of name is answered with what is known."""
    with pytest.raises(ConfigError, match=words):
        load_encoder(name, device="cpu")


def test_without_open_clip_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that brings open_clip stands in the hint."""
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(EncoderError) as caught:
        load_encoder("ViT-L-14/openai", device="cpu")
    assert caught.value.hint == install_extra("clip")
