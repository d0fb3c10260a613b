"""`info`: what an index holds."""

from __future__ import annotations

from imprompt.commands.options import IndexOption, Json, Quiet, Verbose
from imprompt.commands.output import Output, funnel, grid, size_text


def info(
    index: IndexOption = None, json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Show what the index holds, by which encoder, and where it lies.

    `--json` prints the whole manifest.
    """
    from imprompt.core.settings import settings
    from imprompt.store.open_index import open_place

    output = Output(json=json, quiet=quiet, verbose=verbose)
    place = settings(index=index).place
    with open_place(place) as version:
        manifest, index_lines = version.manifest, version.index_lines
    if json:
        output.line(manifest)
        return
    encoder = manifest.encoders[0]
    corpus = ", ".join(
        f"{part.name}{' (synthetic)' if part.synthetic else ''}" for part in manifest.corpus
    )
    rows = [
        ("index", str(place)),
        ("version", manifest.version),
        ("created", manifest.created),
        ("prompts", f"{manifest.rows:,}"),
        ("corpus", corpus),
        ("encoder", f"{encoder.name} ({encoder.dim}-d, space {encoder.space})"),
        ("size on disk", size_text(sum(file.bytes for file in manifest.files.values()))),
        ("rows digest", manifest.rows_digest),
        *((f"index {space}", line) for space, line in index_lines.items()),
    ]
    output.table(grid("", ["", ""], rows))
    output.table(funnel(manifest.funnel))
