"""How a corpus is read, and which of its prompts a build leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imprompt.core.protocols import CorpusSource
    from imprompt.indexer.cleaning_rules import Cleaning

PANEL = "Cleaning"
OFF = "off"

PromptColumn = Annotated[
    str | None, typer.Option("--column", help="The column with the prompts.", show_default="prompt")
]


class Unsafe(StrEnum):
    """What happens to unsafe prompts."""

    DROP = "drop"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusOptions:
    """Which rows of a corpus are read, and what happens to those that are not used."""

    column: PromptColumn = None
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Read only the first N rows of each corpus."),
    ] = None
    sample: Annotated[
        int | None,
        typer.Option("--sample", min=1, help="Read N random rows of each corpus; see --seed."),
    ] = None
    seed: Annotated[int, typer.Option("--seed", help="Random seed of --sample.")] = 0
    strict: Annotated[bool, typer.Option("--strict", help="Fail if any row cannot be read.")] = (
        False
    )
    unsafe_words: Annotated[
        Path | None,
        typer.Option(
            "--unsafe-words",
            metavar="FILE",
            help="A list of unsafe words to use instead of the built-in one; one word or phrase "
            "per line.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    dropped: Annotated[
        Path | None,
        typer.Option(
            "--dropped",
            metavar="FILE",
            help="Write up to 20 examples of what each rule dropped, as JSON lines.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None

    def sources(
        self, specs: Iterable[str], *, offline: bool, announce: Callable[[str], None]
    ) -> list[CorpusSource]:
        """Return the corpora that `specs` name.

        Raises:
            ConfigError, CorpusError: a spec is not understood, or names nothing that is there.
        """
        from imprompt.indexer.readers.sources import parse_corpus

        return [
            parse_corpus(
                spec,
                column=self.column,
                limit=self.limit,
                sample=self.sample,
                seed=self.seed,
                offline=offline,
                announce=announce,
            )
            for spec in specs
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningOptions:
    """Which prompts a build drops."""

    min_words: Annotated[
        int | None,
        typer.Option(
            "--min-words", min=1, help="Drop prompts with fewer words.", rich_help_panel=PANEL
        ),
    ] = None
    max_words: Annotated[
        int | None,
        typer.Option(
            "--max-words", min=1, help="Drop prompts with more words.", rich_help_panel=PANEL
        ),
    ] = None
    min_tokens: Annotated[
        int | None,
        typer.Option(
            "--min-tokens",
            min=1,
            help="Drop prompts with fewer tokens, as the encoder counts them.",
            rich_help_panel=PANEL,
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=1,
            help="Drop prompts with more tokens. [default: truncate them to the encoder's limit]",
            rich_help_panel=PANEL,
        ),
    ] = None
    language: Annotated[
        list[str] | None,
        typer.Option(
            "--language",
            metavar="CODE",
            help="Keep only prompts in this language (en, de, …); repeatable.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    keep_contacts: Annotated[
        bool,
        typer.Option(
            "--keep-contacts",
            help="Keep prompts with e-mail addresses, phone numbers or @handles.",
            rich_help_panel=PANEL,
        ),
    ] = False
    unsafe: Annotated[
        Unsafe,
        typer.Option(
            "--unsafe",
            help="Drop or keep unsafe prompts: those with a high `prompt_nsfw`, or, in a corpus "
            "without that column, those with a word of the list.",
            rich_help_panel=PANEL,
        ),
    ] = Unsafe.DROP
    nsfw_limit: Annotated[
        float,
        typer.Option(
            "--nsfw-limit",
            min=0,
            max=1,
            help="Prompts whose `prompt_nsfw` is at least this are unsafe.",
            rich_help_panel=PANEL,
        ),
    ] = 0.5
    near_duplicates: Annotated[
        str,
        typer.Option(
            "--near-duplicates",
            metavar="T|off",
            help="Drop prompts that share at least T of their words with another one (Jaccard "
            "index, 0.6 to 1).",
            rich_help_panel=PANEL,
        ),
    ] = "0.9"
    mark_near_duplicates: Annotated[
        bool,
        typer.Option(
            "--mark-near-duplicates",
            help="Keep near-duplicates and only group them, so that `query` shows one per group.",
            rich_help_panel=PANEL,
        ),
    ] = False

    def cleaning(self) -> Cleaning:
        """Return the settings of a build.

        Raises:
            ConfigError: a threshold is not a number, or out of range.
        """
        from imprompt.indexer.cleaning_rules import Cleaning

        return Cleaning(
            min_words=self.min_words,
            max_words=self.max_words,
            min_tokens=self.min_tokens,
            max_tokens=self.max_tokens,
            languages=tuple(self.language or ()),
            contacts=not self.keep_contacts,
            unsafe=self.unsafe is Unsafe.DROP,
            nsfw_limit=self.nsfw_limit,
            near_duplicates=_threshold("--near-duplicates", self.near_duplicates),
            mark_near=self.mark_near_duplicates,
        )


def _threshold(option: str, value: str) -> float | None:
    """Return the number, or None for "off"."""
    from imprompt.core.errors import ConfigError

    if value.lower() == OFF:
        return None
    try:
        return float(value)
    except ValueError as error:
        raise ConfigError(
            f"{option} {value!r} is not a number.", hint=f"Give a number such as 0.9, or {OFF}."
        ) from error
