"""`remove`: prompts out of the index, and out of everything older."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.options import IndexFolder, Json, Quiet, Verbose
from imprompt.commands.output import Output, grid, size_text

if TYPE_CHECKING:
    from imprompt.indexer.removing import Preview, RemoveReport, RemoveRules


def remove(
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="EXPR",
            help="The prompts of which this is true; as in `query`.",
            show_default=False,
        ),
    ] = None,
    match: Annotated[
        Path | None,
        typer.Option(
            "--match",
            metavar="FILE",
            help="The prompts that hold any line of this text file, whatever the case.",
            show_default=False,
        ),
    ] = None,
    regex: Annotated[
        bool, typer.Option("--regex", help="The lines of --match are regular expressions.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Remove nothing; show how many it would be, and the first ten."
        ),
    ] = False,
    index: IndexFolder = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Take prompts out of the index by rule, for good: the rest is written afresh, and all older versions are purged.

    Nothing is encoded. Unfinished builds in the index's folder and the phrases that the
    interrogator mined are purged, too. To build again from a corpus that holds the prompts, or to
    add another one that does, brings them back.
    """
    from imprompt.core.settings import settings
    from imprompt.ensemble.interrogator.corpus_phrases import forget_mined_phrases
    from imprompt.indexer.removing import preview_removal, remove_prompts

    output = Output(json=json, quiet=quiet, verbose=verbose)
    folder = settings(index=index).index
    rules = _rules(where, match, regex=regex)
    if dry_run:
        _show_preview(output, preview_removal(folder, rules))
    else:
        report = remove_prompts(folder, rules, progress=output.progress())
        forget_mined_phrases()
        _show(output, report, folder)


def _rules(where: str | None, match: Path | None, *, regex: bool) -> RemoveRules:
    from imprompt.core.errors import ConfigError
    from imprompt.indexer.removing import rules_of_file, rules_where

    if where is not None and match is None and not regex:
        return rules_where(where)
    if match is not None and where is None:
        return rules_of_file(match, regex=regex)
    raise ConfigError(
        "remove takes either --where EXPR or --match FILE.",
        hint="Name exactly one of them; --regex goes with --match.",
    )


def _show_preview(output: Output, found: Preview) -> None:
    if output.json:
        output.line({"rows": found.rows, "matching": found.matching, "first": found.first})
        return
    rows = [
        (str(prompt.row_id), prompt.text, f"{prompt.source}:{prompt.source_key}")
        for prompt in found.first
    ]
    if rows:
        output.table(
            grid(f"The first {len(rows)}", ["row", "prompt", "source"], rows, right=["row"])
        )
    output.text(f"{found.matching:,} of {found.rows:,} prompts would be removed.")


def _show(output: Output, report: RemoveReport, folder: Path) -> None:
    manifest = report.manifest
    if output.json:
        purged = [{"removed": name, "bytes": size} for name, size in report.purged]
        output.line(
            {
                "removed": report.removed,
                "rows": manifest.rows,
                "version": manifest.version,
                "purged": purged,
            }
        )
        return
    output.text(
        f"{report.removed:,} prompts removed, {manifest.rows:,} left, in {folder} (version {manifest.version})."
    )
    for name, size in report.purged:
        output.text(f"purged {name} ({size_text(size)})")
