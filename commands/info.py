"""`info`: what an index holds."""

from __future__ import annotations

from commands.options import IndexFolder, Json, Quiet, Verbose
from commands.output import Output, funnel, grid, size_text


def info(index: IndexFolder = None, json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Show what the index holds, by which encoder, and where it lies. `--json` prints the whole manifest."""
    from core.config import settings
    from store.generation import open_generation

    output = Output(json=json, quiet=quiet, verbose=verbose)
    folder = settings(index=index).index
    with open_generation(folder) as generation:
        manifest = generation.manifest
    if json:
        output.line(manifest)
        return
    encoder = manifest.encoders[0]
    corpus = ", ".join(f"{part.name}{' (synthetic)' if part.synthetic else ''}" for part in manifest.corpus)
    rows = [
        ("index", str(folder)),
        ("generation", manifest.generation),
        ("created", manifest.created),
        ("prompts", f"{manifest.rows:,}"),
        ("corpus", corpus),
        ("encoder", f"{encoder.name} ({encoder.dim}-d, space {encoder.space})"),
        ("size on disk", size_text(sum(file.bytes for file in manifest.files.values()))),
        ("rows digest", manifest.rows_digest),
        *(
            (f"index {space}", f"{part.factory}, recall@10 {part.recall_at_10:.3f} with effort {part.effort:.2f}")
            for space, part in manifest.indexes.items()
        ),
    ]
    output.table(grid("", ["", ""], rows))
    output.table(funnel(manifest.funnel))
