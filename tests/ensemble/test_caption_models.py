"""Image-to-text models that are asked: each class of transformers, random and small."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imprompt.core.errors import ConfigError, WeightsRejected
from imprompt.core.hub.fetch import silent
from imprompt.core.hub.hub_files import HubFile, cached_file
from imprompt.ensemble.blend_config import CAPTION_SOURCE, CaptionStyle
from imprompt.ensemble.caption_models import MODEL_TYPES, caption_of, first_sentence
from imprompt.ensemble.image_to_text import MAX_NEW_TOKENS, ImageToText, wanted_files
from tests.core.fake_hub import serve_as_the_hub
from tests.ensemble.vision_language_models import (
    ASKED,
    PLAIN_CHAT,
    make_blip_2,
    make_llava,
    make_qwen3_vl,
)

ROOT = Path(__file__).parents[2]
N_TOKENS = 12


def load(folder: Path | str, *, style: CaptionStyle = "sentence") -> ImageToText:
    return ImageToText.load(str(folder), device="cpu", offline=True, announce=silent, style=style)


def pictures() -> list[Image.Image]:
    """Of different sizes, so that a batch of most models must be padded."""
    return [
        Image.radial_gradient("L").convert("RGB"),
        Image.new("RGB", (50, 90), "red"),
        Image.linear_gradient("L").convert("RGB").resize((200, 100)),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the models made so far, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", str)
        return {name: make(tmp_path_factory.mktemp(name)) for name, make in ASKED.items()}


def oracle(folder: Path, prompt: str, images: list[Image.Image]) -> list[str]:
    """The answers of transformers' own pipeline, each for its image alone."""
    from transformers import pipeline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", str)
        ask = pipeline("image-text-to-text", model=str(folder), device="cpu", dtype="float32")
    answers = []
    for image in images:
        options: dict[str, Any] = {
            "generate_kwargs": {"do_sample": False, "max_new_tokens": N_TOKENS},
            "return_full_text": False,
            "skip_special_tokens": True,
        }
        if ask.processor.chat_template is None:
            (answer,) = ask(images=image, text=prompt, **options)
        else:
            content = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
            (answer,) = ask(text=[{"role": "user", "content": content}], **options)
        answers.append(str(answer["generated_text"]))
    return answers


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # PaliGemma's processor
@pytest.mark.parametrize("name", ASKED)
def test_answers_are_those_of_the_pipeline(
    name: str, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token for token what transformers' pipeline answers, alone and in a padded batch."""
    monkeypatch.setattr("imprompt.ensemble.image_to_text.MAX_ANSWER_TOKENS", N_TOKENS)
    monkeypatch.setattr("imprompt.ensemble.image_to_text.caption_of", lambda text: text)
    folder = made[name]
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    expected = oracle(folder, MODEL_TYPES[model_type].prompts["sentence"], pictures())
    assert len(set(expected)) > 1
    captioner = load(folder)
    assert captioner.captions(pictures()) == expected
    assert [captioner.captions([picture])[0] for picture in pictures()] == expected
    assert captioner.captions([]) == []


def test_blip_2_gets_the_image_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its captions are what transformers generates for each image, token for token."""
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    monkeypatch.setattr("imprompt.ensemble.image_to_text.first_sentence", lambda text: text)
    folder = make_blip_2(tmp_path / "blip-2")
    processor = AutoProcessor.from_pretrained(folder)
    model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    expected = []
    for picture in pictures():
        inputs = processor(images=picture, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        expected += processor.batch_decode(tokens, skip_special_tokens=True)
    assert len(set(expected)) > 1
    assert load(folder).captions(pictures()) == expected


def test_shards_give_what_one_file_gives(made: dict[str, Path], tmp_path: Path) -> None:
    """A vision-language model in several files."""
    folder = make_qwen3_vl(tmp_path / "shards", max_shard_size="20KB")
    assert not (folder / "model.safetensors").exists()
    assert load(folder).captions(pictures()) == load(made["qwen3_vl"]).captions(pictures())


@pytest.mark.parametrize("template_in", ["chat_template.json", "tokenizer_config.json"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "smolvlm"])
def test_the_files_of_older_transformers(
    name: str, template_in: str, made: dict[str, Path], tmp_path: Path
) -> None:
    """With preprocessor_config.json, and the chat template in JSON, captions are the same."""
    folder = Path(shutil.copytree(made[name], tmp_path / "older"))
    path = folder / "processor_config.json"
    held = json.loads(path.read_text())
    images = held.pop("image_processor")
    held.pop("video_processor", None)
    images["processor_class"] = held["processor_class"]
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    path.write_text(json.dumps(held))
    if name == "qwen2_5_vl":  # its repositories have none
        path.unlink()
    template = folder / "chat_template.jinja"
    path = folder / template_in
    written = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**written, "chat_template": template.read_text()}))
    template.unlink()
    assert load(folder).captions(pictures()) == load(made[name]).captions(pictures())


def test_tags_are_asked_for(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The style of the blend config is the question; models without a question refuse it."""
    monkeypatch.setattr("imprompt.ensemble.image_to_text.MAX_ANSWER_TOKENS", N_TOKENS)
    monkeypatch.setattr("imprompt.ensemble.image_to_text.caption_of", lambda text: text)
    folder = made["llava"]
    expected = oracle(folder, MODEL_TYPES["llava"].prompts["tags"], pictures())
    assert load(folder, style="tags").captions(pictures()) == expected
    assert load(folder).captions(pictures()) != expected
    for name in ("florence2", "paligemma"):
        with pytest.raises(ConfigError, match=f"{name} do not write captions in the style 'tags'"):
            load(made[name], style="tags")


def test_a_template_that_places_the_image_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JoyCaption's takes a string and begins with its own start token, which is not doubled."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    monkeypatch.setattr("imprompt.ensemble.image_to_text.MAX_ANSWER_TOKENS", N_TOKENS)
    monkeypatch.setattr("imprompt.ensemble.image_to_text.caption_of", lambda text: text)
    folder = make_llava(tmp_path / "joy", template=PLAIN_CHAT)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    prompt = MODEL_TYPES["llava"].prompts["sentence"]
    text = f"<s>user: <image>{prompt}\nassistant: "
    expected = []
    for picture in pictures():
        inputs = processor(images=picture, text=text, return_tensors="pt", add_special_tokens=False)
        assert (inputs["input_ids"] == processor.tokenizer.bos_token_id).sum() == 1
        tokens = model.generate(**inputs, max_new_tokens=N_TOKENS, do_sample=False)
        answer = tokens[:, inputs["input_ids"].shape[1] :]
        expected += processor.batch_decode(answer, skip_special_tokens=True)
    assert load(folder).captions(pictures()) == expected


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "it has no chat template"),
        ("{{ messages[0]['role'] }}", "no place for an image"),
        ("{{ raise_exception('wrong') }}", "wrong"),
        ("{% for", "cannot caption"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    ],
)
def test_a_template_that_cannot_ask_is_refused(
    template: str | None, reason: str, made: dict[str, Path], tmp_path: Path
) -> None:
    """One line when the model is loaded, not an error in the middle of a folder."""
    folder = Path(shutil.copytree(made["llava"], tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(WeightsRejected, match=reason) as caught:
        load(folder)
    assert "\n" not in caught.value.message


def test_files_that_do_not_fit_together_are_refused(made: dict[str, Path], tmp_path: Path) -> None:
    """A processor that counts other image tokens than the model computes."""
    folder = Path(shutil.copytree(made["llava"], tmp_path / "model"))
    path = folder / "processor_config.json"
    path.write_text(path.read_text().replace('"patch_size": 8', '"patch_size": 4'))
    with pytest.raises(WeightsRejected, match=r"cannot caption: Image features and image tokens"):
        load(folder).captions(pictures())


@pytest.mark.parametrize("model_type", ["moondream1", "vision-encoder-decoder", "evil\nline", 7])
def test_other_types_are_refused_in_a_folder(model_type: object, tmp_path: Path) -> None:
    """The line names the type, the hint what works; the weights are not read."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsRejected, match="of the model type") as caught:
        load(tmp_path)
    assert "\n" not in caught.value.message
    assert caught.value.hint.endswith(", ".join(MODEL_TYPES) + ".")


def files_for_the_hub(folder: Path, repo: str) -> dict[str, bytes]:
    return {f"{repo}/{path.name}": path.read_bytes() for path in folder.iterdir()}


CODE = {"auto_map": {"AutoConfig": "configuration.Config"}}
REFUSED = {
    "moondream1": (CODE, "Python code"),
    "florence2": (CODE, "Python code"),
    "internvl_chat": (CODE, "Python code"),
    "vision-encoder-decoder": ({}, "cannot caption"),
    "qwen2_vl": ({}, "cannot caption"),
    "siglip": ({}, "cannot caption"),
}
"""Model types that are refused, with what their config.json holds, and the reason."""


@pytest.mark.parametrize("model_type", REFUSED)
def test_of_a_refused_model_the_configuration_alone_is_fetched(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other file is even asked for."""
    fields, reason = REFUSED[model_type]
    with serve_as_the_hub(monkeypatch, tmp_path) as hub:
        hub.files = {
            "someone/model/config.json": json.dumps({"model_type": model_type, **fields}).encode(),
            "someone/model/model.safetensors": bytes(1000),
        }
        for _ in range(2):
            with pytest.raises(WeightsRejected, match=reason):
                ImageToText.load("someone/model", device="cpu", offline=False, announce=silent)
        asked = [(method, path) for method, path, _ in hub.seen if "/resolve/" in path]
        assert {path.rpartition("/")[2] for _, path in asked} == {"config.json"}
        assert [method for method, _ in asked].count("GET") == 1


def test_a_model_comes_whole_from_the_hub(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers 5 writes it: in shards, with processor_config.json and a template in Jinja.

    Each file is fetched once, and nothing is asked again.
    """
    folder = make_qwen3_vl(tmp_path / "qwen", max_shard_size="20KB")
    assert not (folder / "preprocessor_config.json").exists()
    with serve_as_the_hub(monkeypatch, tmp_path) as hub:
        hub.files = files_for_the_hub(folder, "someone/qwen")
        captioner = ImageToText.load("someone/qwen", device="cpu", offline=False, announce=silent)
        fetched = [
            path.rpartition("/")[2]
            for method, path, _ in hub.seen
            if method == "GET" and "/resolve/" in path
        ]
        assert sorted(fetched) == sorted(path.name for path in folder.iterdir())
        n_requests = len(hub.seen)
        again = load("someone/qwen")
        assert len(hub.seen) == n_requests
    assert sorted(path.name for path in captioner.files) == sorted(fetched)
    expected = load(made["qwen3_vl"]).captions(pictures())
    assert captioner.captions(pictures()) == again.captions(pictures()) == expected


def test_files_are_listed_in_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an unknown repository config.json first; of the default one all files at once."""
    with serve_as_the_hub(monkeypatch, tmp_path):
        names = [want.choices[0].filename for want in wanted_files("someone/model")]
        assert names == ["config.json"]
        default = {want.choices[0].filename for want in wanted_files(CAPTION_SOURCE)}
        assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= default
        assert cached_file(HubFile("someone/model", "config.json")) is None


def test_the_sizes_of_qwens_images_are_numbers_of_pixels(
    made: dict[str, Path], tmp_path: Path
) -> None:
    """Published Qwen3-VL says 65,536 to 16,777,216 pixels; sides of that length are refused."""
    folder = Path(shutil.copytree(made["qwen3_vl"], tmp_path / "qwen"))
    path = folder / "processor_config.json"
    held = json.loads(path.read_text())
    held["image_processor"]["size"] = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    path.write_text(json.dumps(held))
    assert len(load(folder).captions([Image.new("RGB", (64, 64))])) == 1
    held["image_processor"]["size"]["shortest_edge"] = 16_777_217
    path.write_text(json.dumps(held))
    with pytest.raises(WeightsRejected, match="16,777,217 is more than 16,777,216 pixels"):
        load(folder)
    held["image_processor"] |= {"image_processor_type": "CLIPImageProcessor", "merge_size": 2}
    held["image_processor"]["size"]["shortest_edge"] = 65_536
    path.write_text(json.dumps(held))
    with pytest.raises(WeightsRejected, match="65,536 is more than 4,096 pixels"):
        load(folder)


def test_the_float_type_is_the_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 on the processor, also of a checkpoint in bfloat16, which CUDA keeps."""
    import torch

    folder = make_llava(tmp_path / "half")
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"dtype": "bfloat16"}
    path.write_text(json.dumps(config))
    assert load(folder)._model.dtype == torch.float32
    monkeypatch.setattr("imprompt.ensemble.image_to_text.dtype_on", lambda device: "float16")
    assert load(folder)._model.dtype == torch.bfloat16
    path.write_text(json.dumps(config | {"dtype": "float32"}))
    half = load(folder)
    assert half._model.dtype == torch.float16
    assert len(half.captions(pictures())) == 3


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        (" a red fox, in snow \n", "a red fox, in snow"),
        ("\n\n“A red fox.”\nI hope that this helps.", "A red fox."),
        ("'it's a fox'", "'it's a fox'"),
        ("'", "'"),
        ('"a" and "b"', '"a" and "b"'),
        ("", ""),
    ],
)
def test_an_answer_becomes_a_caption(answer: str, caption: str) -> None:
    """Its first line, without quotes around it."""
    assert first_sentence(answer) == caption


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "Sorry, no.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m unable to describe people.",
        '"I cannot see an image."',
        "As an AI, I do not look at images.",
        " \n ",
    ],
)
def test_an_apology_is_no_caption(answer: str) -> None:
    """Nor is nothing; a caption that holds such words later is one."""
    assert caption_of(answer) == ""
    assert caption_of(f"a sign that says {answer.strip()}") != ""


def test_the_page_lists_the_model_types() -> None:
    """docs/weights.md has a row for each type, with its models and styles, and no other.

    So it has for the types whose refusal is tested, with the reason.
    """
    page = (ROOT / "docs" / "weights.md").read_text("utf-8")
    rows = [
        f"| `{name}` | {kind.models} | {', '.join(f'`{style}`' for style in kind.prompts)} |"
        for name, kind in MODEL_TYPES.items()
    ]
    table = "| model type | models | styles |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n\n"
    assert table in page
    section = page.partition("## Captioners\n")[2].partition("\n## ")[0]
    refused = section.partition("\nEvery other type is refused")[2]
    reasons = dict(re.findall(r"^\| `([\w-]+)` \| .+? \| (.+?) \|$", refused, re.MULTILINE))
    assert reasons.keys() == REFUSED.keys()
    for name, (_, reason) in REFUSED.items():
        assert reason in reasons[name]
