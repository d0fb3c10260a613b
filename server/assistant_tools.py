"""The tools that `imprompt mcp` gives to assistants, and the folders that they may read.

The Model Context Protocol (https://modelcontextprotocol.io) is spoken by the package `mcp`; what is
said here is what `query --json` prints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import ConfigError, ImpromptError, QueryError
from imprompt.core.pip_lines import install_extra
from imprompt.retriever.answers import Answer, Question
from imprompt.retriever.filters import Filters

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from imprompt.ensemble.ensemble import Ensemble
    from imprompt.retriever import Retriever

MOST_PROMPTS = 50
"""How many prompts a tool returns at most: an assistant reads all of them."""

_INSTRUCTIONS = """\
imprompt finds the prompt behind an image made with Stable Diffusion and similar models.
read_prompt reads what the file itself carries; find_prompt does that, and otherwise composes a
prompt from those of similar images, which is an estimate: say so. search_prompts finds real prompts
near a text, in English."""


class AssistantTools:
    """The tools; models are loaded at the first question that needs them.

    Args:
        folders: the only ones whose images are read, links out of them excluded.
        load: opens the index and its models.

    Raises:
        ConfigError: no folder is named, or one is none.
    """

    def __init__(
        self, folders: Sequence[Path], load: Callable[[], tuple[Retriever, Ensemble]]
    ) -> None:
        if not folders:
            raise ConfigError(
                "No folder is named.", hint="Name the folders whose images may be read."
            )
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(f"{folder} is not a folder.", hint="Name folders of images.")
        self._folders = [folder.resolve() for folder in folders]
        self._load = load

    @cached_property
    def _loaded(self) -> tuple[Retriever, Ensemble]:
        return self._load()

    def read_prompt(self, path: str) -> dict[str, Any]:
        """Read the prompt that an image file carries, with its negative prompt and settings.

        The prompt is null if the file carries none. Nothing is estimated.

        Args:
            path: the image file, in one of the folders that the user has named.
        """
        from imprompt.images.prompts.embedded_prompts import read_embedded_prompt

        found = read_embedded_prompt(self._allowed(path), hidden=True)
        if found is None:
            return {"prompt": None, "how": "none"}
        return {
            "prompt": found.prompt,
            "how": found.how,
            "negative": found.negative,
            "tool": found.tool,
            "settings": found.settings,
            "doubt": found.doubt,
        }

    def find_prompt(self, path: str, nearest: int = 5) -> dict[str, Any]:
        """Find the prompt behind an image: read from the file, or else estimated.

        `how` says which: "exact", "carried" or "estimated". An estimate has its phrases, each with
        how many of the nearest prompts hold it, and `close` is false where it is only a guess.

        Args:
            path: the image file, in one of the folders that the user has named.
            nearest: how many prompts of similar images to return, 0 to 50.
        """
        from imprompt.ensemble.estimates import ask

        retriever, ensemble = self._loaded
        question = Question(self._allowed(path))
        (result,) = ask(
            [question], _checked(nearest, 0) or 1, retriever=retriever, ensemble=ensemble
        )
        return _answer(result, nearest)

    def search_prompts(
        self, text: str, count: int = 10, contains: str = "", exclude: str = ""
    ) -> dict[str, Any]:
        """Search real prompts near an English text, the nearest first.

        Args:
            text: what to search for.
            count: how many prompts to return, 1 to 50.
            contains: words that each prompt must contain.
            exclude: words that no prompt may contain.
        """
        filters = Filters(None, tuple(filter(None, [contains])), tuple(filter(None, [exclude])))
        retriever, _ = self._loaded
        (result,) = retriever.ask([Question(None, text)], _checked(count, 1), filters=filters)
        return _answer(result, count)

    def _allowed(self, path: str) -> Path:
        """Return the path if it lies in one of the folders.

        Raises:
            QueryError: it does not, or a link leads out of them.
        """
        named = Path(path)
        tried = [named] if named.is_absolute() else [folder / named for folder in self._folders]
        for candidate in tried:
            try:
                resolved = candidate.resolve()
            except (OSError, RuntimeError, ValueError):
                continue
            within = any(resolved.is_relative_to(folder) for folder in self._folders)
            if within and (named.is_absolute() or resolved.exists()):
                return resolved
        folders = ", ".join(map(str, self._folders))
        raise QueryError(
            f"{path} is not in a folder that may be read.", hint=f"These may: {folders}."
        )


def mcp_server(tools: AssistantTools) -> MCPServer[Any]:
    """Return a server of the Model Context Protocol with the three tools.

    Raises:
        ConfigError: the package `mcp` is not installed.
    """
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError as error:
        raise ConfigError(
            f"`imprompt mcp` needs the package mcp: {error}.", hint=install_extra("mcp")
        ) from error
    import functools

    from imprompt.indexer.provenance import imprompt_version

    server: MCPServer[Any] = MCPServer(
        "imprompt", instructions=_INSTRUCTIONS, version=imprompt_version(), log_level="ERROR"
    )

    def told(tool: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(tool)
        def run(*words: Any, **named: Any) -> dict[str, Any]:
            try:
                return tool(*words, **named)
            except ImpromptError as error:
                raise ToolError(str(error)) from error

        return run

    for tool in (tools.read_prompt, tools.find_prompt, tools.search_prompts):
        server.tool()(told(tool))
    return server


def _checked(count: int, least: int) -> int:
    if not least <= count <= MOST_PROMPTS:
        raise QueryError(
            f"{count} prompts cannot be returned.", hint=f"Ask for {least} to {MOST_PROMPTS}."
        )
    return count


def _answer(result: Answer | ImpromptError, nearest: int) -> dict[str, Any]:
    """Return what an assistant needs of an answer.

    Raises:
        ImpromptError: the question could not be answered.
    """
    if isinstance(result, ImpromptError):
        raise result
    value = result.nearest(nearest).to_json()
    left = ("row_ids", "row_id", "prompt_key")
    for part in ("phrases", "shared", "nearest"):
        for item in value.get(part, ()):
            for name in left:
                item.pop(name, None)
    return {name: item for name, item in value.items() if name not in ("version", "seconds")}
