"""The user's `config.toml`: defaults for options.

    index = "~/prompts/index"
    device = "cpu"

    [query]
    k = 5
    no-artists = true

A key at the top sets the default of that option for every command that has it; a key in a table,
for that command only. Options are named as on the command line, without the dashes. What you type
wins over the environment, that over the command's table, and that over the top of the file.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from imprompt.core.errors import ConfigError
from imprompt.core.settings import CONFIG_VARIABLE, INDEX_VARIABLE, OFFLINE_VARIABLE, config_path

_OF_ENVIRONMENT = {"index": INDEX_VARIABLE, "offline": OFFLINE_VARIABLE}
_TYPED_EACH_TIME = frozenset({"replace", "force", "drop-unfinished", "dry-run"})
_NO_VERB_OF_IT = frozenset({"remove"})
_SCALARS: tuple[type, ...] = (str, int, float)
_OF_PROGRAMS: dict[str, tuple[type, str]] = {
    "index": (str, "text"),
    "device": (str, "text"),
    "offline": (bool, "true or false"),
}
MOST_BYTES = 1 << 20
_HOW = 'A line is like `device = "cpu"`; a table like [query] is for one command.'


def defaults(group: Any) -> dict[str, dict[str, Any]]:
    """Return the default values of options, by verb and parameter, as click's `default_map`.

    Args:
        group: the command line, a `TyperGroup`, which knows the verbs and their options.

    Raises:
        ConfigError: the file cannot be read, is not TOML, names an unknown verb or option, or holds
            a value that the option does not take.
    """
    path = config_path()
    content = _read(path)
    if not content:
        return {}
    verbs = {
        name: _options(command)
        for name, command in group.commands.items()
        if name not in _NO_VERB_OF_IT
    }
    shared = {name: value for name, value in content.items() if not isinstance(value, dict)}
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    for name in shared:
        _check_known(path, name, kind="option", known=set().union(*verbs.values()))
    for verb, values in tables.items():
        _check_known(path, verb, kind="command", known=verbs)
        for name in values:
            _check_known(path, name, kind=f"option of `{verb}`", known=verbs[verb])
    found: dict[str, dict[str, Any]] = {}
    for verb, options in verbs.items():
        values = shared | tables.get(verb, {})
        found[verb] = {
            options[name].name: _checked(path, name, value, options[name], group.commands[verb])
            for name, value in values.items()
            if name in options and not os.environ.get(_OF_ENVIRONMENT.get(name, ""))
        }
    return found


def program_defaults() -> dict[str, Any]:
    """Return the values at the top of the file that programs use, too: index, device, offline.

    As on the command line, the environment wins over the file.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or a value is of the wrong kind.
    """
    path = config_path()
    content = _read(path)
    found: dict[str, Any] = {}
    for name, (kind, said) in _OF_PROGRAMS.items():
        if name not in content or os.environ.get(_OF_ENVIRONMENT.get(name, "")):
            continue
        if not isinstance(content[name], kind):
            raise ConfigError(
                f"{path}: {name} = {content[name]!r} cannot be used: it takes {said}.", hint=_HOW
            )
        found[name] = content[name]
    return found


def _read(path: Path) -> Mapping[str, Any]:
    """Return the content of the file; nothing where there is none and none was named."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        if not os.environ.get(CONFIG_VARIABLE):
            return {}
        raise ConfigError(
            f"{path}, which {CONFIG_VARIABLE} names, does not exist.",
            hint="Write it, or unset the variable.",
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", hint=_HOW) from error
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path} is longer than {MOST_BYTES >> 20} MiB.", hint=_HOW)
    import tomllib

    try:
        return tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.", hint=_HOW) from error


def _options(command: Any) -> dict[str, Any]:
    """Return the options of a verb by their names without dashes ("no-artists", "k")."""
    return {
        name.lstrip("-"): parameter
        for parameter in command.params
        if parameter.param_type_name == "option"
        for name in parameter.opts
        if name.lstrip("-") not in _TYPED_EACH_TIME
    }


def _check_known(path: Path, name: str, *, kind: str, known: Collection[str]) -> None:
    if name in known:
        return
    if name in _TYPED_EACH_TIME | _NO_VERB_OF_IT:
        raise ConfigError(
            f"{path}: {name!r} cannot have a default, because it can lose work.",
            hint="Remove the line, and type it where you mean it.",
        )
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    where = kind.partition("`")[2].partition("`")[0]
    listed = f"`imprompt {f'{where} ' if where else ''}--help` lists what there is."
    raise ConfigError(
        f"{path}: there is no {kind} {name!r}.",
        hint=f"Did you mean {close[0]!r}? {listed}" if close else listed,
    )


def _checked(path: Path, name: str, value: Any, option: Any, command: Any) -> Any:
    """Return a value of the file as the option takes it.

    Raises:
        ConfigError: the option does not take it.
    """
    import typer

    if option.multiple and not isinstance(value, list):
        value = [value]
    items = value if option.multiple else [value]
    wanted, said = ((bool,), "true or false") if option.is_flag else (_SCALARS, "text or a number")
    fits = all(
        isinstance(item, wanted) and isinstance(item, bool) == option.is_flag for item in items
    )
    problem = "" if fits else f"it takes {said}"
    if fits:
        try:
            option.process_value(typer.Context(command), value)
        except typer.BadParameter as error:
            problem = error.message.rstrip(".")
    if problem:
        raise ConfigError(f"{path}: {name} = {value!r} cannot be used: {problem}.", hint=_HOW)
    return value
