"""Writes docs/cli.md from the code: the `--help` of every verb and the table of exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from imprompt.core import errors

PAGE = Path(__file__).resolve().parent / "cli.md"
_RUN = "import sys; sys.argv[0] = 'imprompt'; from imprompt.cli import main; main()"
_ENVIRONMENT = {
    "PATH": "",
    "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    "COLUMNS": "110",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "LANG": "C.UTF-8",
}


def page() -> str:
    """Return the whole page as Markdown."""
    from imprompt.cli import app

    verbs = [str(command.name) for command in app.registered_commands]
    parts = [
        "# Command line\n",
        "Written by `make docs` from the commands themselves.\n",
        _help(),
        *map(_help, verbs),
        *_codes(),
    ]
    return "\n".join(parts)


def _help(*words: str) -> str:
    shown = subprocess.run(
        [sys.executable, "-c", _RUN, *words, "--help"],
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    text = "\n".join(line.rstrip() for line in shown.strip().splitlines())
    return f"## {' '.join(words) or 'imprompt'}\n\n```text\n{text}\n```\n"


def _codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "| code | kind | when |\n| ---: | --- | --- |"
    yield "| 0 | | everything was done |"
    yield "| 1 | | a fault of imprompt; `--verbose` shows the traceback |"
    for kind in sorted(_tree(errors.ImpromptError), key=lambda kind: kind.exit_code):
        yield f"| {kind.exit_code} | {kind.kind} | {(kind.__doc__ or '').splitlines()[0]} |"
    yield "| 130 | | interrupted from the keyboard |"
    yield "| 141 | | the reader of standard output has gone |\n"


def _tree(kind: type[errors.ImpromptError]) -> Iterator[type[errors.ImpromptError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _tree(child)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
