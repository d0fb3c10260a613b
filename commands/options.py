"""Options that several verbs share, spelled and explained once."""

from __future__ import annotations

from typing import Annotated

import typer

ASK, CORPUS, IMPROVE, OPERATE = "Ask", "Corpus", "Improve", "Operate"

IndexFolder = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="FOLDER",
        help="Folder of the index. [env: IMPROMPT_INDEX; otherwise the user's data folder]",
        show_default=False,
    ),
]
IndexOption = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="PLACE",
        help="Folder of the index, or Milvus: `milvus:http://HOST:PORT`, `milvus:http://HOST:PORT/DATABASE`, `milvus:FILE.db`. "
        "[env: IMPROMPT_INDEX; otherwise the user's data folder]",
        show_default=False,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Machine-readable answers on standard output, one object a line."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No notes and no progress; errors are still said.")
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Say more; show where an unexpected error comes from."),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Never use the network. [env: IMPROMPT_OFFLINE]")
]
EncoderName = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="`lite`, `lite:HEADFILE`, `ARCH/PRETRAINED` (ViT-L-14/openai), `ARCH//path/to/weights`, `hf-hub:OWNER/NAME`, "
        "or a folder with open_clip_config.json.",
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="`auto`, `cpu`, `cuda`, or `openvino`: the processor, where lite then sees many pictures sooner.",
    ),
]
Neighbours = Annotated[int, typer.Option("-k", min=0, help="How many nearest prompts to show.")]
PromptColumn = Annotated[
    str | None,
    typer.Option("--column", help="The column that holds the prompts.", show_default="prompt"),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first N rows of each corpus.")
]
Sample = Annotated[
    int | None, typer.Option("--sample", min=1, help="N rows of each corpus, drawn by --seed.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the sample.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="End with an error where a row cannot be read.")
]
