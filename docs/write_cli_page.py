"""Writes docs/cli.md: every verb's `--help` and the table of exit codes, from the code itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from imprompt.core import errors  # noqa: E402  the path above makes it findable from a clone

PAGE = ROOT / "docs" / "cli.md"


def page() -> str:
    """The whole page as Markdown."""
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
    environment = {"PATH": "", "COLUMNS": "110", "TERM": "dumb", "NO_COLOR": "1", "LANG": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "cli.py", *words, "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    text = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
    return f"## {' '.join(words) or 'imprompt'}\n\n```text\n{text}\n```\n"


def _codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "| code | kind | when |\n| ---: | --- | --- |"
    yield "| 0 | | everything was done |"
    yield "| 1 | | a fault of imprompt itself; `--verbose` shows where |"
    yield "| 2 | usage | a word of the command line is wrong |"
    for kind in sorted(_tree(errors.ImpromptError), key=lambda kind: kind.exit_code):
        yield f"| {kind.exit_code} | {kind.kind} | {(kind.__doc__ or '').splitlines()[0]} |"
    yield "| 130 | | interrupted by the keyboard |"
    yield "| 141 | | nobody reads what is printed any more |\n"


def _tree(kind: type[errors.ImpromptError]) -> Iterator[type[errors.ImpromptError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _tree(child)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
