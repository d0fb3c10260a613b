"""The programs that `benchmarks/encode.py` compares, each in its own process.

    python encode_programs.py NAME WEIGHTS

Reads lines of JSON, `{"what": "texts" or "images", "folder": …, "batch": …}`, and answers each with
a line: the seconds from files on disk to vectors in memory, the CPU seconds, the first vectors, and
the peak memory.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ARCHITECTURE = "ViT-B-32"
FIRST = 8

Encode = Callable[[str, Path, int], Any]


def files(folder: Path, inputs: str) -> list[Path]:
    """Return the files of a folder, sorted by name."""
    return sorted(folder.glob("*.txt" if inputs == "texts" else "*.jpg"))


def ours(weights: Path) -> Encode:
    """Encode texts like a shard of `build-index`, and images like `embed`.

    `batch` 0 keeps the default size.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from imprompt.encoders.batches import IMAGES_A_BATCH, TEXTS_A_BATCH
    from imprompt.encoders.openclip import load_openclip
    from imprompt.images.decode import ENOUGH_PX, open_image
    from imprompt.retriever.query_embedding import embed_rows

    encoder = load_openclip(f"{ARCHITECTURE}//{weights}")
    load = partial(open_image, enough_px=ENOUGH_PX)

    def encode(inputs: str, folder: Path, batch: int) -> Any:
        if inputs == "texts":
            encoder.texts._batches.batch_size = batch or TEXTS_A_BATCH
            return encoder.texts.encode([path.read_text("utf-8") for path in files(folder, inputs)])
        encoder.images._batches.batch_size = batch or IMAGES_A_BATCH
        paths = files(folder, inputs)
        return embed_rows(
            paths,
            load=load,
            encode=encoder.images.encode,
            dim=encoder.spec.dim,
            batch=batch or IMAGES_A_BATCH,
        ).vectors

    return encode


def open_clip(weights: Path) -> Encode:
    """Run the example in open_clip's README, a batch at a time."""
    import open_clip as library
    import torch
    from PIL import Image

    model, _, preprocess = library.create_model_and_transforms(
        ARCHITECTURE, pretrained=str(weights)
    )
    model.eval()
    tokenizer = library.get_tokenizer(ARCHITECTURE)

    def encode(inputs: str, folder: Path, batch: int) -> Any:
        paths, parts = files(folder, inputs), []
        for begin in range(0, len(paths), batch):
            chosen = paths[begin : begin + batch]
            with torch.no_grad():
                if inputs == "texts":
                    features = model.encode_text(
                        tokenizer([path.read_text("utf-8") for path in chosen])
                    )
                else:
                    features = model.encode_image(
                        torch.stack([preprocess(Image.open(path)) for path in chosen])
                    )
                features /= features.norm(dim=-1, keepdim=True)
            parts.append(features)
        return torch.cat(parts).numpy()

    return encode


def clip_retrieval(weights: Path) -> Encode:
    """Run `clip-retrieval inference` from its reader to its writer.

    In its favour the model is loaded once, not for every run.
    """
    import numpy as np
    from all_clip import load_clip
    from clip_retrieval.clip_inference.mapper import ClipMapper
    from clip_retrieval.clip_inference.reader import FilesReader
    from clip_retrieval.clip_inference.runner import Sampler
    from clip_retrieval.clip_inference.writer import NumpyWriter

    name = f"open_clip:{ARCHITECTURE}/{weights}"
    _, preprocess, tokenizer = load_clip(clip_model=name, use_jit=False, warmup_batch_size=1)
    options = {
        "enable_image": True,
        "enable_text": True,
        "enable_metadata": False,
        "use_mclip": False,
        "mclip_model": "",
    }
    mapper = ClipMapper(clip_model=name, use_jit=False, **options)

    def encode(inputs: str, folder: Path, batch: int) -> Any:
        parts = {
            "enable_image": inputs == "images",
            "enable_text": inputs == "texts",
            "enable_metadata": False,
        }
        mapper.enable_image, mapper.enable_text = parts["enable_image"], parts["enable_text"]
        out = tempfile.mkdtemp()
        reader = FilesReader(Sampler(0, 1), preprocess, tokenizer, str(folder), batch, 4, **parts)
        writer = NumpyWriter(0, out, output_partition_count=1, **parts)
        for item in reader:
            writer(mapper(item))
        writer.flush()
        kind = "text" if inputs == "texts" else "img"
        rows = np.load(next(Path(out).glob(f"{kind}_emb/*.npy"))).astype(np.float32)
        shutil.rmtree(out)
        return rows

    return encode


PROGRAMS = {"ours": ours, "open_clip": open_clip, "clip-retrieval": clip_retrieval}


def processor_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Answer requests until the input ends."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    encode = PROGRAMS[sys.argv[1]](Path(sys.argv[2]))
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        begin, used = time.perf_counter(), processor_s()
        rows = encode(request["what"], Path(request["folder"]), request["batch"])
        seconds, used = time.perf_counter() - begin, processor_s() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer = {
            "seconds": seconds,
            "processor_s": used,
            "rows": len(rows),
            "first": rows[:FIRST].tolist(),
            "peak_mib": peak,
        }
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
