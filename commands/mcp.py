"""`mcp`: give assistants the tools of imprompt, by the Model Context Protocol."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.ensemble_options import EnsembleOptions
from imprompt.commands.index_options import IndexOptions, open_index
from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.ensemble.ensemble import Ensemble
    from imprompt.retriever import Retriever


def mcp(
    *,
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER…", help="The folders whose images an assistant may read."),
    ],
    ensemble: EnsembleOptions,
    location: IndexOptions,
    output: Output,
) -> None:
    """Give assistants tools to read, find and search prompts (Model Context Protocol).

    An assistant starts this command and talks to it by standard input and output. Its tools are
    `read_prompt`, `find_prompt` and `search_prompts`. Only images in FOLDER… are read.
    """
    from imprompt.retriever import Retriever
    from imprompt.server.assistant_tools import AssistantTools, mcp_server

    with ExitStack() as stack:

        def load() -> tuple[Retriever, Ensemble]:
            index = stack.enter_context(open_index(output, location))
            loaded = ensemble.load(index, output)
            return Retriever(index.version, loaded.neighbourhood.encoder), loaded

        mcp_server(AssistantTools(folders, load)).run("stdio")
