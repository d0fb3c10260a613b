"""`info`: show what the index holds."""

from __future__ import annotations

from imprompt.commands.options import IndexAddress
from imprompt.commands.output import Output, funnel, grid
from imprompt.core.text import printable, size_text


def info(*, index: IndexAddress = None, output: Output) -> None:
    """Show what the index holds, which encoder made it, and where it is.

    `--json` prints the whole manifest.
    """
    from imprompt.core.settings import settings
    from imprompt.store.open_index import open_place
    from imprompt.store.packs.int8_vectors import roundings_of

    place = settings(index=index).place
    with open_place(place) as version:
        manifest, index_lines = version.manifest, version.index_lines
    if output.json:
        output.line(manifest)
        return
    encoder = manifest.encoders[0]
    rows = [
        ("index", str(place)),
        ("version", manifest.version),
        ("created", manifest.created),
        ("prompts", f"{manifest.rows:,}"),
        ("corpus", manifest.corpus_label),
        ("encoder", f"{encoder.name} ({encoder.dim}-d, space {encoder.space})"),
        ("size on disk", size_text(manifest.n_bytes)),
        ("rows digest", manifest.rows_digest),
        *([("with parameters", f"{manifest.parameters:,}")] if manifest.parameters else []),
        *([("licence", printable(manifest.licence))] if manifest.licence else []),
        *((f"index {space}", line) for space, line in index_lines.items()),
        *((f"vectors {space}", str(each)) for space, each in roundings_of(manifest).items()),
    ]
    output.table(grid("", ["", ""], rows))
    output.table(funnel(manifest.funnel))
