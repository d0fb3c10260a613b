"""imprompt's command line: registers the verbs and maps errors to one line and an exit code.

Nothing heavy is imported here or at the top of a verb's file, so that `--help` answers at once.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib.util
import io
import os
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 a clone is run by whatever Python there is
    raise SystemExit(
        f"error: imprompt needs Python 3.11 or newer; this is {sys.version.split()[0]}."
    )

if not __package__:
    # `python cli.py` runs the code next to this file, whichever imprompt is installed, if any.
    _HERE = Path(__file__).resolve().parent
    _SPEC = importlib.util.spec_from_file_location(
        "imprompt", _HERE / "__init__.py", submodule_search_locations=[str(_HERE)]
    )
    if _SPEC is None or _SPEC.loader is None:
        raise SystemExit(f"error: {_HERE} is not a copy of imprompt.")
    sys.modules["imprompt"] = importlib.util.module_from_spec(_SPEC)
    _SPEC.loader.exec_module(sys.modules["imprompt"])

try:
    import typer

    from imprompt.commands.about import about
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
    from imprompt.commands.install import install
    from imprompt.commands.mcp import mcp
    from imprompt.commands.pack import pack
    from imprompt.commands.plan import plan
    from imprompt.commands.prefetch import prefetch
    from imprompt.commands.push import push
    from imprompt.commands.query import query
    from imprompt.commands.registration import VerbGroup, register
    from imprompt.commands.reindex import reindex
    from imprompt.commands.remove import remove
    from imprompt.commands.serve import serve
    from imprompt.commands.submit import submit
    from imprompt.commands.train import train
    from imprompt.commands.verify import verify
    from imprompt.commands.watch import watch
    from imprompt.core.errors import ConfigError, ImpromptError, StorageFull
    from imprompt.core.text import printable
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] == "imprompt":
        raise
    from imprompt.core.pip_lines import missing_package

    raise SystemExit(f"error: {missing_package(_error)}") from None

_INTERRUPTED, _READER_GONE = 130, 141
_FREE_SPACE = "Free some space and run the command again."

app = typer.Typer(
    name="imprompt",
    cls=VerbGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    callback=about,
)
register(app, "Ask", [query, watch, extract, submit, embed, serve, mcp])
register(app, "Corpus", [build_index, add, remove, dedupe, reindex, info, plan])
register(app, "Share", [pack, install, push])
register(app, "Improve", [train, evaluate, fit_weights])
register(app, "Operate", [doctor, prefetch, verify, gc])


def main() -> None:
    """Run the command line and end the process with its exit code (see docs/cli.md)."""
    code = 1

    def end_at_once() -> None:
        """Skip the interpreter's teardown of torch and others, which takes half a second.

        Python calls the exit handler that was registered first last, after threads have ended and
        all other handlers have run.
        """
        with contextlib.suppress(OSError, ValueError):
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    _fill_closed_streams()
    _write_utf8()
    atexit.register(end_at_once)
    code = run()
    sys.exit(code)


def _fill_closed_streams() -> None:
    """Point standard streams that the caller closed (`>&-`) to the null device.

    Otherwise the next file to be opened would get a stream's number, and receive what is printed.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = open(  # noqa: PTH123, SIM115 open until the process ends
                os.devnull, mode, encoding="utf-8", errors="backslashreplace"
            )
            setattr(sys, name, null)


def _write_utf8() -> None:
    """Write UTF-8 to files and pipes, whatever the code page of Windows: prompts have any letter.

    A terminal of another encoding shows "?" for what it lacks.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            if stream.isatty():
                stream.reconfigure(errors="replace")
            else:
                stream.reconfigure(encoding="utf-8")


def run() -> int:
    """Run the verb in `sys.argv`, print its error, flush its output, and return the exit code."""
    code = _run_verb()
    try:
        sys.stdout.flush()
    except OSError as error:
        # Discard the rest, or the interpreter tries to flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if error.errno == errno.EPIPE:
            return code or _READER_GONE
        if not code:
            _say(f"error: standard output cannot be written: {error.strerror}. {_FREE_SPACE}")
            return StorageFull.exit_code
    return code


def _run_verb() -> int:
    try:
        app()
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            _say("Interrupted. Finished work is kept; run the command again to resume.")
        if ended.code == 1 and isinstance(ended.__context__, BrokenPipeError):
            return _READER_GONE  # rich and click have no exit code for it
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
            file = error.filename or "standard output or a file"
            _say(f"error: {file} cannot be written: {error.strerror}. {_FREE_SPACE}")
            return StorageFull.exit_code
        if isinstance(error, ModuleNotFoundError) and error.name:
            from imprompt.core.pip_lines import missing_package
            from imprompt.environment.packages import extra_with

            _say(f"error: {missing_package(error, extra=extra_with(error.name))}")
            return ConfigError.exit_code
        _say(
            f"error: unexpected {type(error).__name__}: {error}. This is a fault of imprompt; "
            "--verbose shows the traceback."
        )
        return 1
    return 0


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(printable(text.replace("\n", " ")) + "\n")


if __name__ == "__main__":
    main()
