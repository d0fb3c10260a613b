"""Small repositories for commands to download, each written by the library that reads it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.core.fake_hub import FakeHub
from tests.evaluation.worlds import THINGS

CLIP = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""Of `--preset clip`."""
SMALL_CLIP = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
"""Of `--preset clip-small`."""
OTHER_CLIP = "someone/clip"
SIGLIP = "someone/siglip"
"""In the layout of transformers."""
BLIP = "Salesforce/blip-image-captioning-large"
OFA = "OFA-Sys/ofa-large-caption"
BACKBONE = "test_vit.r160_in1k"
"""The smallest architecture of timm that is published, 0.4 million weights, in its real size."""
DIFFUSIONDB = "datasets/poloclub/diffusiondb"
PROMPTS = "datasets/someone/prompts"
PICTURES = "datasets/someone/pictures"
"""A WebDataset."""
PACK = "datasets/someone/pack"

SMALL_MODELS = """
import importlib.machinery, os, sys

class Smaller:
    "Adds a folder of configurations to open_clip's own, by its own function, once it is imported."

    def find_spec(self, name, path=None, target=None):
        if name != "open_clip":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        executed = spec.loader.exec_module
        def exec_module(module):
            executed(module)
            module.add_model_config(os.environ["SMALL_MODELS"])
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Smaller())
"""
"""A sitecustomize for the commands' processes that makes two of open_clip's models small."""


def shrink_models(folder: Path) -> dict[str, str]:
    """Make the presets' models small in other processes; return the environment that does."""
    from tests.encoders.clip_models import ARCHITECTURES

    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(SMALL_MODELS)
    (folder / "models").mkdir()
    for name in ("ViT-H-14", "ViT-B-32"):
        config = json.dumps(ARCHITECTURES["eos-pool"])
        (folder / "models" / f"{name}.json").write_text(config)
    return {"PYTHONPATH": str(folder), "SMALL_MODELS": str(folder / "models")}


def fill_hub(hub: FakeHub, folder: Path, *repos: str) -> None:
    """Put all or some repositories on the hub; their large files are on its CDN."""
    for repo in repos or WRITERS:
        for path in sorted(WRITERS[repo](folder / repo).rglob("*")):
            if path.is_file():
                name = f"{repo}/{path.relative_to(folder / repo).as_posix()}"
                hub.files[name] = path.read_bytes()
                if path.suffix in (".safetensors", ".bin", ".parquet", ".tar"):
                    hub.large.add(name)


def build_lite(folder: Path) -> None:
    """Build an index of two prompts with the built-in encoder, in `folder`/index."""
    from imprompt.encoders.lite import load_lite
    from imprompt.encoders.registry import output_encoder
    from imprompt.indexer.build import build_index
    from imprompt.indexer.readers.sources import parse_corpus

    folder.mkdir()
    (folder / "few.txt").write_text("a red fox\na blue lake\n", "utf-8")
    pair = load_lite()
    corpus = parse_corpus(str(folder / "few.txt"))
    build_index(folder / "index", [corpus], pair, extra=[output_encoder(pair)])


def _write_clip(folder: Path) -> Path:
    from tests.encoders.clip_models import write_model

    return write_model(folder, "eos-pool", preprocess=False)


def _write_small_clip(folder: Path) -> Path:
    from tests.encoders.clip_models import write_model

    return write_model(folder, "eos-pool", seed=3, preprocess=False)


def _write_siglip(folder: Path) -> Path:
    from tests.encoders.transformers_models import make_siglip

    folder.mkdir(parents=True)
    return make_siglip(folder, max_shard_size="10KB")


def _write_pictures(folder: Path) -> Path:
    folder.mkdir(parents=True)
    with tarfile.open(folder / "train-0000.tar", "w") as archive:
        for number, thing in enumerate(THINGS):
            texts = {"jpg": b"no picture is read", "txt": f"{thing}, watercolour".encode()}
            for suffix, content in texts.items():
                member = tarfile.TarInfo(f"{number:04}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return folder


def _write_other_clip(folder: Path) -> Path:
    from tests.encoders.clip_models import write_model

    return write_model(folder, "vit", seed=1)


def _write_blip(folder: Path) -> Path:
    from tests.ensemble.test_image_to_text import make_blip

    return make_blip(folder)


def _write_ofa(folder: Path) -> Path:
    import torch

    from imprompt.ensemble.ofa.network import Ofa
    from tests.ensemble.ofa.builders import EARLY, TINY_CONFIG, shapes_of, weights, write_checkpoint

    with torch.device("meta"):
        shapes = shapes_of(Ofa(TINY_CONFIG).state_dict())
    return write_checkpoint(folder, weights(shapes, pull=EARLY))


def _write_backbone(folder: Path) -> Path:
    import timm
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = timm.create_model(BACKBONE)
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def _write_diffusiondb(folder: Path) -> Path:
    prompts = [f"{thing}, oil painting" for thing in THINGS]
    folder.mkdir(parents=True)
    columns = {
        "image_name": [f"{number}.png" for number in range(len(prompts))],
        "prompt": prompts,
        "user_name": ["someone"] * len(prompts),
        "prompt_nsfw": [0.001] * len(prompts),
    }
    pq.write_table(pa.table(columns), folder / "metadata.parquet")
    return folder


def _write_prompts(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Prompts\n")
    half = len(THINGS) // 2
    for number, things in enumerate((THINGS[:half], THINGS[half:])):
        sink = io.BytesIO()
        pq.write_table(pa.table({"prompt": [f"{thing}, ink drawing" for thing in things]}), sink)
        name = f"data/train-{number:05}-of-00002.parquet"
        (folder / name).write_bytes(sink.getvalue())
    return folder


def _write_pack(folder: Path) -> Path:
    from imprompt.store.index_version import open_version
    from imprompt.store.packs.packing import pack_version
    from tests.indexer.small_index import build_small

    folder.mkdir(parents=True)
    (built := folder.parent / "built").mkdir()
    with open_version(build_small(built)) as version:
        pack_version(version, folder / "small.imprompt")
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    CLIP: _write_clip,
    SMALL_CLIP: _write_small_clip,
    OTHER_CLIP: _write_other_clip,
    SIGLIP: _write_siglip,
    BLIP: _write_blip,
    OFA: _write_ofa,
    f"timm/{BACKBONE}": _write_backbone,
    DIFFUSIONDB: _write_diffusiondb,
    PROMPTS: _write_prompts,
    PICTURES: _write_pictures,
    PACK: _write_pack,
}
