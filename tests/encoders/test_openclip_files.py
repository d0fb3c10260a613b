"""Which files a CLIP model needs, known without a request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from imprompt.core.errors import ConfigError, EncoderError, WeightsMissing
from imprompt.core.hub.fetch import silent
from imprompt.core.hub.hub_files import HubFile, Wanted, hand_path
from imprompt.encoders.openclip_source import PUBLISHED, SAME_WEIGHTS, find_source, wanted_files
from tests.core.fake_hub import serve_as_the_hub


def test_the_table_of_names_is_open_clips_own() -> None:
    """The repositories, the names of the files, and that none has a tokenizer of its own."""
    import open_clip

    for name, repo in PUBLISHED.items():
        architecture, _, tag = name.partition("/")
        assert open_clip.get_pretrained_cfg(architecture, tag)["hf_hub"] == f"{repo}/", name
        text = open_clip.get_model_config(architecture)["text_cfg"]
        assert not text.get("hf_tokenizer_name"), name
        assert not text.get("hf_model_name"), name


def test_a_name_of_the_table_needs_no_open_clip() -> None:
    """`doctor` asks for it, and has no seconds to import torch."""
    script = (
        "import sys; from imprompt.encoders.openclip_source import wanted_files; "
        "wanted_files('ViT-L-14/openai'); "
        "print({'torch', 'open_clip'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "set()"


def test_another_tag_names_weights_and_tokenizer() -> None:
    """The safetensors file first, then the older one; another repository's tokenizer files."""
    weights = Wanted(
        (
            HubFile("timm/resnet50_clip.openai", "open_clip_model.safetensors"),
            HubFile("timm/resnet50_clip.openai", "open_clip_pytorch_model.bin"),
        )
    )
    assert wanted_files("RN50/openai") == [weights]
    *tokenizer, weights = wanted_files("ViT-B-16-SigLIP/webli")
    assert {want.choices[0].repo for want in tokenizer} == {"timm/ViT-B-16-SigLIP"}
    assert [want.choices[0].filename for want in tokenizer if not want.optional] == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert weights.choices[0].repo == "timm/ViT-B-16-SigLIP"


def test_a_hub_model_names_its_tokenizer_once_its_configuration_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before that only the configuration and the weights are known."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = HubFile("someone/clip", "open_clip_config.json")
    assert [want.choices[0].filename for want in wanted_files("hf-hub:someone/clip")] == [
        config.filename,
        "open_clip_model.safetensors",
    ]
    hand_path(config).parent.mkdir(parents=True)
    hand_path(config).write_text(
        json.dumps(
            {
                "model_cfg": {
                    "embed_dim": 8,
                    "vision_cfg": {},
                    "text_cfg": {"hf_tokenizer_name": "someone/words"},
                }
            }
        )
    )
    needed = [want.choices[0] for want in wanted_files("hf-hub:someone/clip") if not want.optional]
    assert HubFile("someone/words", "tokenizer.json") in needed


@pytest.mark.parametrize(
    ("repo", "said"),
    [
        (
            "openai/clip-vit-large-patch14",
            "write hf:openai/clip-vit-large-patch14, or for open_clip ViT-L-14/openai.",
        ),
        ("someone/clip", "not in the layout of open_clip. If it is in that of transformers: hf:"),
    ],
)
def test_a_repository_in_another_layout_is_told_as_that(
    repo: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that no such repository has is not to be fetched by hand."""
    with serve_as_the_hub(monkeypatch, tmp_path) as hub:
        hub.files[f"{repo}/config.json"] = b"{}"
        with pytest.raises(WeightsMissing, match="the hub has no such file") as caught:
            find_source(f"hf-hub:{repo}", offline=False, announce=silent)
    assert said in caught.value.hint


def test_every_name_of_the_same_weights_is_one_of_open_clip() -> None:
    """So that the advice works."""
    import open_clip

    for name in SAME_WEIGHTS.values():
        architecture, _, tag = name.partition("/")
        assert open_clip.get_pretrained_cfg(architecture, tag)["hf_hub"], name


def test_a_local_model_needs_nothing(tiny_clip: Path) -> None:
    """A folder with everything in it."""
    assert wanted_files(str(tiny_clip)) == []
    assert wanted_files("ViT-B-32//somewhere/weights.pt") == []


@pytest.mark.parametrize(
    "name", ["hf-hub:one", "ViT-L-14/no-such-tag", "NoSuchArchitecture/openai"]
)
def test_a_wrong_name_is_one_error(name: str) -> None:
    """As where the model is loaded."""
    with pytest.raises((ConfigError, EncoderError)):
        wanted_files(name)
