"""How a function becomes a verb: groups of options are expanded, and help is shown literally.

A verb takes a group as one parameter whose type is a dataclass; each field that `__init__` takes is
an option.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from imprompt.core.errors import ConfigError


class VerbCommand(TyperCommand):
    """A command whose help shows square brackets; rich takes `[env: NAME]` for markup."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        _escape_help((self, *self.params))
        super().format_help(ctx, formatter)


class VerbGroup(TyperGroup):
    """The list of all verbs, with square brackets shown as in `VerbCommand`.

    Options have the defaults of the user's file, see `imprompt.commands.config_file`.
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Return the context of a run."""
        if {"-h", "--help", "--version"}.isdisjoint(args):
            from imprompt.commands.config_file import defaults

            try:
                extra.setdefault("default_map", defaults(self))
            except ConfigError as error:
                if args[:1] != ["doctor"]:  # which shows the error, and all else
                    raise
                extra["obj"] = error
        return super().make_context(info_name, args, parent, **extra)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        _escape_help((self, *self.params, *self.commands.values()))
        super().format_help(ctx, formatter)


def register(app: typer.Typer, panel: str, verbs: Iterable[Callable[..., None]]) -> None:
    """Add verbs to the command line, under their functions' names, in one panel of the help."""
    for verb in verbs:
        name = verb.__name__.replace("_", "-")
        app.command(name, cls=VerbCommand, rich_help_panel=panel)(_expanded(verb))


def _expanded(verb: Callable[..., None]) -> Callable[..., None]:
    """Return the verb with the options of each group in place of the group."""
    signature = inspect.signature(verb, eval_str=True)
    groups = {
        name: list(_options(parameter.annotation))
        for name, parameter in signature.parameters.items()
        if is_dataclass(parameter.annotation)
    }

    @functools.wraps(verb)
    def run(**values: Any) -> None:
        for name, options in groups.items():
            group = signature.parameters[name].annotation
            values[name] = group(**{option.name: values.pop(option.name) for option in options})
        verb(**values)

    expanded = [
        option
        for name, parameter in signature.parameters.items()
        for option in groups.get(name, [parameter])
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what typer reads
        parameters=expanded
    )
    return run


def _options(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        if field.init:
            yield inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=hints[field.name],
            )


def _escape_help(items: Iterable[Any]) -> None:
    """Escape markup in the help of commands and options, and undo the source's line breaks."""
    from rich.markup import escape

    for item in items:
        if getattr(item, "help", None):
            paragraphs = inspect.cleandoc(item.help).split("\n\n")
            item.help = escape("\n\n".join(" ".join(text.split()) for text in paragraphs))
