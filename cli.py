"""imprompt's command line: registers the verbs of `commands/` and turns errors into one line and an exit code.

Nothing heavy is imported here or at the top of a verb's file, so that `--help` answers at once.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sys

import typer

from imprompt.commands.add import add
from imprompt.commands.build_index import build_index
from imprompt.commands.dedupe import dedupe
from imprompt.commands.doctor import doctor
from imprompt.commands.embed import embed
from imprompt.commands.evaluate import evaluate
from imprompt.commands.extract import extract
from imprompt.commands.fit_weights import fit_weights
from imprompt.commands.gc import gc
from imprompt.commands.info import info
from imprompt.commands.options import ASK, CORPUS, IMPROVE, OPERATE
from imprompt.commands.plan import plan
from imprompt.commands.prefetch import prefetch
from imprompt.commands.push import push
from imprompt.commands.query import query
from imprompt.commands.remove import remove
from imprompt.commands.serve import serve
from imprompt.commands.submit import submit
from imprompt.commands.train import train
from imprompt.commands.verify import verify
from imprompt.core.errors import ImpromptError, StorageFull
from imprompt.core.text import printable

_INTERRUPTED, _READER_GONE = 130, 141
_ROOM = "Make room there and call it again."

app = typer.Typer(
    name="imprompt",
    help="Finds the prompt behind an image: reads it where the file carries it, else matches the image to real prompts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("query", rich_help_panel=ASK)(query)
app.command("extract", rich_help_panel=ASK)(extract)
app.command("submit", rich_help_panel=ASK)(submit)
app.command("embed", rich_help_panel=ASK)(embed)
app.command("serve", rich_help_panel=ASK)(serve)
app.command("build-index", rich_help_panel=CORPUS)(build_index)
app.command("add", rich_help_panel=CORPUS)(add)
app.command("remove", rich_help_panel=CORPUS)(remove)
app.command("dedupe", rich_help_panel=CORPUS)(dedupe)
app.command("info", rich_help_panel=CORPUS)(info)
app.command("plan", rich_help_panel=CORPUS)(plan)
app.command("push", rich_help_panel=CORPUS)(push)
app.command("train", rich_help_panel=IMPROVE)(train)
app.command("evaluate", rich_help_panel=IMPROVE)(evaluate)
app.command("fit-weights", rich_help_panel=IMPROVE)(fit_weights)
app.command("doctor", rich_help_panel=OPERATE)(doctor)
app.command("prefetch", rich_help_panel=OPERATE)(prefetch)
app.command("verify", rich_help_panel=OPERATE)(verify)
app.command("gc", rich_help_panel=OPERATE)(gc)


def main() -> None:
    """Run the command line and end the process: with 0, 2 for usage, or an error's `exit_code` (the table is in docs/cli.md)."""
    code = 1

    def end_at_once() -> None:
        """The interpreter's own end takes torch and the others apart: half a second for memory that the system takes back anyway.

        The first exit handler that is registered is called last, when threads have ended and every
        other handler was called.
        """
        with contextlib.suppress(OSError, ValueError):
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    _fill_closed_streams()
    atexit.register(end_at_once)
    code = run()
    sys.exit(code)


def _fill_closed_streams() -> None:
    """What the caller closed (`>&-`) leads nowhere; else the next file that is opened would get its number, and what is printed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115 until the end
            setattr(sys, name, nowhere)


def run() -> int:
    """The exit code of the command line, once its errors are told and its output is written; the process goes on."""
    code = _run_verb()
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 1
        )  # what is left leads nowhere, else the interpreter tries it again
        if error.errno == errno.EPIPE:
            return code or _READER_GONE
        if not code:
            _say(f"error: standard output cannot be written: {error.strerror}. {_ROOM}")
            return StorageFull.exit_code
    return code


def _run_verb() -> int:
    try:
        app()
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            _say("Interrupted; what was finished is kept, the same command goes on from there.")
        if ended.code == 1 and isinstance(ended.__context__, BrokenPipeError):
            return _READER_GONE  # for which rich and click have no code of its own
        if isinstance(ended.code, str):
            _say(ended.code)
            return 1
        return ended.code or 0
    except ImpromptError as error:
        _say(f"error: {error}")
        return error.exit_code
    except Exception as error:
        if "--verbose" in sys.argv or "-v" in sys.argv:
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _say(
                f"error: {error.filename or 'standard output or a file'} cannot be written: {error.strerror}. {_ROOM}"
            )
            return StorageFull.exit_code
        _say(
            f"error: unexpected {type(error).__name__}: {error}. This is a fault of imprompt; --verbose shows where."
        )
        return 1
    return 0


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(printable(text.replace("\n", " ")) + "\n")


if __name__ == "__main__":
    main()
