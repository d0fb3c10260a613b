"""The caption member over a random BLIP that transformers itself has written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imprompt.core.errors import WeightsMissing, WeightsRejected
from imprompt.core.hub.fetch import silent
from imprompt.ensemble.image_to_text import MAX_NEW_TOKENS, ImageToText

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
WORDS = [*SPECIAL, "red", "fox", "blue", "lake", "green", "hill", "snow", "dusk"]


def make_blip(folder: Path, **saving: Any) -> Path:
    """A random BLIP of the smallest size, in the form of the hub."""
    import torch
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder.mkdir(parents=True)
    (folder / "words.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    tokenizer = BertTokenizer(str(folder / "words.txt"))
    size = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {
        **size,
        "vocab_size": len(WORDS),
        "bos_token_id": 5,
        "sep_token_id": 3,
        "pad_token_id": 0,
        "encoder_hidden_size": 16,
    }
    torch.manual_seed(0)
    config = BlipConfig(
        text_config=text,
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    config.text_config.initializer_range = 1.0
    BlipForConditionalGeneration(config).save_pretrained(folder, **saving)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blip(tmp_path_factory.mktemp("models") / "blip")


def load(folder: Path | str) -> ImageToText:
    return ImageToText.load(str(folder), device="cpu", offline=True, announce=silent)


def pictures() -> list[Image.Image]:
    return [
        Image.radial_gradient("L").convert("RGB"),
        Image.linear_gradient("L").convert("RGB"),
        Image.new("RGB", (50, 20), "red"),
    ]


def test_captions_are_the_models_own(blip: Path) -> None:
    """Each sentence is what transformers gives for that picture alone."""
    from transformers import AutoProcessor, BlipForConditionalGeneration

    processor, model = (
        AutoProcessor.from_pretrained(blip),
        BlipForConditionalGeneration.from_pretrained(blip).eval(),
    )
    expected = []
    for picture in pictures():
        tokens = model.generate(
            **processor(images=picture, return_tensors="pt"),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
        )
        expected.append(processor.batch_decode(tokens, skip_special_tokens=True)[0].strip())
    assert any(expected)
    assert load(blip).captions(pictures()) == expected
    assert load(blip).captions([]) == []


def test_a_checkpoint_in_shards_is_the_same(blip: Path, tmp_path: Path) -> None:
    """Several files with an index give what one file gives."""
    sharded = make_blip(tmp_path / "sharded", max_shard_size="20KB")
    assert not (sharded / "model.safetensors").exists()
    captioner = load(sharded)
    assert captioner.captions(pictures()) == load(blip).captions(pictures())
    names = {path.name for path in captioner.files}
    assert {path.name for path in sharded.glob("*.safetensors")} <= names
    assert {"config.json", "model.safetensors.index.json"} <= names


def test_another_kind_of_model(tmp_path: Path) -> None:
    """GIT has one network in transformers, not two; its captions are right, in shards, too."""
    import torch
    from transformers import (
        AutoProcessor,
        BertTokenizer,
        CLIPImageProcessor,
        GitConfig,
        GitForCausalLM,
        GitProcessor,
    )

    tmp_path.joinpath("words.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    tokenizer = BertTokenizer(str(tmp_path / "words.txt"))
    size = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    config = GitConfig(
        vision_config={**size, "image_size": 32, "patch_size": 8},
        **size,
        vocab_size=len(WORDS),
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        initializer_range=1.0,
    )
    model = GitForCausalLM(config).eval()
    folder = tmp_path / "git"
    model.save_pretrained(folder, max_shard_size="20KB")
    square = {"height": 32, "width": 32}
    GitProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square), tokenizer
    ).save_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    expected = []
    for picture in pictures():
        tokens = model.generate(
            **processor(images=picture, return_tensors="pt"),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
        )
        expected.append(processor.batch_decode(tokens, skip_special_tokens=True)[0].strip())
    assert any(expected)
    assert load(folder).captions(pictures()) == expected


def test_what_cannot_be_loaded_is_refused(blip: Path, tmp_path: Path) -> None:
    """No weights, damaged weights, missing tensors, no network: one clear line each."""
    from safetensors.torch import load_file, save_file

    broken = Path(shutil.copytree(blip, tmp_path / "broken"))
    weights = broken / "model.safetensors"
    tensors = load_file(weights)
    first = sorted(tensors)[0]
    save_file(
        {name: tensor for name, tensor in tensors.items() if name != first},
        weights,
        metadata={"format": "pt"},
    )
    with pytest.raises(WeightsRejected, match="lacks 1 tensors"):
        load(broken)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsRejected, match="cannot be loaded"):
        load(broken)
    weights.unlink()
    with pytest.raises(WeightsMissing, match=r"no model\.safetensors"):
        load(broken)
    with pytest.raises(WeightsMissing, match="--offline"):
        load("Salesforce/blip-image-captioning-large")
