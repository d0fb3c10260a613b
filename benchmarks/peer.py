"""clip-retrieval's back end over the vectors of an index, for `serve.py` and `serve_clip.py`.

Once, to prepare its folders:

    python3.11 -m venv PEER && PEER/bin/pip install clip-retrieval==2.45.0 "setuptools<81"
    python benchmarks/peer.py --index INDEX --peer PEER/bin/python --folder FOLDER

FOLDER/same holds the index's FAISS file, FOLDER/chosen the index that clip-retrieval builds of the
same vectors by default. The back end does not start without a CLIP model, so it gets a tiny one
with random weights, good for queries by vector only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from imprompt.store.index_version import open_version

INDEX_NAME = "imprompt"
LAYOUTS = ("same", "chosen")
OFFLINE = {"HF_HUB_OFFLINE": "1"}
TINY_MODEL = """
import json, sys
from pathlib import Path
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel
folder = Path(sys.argv[1])
text = {"hidden_size": 32, "intermediate_size": 64}
text |= {"num_hidden_layers": 1, "num_attention_heads": 2}
vision = {**text, "patch_size": 32}
config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
CLIPModel(config).save_pretrained(folder)
CLIPImageProcessor().save_pretrained(folder)
(folder / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1}))
(folder / "merges.txt").write_text("#version: 0.2\\n")
(folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
"""


def lay_out(index: Path, peer: Path, folder: Path, *, layouts: Sequence[str] = LAYOUTS) -> None:
    """Write the files of the back end, from an index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    embeddings = folder / "embeddings"
    for name in ("embeddings/text_emb", "embeddings/metadata", "same", "model"):
        (folder / name).mkdir(parents=True)
    with open_version(index) as version:
        rows = np.arange(version.manifest.rows)
        np.save(
            embeddings / "text_emb" / "text_emb_0.npy",
            version.vectors(version.space).rows(rows).astype(np.float16),
        )
        captions = [prompt.text for prompt in version.prompts.get_many(rows)]
        shutil.copyfile(
            version.folder / version.manifest.indexes[version.space].file,
            folder / "same" / "text.index",
        )
    pq.write_table(pa.table({"caption": captions}), embeddings / "metadata" / "metadata_0.parquet")
    shutil.copytree(embeddings / "metadata", folder / "same" / "metadata")
    subprocess.run([peer, "-c", TINY_MODEL, folder / "model"], check=True)
    if "chosen" in layouts:
        program, chosen = peer.with_name("clip-retrieval"), folder / "chosen"
        paths = ["--embeddings_folder", str(embeddings), "--index_folder", str(chosen)]
        subprocess.run([program, "index", *paths], check=True)
    for layout in layouts:
        (folder / f"{layout}.json").write_text(
            json.dumps({INDEX_NAME: str(folder / layout)}), "utf-8"
        )


def describe(peer: Path, folder: Path, layout: str) -> dict[str, str | float]:
    """Return class and size of the FAISS index, and the versions of its readers."""
    code = (
        "import faiss, json, sys; from importlib.metadata import version as v; "
        "index = faiss.downcast_index(faiss.read_index(sys.argv[1])); "
        "print(json.dumps({'index': type(index).__name__, 'clip_retrieval': v('clip-retrieval'), "
        "'faiss': v('faiss-cpu'), 'open_clip': v('open_clip_torch')}))"
    )
    file = folder / layout / "text.index"
    reader = subprocess.run([peer, "-c", code, file], check=True, capture_output=True, text=True)
    about: dict[str, str | float] = json.loads(reader.stdout)
    return about | {"index_mib": round(file.stat().st_size / 2**20, 1)}


@contextmanager
def peer_served(
    peer: Path, folder: Path, layout: str, port: int, *, model: str = ""
) -> Iterator[tuple[str, int]]:
    """Yield (address, process id) of a running back end; by default with the tiny model."""
    model = model or f"hf_clip:{folder / 'model'}"
    command = [
        "back",
        f"--indices_paths={folder / layout}.json",
        f"--port={port}",
        f"--clip_model={model}",
        "--enable_mclip_option=False",
        "--provide_aesthetic_embeddings=False",
        "--use_jit=False",
    ]
    with (folder / f"{layout}.log").open("w") as log:
        server = subprocess.Popen(
            [peer.with_name("clip-retrieval"), *command],
            stdout=log,
            stderr=log,
            env=os.environ | OFFLINE,
        )
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/indices-list", timeout=5):
                    break
            except OSError:
                if server.poll() is not None:
                    sys.exit(
                        f"clip-retrieval ended with {server.returncode}: {folder / layout}.log"
                    )
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", server.pid
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Prepare the folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    lay_out(args.index.absolute(), args.peer.absolute(), args.folder.absolute())


if __name__ == "__main__":
    main()
