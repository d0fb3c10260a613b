"""Writes docs/cli.md from the code: the `--help` of every verb and the table of exit codes."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from imprompt.commands import config_file
from imprompt.core import errors, settings
from imprompt.server.server_settings import TOKEN_VARIABLE

PAGE = Path(__file__).resolve().parent / "cli.md"
_RUN = "import sys; sys.argv[0] = 'imprompt'; from imprompt.cli import main; main()"
_VARIABLES = {
    settings.INDEX_VARIABLE: "the index, as `--index` does",
    settings.OFFLINE_VARIABLE: "1: never use the network, as `--offline` does",
    settings.CONFIG_VARIABLE: "another file in place of `config.toml`",
    TOKEN_VARIABLE: "the bearer token that clients of `serve` must send",
    settings.MILVUS_TOKEN_VARIABLE: "the token, or USER:PASSWORD, of a Milvus server",
    "OPENAI_API_KEY, OPENAI_BASE_URL": "for a captioner `openai:URL#MODEL`: its key, and the "
    "address if it is on another machine",
    "OMP_NUM_THREADS": "how many threads compute; all processors by default",
    "HF_TOKEN, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE": "of the Hugging Face hub: the token, the "
    "folder of its cache, a mirror, and no network",
    "HTTPS_PROXY, NO_PROXY": "the proxy for downloads, and for which hosts there is none",
    "XDG_DATA_HOME, XDG_CACHE_HOME, XDG_CONFIG_HOME": "on Linux: where the default index, the "
    "cache and `config.toml` are",
}
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
        *_defaults(),
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


def _defaults() -> Iterator[str]:
    yield "## Defaults of your own\n"
    yield (
        "`imprompt doctor` shows where imprompt looks for `config.toml`. A line in it sets the "
        "default of an option.\n"
    )
    text = inspect.cleandoc(config_file.__doc__ or "")
    example, _, rules = text.partition("\n\n")[2].partition("\n\nA key ")
    yield f"```toml\n{textwrap.dedent(example)}\n```\n"
    yield f"A key {rules}\n"
    yield "## Environment variables\n"
    yield "| variable | what it sets |\n| --- | --- |"
    yield from (f"| `{name}` | {meaning} |" for name, meaning in _VARIABLES.items())
    yield ""


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
