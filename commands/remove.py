"""`remove`: erase prompts from the index and from all older versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.options import IndexFolder
from imprompt.commands.output import Output, grid
from imprompt.core.text import size_text

if TYPE_CHECKING:
    from imprompt.indexer.removing import Preview, RemoveReport, RemoveRules


def remove(
    *,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="EXPR",
            help="Remove the prompts that this condition matches; syntax as in `query`.",
            show_default=False,
        ),
    ] = None,
    match: Annotated[
        Path | None,
        typer.Option(
            "--match",
            metavar="FILE",
            help="Remove the prompts that contain any line of this text file, ignoring case.",
            show_default=False,
        ),
    ] = None,
    regex: Annotated[
        bool, typer.Option("--regex", help="Treat the lines of --match as regular expressions.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Remove nothing; show the number of matches and the first ten."
        ),
    ] = False,
    index: IndexFolder = None,
    output: Output,
) -> None:
    """Erase prompts from the index for good: rewrite the rest and purge all older versions.

    Nothing is encoded. Unfinished builds in the index's folder, and the phrases that the
    interrogator took from the index, are purged too. Building again from a corpus that holds the
    prompts, or adding one, brings them back.
    """
    from imprompt.core.settings import settings
    from imprompt.ensemble.interrogator.corpus_phrases import forget_mined_phrases
    from imprompt.indexer.removing import preview_removal, remove_prompts

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


def _show_preview(output: Output, preview: Preview) -> None:
    if output.json:
        output.line({"rows": preview.rows, "matching": preview.matching, "first": preview.first})
        return
    rows = [
        (str(prompt.row_id), prompt.text, f"{prompt.source}:{prompt.source_key}")
        for prompt in preview.first
    ]
    if rows:
        columns = ["row", "prompt", "source"]
        output.table(grid(f"The first {len(rows)}", columns, rows, right=["row"]))
    output.text(f"{preview.matching:,} of {preview.rows:,} prompts would be removed.")


def _show(output: Output, report: RemoveReport, folder: Path) -> None:
    manifest = report.manifest
    if output.json:
        output.line(
            {
                "removed": report.removed,
                "rows": manifest.rows,
                "version": manifest.version,
                "purged": [{"removed": name, "bytes": size} for name, size in report.purged],
            }
        )
        return
    output.text(
        f"{report.removed:,} prompts removed, {manifest.rows:,} left, in {folder} "
        f"(version {manifest.version})."
    )
    for name, size in report.purged:
        output.text(f"purged {name} ({size_text(size)})")
