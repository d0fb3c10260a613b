"""The options of cleaning: which prompts a build leaves out, and which it folds into one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.core.errors import ConfigError

if TYPE_CHECKING:
    from imprompt.indexer.cleaning_rules import Cleaning

PANEL = "Cleaning"
OFF = "off"


class Unsafe(StrEnum):
    """What happens to unsafe prompts."""

    DROP = "drop"
    KEEP = "keep"


MinWords = Annotated[
    int | None,
    typer.Option("--min-words", min=1, help="Leave out shorter prompts.", rich_help_panel=PANEL),
]
MaxWords = Annotated[
    int | None,
    typer.Option("--max-words", min=1, help="Leave out longer prompts.", rich_help_panel=PANEL),
]
MinTokens = Annotated[
    int | None,
    typer.Option(
        "--min-tokens", min=1, help="The same in the encoder's tokens.", rich_help_panel=PANEL
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        min=1,
        help="The same; longer prompts are cut otherwise.",
        rich_help_panel=PANEL,
    ),
]
Languages = Annotated[
    list[str] | None,
    typer.Option(
        "--language",
        metavar="CODE",
        help="Leave out prompts in other languages: en, de, …; may be repeated. Needs the extra `language`.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
KeepContacts = Annotated[
    bool,
    typer.Option(
        "--keep-contacts",
        help="Keep prompts with e-mail addresses, phone numbers and @handles.",
        rich_help_panel=PANEL,
    ),
]
UnsafePrompts = Annotated[
    Unsafe,
    typer.Option(
        "--unsafe",
        help="Prompts that the corpus calls unsafe (`prompt_nsfw`) or, where it does not say, that hold a word of the list.",
        rich_help_panel=PANEL,
    ),
]
NsfwLimit = Annotated[
    float,
    typer.Option(
        "--nsfw-limit", min=0, max=1, help="From which `prompt_nsfw` on.", rich_help_panel=PANEL
    ),
]
UnsafeWordsFile = Annotated[
    Path | None,
    typer.Option(
        "--unsafe-words",
        help="Your own list, one word or phrase a line.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
NearDuplicates = Annotated[
    str,
    typer.Option(
        "--near-duplicates",
        metavar="T|off",
        help="Fold prompts whose words agree by T (Jaccard index, 0.6 to 1) into one.",
        rich_help_panel=PANEL,
    ),
]
MarkNear = Annotated[
    bool,
    typer.Option(
        "--mark-near-duplicates",
        help="Keep them all, and group them, so that `query` can fold them.",
        rich_help_panel=PANEL,
    ),
]
DroppedFile = Annotated[
    Path | None,
    typer.Option(
        "--dropped",
        metavar="FILE",
        help="Write examples of what each rule left out, 20 a rule, as JSON lines.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]


def threshold(option: str, value: str) -> float | None:
    """The number that was given, None for "off".

    Raises:
        ConfigError: it is neither.
    """
    if value.lower() == OFF:
        return None
    try:
        return float(value)
    except ValueError as error:
        raise ConfigError(
            f"{option} {value!r} is no number.", hint=f"Say a number such as 0.9, or {OFF}."
        ) from error


def cleaning_of(
    *,
    words: tuple[int | None, int | None],
    tokens: tuple[int | None, int | None],
    languages: list[str] | None,
    keep_contacts: bool,
    unsafe: Unsafe,
    nsfw_limit: float,
    near_duplicates: str,
    mark_near: bool,
) -> Cleaning:
    """The settings of a build, from the options.

    Raises:
        ConfigError: a threshold is no number.
    """
    from imprompt.indexer.cleaning_rules import Cleaning

    return Cleaning(
        min_words=words[0],
        max_words=words[1],
        min_tokens=tokens[0],
        max_tokens=tokens[1],
        languages=tuple(languages or ()),
        contacts=not keep_contacts,
        unsafe=unsafe is Unsafe.DROP,
        nsfw_limit=nsfw_limit,
        near_duplicates=threshold("--near-duplicates", near_duplicates),
        mark_near=mark_near,
    )
