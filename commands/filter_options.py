"""Which prompts may answer, and how hard they are looked for: the options."""

from __future__ import annotations

from typing import Annotated

import typer

Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="EXPR",
        help="Only prompts of which this is true, in the syntax of SQL: \"n_submitted >= 3 AND text ILIKE '%castle%'\".",
        show_default=False,
    ),
]
Contains = Annotated[
    list[str] | None,
    typer.Option(
        "--contains",
        metavar="WORDS",
        help="Only prompts that hold these words; may be given again.",
        show_default=False,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="WORDS",
        help="No prompt that holds these words; may be given again.",
        show_default=False,
    ),
]
NoArtists = Annotated[
    bool,
    typer.Option(
        "--no-artists",
        help="No prompt that names an artist, by the list of the package clip-interrogator.",
    ),
]
Effort = Annotated[
    float | None,
    typer.Option(
        "--effort",
        min=0,
        max=1,
        help="How much of a large index is looked at, from 0 (fast) to 1 (exact, everything).",
        show_default="that of the recall which `info` shows",
    ),
]
