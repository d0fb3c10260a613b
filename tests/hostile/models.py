"""Model repositories that try to run code, to fetch, or to take needless memory."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hostile.watch import CANARY

EVIL_CODE = f"""
import os
open(os.path.join(os.environ.get("CANARIES", "/nowhere"), "{CANARY}-model"), "w").write("ran")
class EvilTokenizer: pass
class EvilConfig: pass
class EvilModel: pass
"""
CONFIG = "open_clip_config.json"


@dataclass(frozen=True, slots=True)
class HostileModel:
    """A change to a good folder, its aim, and the exit codes that refuse it."""

    spoil: Callable[[Path], object]
    tries: str
    codes: tuple[int, ...]


def edited(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        path = folder / name
        held = json.loads(path.read_text()) if path.exists() else {}
        change(held)
        path.write_text(json.dumps(held))

    return spoil


def in_text(**values: Any) -> Callable[[Path], object]:
    return edited(CONFIG, lambda held: held["model_cfg"]["text_cfg"].update(values))


def in_vision(**values: Any) -> Callable[[Path], object]:
    return edited(CONFIG, lambda held: held["model_cfg"]["vision_cfg"].update(values))


def with_evil_tokenizer(folder: Path, **options: Any) -> None:
    """A tokenizer whose class is Python code of the folder."""
    (folder / "tokenization_evil.py").write_text(EVIL_CODE)
    auto = {"AutoTokenizer": ["tokenization_evil.EvilTokenizer", None]}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "EvilTokenizer", "auto_map": auto})
    )
    in_text(hf_tokenizer_name=folder.name, **options)(folder)


def with_evil_tower(folder: Path) -> None:
    """A text tower whose configuration is Python code of its folder."""
    tower = folder / "tower"
    tower.mkdir()
    (tower / "configuration_evil.py").write_text(EVIL_CODE)
    auto = {
        "AutoConfig": "configuration_evil.EvilConfig",
        "AutoModel": "configuration_evil.EvilModel",
    }
    (tower / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    in_text(hf_model_name="tower")(folder)


def with_pickled_code(folder: Path) -> None:
    """A checkpoint that opens a file when it is unpickled."""
    import torch

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch $CANARIES/{CANARY}-pickle",)

    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "open_clip_pytorch_model.bin")


def with_long_pickle(folder: Path) -> None:
    """A checkpoint whose list of tensors is 5 MB of numbers."""
    import torch

    (folder / "open_clip_model.safetensors").unlink()
    torch.save(
        {str(number): number for number in range(300_000)}, folder / "open_clip_pytorch_model.bin"
    )


def with_zip_bomb(folder: Path) -> None:
    """A checkpoint that unpacks to a thousand times its length."""
    (folder / "open_clip_model.safetensors").unlink()
    with zipfile.ZipFile(
        folder / "open_clip_pytorch_model.bin", "w", zipfile.ZIP_DEFLATED
    ) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("archive/data/0", bytes(200 << 20))
        archive.writestr("archive/version", b"3\n")


def with_long_safetensors_header(folder: Path) -> None:
    """Weights whose header claims to be as long as an address space."""
    (folder / "open_clip_model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


OPENCLIP: dict[str, HostileModel] = {
    "code-tokenizer": HostileModel(
        lambda folder: with_evil_tokenizer(folder, tokenizer_kwargs={"trust_remote_code": True}),
        "runs a Python file as its tokenizer, and says that it may be trusted",
        (42,),
    ),
    "code-tokenizer-asked": HostileModel(
        with_evil_tokenizer, "runs a Python file as its tokenizer, after a question", (42,)
    ),
    "code-tower": HostileModel(
        with_evil_tower, "runs a Python file as the configuration of its text tower", (40, 42)
    ),
    "code-pickle": HostileModel(
        with_pickled_code, "runs a command when its weights are read", (42,)
    ),
    "long-pickle": HostileModel(with_long_pickle, "keeps the reader of its weights busy", (42,)),
    "zip-bomb": HostileModel(with_zip_bomb, "unpacks to 200 MB", (42,)),
    "long-header": HostileModel(
        with_long_safetensors_header, "claims a header of 2**62 bytes", (42,)
    ),
    "timm-from-hub": HostileModel(
        in_vision(timm_model_name="hf-hub:someone/evil"), "lets timm fetch a model", (42,)
    ),
    "timm-from-folder": HostileModel(
        in_vision(timm_model_name="local-dir:/etc"), "lets timm read another folder", (42,)
    ),
    "tower-outside": HostileModel(
        in_text(hf_model_name="../../.ssh"), "reads a folder of the user as its text tower", (42,)
    ),
    "tower-absolute": HostileModel(
        in_text(hf_model_name="/etc"), "reads a folder of the machine as its text tower", (42,)
    ),
    "tokenizer-file": HostileModel(
        in_text(tokenizer_kwargs={"bpe_path": "/etc/passwd"}),
        "reads any file as the words of its tokenizer",
        (42,),
    ),
    "tokenizer-cache": HostileModel(
        in_text(tokenizer_kwargs={"cache_dir": "/root"}), "chooses where files are cached", (42,)
    ),
    "wide": HostileModel(
        in_text(width=1 << 20, heads=1), "claims layers of 2**20 numbers' width", (42,)
    ),
    "deep": HostileModel(in_vision(layers=10**7), "claims ten million layers", (42,)),
    "many-words": HostileModel(in_text(vocab_size=1 << 40), "claims 2**40 words", (42,)),
    "endless": HostileModel(in_text(vocab_size=1e400), "claims infinitely many words", (42,)),
    "long-context": HostileModel(
        in_text(context_length=1 << 40), "claims texts of 2**40 tokens", (42,)
    ),
    "large-pictures": HostileModel(
        in_vision(image_size=100_000), "enlarges pictures to 100,000 pixels", (42,)
    ),
    "no-mapping": HostileModel(
        edited(CONFIG, lambda held: held["model_cfg"].update(text_cfg=[])),
        "has a list for a part",
        (42,),
    ),
    "deep-json": HostileModel(
        lambda folder: (folder / CONFIG).write_text('{"model_cfg":' + "[" * 200_000),
        "nests 200,000 lists",
        (42,),
    ),
}


def with_evil_processor(folder: Path) -> None:
    """A processor whose class is Python code of the folder."""
    (folder / "processing_evil.py").write_text(EVIL_CODE)
    auto = {"AutoProcessor": "processing_evil.EvilModel"}
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        edited(name, lambda held: held.update(processor_class="EvilProcessor", auto_map=auto))(
            folder
        )


def with_evil_config(folder: Path) -> None:
    """A model of an unknown type that brings its own code."""
    (folder / "configuration_evil.py").write_text(EVIL_CODE)
    auto = {
        "AutoConfig": "configuration_evil.EvilConfig",
        "AutoModelForImageTextToText": "configuration_evil.EvilModel",
    }
    edited("config.json", lambda held: held.update(model_type="evil", auto_map=auto))(folder)


def in_config(**values: Any) -> Callable[[Path], object]:
    return edited("config.json", lambda held: held.update(values))


def with_shard_outside(folder: Path) -> None:
    """Shards whose names lead out of the folder."""
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"a": "../../home/secret.txt"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


CAPTIONERS: dict[str, HostileModel] = {
    "code-config": HostileModel(
        with_evil_config, "runs a Python file as its configuration", (42, 60)
    ),
    "code-processor": HostileModel(
        with_evil_processor, "runs a Python file as its processor", (42, 60)
    ),
    "adapter": HostileModel(
        lambda folder: (folder / "adapter_config.json").write_text(
            '{"base_model_name_or_path": "someone/evil"}'
        ),
        "lets PEFT fetch another model",
        (42, 60),
    ),
    "kernel": HostileModel(
        in_config(attn_implementation="someone/kernel"), "loads compiled code of the hub", (42, 60)
    ),
    "backbone": HostileModel(
        in_config(use_timm_backbone=True, backbone="hf-hub:someone/evil"),
        "lets timm fetch a backbone",
        (42, 60),
    ),
    "pretrained-backbone": HostileModel(
        in_config(use_pretrained_backbone=True), "fetches a backbone's weights", (42, 60)
    ),
    "wide": HostileModel(
        edited("config.json", lambda held: held["text_config"].update(hidden_size=1 << 20)),
        "claims a width of 2**20",
        (42, 60),
    ),
    "beams": HostileModel(
        edited("generation_config.json", lambda held: held.update(num_beams=10**6)),
        "writes a million answers at once",
        (42, 60),
    ),
    "large-pictures": HostileModel(
        lambda folder: (
            [
                edited(path.name, lambda held: held.update(size={"height": 10**5, "width": 10**5}))(
                    folder
                )
                for path in folder.glob("*processor_config.json")
            ]
            and None
        ),
        "enlarges pictures to 100,000 pixels",
        (42, 60),
    ),
    "shard-outside": HostileModel(
        with_shard_outside, "reads files outside of its folder as weights", (42, 60)
    ),
}


def spoiled(good: Path, place: Path, model: HostileModel) -> Path:
    """Return a copy of a good folder with the hostile change made."""
    shutil.copytree(good, place)
    model.spoil(place)
    return place
