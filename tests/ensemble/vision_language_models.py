"""Random image-to-text models of the smallest size, written by transformers itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
PLAIN_CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: "
    "{% if message['role'] == 'user' %}IMAGE{% endif %}{{ message['content'] | trim }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
"""Takes contents as strings and places the image itself, as JoyCaption's does."""
SIZE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.6,
}
SQUARE = {"height": 32, "width": 32}


def make_tokenizer(*special: str, **named: str) -> Any:
    """Byte-level tokens without merges; `special` ones and `named` ones (bos_token=…) follow."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    base = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*base, *letters])}
    inner = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))  # noqa: S106 a token of text
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names, extra_special_tokens=named)
    tokenizer.add_tokens(list(special), special_tokens=True)
    return tokenizer


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        **SIZE,
        "vocab_size": len(tokenizer) + 40,  # room for what a processor adds
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **more,
    }


def _save(folder: Path, config: Any, processor: Any, **saving: Any) -> Path:
    """Write the model as `save_pretrained` does; its answers are not all of one token."""
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(3)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.4)
    model.save_pretrained(folder, **saving)
    processor.save_pretrained(folder)
    return folder


CLIP_TOWER = {"model_type": "clip_vision_model", **SIZE, "image_size": 32, "patch_size": 8}


def make_llava(folder: Path, *, template: str = CHAT, **saving: Any) -> Path:
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaProcessor

    tokenizer = make_tokenizer("<image>")
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template.replace("IMAGE", "<image>"),
    )
    config = LlavaConfig(
        vision_config=CLIP_TOWER,
        text_config={"model_type": "llama", **_text(tokenizer)},
        image_token_id=processor.image_token_id,
        vision_feature_layer=-1,
    )
    return _save(folder, config, processor, **saving)


def make_llava_next(folder: Path, **saving: Any) -> Path:
    from transformers import LlavaNextConfig, LlavaNextImageProcessor, LlavaNextProcessor

    tokenizer = make_tokenizer("<image>")
    grid = [[32, 64], [64, 32], [64, 64]]
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(
            size={"shortest_edge": 32}, crop_size=SQUARE, image_grid_pinpoints=grid
        ),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    config = LlavaNextConfig(
        vision_config=CLIP_TOWER,
        text_config={"model_type": "llama", **_text(tokenizer)},
        image_token_id=processor.image_token_id,
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
    )
    return _save(folder, config, processor, **saving)


def _make_qwen(folder: Path, config: Any, processor: Any, patch: int, **saving: Any) -> Path:
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    sides = {"shortest_edge": 64 * 64, "longest_edge": 128 * 128}
    tokenizer = make_tokenizer(
        "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
    )
    built = processor(
        Qwen2VLImageProcessor(patch_size=patch, size=sides),
        tokenizer,
        Qwen2VLVideoProcessor(patch_size=patch),
        chat_template=CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(
            f"<|{name.replace('image', 'image_pad').replace('video', 'video_pad')}|>"
        )
        for name in ("image", "video", "vision_start", "vision_end")
    }
    return _save(folder, config(tokenizer, ids), built, **saving)


def make_qwen2_5_vl(folder: Path, **saving: Any) -> Path:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor

    def config(tokenizer: Any, ids: dict[str, int]) -> Any:
        rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0}
        return Qwen2_5_VLConfig(
            text_config=_text(tokenizer, num_key_value_heads=2, rope_parameters=rope),
            vision_config={
                "depth": 2,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": 16,
                "fullatt_block_indexes": [1],
                "window_size": 56,
            },
            **ids,
        )

    return _make_qwen(folder, config, Qwen2_5_VLProcessor, 14, **saving)


def make_qwen3_vl(folder: Path, **saving: Any) -> Path:
    from transformers import Qwen3VLConfig, Qwen3VLProcessor

    def config(tokenizer: Any, ids: dict[str, int]) -> Any:
        rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10_000.0}
        return Qwen3VLConfig(
            text_config=_text(tokenizer, num_key_value_heads=2, head_dim=8, rope_parameters=rope),
            vision_config={
                "depth": 2,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": 16,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
            **ids,
        )

    return _make_qwen(folder, config, Qwen3VLProcessor, 16, **saving)


def make_paligemma(folder: Path, *, text: str = "gemma", **saving: Any) -> Path:
    from transformers import PaliGemmaConfig, PaliGemmaProcessor, SiglipImageProcessor

    images = SiglipImageProcessor(size=SQUARE)
    images.image_seq_length = 16
    tokenizer = make_tokenizer()
    processor = PaliGemmaProcessor(images, tokenizer)
    config = PaliGemmaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            **SIZE,
            "image_size": 32,
            "patch_size": 8,
            "vision_use_head": False,
        },
        text_config={
            "model_type": text,
            **_text(tokenizer, head_dim=8, num_key_value_heads=1),
            "vocab_size": len(tokenizer),
        },
        image_token_index=processor.image_token_id,
        projection_dim=16,
        hidden_size=16,
    )
    return _save(folder, config, processor, **saving)


def make_paligemma_2(folder: Path) -> Path:
    return make_paligemma(folder, text="gemma2")


def make_idefics3(folder: Path, *, smol: bool = False, **saving: Any) -> Path:
    import transformers as library

    tokenizer = make_tokenizer(
        "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", "<video>",
        *(f"<row_{row}_col_{column}>" for row in range(1, 3) for column in range(1, 3)),
    )  # fmt: skip
    kind = "SmolVLM" if smol else "Idefics3"
    sides = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    parts = [getattr(library, f"{kind}ImageProcessor")(**sides), tokenizer]
    if smol:
        parts.append(library.SmolVLMVideoProcessor(**sides))
    processor = getattr(library, f"{kind}Processor")(
        *parts, image_seq_len=4, chat_template=CHAT.replace("IMAGE", "<image>")
    )
    config = getattr(library, f"{kind}Config")(
        vision_config={**SIZE, "image_size": 32, "patch_size": 8},
        text_config={"model_type": "llama", **_text(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    return _save(folder, config, processor, **saving)


def make_smolvlm(folder: Path) -> Path:
    return make_idefics3(folder, smol=True)


def make_florence2(folder: Path, **saving: Any) -> Path:
    from transformers import CLIPImageProcessor, Florence2Config, Florence2Processor

    tokenizer = make_tokenizer(image_token="<image>")  # noqa: S106 a token of text
    images = CLIPImageProcessor(size=SQUARE, do_center_crop=False, crop_size=SQUARE)
    images.image_seq_length = 17
    processor = Florence2Processor(images, tokenizer)
    config = Florence2Config(
        vision_config={
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [8, 16],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "window_size": 4,
            "projection_dim": 16,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": 2,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        is_encoder_decoder=True,
    )
    return _save(folder, config, processor, **saving)


def make_blip_2(folder: Path) -> Path:
    from transformers import Blip2Config, Blip2Processor, BlipImageProcessor

    tokenizer = make_tokenizer("<image>")
    processor = Blip2Processor(BlipImageProcessor(size=SQUARE), tokenizer, num_query_tokens=4)
    config = Blip2Config(
        vision_config={**SIZE, "image_size": 32, "patch_size": 8},
        qformer_config={**SIZE, "vocab_size": 8, "encoder_hidden_size": 16},
        text_config={
            "model_type": "opt",
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "word_embed_proj_dim": 16,
            "ffn_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return _save(folder, config, processor)


ASKED: dict[str, Callable[[Path], Path]] = {
    "llava": make_llava,
    "llava_next": make_llava_next,
    "qwen2_5_vl": make_qwen2_5_vl,
    "qwen3_vl": make_qwen3_vl,
    "paligemma": make_paligemma,
    "paligemma-2": make_paligemma_2,
    "idefics3": make_idefics3,
    "smolvlm": make_smolvlm,
    "florence2": make_florence2,
}
"""Models that answer a question, by name."""
