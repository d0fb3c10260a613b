"""Training of a tower: it learns, bad images are skipped by name, and the command reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch

from imprompt.core.errors import BuildLocked, ConfigError, CorpusError, EncoderError
from imprompt.core.hub.fetch import silent
from imprompt.core.values import unit_rows
from imprompt.encoders.lite import load_lite
from imprompt.encoders.minilm import load_minilm
from imprompt.ensemble.blend_config import BlendConfig
from imprompt.ensemble.members import load_ensemble
from imprompt.ensemble.training.image_batches import random_box
from imprompt.ensemble.training.vit_examples import load_examples
from imprompt.ensemble.training.vit_schedule import VitSettings
from imprompt.ensemble.training.vit_state import work_folder
from imprompt.ensemble.training.vit_training import train_vit
from imprompt.ensemble.vit.inference import TrainedTower
from imprompt.ensemble.vit.vit_checkpoint import read_checkpoint
from imprompt.store.index_version import open_version
from imprompt.store.locking import write_lock
from tests.conftest import Imprompt
from tests.ensemble.builders import picture
from tests.ensemble.vit.drawings import drawings, drawn_pairs

QUICK = VitSettings(
    epochs=2,
    head_epochs=1,
    batch_size=32,
    head_rate=5e-3,
    learning_rate=1e-3,
    average_decay=0.9,
    folds=5,
)
LONGER = VitSettings(
    epochs=8,
    head_epochs=2,
    batch_size=16,
    head_rate=5e-3,
    learning_rate=1e-3,
    average_decay=0.9,
    folds=5,
)


def cosine_of(tower: Path, *, seed: int) -> tuple[float, float]:
    """Return the mean cosines of the tower and of the best constant on new drawings."""
    shown = drawings(2, seed=seed)
    prompts = load_minilm().encode([prompt for _, prompt in shown])
    rows = TrainedTower.load(str(tower), device="cpu", announce=silent).output(
        [image for image, _ in shown]
    )
    constant = unit_rows(prompts.mean(axis=0, keepdims=True))
    return float(np.einsum("nd,nd->n", rows, prompts).mean()), float((prompts @ constant[0]).mean())


def test_a_tower_learns_what_it_is_shown(tiny_clip: Path, tmp_path: Path) -> None:
    """On new drawings it beats the best constant by 0.15; the file says how it was made."""
    pairs = drawn_pairs(tmp_path / "pairs", each=6)
    out = tmp_path / "tower.safetensors"
    report = train_vit(
        pairs, out, backbone=str(tiny_clip), settings=LONGER, device="cpu", offline=True
    )
    trained, constant = cosine_of(out, seed=1)
    assert trained > constant + 0.15
    assert (report.pairs, report.skipped, report.resumed_steps) == (180, (), 0)
    facts = read_checkpoint(str(out)).facts
    assert facts is not None
    assert facts.backbone == "tiny-clip"
    assert facts.training["epoch"] == report.best_epoch
    assert facts.training["cosine_held_out"] == pytest.approx(report.cosine.mean, abs=1e-4)
    assert str(tmp_path) not in json.dumps(facts.training) + facts.blueprint.architecture
    assert not work_folder(out).exists()


@pytest.mark.slow
def test_a_tower_answers_prompts_that_it_was_never_shown(tmp_path: Path) -> None:
    """A small ResNet from random weights beats the constant on held-out combinations."""
    pairs = drawn_pairs(tmp_path / "pairs", each=8)
    settings = VitSettings(
        epochs=10,
        head_epochs=1,
        batch_size=16,
        head_rate=1e-2,
        learning_rate=2e-3,
        layer_decay=0.9,
        average_decay=0.9,
        folds=5,
    )
    out = tmp_path / "tower.safetensors"
    report = train_vit(
        pairs, out, backbone="test_resnet", from_scratch=True, settings=settings, device="cpu"
    )
    assert report.gain.mean > 0.05
    assert report.gain.low > 0


def test_no_group_of_like_prompts_stands_on_both_sides(tmp_path: Path) -> None:
    """What an epoch is chosen by has no twin in what was learned."""
    examples = load_examples(drawn_pairs(tmp_path, each=2), minilm=load_minilm(), folds=5, seed=0)
    assert not set(examples.groups[examples.train].tolist()) & set(
        examples.groups[examples.held_out].tolist()
    )
    assert sorted([*examples.train.tolist(), *examples.held_out.tolist()]) == list(range(60))
    nearest = (examples.prompts[examples.held_out] @ examples.prompts[examples.train].T).max()
    assert nearest < 0.7


def test_hostile_images_are_left_out_by_name(
    tiny_clip: Path, tmp_path: Path, imprompt: Imprompt
) -> None:
    """A torn file and a text instead of images are listed and skipped, and the exit code tells."""
    pairs = drawn_pairs(tmp_path / "pairs", each=2)
    torn, text = tmp_path / "pairs" / "0003.png", tmp_path / "pairs" / "0041.png"
    torn.write_bytes(torn.read_bytes()[:60])
    text.write_text("no picture", "utf-8")
    out = tmp_path / "tower.safetensors"
    done = imprompt(
        "train",
        "--pairs",
        pairs,
        "--backbone",
        tiny_clip,
        "--epochs",
        "1",
        "--batch-size",
        "16",
        "--out",
        out,
        "--offline",
        "--json",
    )
    assert done.code == 3
    assert "2 of 60 images could not be read" in done.err
    assert {Path(image).name for image, _ in done.lines[0]["skipped"]} == {"0003.png", "0041.png"}
    assert all(name in done.err for name in ("0003.png", "0041.png"))
    assert read_checkpoint(str(out)).facts is not None


def test_a_blend_config_names_the_tower(lite_index: Path, tiny_clip: Path, tmp_path: Path) -> None:
    """`sources["vit"]` takes a trained tower in place of the embedded head."""
    out = tmp_path / "tower.safetensors"
    train_vit(
        drawn_pairs(tmp_path / "pairs", each=1),
        out,
        backbone=str(tiny_clip),
        settings=QUICK,
        device="cpu",
        offline=True,
    )
    expected = TrainedTower.load(str(out), device="cpu", announce=silent).output([picture("red")])
    blend_config = BlendConfig(name="mine", weights={"vit": 1}, sources={"vit": str(out)})
    with open_version(lite_index) as version:
        (prediction,) = load_ensemble(blend_config, version, load_lite(), offline=True).predict(
            [picture("red")]
        )
    np.testing.assert_allclose(prediction.vector, expected[0], atol=1e-6)


def test_what_cannot_be_trained_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    """Too few prompts, a wrong suffix, no readable image, a running training: one line each."""
    pairs = drawn_pairs(tmp_path / "pairs", each=1)
    out = tmp_path / "tower.safetensors"

    def train(path: Path, out: Path, settings: VitSettings = QUICK) -> None:
        train_vit(path, out, backbone=str(tiny_clip), settings=settings, device="cpu", offline=True)

    with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
        train(pairs, tmp_path / "tower.pth")
    few = tmp_path / "pairs" / "few.parquet"
    pq.write_table(
        pa.Table.from_pylist(
            [{"image": f"{number:04}.png", "prompt": "a fox"} for number in range(9)]
        ),
        few,
    )
    with pytest.raises(
        CorpusError, match="1 groups of similar prompts; a training needs at least 5"
    ):
        train(few, out)
    with write_lock(work_folder(out)), pytest.raises(BuildLocked):
        train(pairs, out)
    for image in (tmp_path / "pairs").glob("*.png"):
        image.write_text("no picture", "utf-8")
    with pytest.raises(CorpusError, match="held-out images can be read"):
        train(pairs, out)
    assert not out.exists()


def test_a_training_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is not finite and too little memory: the cause and the remedy."""
    pairs = drawn_pairs(tmp_path / "pairs", each=1)
    state = timm.create_model("test_vit", num_classes=384).state_dict()
    state["norm.bias"][:] = float("nan")
    torch.save(state, tmp_path / "nan.pth")

    def train(weights: Path | None) -> None:
        train_vit(
            pairs,
            tmp_path / "tower.safetensors",
            backbone="test_vit",
            weights=weights,
            from_scratch=weights is None,
            settings=QUICK,
            device="cpu",
        )

    with pytest.raises(EncoderError, match=r"the loss is nan at step 0.*--learning-rate"):
        train(tmp_path / "nan.pth")

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("imprompt.ensemble.training.vit_trainer.VitTrainer._learn", full)
    with pytest.raises(
        EncoderError, match=r"test_vit with a batch of 32 does not fit in memory.*--batch-size"
    ):
        train(None)
    assert not (tmp_path / "tower.safetensors").exists()


def test_options_of_a_tower_need_a_backbone(tmp_path: Path, imprompt: Imprompt) -> None:
    """They are not passed over in silence."""
    done = imprompt(
        "train",
        "--pairs",
        drawn_pairs(tmp_path, each=1),
        "--out",
        tmp_path / "x.safetensors",
        "--epochs",
        "3",
    )
    assert done.code == ConfigError.exit_code
    assert "--backbone" in done.err


def test_a_random_part_keeps_its_share_of_the_picture() -> None:
    """It lies within the picture, has its shape, and is the same for the same random numbers."""
    for seed in range(200):
        size = (
            int(np.random.default_rng(seed).integers(1, 500)),
            int(np.random.default_rng([seed, 1]).integers(1, 500)),
        )
        left, upper, right, lower = random_box(size, np.random.default_rng(seed), share=0.8)
        assert 0 <= left < right <= size[0]
        assert 0 <= upper < lower <= size[1]
        assert (right - left + 1) * (lower - upper + 1) >= 0.8 * size[0] * size[1]
        assert (left, upper, right, lower) == random_box(
            size, np.random.default_rng(seed), share=0.8
        )
