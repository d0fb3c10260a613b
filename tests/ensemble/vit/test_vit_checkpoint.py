"""Trained towers from disk: what timm, open_clip, the seed's notebook and we ourselves write gives what their own code gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

from imprompt.core.errors import (
    ConfigError,
    EncoderError,
    FormatVersion,
    ImpromptError,
    WeightsMissing,
    WeightsRejected,
)
from imprompt.core.hub.fetch import silent
from imprompt.core.values import Vectors, unit_rows
from imprompt.ensemble.vit.backbones import load_backbone
from imprompt.ensemble.vit.inference import TrainedTower
from imprompt.ensemble.vit.towers import Blueprint, build_tower
from imprompt.ensemble.vit.vit_checkpoint import FORMAT, Facts, read_checkpoint, write_checkpoint
from tests.encoders.clip_models import write_model

timm_data: Any = timm.data  # untyped
SIDE_PX = 160
"""Of timm's towers for tests."""


def random_tower(architecture: str, *, seed: int = 0) -> torch.nn.Module:
    """timm's own network with 384 outputs, every weight random, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.create_model(architecture, num_classes=384)
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.rand_like(tensor) + 0.5
                    if name.endswith("var")
                    else torch.randn_like(tensor) * 0.1
                )
    return network.eval()


def pictures() -> list[Image.Image]:
    return [
        Image.radial_gradient("L").convert("RGB"),
        Image.linear_gradient("L").convert("RGB").resize((300, 200)),
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (260, 120, 3), dtype=np.uint8)),
        Image.new("RGB", (16, 1600), "teal"),
    ]


def answers(network: torch.nn.Module, transform: Callable[[Image.Image], Any]) -> Vectors:
    """What timm's own forward pass says, one picture at a time."""
    with torch.inference_mode():
        return unit_rows(
            np.concatenate([network(transform(picture)[None]).numpy() for picture in pictures()])
        )


def seed_transform(picture: Image.Image) -> torch.Tensor:
    """The notebook's preparation without its random flip; its images are square, so that a centre cut takes nothing of them."""
    steps = [
        transforms.Resize(SIDE_PX),
        transforms.CenterCrop(SIDE_PX),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    pixels: torch.Tensor = transforms.Compose(steps)(picture)
    return pixels


def load(source: str | Path) -> Vectors:
    return TrainedTower.load(str(source), device="cpu", announce=silent).output(pictures())


@pytest.mark.parametrize("architecture", ["test_vit", "test_resnet", "test_convnext"])
@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
def test_the_seeds_kind_of_file(architecture: str, suffix: str, tmp_path: Path) -> None:
    """A plain state dict under an architecture's name answers as timm's own network does on the notebook's pixels."""
    network = random_tower(architecture)
    path = tmp_path / f"tower.{suffix}"
    if suffix == "safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    np.testing.assert_allclose(
        load(f"{architecture}//{path}"), answers(network, seed_transform), atol=1e-5
    )


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_that_timm_wrote(safe: bool, tmp_path: Path) -> None:
    """`save_for_hf` says the architecture, its arguments and how pictures are prepared; all of it holds."""
    with torch.random.fork_rng():
        network = timm.create_model("test_vit", num_classes=384, img_size=96).eval()
    own = {
        "input_size": (3, 96, 96),
        "mean": (0.4, 0.5, 0.6),
        "std": (0.3, 0.2, 0.1),
        "crop_pct": 0.8,
    }
    timm.models.save_for_hf(network, str(tmp_path), safe_serialization=safe, data_config=own)
    config = timm_data.resolve_model_data_config(network, args=own)
    transform = timm_data.create_transform(**config, is_training=False)
    np.testing.assert_allclose(load(tmp_path), answers(network, transform), atol=1e-5)


@pytest.mark.parametrize(
    "architecture", ["vit", "convnext", "resnet-short-context", "siglip", "coca"]
)
def test_the_tower_of_open_clip_answers_as_open_clip_does(
    architecture: str, tmp_path: Path
) -> None:
    """Below a new head stand open_clip's own image features, on its own pixels; the same after our file was written and read."""
    folder = write_model(tmp_path / "clip", architecture)
    tower, sha256 = load_backbone(
        str(folder), weights=None, from_scratch=False, seed=3, offline=True, announce=silent
    )
    tower.network.eval()
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    pixels = torch.stack([transform(picture) for picture in pictures()])
    with torch.inference_mode():
        expected = model.encode_image(pixels, normalize=False)
        own = tower.network.tower(torch.stack([tower.transform(picture) for picture in pictures()]))
        rows = unit_rows(tower.network.head(expected).numpy())
    np.testing.assert_allclose(own.numpy(), expected.numpy(), atol=1e-5)
    facts = Facts(
        format=FORMAT,
        blueprint=tower.blueprint,
        backbone=architecture,
        backbone_sha256=sha256,
        training={},
    )
    write_checkpoint(tmp_path / "tower.safetensors", tower.network.state_dict(), facts)
    np.testing.assert_allclose(load(tmp_path / "tower.safetensors"), rows, atol=1e-5)
    assert read_checkpoint(str(tmp_path / "tower.safetensors")).facts == Facts(
        format=FORMAT,
        blueprint=tower.blueprint,
        backbone=architecture,
        backbone_sha256=sha256,
        training={},
    )
    assert set(tower.layers.values()) == set(range(max(tower.layers.values()) + 1))
    assert set(tower.layers) | tower.head == {name for name, _ in tower.network.named_parameters()}


def test_our_own_file_is_timms_state_dict_with_words(tmp_path: Path) -> None:
    """It needs no architecture beside it, keeps timm's names, and equal towers make equal files."""
    tower = build_tower(Blueprint(library="timm", architecture="test_vit"), seed=5)
    facts = Facts(
        format=FORMAT,
        blueprint=tower.blueprint,
        backbone="test_vit",
        backbone_sha256="random",
        training={"epoch": 1},
    )
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        write_checkpoint(path, tower.network.state_dict(), facts)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    network = tower.network.eval()
    config = timm_data.resolve_model_data_config(network)
    expected = answers(network, timm_data.create_transform(**config, is_training=False))
    np.testing.assert_allclose(load(paths[0]), expected, atol=1e-5)
    save_file(
        timm.create_model("test_vit", num_classes=384).state_dict(), tmp_path / "c.safetensors"
    )
    timm.create_model("test_vit", num_classes=384).load_state_dict(
        read_checkpoint(str(paths[0])).tower.network.state_dict(), strict=True
    )


def test_a_published_backbone_lends_its_body(tmp_path: Path) -> None:
    """A file of 1,000 classes gives all but the head; one that has 384 outputs gives its head, too."""
    with torch.random.fork_rng():
        published = timm.create_model("test_vit")
        finished = timm.create_model("test_vit", num_classes=384)
    save_file(published.state_dict(), tmp_path / "published.safetensors")
    torch.save(finished.state_dict(), tmp_path / "finished.pth")

    def loaded(name: str) -> dict[str, torch.Tensor]:
        tower, _ = load_backbone(
            "test_vit",
            weights=tmp_path / name,
            from_scratch=False,
            seed=0,
            offline=True,
            announce=silent,
        )
        state: dict[str, torch.Tensor] = tower.network.state_dict()
        return state

    body, whole = loaded("published.safetensors"), loaded("finished.pth")
    assert all(
        torch.equal(body[name], tensor)
        for name, tensor in published.state_dict().items()
        if not name.startswith("head")
    )
    assert body["head.weight"].shape == (384, 64)
    assert all(torch.equal(whole[name], tensor) for name, tensor in finished.state_dict().items())


class Code:
    """Runs when a careless program loads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/nowhere").write_text, ("x",))


def refused(tmp_path: Path) -> dict[str, tuple[str, type[ImpromptError], str]]:
    """Sources that are no trained tower, with the error that each gets and words of its message."""
    good = random_tower("test_vit").state_dict()
    other = random_tower("test_resnet").state_dict()
    wide = {**good, "head.weight": torch.zeros(100, 64), "head.bias": torch.zeros(100)}
    torch.save(other, tmp_path / "other.pth")
    torch.save(wide, tmp_path / "wide.pth")
    torch.save(
        {name: tensor for name, tensor in good.items() if name != "norm.bias"},
        tmp_path / "less.pth",
    )
    torch.save({"model": Code()}, tmp_path / "code.pt")
    torch.save(good, tmp_path / "good.pth")
    (tmp_path / "torn.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:5000])
    save_file(good, tmp_path / "plain.safetensors")
    newer = json.dumps({"format": [2, 0]})
    save_file(good, tmp_path / "newer.safetensors", metadata={"imprompt_vit": newer})
    save_file(
        good,
        tmp_path / "odd.safetensors",
        metadata={"imprompt_vit": json.dumps({"format": [1, 0]})},
    )
    timm.models.save_for_hf(
        timm.create_model("test_vit", num_classes=10),
        str(tmp_path / "ten"),
        safe_serialization=True,
    )
    (tmp_path / "empty").mkdir()
    return {
        "another architecture": (
            f"test_vit//{tmp_path}/other.pth",
            WeightsRejected,
            "does not fit test_vit with 384 outputs: its .* missing",
        ),
        "another head": (
            f"test_vit//{tmp_path}/wide.pth",
            WeightsRejected,
            r"head.weight is \(100, 64\), that of .* is \(384, 64\)",
        ),
        "a tensor left out": (
            f"test_vit//{tmp_path}/less.pth",
            WeightsRejected,
            "norm.bias is missing",
        ),
        "code": (f"test_vit//{tmp_path}/code.pt", WeightsRejected, "more than tensors"),
        "cut short": (
            f"test_vit//{tmp_path}/torn.pth",
            WeightsRejected,
            "not a checkpoint of tensors",
        ),
        "no such file": (f"test_vit//{tmp_path}/none.pth", WeightsMissing, "none.pth"),
        "nothing there": (str(tmp_path / "none.safetensors"), WeightsMissing, "none.safetensors"),
        "no such architecture": (
            f"test_vitt//{tmp_path}/good.pth",
            ConfigError,
            "no architecture 'test_vitt'. Names like it: .*test_vit",
        ),
        "a file that does not say": (
            str(tmp_path / "good.pth"),
            ConfigError,
            "does not say of which architecture",
        ),
        "safetensors that do not say": (
            str(tmp_path / "plain.safetensors"),
            ConfigError,
            "does not say of which architecture",
        ),
        "a newer format": (str(tmp_path / "newer.safetensors"), FormatVersion, "format 2.0"),
        "half of the words": (
            str(tmp_path / "odd.safetensors"),
            WeightsRejected,
            "cannot be read as a trained tower",
        ),
        "ten classes": (str(tmp_path / "ten"), WeightsRejected, "with 10 outputs, not 384"),
        "an empty folder": (str(tmp_path / "empty"), WeightsMissing, "config.json"),
    }


def test_what_is_no_trained_tower_is_refused(tmp_path: Path) -> None:
    """One line each that says what is wrong; where shapes differ, both are named; no code is run."""
    for what, (source, kind, words) in refused(tmp_path).items():
        with pytest.raises(kind, match=words):
            read_checkpoint(source)
            pytest.fail(what)


def test_a_folder_cannot_make_timm_read_files(tmp_path: Path) -> None:
    """Arguments that fetch or unpickle are no part of an architecture; a size that does not fit is told at once."""
    network = timm.create_model("test_vit", num_classes=384, dynamic_img_size=False)
    timm.models.save_for_hf(network, str(tmp_path), safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "model_args": {"checkpoint_path": "x.pth"}})
    )
    with pytest.raises(EncoderError, match="checkpoint_path"):
        read_checkpoint(str(tmp_path))
    pixels = {**config["pretrained_cfg"], "input_size": [3, 96, 96]}
    (tmp_path / "config.json").write_text(json.dumps({**config, "pretrained_cfg": pixels}))
    with pytest.raises(WeightsRejected, match="cannot be run on its own size"):
        read_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "pretrained_cfg": {**pixels, "crop_pct": 0}})
    )
    with pytest.raises(EncoderError, match="crop_pct"):
        read_checkpoint(str(tmp_path))


def test_weights_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    """Not rows of NaN in a submission."""
    state = random_tower("test_vit").state_dict()
    state["norm.bias"][:] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(EncoderError, match="not finite"):
        load(f"test_vit//{tmp_path}/nan.pth")


def test_a_backbone_that_is_not_here_names_what_to_fetch() -> None:
    """With the network shut, for timm and for open_clip; random weights come only where they are asked for."""
    for name, words in (
        ("test_vit", "timm/test_vit.r160_in1k"),
        ("ViT-B-32/openai", "clip-vit-base-patch32|ViT-B-32|vit_base_patch32"),
    ):
        with pytest.raises(WeightsMissing, match=words):
            load_backbone(
                name, weights=None, from_scratch=False, seed=0, offline=True, announce=silent
            )
    with pytest.raises(ConfigError, match="exclude each other"):
        load_backbone(
            "test_vit", weights=Path("x"), from_scratch=True, seed=0, offline=True, announce=silent
        )
    with pytest.raises(ConfigError, match="only those begin at random"):
        load_backbone(
            "ViT-B-32/openai",
            weights=None,
            from_scratch=True,
            seed=0,
            offline=True,
            announce=silent,
        )
    with pytest.raises(ConfigError, match="ViT-B-32 names no weights"):
        load_backbone(
            "ViT-B-32", weights=None, from_scratch=False, seed=0, offline=True, announce=silent
        )
    with pytest.raises(ConfigError, match="no architecture"):
        load_backbone(
            "vit_huge_of_mine",
            weights=None,
            from_scratch=False,
            seed=0,
            offline=True,
            announce=silent,
        )
