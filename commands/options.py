"""Options that several verbs share, spelled and explained once."""

from __future__ import annotations

import re
from typing import Annotated

import typer

_UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?", re.ASCII | re.IGNORECASE)

DEFAULT_MEMORY = "4GiB"

IndexFolder = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="FOLDER",
        help="The folder of the index. [env: IMPROMPT_INDEX; default: the user's data folder]",
        show_default=False,
    ),
]
IndexAddress = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="FOLDER|milvus:…",
        help="The folder of the index, or its address on Milvus: "
        "`milvus:URL` (http://HOST:PORT, or with /DATABASE) or `milvus:FILE.db`. "
        "[env: IMPROMPT_INDEX; default: the user's data folder]",
        show_default=False,
    ),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Never use the network. [env: IMPROMPT_OFFLINE]")
]
IgnoreMetadata = Annotated[
    bool, typer.Option("--ignore-metadata", help="Ignore the prompts in the image files.")
]
EncoderName = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="ENCODER",
        help="The encoder: `lite`, `lite:HEADFILE`, `ARCH/PRETRAINED` (such as ViT-L-14/openai), "
        "`ARCH/PRETRAINED//FILE`, `hf-hub:OWNER/NAME` (open_clip), `hf:OWNER/NAME` "
        "(transformers), or a folder with the files of such a repository.",
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="DEVICE", help="`auto`, `cpu`, `cuda`, or `mps` (a Mac's GPU)."
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="The number type that the encoder computes in: `auto` (half precision on CUDA, else "
        "float32), `float32`, or `bfloat16` on a device that supports it. The index records it.",
    ),
]
MemoryBudget = Annotated[
    str,
    typer.Option(
        "--memory-budget",
        metavar="SIZE",
        help="Memory the index may use while it answers, such as 4GiB.",
    ),
]
NewMemoryBudget = Annotated[
    str | None,
    typer.Option(
        "--memory-budget",
        metavar="SIZE",
        help="Memory the index may use while it answers, such as 8GiB. [default: as built]",
        show_default=False,
    ),
]


def size_bytes(text: str) -> int:
    """Return the number of bytes that a size such as `4GiB`, `500 MB`, `1.5g` or `1048576` means.

    Raises:
        ConfigError: not a size, or less than one byte.
    """
    from imprompt.core.errors import ConfigError

    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS.get(match[2].lower(), 0)) if match else 0
    if size < 1:
        raise ConfigError(f"{text!r} is not a size.", hint="Write it like 4GiB, 500MB or 1048576.")
    return size
