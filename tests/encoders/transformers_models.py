"""Small random encoders in the layout of transformers, written by transformers itself."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VISION = {**SIZE, "image_size": 32, "patch_size": 16}
TEXT = "a red circle left of blue square castle portrait an old sailor oil on canvas 8 k"
WORDS = TEXT.split()


def clip_tokenizer(positions: int) -> Any:
    """CLIP's own vocabulary, as open_clip carries it."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    original = SimpleTokenizer()
    return CLIPTokenizer(
        vocab={
            token.replace("<start_of_text>", "<|startoftext|>").replace(
                "<end_of_text>", "<|endoftext|>"
            ): number
            for token, number in original.encoder.items()
        },
        merges=list(original.bpe_ranks),
        model_max_length=positions,
    )


def sentencepiece_file(folder: Path) -> Path:
    """Train a SentencePiece model of some words."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 20),
        model_writer=model,
        vocab_size=60,
        character_coverage=1.0,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = folder / "spiece.model"
    path.write_bytes(model.getvalue())
    return path


def unigram_pieces() -> list[tuple[str, float]]:
    letters = sorted(set("".join(WORDS)) | set(",.▁"))
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(piece, 0.0) for piece in special]
    pieces += [(f"▁{word}", -3.0) for word in dict.fromkeys(WORDS) if len(word) > 1]
    return [*pieces, *((letter, -6.0) for letter in letters)]


def xlm_roberta_tokenizer() -> Any:
    from transformers import XLMRobertaTokenizer

    return XLMRobertaTokenizer(vocab=unigram_pieces(), model_max_length=24)


def _save(folder: Path, config: Any, *processors: Any, **saving: Any) -> Path:
    import torch
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = AutoModel.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.5)
                else:
                    parameter.add_(torch.rand_like(parameter) * 0.2)
        model.save_pretrained(folder, **saving)
    for processor in processors:
        processor.save_pretrained(folder)
    return folder


def _clip_images() -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def make_clip(folder: Path, *, positions: int = 77, **saving: Any) -> Path:
    from transformers import CLIPConfig

    text = {
        **SIZE,
        "vocab_size": 49408,
        "max_position_embeddings": positions,
        "eos_token_id": 49407,
    }
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    return _save(folder, config, clip_tokenizer(positions), _clip_images(), **saving)


def make_long_clip(folder: Path) -> Path:
    return make_clip(folder, positions=248)


def make_siglip(folder: Path, *, gemma: bool = False, **saving: Any) -> Path:
    """With SigLIP's SentencePiece tokenizer, or Gemma's, as the repositories of SigLIP 2."""
    from transformers import GemmaTokenizer, SiglipConfig, SiglipImageProcessor, SiglipTokenizer

    tokenizer = (
        _gemma_tokenizer(GemmaTokenizer)
        if gemma
        else SiglipTokenizer(str(sentencepiece_file(folder)))
    )
    text = {**SIZE, "vocab_size": 300, "max_position_embeddings": 20}
    config = SiglipConfig(text_config=text, vision_config=VISION)
    images = SiglipImageProcessor(size={"height": 32, "width": 32})
    return _save(folder, config, tokenizer, images, **saving)


def make_siglip_2_fixed(folder: Path) -> Path:
    return make_siglip(folder, gemma=True)


def _gemma_tokenizer(kind: Any) -> Any:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, *sorted(set("".join(WORDS)) | {"▁", ","})]
    return kind(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=[],
        model_input_names=["input_ids"],
        padding_side="right",
        add_eos_token=True,
    )


def make_siglip_2(folder: Path, **saving: Any) -> Path:
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Tokenizer

    text = {**SIZE, "vocab_size": 300, "max_position_embeddings": 20}
    vision = {**SIZE, "num_patches": 16, "patch_size": 8}
    config = Siglip2Config(text_config=text, vision_config=vision)
    images = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    return _save(folder, config, _gemma_tokenizer(Siglip2Tokenizer), images, **saving)


def make_metaclip_2(folder: Path, **saving: Any) -> Path:
    from transformers import MetaClip2Config

    text = {**SIZE, "vocab_size": 100, "max_position_embeddings": 24, "eos_token_id": 2}
    config = MetaClip2Config(text_config=text, vision_config=VISION, projection_dim=24)
    return _save(folder, config, xlm_roberta_tokenizer(), _clip_images(), **saving)


def make_altclip(folder: Path, **saving: Any) -> Path:
    from transformers import AltCLIPConfig

    text = {
        **SIZE,
        "vocab_size": 100,
        "max_position_embeddings": 26,
        "project_dim": 24,
        "pad_token_id": 1,
    }
    config = AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    return _save(folder, config, xlm_roberta_tokenizer(), _clip_images(), **saving)


def make_chinese_clip(folder: Path, **saving: Any) -> Path:
    from transformers import BertTokenizer, ChineseCLIPConfig, ChineseCLIPImageProcessor

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS)]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    text = {**SIZE, "vocab_size": 60, "max_position_embeddings": 30}
    config = ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    images = ChineseCLIPImageProcessor(
        size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}
    )
    return _save(folder, config, tokenizer, images, **saving)


def make_qwen3_vl_embedding(folder: Path) -> Path:
    from tests.ensemble.vision_language_models import make_qwen3_vl

    return make_qwen3_vl(folder)


MODELS: dict[str, Callable[[Path], Path]] = {
    "altclip": make_altclip,
    "chinese_clip": make_chinese_clip,
    "clip": make_clip,
    "clip, 248 tokens": make_long_clip,
    "metaclip_2": make_metaclip_2,
    "qwen3_vl": make_qwen3_vl_embedding,
    "siglip": make_siglip,
    "siglip, SigLIP 2's tokenizer": make_siglip_2_fixed,
    "siglip2": make_siglip_2,
}
