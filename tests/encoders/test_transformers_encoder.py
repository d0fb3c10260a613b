"""Encoders in the layout of transformers: each class, random and small, against the library."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from imprompt.core.errors import ConfigError, EncoderError, WeightsMissing, WeightsRejected
from imprompt.core.values import Vectors
from imprompt.encoders import foreign
from imprompt.encoders.registry import knows_only_english, load_encoder, load_index_encoder
from imprompt.encoders.transformers_encoder import TransformersEncoder, load_transformers
from imprompt.encoders.transformers_types import ENCODER_TYPES
from imprompt.environment.model_files import encoder_need, needs_of
from tests.core.fake_hub import FakeHub, serve_as_the_hub
from tests.encoders.transformers_models import MODELS

ROOT = Path(__file__).parents[2]
TEXTS = [
    "a red circle left of a blue square",
    "",
    "castle " * 300,
    "Portrait of an OLD sailor, oil on canvas, 8 k",
    "a",
    "a red circle left of a blue square",
]
CHAT_ML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What Qwen's own chat template makes of one system message and one question."""


def pictures() -> list[Image.Image]:
    """Of different sizes."""
    return [
        Image.radial_gradient("L").convert("RGB"),
        Image.new("RGB", (50, 90), "red"),
        Image.linear_gradient("L").convert("RGB").resize((200, 100)),
    ]


def load(folder: Path) -> TransformersEncoder:
    return load_transformers(str(folder), device="cpu", offline=True)


class Oracle:
    """transformers as the cards of its models use it: one text or image at a time."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        self.model = AutoModel.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.siglip = self.model.config.model_type.startswith("siglip")

    def text(self, text: str) -> Any:
        options: dict[str, Any] = {}
        if self.siglip:  # as it was trained
            options, text = {"padding": "max_length"}, text.lower()
        most = self.model.config.text_config.max_position_embeddings
        most = min(most, self.tokenizer.model_max_length)
        inputs = self.tokenizer(
            text, truncation=True, max_length=most, return_tensors="pt", **options
        )
        return self.model.get_text_features(**inputs).pooler_output

    def image(self, image: Image.Image) -> Any:
        inputs = self.processor(images=image, return_tensors="pt")
        return self.model.get_image_features(**inputs).pooler_output


class QwenOracle:
    """Qwen3-VL-Embedding's published class, without its helpers for videos.

    It places the pooled token by flipping the attention mask, and resizes images with Pillow before
    the processor.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoProcessor, Qwen3VLModel

        self.model = Qwen3VLModel.from_pretrained(folder).eval()
        self.processor = AutoProcessor.from_pretrained(folder, padding_side="right")

    def text(self, text: str) -> Any:
        return self._rows([{"type": "text", "text": text or "NULL"}], None)

    def image(self, image: Image.Image) -> Any:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        sides = smart_resize(
            image.height, image.width, factor=32, min_pixels=4096, max_pixels=1_843_200
        )
        return self._rows([{"type": "image"}], [image.resize(sides[::-1])])

    def _rows(self, content: list[dict[str, str]], images: list[Image.Image] | None) -> Any:
        system = [{"type": "text", "text": "Represent the user's input."}]
        messages = [{"role": "system", "content": system}, {"role": "user", "content": content}]
        text = self.processor.apply_chat_template(
            messages, chat_template=CHAT_ML, add_generation_prompt=True, tokenize=False
        )
        inputs = self.processor(
            text=[text], images=images, padding=True, do_resize=False, return_tensors="pt"
        )
        hidden = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"]
        return hidden[0, mask.shape[1] - mask.flip(dims=[1]).argmax(dim=1) - 1]


def rows_of(outputs: list[Any]) -> Vectors:
    stacked = torch.cat(outputs)
    rows: Vectors = (stacked / stacked.norm(dim=-1, keepdim=True)).numpy()
    return rows


@pytest.mark.parametrize("name", MODELS)
def test_vectors_are_those_of_transformers(name: str, folder_of: Callable[[str], Path]) -> None:
    """To 1e-5, in a batch and alone; texts are cut at the model's limit, and rows have length 1."""
    folder = folder_of(name)
    oracle = QwenOracle(folder) if name == "qwen3_vl" else Oracle(folder)
    with torch.no_grad():
        texts = rows_of([oracle.text(text) for text in TEXTS])
        images = rows_of([oracle.image(image) for image in pictures()])
    encoder = load(folder)
    np.testing.assert_allclose(encoder.texts.encode(TEXTS), texts, atol=1e-5)
    np.testing.assert_allclose(encoder.images.encode(pictures()), images, atol=1e-5)
    alone = np.concatenate([encoder.texts.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, texts, atol=1e-5)
    assert texts.shape == (len(TEXTS), encoder.spec.dim)
    different = 1 - texts[[0, 1, 2, 3, 4]] @ texts[[0, 1, 2, 3, 4]].T
    assert different[np.triu_indices(5, 1)].min() > 5e-5, "the weights do not tell texts apart"


def test_siglip_2_reads_capitals_as_its_own_tokenizer_does(
    folder_of: Callable[[str], Path],
) -> None:
    """Its published repositories name Gemma's tokenizer, which keeps capitals."""
    from transformers import AutoTokenizer, Siglip2Tokenizer

    folder = folder_of("siglip, SigLIP 2's tokenizer")
    text = "Portrait of an OLD sailor"
    tokenizer = load(folder).model.tokenizer
    assert tokenizer(text) == Siglip2Tokenizer.from_pretrained(folder)(text)
    assert tokenizer(text) != AutoTokenizer.from_pretrained(folder)(text)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "qwen3_vl"])
def test_texts_beyond_the_limit_are_counted_and_cut(
    name: str, folder_of: Callable[[str], Path]
) -> None:
    encoder = load(folder_of(name))
    most = encoder.spec.max_tokens
    short, long = encoder.texts.token_lengths(["a", "castle " * 300])
    assert short <= most < long
    rows = encoder.texts.encode(["castle " * 300, "castle " * 299])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def as_open_clip(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return a CLIP of transformers under the names of OpenAI's, as their converters pair them."""
    names = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm": "ln_final",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post",
        "text_model.encoder.layers": "transformer.resblocks",
        "vision_model.encoder.layers": "visual.transformer.resblocks",
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    renamed: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if name == "text_projection.weight":
            renamed["text_projection"] = tensor.T.contiguous()
        elif name == "visual_projection.weight":
            renamed["visual.proj"] = tensor.T.contiguous()
        elif "q_proj" in name:
            parts = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            _, kind = name.rsplit(".", 1)
            new = name.replace(f"self_attn.q_proj.{kind}", f"attn.in_proj_{kind}")
            renamed[new] = torch.cat(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            renamed[name] = tensor
    for old, new in names.items():
        renamed = {name.replace(old, new): tensor for name, tensor in renamed.items()}
    return renamed


def test_a_clip_of_transformers_is_that_of_open_clip(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """The same weights in both layouts give the same vectors, by two independent networks."""
    folder = folder_of("clip")
    tower = {"width": 16, "layers": 2}
    config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {
            **tower,
            "image_size": 32,
            "patch_size": 16,
            "head_width": 8,
            "mlp_ratio": 2,
        },
        "text_cfg": {
            **tower,
            "context_length": 77,
            "vocab_size": 49408,
            "heads": 2,
            "mlp_ratio": 2,
        },
    }
    other = tmp_path / "open_clip"
    other.mkdir()
    (other / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    save_file(
        as_open_clip(load_file(folder / "model.safetensors")), other / "open_clip_model.safetensors"
    )
    ours, theirs = load(folder), load_encoder(str(other), device="cpu", offline=True)
    np.testing.assert_allclose(ours.texts.encode(TEXTS), theirs.texts.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(
        ours.images.encode(pictures()), theirs.images.encode(pictures()), atol=1e-5
    )


def test_shards_are_one_model(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """Each shard has its hash in the record, and a missing one is named."""
    from transformers import AutoModel

    folder = tmp_path / "sharded"
    shutil.copytree(folder_of("clip"), folder)
    (folder / "model.safetensors").unlink()
    AutoModel.from_pretrained(folder_of("clip")).save_pretrained(folder, max_shard_size="2MB")
    encoder = load(folder)
    assert len(encoder.spec.weights_sha256) > 1
    whole = load(folder_of("clip")).texts.encode(TEXTS)
    np.testing.assert_allclose(encoder.texts.encode(TEXTS), whole, atol=1e-6)
    shard = sorted(folder.glob("model-*.safetensors"))[-1]
    shard.unlink()
    with pytest.raises(WeightsMissing, match=f"has no {shard.name}"):
        load(folder)


def test_the_space_depends_on_all_that_changes_a_text(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """Weights, tokens and settings; not on the version that wrote the configuration."""
    space = load(folder_of("clip")).spec.space
    assert space == load(folder_of("clip")).spec.space

    def changed(name: str, change: Callable[[dict[str, Any]], object]) -> str:
        folder = tmp_path / name
        shutil.copytree(folder_of("clip"), folder)
        path = folder / ("tokenizer.json" if name == "tokens" else "config.json")
        content = json.loads(path.read_text("utf-8"))
        change(content)
        path.write_text(json.dumps(content))
        return load(folder).spec.space

    assert changed("version", lambda it: it.update(transformers_version="4.0")) == space
    assert changed("settings", lambda it: it["text_config"].update(hidden_act="gelu")) != space
    assert changed("tokens", lambda it: it["model"]["merges"].pop()) != space


def serve(hub: FakeHub, folder: Path, repo: str) -> None:
    for path in folder.iterdir():
        hub.files[f"{repo}/{path.name}"] = path.read_bytes()


def test_a_repository_is_fetched_once(
    folder_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration first; then nothing is asked, offline or not, also with SentencePiece."""
    folder = folder_of("siglip")
    name = "hf:someone/siglip"
    with serve_as_the_hub(monkeypatch, tmp_path) as hub:
        serve(hub, folder, "someone/siglip")
        (need,) = needs_of(name)
        assert [want.choices[0].filename for want in need.wanted()] == ["config.json"]
        fetched = load_encoder(name, device="cpu")
        asked = [file.partition(" ")[2] for file in hub.asked]
        assert asked.index("config.json") < asked.index("model.safetensors")
        assert "spiece.model" in asked
        hub.seen.clear()
        again = load_encoder(name, device="cpu", offline=True)
        load_encoder(name, device="cpu")
        assert not hub.seen
    expected = load(folder)
    np.testing.assert_array_equal(again.texts.encode(TEXTS), expected.texts.encode(TEXTS))
    assert fetched.spec == again.spec
    assert fetched.spec.space == expected.spec.space


def test_an_index_names_no_repository_to_fetch(
    folder_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used if it is here; else the error names the command."""
    name = "hf:someone/clip"
    with serve_as_the_hub(monkeypatch, tmp_path) as hub:
        serve(hub, folder_of("clip"), "someone/clip")
        (tmp_path / "other").mkdir()
        with pytest.MonkeyPatch.context() as patch:
            from huggingface_hub import constants

            patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other"))
            spec = load_encoder(name, device="cpu").spec
        hub.seen.clear()
        with pytest.raises(WeightsMissing, match="imprompt prefetch hf:someone/clip"):
            load_index_encoder(spec, device="cpu")
        assert not hub.seen


REFUSED = {
    "jina_clip": ({"auto_map": {"AutoModel": "modeling_clip.JinaCLIPModel"}}, "Python code"),
    "fgclip2": ({"auto_map": {"AutoModel": "modeling_fgclip2.Fgclip2Model"}}, "Python code"),
    "bert": ({}, "not an encoder of texts and images"),
    "llava": ({}, "not an encoder of texts and images"),
}
"""Model types that cannot be encoders, with what their config.json holds, and the reason."""


@pytest.mark.parametrize("model_type", REFUSED)
def test_other_models_are_refused_before_their_weights_are_fetched(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields, reason = REFUSED[model_type]
    with serve_as_the_hub(monkeypatch, tmp_path) as hub:
        hub.files["someone/model/config.json"] = json.dumps(
            {"model_type": model_type, **fields}
        ).encode()
        hub.files["someone/model/model.safetensors"] = b"never asked for"
        with pytest.raises(WeightsRejected, match=reason) as caught:
            load_encoder("hf:someone/model", device="cpu")
        assert {file.partition(" ")[2] for file in hub.asked} == {"config.json"}
    for known in ENCODER_TYPES:
        assert known in str(caught.value.hint)


def test_a_model_of_a_class_of_its_own_is_refused(
    folder_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FG-CLIP's type is that of CLIP; its towers have tensors that CLIP's class would leave out."""
    own = {
        "model_type": "clip",
        "architectures": ["FGCLIPModel"],
        "auto_map": {"AutoModelForCausalLM": "modeling_fgclip.FGCLIPModel"},
    }
    with serve_as_the_hub(monkeypatch, tmp_path) as hub:
        hub.files["someone/fg-clip/config.json"] = json.dumps(own).encode()
        with pytest.raises(WeightsRejected, match="class FGCLIPModel, which needs Python code"):
            load_encoder("hf:someone/fg-clip", device="cpu")
        assert {file.partition(" ")[2] for file in hub.asked} == {"config.json"}
    folder = tmp_path / "model"
    shutil.copytree(folder_of("clip"), folder)
    tensors = load_file(folder / "model.safetensors")
    for name in ("position_ids", "token_type_ids"):  # in older files, of no effect
        tensors[f"text_model.embeddings.{name}"] = torch.arange(77).unsqueeze(0)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    load(folder).texts.encode(["a"])
    tensors["text_model.embeddings.position_embedding_res.weight"] = torch.zeros(248, 16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsRejected, match=r"1 tensors that CLIPModel .* does not use"):
        load(folder).texts.encode(["a"])


def test_long_clip_has_the_positions_of_its_weights(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """Repositories of LongCLIP state CLIP's 77 positions in their config.json."""
    folder = tmp_path / "model"
    shutil.copytree(folder_of("clip, 248 tokens"), folder)
    edit(folder, text_config__max_position_embeddings=77)
    encoder, stated = load(folder), load(folder_of("clip, 248 tokens"))
    assert encoder.spec.max_tokens == 248
    np.testing.assert_array_equal(encoder.texts.encode(TEXTS), stated.texts.encode(TEXTS))


def test_weights_in_another_form_are_named_with_what_to_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = "openai/clip-vit-base-patch32"
    with serve_as_the_hub(monkeypatch, tmp_path) as hub:
        hub.files[f"{repo}/config.json"] = b'{"model_type": "clip"}'
        hub.files[f"{repo}/preprocessor_config.json"] = b"{}"
        hub.files[f"{repo}/pytorch_model.bin"] = b"never asked for"
        with pytest.raises(WeightsMissing, match=r"not in safetensors.*ViT-B-32/openai"):
            load_encoder(f"hf:{repo}", device="cpu")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' own error is a page with addresses; a file is not to blame."""
    from transformers.utils import import_utils

    present = import_utils.BACKENDS_MAPPING["sentencepiece"]
    absent = (lambda: False, present[1])
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "sentencepiece", absent)
    with (
        pytest.raises(EncoderError, match=r"SentencePiece library\. .*pip install") as caught,
        foreign._loading(Path("model"), "unused"),
    ):
        import_utils.requires_backends(import_utils, ["sentencepiece"])
    assert "unused" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nothing", "no folder ./nothing"),
        ("{}/nothing", "no folder .*/nothing"),
        ("{}", "has neither config.json nor open_clip_config.json"),
    ],
)
def test_a_wrong_folder_is_named(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=words):
        load_encoder(name.format(tmp_path), device="cpu")


def test_an_index_whose_folder_is_gone_says_so(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """So does `doctor`; the folder may also be one of the machine that packed the index."""
    spec = replace(load(folder_of("clip")).spec, name=str(tmp_path / "gone"))
    with pytest.raises(WeightsMissing, match=r"made with the encoder in .*gone.*--encoder FOLDER"):
        load_index_encoder(spec, device="cpu")
    assert encoder_need(spec.name).local == (tmp_path / "gone",)


def test_a_model_for_conversations_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen3-VL has the same type for both; its vectors would mean nothing."""
    with serve_as_the_hub(monkeypatch, tmp_path) as hub:
        hub.files["Qwen/Qwen3-VL-2B-Instruct/config.json"] = b'{"model_type": "qwen3_vl"}'
        with pytest.raises(ConfigError, match=r"is a chat model.*Qwen3-VL-Embedding-2B"):
            load_encoder("hf:Qwen/Qwen3-VL-2B-Instruct", device="cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:clip", "Write hf:OWNER/NAME"),
        ("openai/clip-vit-large-patch14", "hf:openai/clip-vit-large-patch14.*ViT-L-14/openai"),
        ("hf:someone/nothing", "not a model's repository.*imprompt install hf:someone/nothing"),
    ],
)
def test_names_lead_somewhere(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serve_as_the_hub(monkeypatch, tmp_path),
        pytest.raises((ConfigError, WeightsMissing), match=words),
    ):
        load_encoder(name, device="cpu")


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for key, value in changes.items():
        section, _, field = key.rpartition("__")
        (config[section] if section else config)[field] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text_config__hidden_size": 10**6}, "more than fit into"),
        ({"text_config__num_hidden_layers": 10**6}, "layers are more than"),
        ({"vision_config__image_size": 10**6}, "is more than"),
        ({"vision_config__num_patches": 10**9}, "more than fit into"),
        ({"text_config__max_position_embeddings": 10**9}, "more than fit into"),
        ({"text_config__attn_implementation": "evil/kernel"}, "names a repository of code"),
        ({"text_config__max_position_embeddings": "many"}, "."),
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused(
    changes: dict[str, Any], reason: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folder_of("siglip2"), folder)
    edit(folder, **changes)
    with pytest.raises(WeightsRejected, match=reason):
        load(folder).texts.encode(["a"])


@pytest.mark.parametrize(
    ("field", "value"), [("max_num_patches", 10**9), ("size", {"height": 10**6, "width": 10**6})]
)
def test_an_image_processor_cannot_claim_all_memory(
    field: str, value: object, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folder_of("siglip2"), folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), field: value}))
    with pytest.raises(WeightsRejected, match="is more than"):
        load(folder)


def test_missing_tensors_and_tokenizers_are_named(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folder_of("clip"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("text_projection.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsRejected, match=r"lacks 1 tensors.*text_projection\.weight"):
        load(folder).texts.encode(["a"])
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(WeightsMissing, match=r"has no tokenizer\.json"):
        load(folder).texts.token_lengths(["a"])


def test_code_of_a_folder_never_runs(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """Nor does transformers ask whether it may."""
    folder = tmp_path / "model"
    shutil.copytree(folder_of("clip"), folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    code = {"AutoModel": "evil.M", "AutoConfig": "evil.C", "AutoTokenizer": ["evil.T", "evil.T"]}
    edit(folder, auto_map=code)
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        path = folder / name
        content = {**json.loads(path.read_text("utf-8")), "auto_map": code}
        path.write_text(json.dumps(content))
    encoder = load(folder)
    encoder.texts.encode(["a"])
    encoder.images.encode(pictures())
    assert not (tmp_path / "ran").exists()


def test_languages_are_known_by_vocabulary(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """CLIP's and SigLIP's small vocabularies are English; a large one, or another type, is not."""
    assert knows_only_english(str(folder_of("clip")))
    assert not knows_only_english(str(folder_of("metaclip_2")))
    assert not knows_only_english("hf:someone/not-here")
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"model_type": "siglip", "text_config": {"vocab_size": 256_000}}
    (folder / "config.json").write_text(json.dumps(config))
    assert not knows_only_english(str(folder))


def test_nothing_is_written_on_stderr(
    folder_of: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for name in MODELS:
        encoder = load(folder_of(name))
        encoder.texts.encode(TEXTS)
        encoder.images.encode(pictures()[:1])
    assert capfd.readouterr().err == ""


def test_every_type_has_a_checkpoint_and_a_row_in_the_docs() -> None:
    """docs/weights.md has a row for each type, with its models and languages, and no other.

    So it has for the types whose refusal is tested, with the reason.
    """
    assert {name.partition(",")[0] for name in MODELS} == set(ENCODER_TYPES)
    page = (ROOT / "docs" / "weights.md").read_text("utf-8")
    section = page.partition("## Encoders of transformers\n")[2].partition("\n## ")[0]
    row = re.compile(r"^\| `([\w-]+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)
    working, _, refused = section.partition("\nEvery other type is refused")
    assert {name: (models, languages) for name, models, languages in row.findall(working)} == {
        name: (kind.models, kind.languages) for name, kind in ENCODER_TYPES.items()
    }
    reasons = {name: reason for name, _, reason in row.findall(refused)}
    assert reasons.keys() == REFUSED.keys()
    for name, (_, reason) in REFUSED.items():
        assert reason in reasons[name]
