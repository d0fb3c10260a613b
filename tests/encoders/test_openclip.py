"""open_clip models: our rows are open_clip's, for every tower, file format and batch."""

from __future__ import annotations

import functools
import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from imprompt.core.errors import ConfigError
from imprompt.core.protocols import DualEncoder
from imprompt.core.values import Vectors
from imprompt.encoders.openclip import OpenClipEncoder, OpenClipTexts, load_openclip
from imprompt.encoders.registry import load_encoder
from tests.encoders.clip_models import (
    ARCHITECTURES,
    TEXTS,
    Oracle,
    random_pictures,
    write_hugging_face_model,
    write_model,
)

TOLERANCE = 1e-5
CUT = {"vit", "resnet-short-context", "convnext", "custom-text", "eos-pool"}
ROOT = Path(__file__).resolve().parents[2]

Folder = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose more by threads than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def oracle(clip_folder: Folder) -> Callable[[str], Oracle]:
    """open_clip's own reading of an architecture's folder; read once."""
    return functools.cache(lambda architecture: Oracle(clip_folder(architecture)))


@pytest.fixture(scope="module")
def encoder(clip_folder: Folder) -> Callable[[str], OpenClipEncoder]:
    """Our reading of it; read once."""
    return functools.cache(
        lambda architecture: load_openclip(str(clip_folder(architecture)), device="cpu")
    )


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tiny_architecture: str) -> dict[str, Any]:
    """open_clip's table of published weights of the small ViT, for the time of one test."""
    tags: dict[str, Any] = {}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny_architecture, tags)
    return tags


def close(found: Vectors, expected: Vectors) -> bool:
    return (
        found.shape == expected.shape
        and found.dtype == np.float32
        and float(np.abs(found - expected).max()) <= TOLERANCE
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_are_open_clips_own(
    architecture: str, oracle: Callable[[str], Oracle], encoder: Callable[[str], OpenClipEncoder]
) -> None:
    """Texts (padded or cut) and images, batched or alone, equal open_clip's rows."""
    towers = encoder(architecture)
    texts, pictures = (
        oracle(architecture).texts(TEXTS),
        oracle(architecture).images(random_pictures()),
    )
    assert close(towers.texts.encode(TEXTS), texts)
    assert close(np.concatenate([towers.texts.encode([text]) for text in TEXTS]), texts)
    assert close(towers.images.encode(random_pictures()), pictures)
    assert close(
        np.concatenate([towers.images.encode([picture]) for picture in random_pictures()]), pictures
    )
    for rows in (
        texts,
        pictures,
    ):  # the towers tell texts and pictures apart, so equal rows mean something
        assert np.abs(rows[0] - rows[3]).max() > 50 * TOLERANCE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_causal_towers_that_pool_at_the_end_are_cut(
    architecture: str, encoder: Callable[[str], OpenClipEncoder]
) -> None:
    """Only causal towers that pool at the text's end are cut; others get their full context."""
    towers = encoder(architecture)
    network = towers.texts._model.network
    seen: list[int] = []
    tower = network.text.transformer if hasattr(network, "text") else network.transformer
    with tower.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape[1])):
        towers.texts.encode(["a cat", "a red square"])
    full = towers.spec.max_tokens + (architecture == "coca")
    assert seen == [5 if architecture in CUT else full]


def test_many_texts_keep_their_order(
    oracle: Callable[[str], Oracle], encoder: Callable[[str], OpenClipEncoder]
) -> None:
    """More texts than a batch, of mixed lengths and with repeats, come back in the order given."""
    rng = np.random.default_rng(1)
    texts = [
        " ".join(["word", "castle", "blue"][n % 3] for n in range(rng.integers(0, 30)))
        for _ in range(100)
    ]
    assert close(encoder("vit").texts.encode(texts), oracle("vit").texts(texts))


def test_texts_of_equal_tokens_are_encoded_once(encoder: Callable[[str], OpenClipEncoder]) -> None:
    """Case, white space and text after the context make no difference and cost nothing."""
    towers = encoder("resnet-short-context")
    texts = ["a red square", "A  red\tSquare", "word " * 30, "word " * 40, "a cat"]
    seen: list[int] = []
    with towers.texts._model.network.transformer.register_forward_pre_hook(
        lambda _module, inputs: seen.append(len(inputs[0]))
    ):
        rows = towers.texts.encode(texts)
    assert seen == [3]
    np.testing.assert_array_equal(rows[[0, 2]], rows[[1, 3]])


def test_truncation_can_be_counted(encoder: Callable[[str], OpenClipEncoder]) -> None:
    """`token_lengths` counts start, end and all tokens between, before the cut at `max_tokens`."""
    towers = encoder("resnet-short-context")
    assert towers.spec.max_tokens == 21
    lengths = towers.texts.token_lengths([*TEXTS, "a cat " * 9, "a cat " * 10])
    assert lengths.tolist()[:3] == [10, 2, 122]
    assert [bool(length > towers.spec.max_tokens) for length in lengths[-2:]] == [False, True]
    tokenizer = towers.texts._model.tokenizer
    odd = ["a <end_of_text> cat", "!! !", "a cat " * 9 + "a", ""]
    assert towers.texts.token_lengths(odd).tolist() == [
        len(tokenizer.encode(text)) + 2 for text in odd
    ]


def test_a_monstrous_word_does_not_stall(
    oracle: Callable[[str], Oracle], encoder: Callable[[str], OpenClipEncoder]
) -> None:
    """A megabyte of letters, which CLIP's tokenizer would need days for, is one long text."""
    letters = "".join(np.random.default_rng(0).choice(list("etaoinshrdlu"), 1_000_000))
    texts = encoder("vit").texts
    assert texts.token_lengths([letters, "a cat"])[0] > encoder("vit").spec.max_tokens
    assert close(texts.encode([letters, "a cat"])[1:], oracle("vit").texts(["a cat"]))


def test_file_formats_and_names_of_one_model_share_rows_and_space(
    clip_folder: Folder, tmp_path: Path, tiny_architecture: str
) -> None:
    """`.pt`, `.bin`, safetensors, training checkpoints, by folder or file: one space, one row."""
    source = tmp_path / "plain"
    write_model(source, "vit", preprocess=False)
    weights = load_file(source / "open_clip_model.safetensors")
    (tmp_path / "bin").mkdir()
    shutil.copy(source / "open_clip_config.json", tmp_path / "bin")
    torch.save(weights, tmp_path / "bin" / "open_clip_pytorch_model.bin")
    torch.save(weights, tmp_path / "weights.pt")
    training = {
        "epoch": 3,
        "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()},
    }
    torch.save(training, tmp_path / "epoch_3.pt")
    names = [
        str(source),
        f"local-dir:{source}",
        str(tmp_path / "bin"),
        *(
            f"{tiny_architecture}//{tmp_path / file}"
            for file in ("weights.pt", "epoch_3.pt", "plain/open_clip_model.safetensors")
        ),
        f"{tiny_architecture}/{tmp_path / 'weights.pt'}",
    ]
    encoders = [load_encoder(name, device="cpu") for name in names]
    assert {encoder.spec.space for encoder in encoders} == {encoders[0].spec.space}
    assert (
        encoders[0].spec.space
        != load_encoder(str(clip_folder("custom-text")), device="cpu").spec.space
    )
    for encoder in encoders:
        assert np.array_equal(encoder.texts.encode(TEXTS), encoders[0].texts.encode(TEXTS))
        assert np.array_equal(
            encoder.images.encode(random_pictures()), encoders[0].images.encode(random_pictures())
        )


def test_other_weights_or_another_activation_are_another_space(
    clip_folder: Folder, tmp_path: Path
) -> None:
    """Two encoders share a space only where architecture and weights are equal."""
    spaces = {
        load_encoder(str(clip_folder("vit")), device="cpu").spec.space,
        load_encoder(str(write_model(tmp_path / "other", "vit", seed=1)), device="cpu").spec.space,
    }
    twin = tmp_path / "twin"
    shutil.copytree(clip_folder("vit"), twin)
    config = json.loads((twin / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = False
    (twin / "open_clip_config.json").write_text(json.dumps(config))
    assert len({*spaces, load_encoder(str(twin), device="cpu").spec.space}) == 3


def test_a_relative_file_is_found_and_named_in_full(
    clip_folder: Folder, tiny_architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ARCH//dir/file` is relative to the working folder; the spec's name works from anywhere."""
    monkeypatch.chdir(clip_folder("vit").parent)
    spec = load_encoder(f"{tiny_architecture}//vit/open_clip_model.safetensors", device="cpu").spec
    monkeypatch.chdir("/")
    assert load_encoder(spec.name, device="cpu").spec == spec


def test_published_weights_bring_their_preprocessing_and_activation(
    clip_folder: Folder,
    oracle: Callable[[str], Oracle],
    published: dict[str, Any],
    hub: Callable[[str, Path], None],
    tiny_architecture: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`ARCH/TAG` reads the hub's cache and open_clip's record: mean, resizing, QuickGELU."""
    monkeypatch.setitem(
        open_clip.factory._MODEL_CONFIGS,
        tiny_architecture,
        {**ARCHITECTURES["vit"], "quick_gelu": False},
    )
    recorded = {
        "mean": (0.5, 0.45, 0.4),
        "std": (0.3, 0.25, 0.2),
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    published["some_tag"] = {"hf_hub": "someone/tiny/", "quick_gelu": True, **recorded}
    hub("someone/tiny", clip_folder("vit"))
    encoder = load_encoder(f"{tiny_architecture}/some-tag", device="cpu", offline=True)
    assert close(encoder.texts.encode(TEXTS), oracle("vit").texts(TEXTS))
    assert close(encoder.images.encode(random_pictures()), oracle("vit").images(random_pictures()))
    weights = clip_folder("vit") / "open_clip_model.safetensors"
    for name, n_said in (
        (f"{tiny_architecture}//{weights}", 1),
        (f"{tiny_architecture}/some-tag//{weights}", 0),
    ):
        said: list[str] = []
        local = load_encoder(name, device="cpu", announce=said.append)
        assert local.spec.space == encoder.spec.space
        assert close(local.texts.encode(TEXTS), oracle("vit").texts(TEXTS))
        assert ["with QuickGELU" in line for line in said] == [True] * n_said


def longclip_rows(tensors: dict[str, torch.Tensor], texts: list[str]) -> Vectors:
    """LongCLIP's `encode_text`, with its two masked tables, one text of 248 tokens at a time."""
    network = open_clip.CLIP(
        **{
            **ARCHITECTURES["vit"],
            "text_cfg": {**ARCHITECTURES["vit"]["text_cfg"], "context_length": 248},
        }
    )
    rest = {name: tensor for name, tensor in tensors.items() if not name.endswith("_res")}
    network.load_state_dict(rest, strict=False)
    early = torch.zeros(248, 1)
    early[:20] = 1
    late = torch.zeros(248, 1)
    late[20:] = 1
    rows = []
    with torch.no_grad():
        for text in texts:
            tokens = open_clip.tokenize([text], context_length=248)
            hidden = network.token_embedding(tokens)
            hidden = hidden + tensors["positional_embedding"] * early
            hidden = hidden + tensors["positional_embedding_res"] * late
            hidden = network.ln_final(network.transformer(hidden, attn_mask=network.attn_mask))
            row = hidden[0, tokens[0].argmax()] @ network.text_projection
            rows.append((row / row.norm()).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_longclip_is_read_from_its_file(
    suffix: str, clip_folder: Folder, tiny_architecture: str, tmp_path: Path
) -> None:
    """By a tensor that only it has: 248 tokens, whose positions after the first 20 it holds."""
    tensors = load_file(clip_folder("vit") / "open_clip_model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name in ("positional_embedding", "positional_embedding_res"):
        tensors[name] = torch.randn(248, 32, generator=generator)
    path = tmp_path / f"longclip-L.{suffix}"
    if suffix == "pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    encoder = load_encoder(f"{tiny_architecture}//{path}", device="cpu")
    assert encoder.spec.max_tokens == 248
    texts = [*TEXTS, "a castle on a hill, " * 30, "castle " * 400]
    rows = encoder.texts.encode(texts)
    np.testing.assert_allclose(rows, longclip_rows(tensors, texts), atol=TOLERANCE)
    assert abs(rows[-2] - rows[-1]).max() > 0.01


@pytest.mark.parametrize("other", [{"quick_gelu": True}, {"mean": (0.5, 0.5, 0.5)}])
def test_a_file_whose_kind_is_not_known_is_refused(
    other: dict[str, Any],
    clip_folder: Folder,
    published: dict[str, Any],
    tiny_architecture: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Published weights of two kinds are two spaces; a tag of the same kind settles it."""
    config = {**ARCHITECTURES["vit"], "quick_gelu": False}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, tiny_architecture, config)
    published["some_tag"] = {"hf_hub": "someone/tiny/"}
    published["same_kind"] = {"hf_hub": "someone/same/"}
    published["other_tag"] = {"hf_hub": "someone/other/", **other}
    weights = clip_folder("vit") / "open_clip_model.safetensors"
    with pytest.raises(ConfigError, match="differ in activation or preprocessing") as caught:
        load_encoder(f"{tiny_architecture}//{weights}", device="cpu")
    named = [f"{tiny_architecture}/{tag}//{weights.name}" for tag in ("some_tag", "other_tag")]
    assert caught.value.hint == f"Name a published tag of the same kind: {' or '.join(named)}."
    first, same, different = (
        (spec.space, spec.preprocessing)
        for tag in ("some_tag", "same_kind", "other_tag")
        for spec in [load_encoder(f"{tiny_architecture}/{tag}//{weights}", device="cpu").spec]
    )
    assert first == same != different


def test_hub_repository_is_read_from_the_hubs_cache_offline(
    clip_folder: Folder,
    oracle: Callable[[str], Oracle],
    hub: Callable[[str, Path], None],
    tmp_path: Path,
) -> None:
    """`hf-hub:OWNER/NAME` works from the hub's cache, in a fresh process without a network."""
    hub("someone/siglip", clip_folder("siglip"))
    program = (
        "import json, sys; import numpy as np\n"
        "from imprompt.encoders.registry import load_encoder\n"
        "encoder = load_encoder('hf-hub:someone/siglip', device='cpu', offline=True)\n"
        "np.save(sys.argv[1], encoder.texts.encode(json.loads(sys.argv[2])))\n"
        "print(encoder.spec.name, encoder.spec.space)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "rows.npy"), json.dumps(TEXTS)]
    environment = {
        "PATH": "",
        "HOME": str(tmp_path),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "hf-hub:someone/siglip",
        load_encoder(str(clip_folder("siglip")), device="cpu").spec.space,
    ]
    assert close(np.load(tmp_path / "rows.npy"), oracle("siglip").texts(TEXTS))


def test_no_global_state_changes(clip_folder: Folder) -> None:
    """A load leaves random numbers, open_clip's list of models and the log handlers unchanged."""

    def state() -> list[Any]:
        return [
            torch.random.get_rng_state().tolist(),
            open_clip.list_models(),
            logging.root.handlers[:],
            torch.get_num_threads(),
        ]

    before = state()
    encoder = load_encoder(str(clip_folder("vit")), device="cpu")
    encoder.texts.encode(["a"])
    encoder.images.encode(random_pictures())
    assert state() == before


def test_transformers_stays_off_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither bars while a model loads, nor a warning of a text beyond its context."""
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging._tqdm_active
    folder = write_hugging_face_model(tmp_path / "hf")
    capfd.readouterr()
    encoder: DualEncoder = load_encoder(str(folder), device="cpu", offline=True)
    encoder.texts.encode(["blue " * 600])
    assert encoder.texts.token_lengths(["blue " * 600]).tolist() == [602]
    assert capfd.readouterr() == ("", "")
    assert (transformers_logging.get_verbosity(), transformers_logging._tqdm_active) == (
        level,
        bars,
    )


def test_a_hugging_face_tower_and_tokenizer_in_the_folder(tmp_path: Path) -> None:
    """A Hugging Face tower and tokenizer in the model's folder: padded, masked, never cut."""
    folder = write_hugging_face_model(tmp_path / "hf")
    encoder: DualEncoder = load_encoder(str(folder), device="cpu", offline=True)
    assert close(
        encoder.texts.encode(["a red cat", "a", "blue " * 40]),
        Oracle(folder).texts(["a red cat", "a", "blue " * 40]),
    )
    assert encoder.texts.token_lengths(["a red cat", "blue " * 40]).tolist() == [5, 42]
    assert encoder.spec.max_tokens == 16


def test_lengths_may_be_counted_while_texts_are_encoded(tmp_path: Path) -> None:
    """As a build does: neither takes the other's truncation."""
    folder = write_hugging_face_model(tmp_path / "hf")
    texts = load_encoder(str(folder), device="cpu", offline=True).texts
    assert isinstance(texts, OpenClipTexts)
    long = ["a red cat " * 100]
    tokens, (length,) = texts._tokenized(long), texts.token_lengths(long)
    wrong: list[int] = []

    def count() -> None:
        wrong.extend(n for _ in range(200) if (n := texts.token_lengths(long)[0]) != length)

    counting = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        counting.start()
        while counting.is_alive():
            assert torch.equal(texts._tokenized(long), tokens)
    finally:
        sys.setswitchinterval(interval)
        counting.join()
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["ViT-S-32-alt", "RN50", "convnext_base"])
def test_real_architectures_at_their_full_size(architecture: str, tmp_path: Path) -> None:
    """A published architecture in a `.pt` file equals open_clip's `create_model` of that file."""
    torch.manual_seed(0)
    torch.save(open_clip.create_model(architecture).state_dict(), tmp_path / "weights.pt")
    model, _, preprocess = open_clip.create_model_and_transforms(
        architecture,
        pretrained=str(tmp_path / "weights.pt"),
        force_quick_gelu=architecture == "RN50",  # as all its published weights
    )
    model.eval()
    encoder = load_encoder(f"{architecture}//{tmp_path / 'weights.pt'}", device="cpu")
    with torch.no_grad():
        texts = model.encode_text(
            open_clip.get_tokenizer(architecture)(TEXTS), normalize=True
        ).numpy()
        pictures = model.encode_image(
            torch.stack([preprocess(picture) for picture in random_pictures()]), normalize=True
        ).numpy()
    assert close(encoder.texts.encode(TEXTS), texts)
    assert close(encoder.images.encode(random_pictures()), pictures)
