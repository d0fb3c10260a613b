"""`pack`: write the index as one file, to hand on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from imprompt.commands.options import IndexFolder
from imprompt.commands.output import Output
from imprompt.core.text import size_text


class PackedVectors(StrEnum):
    """How a pack holds vectors."""

    FLOAT16 = "float16"
    INT8 = "int8"


def pack(
    *,
    out: Annotated[
        Path, typer.Argument(metavar="OUT.imprompt", help="The file to write.", show_default=False)
    ],
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            metavar="ENCODER",
            help="Pack only the vectors of this encoder or space; repeatable. [default: all]",
            show_default=False,
        ),
    ] = None,
    without_sources: Annotated[
        bool,
        typer.Option(
            "--without-sources",
            help="Leave out what may be private: names of corpora, the file or row of each prompt, "
            "negative prompts and settings.",
        ),
    ] = False,
    vectors: Annotated[
        PackedVectors,
        typer.Option(
            "--vectors",
            help="`int8` rounds vectors to one byte a value: half the size. Of the ten nearest "
            "prompts .996 (texts) and .993 (images) stay; the card says what it costs this index.",
        ),
    ] = PackedVectors.FLOAT16,
    licence: Annotated[
        str,
        typer.Option(
            "--licence",
            metavar="TEXT",
            help="The licence of the prompts, such as CC0-1.0. [default: none is stated]",
            show_default=False,
        ),
    ] = "",
    sign: Annotated[
        Path | None,
        typer.Option(
            "--sign",
            metavar="KEY",
            help="Sign with this private key of OpenSSH, into OUT.imprompt.sig.",
            show_default=False,
        ),
    ] = None,
    index: IndexFolder = None,
    output: Output,
) -> None:
    """Write the index as one file for `install`: prompts, vectors, search index and a card.

    The same version gives the same bytes. The file is a ZIP of zstd files, with a README.md that
    says what is in it; it holds no code and no model.
    """
    import msgspec

    from imprompt.core.atomic_files import atomic_write
    from imprompt.core.settings import settings
    from imprompt.core.signatures import check_key
    from imprompt.core.signatures import sign as signature_of
    from imprompt.store.index_version import open_version
    from imprompt.store.packs.int8_vectors import roundings_of
    from imprompt.store.packs.packing import PackOptions, pack_version, signature_path

    if sign is not None:
        check_key(sign)
    folder = settings(index=index).index
    options = PackOptions(
        tuple(space or ()),
        sources=not without_sources,
        licence=licence,
        int8=vectors is PackedVectors.INT8,
    )
    with open_version(folder) as version:
        for encoder in version.manifest.encoders:
            if Path(encoder.name.partition(":")[2] or encoder.name).is_absolute():
                output.note(
                    f"The encoder is named by a path of this machine, {encoder.name}: whoever "
                    "installs the pack reads that name, and needs the same file there."
                )
        record = pack_version(version, out, options, progress=output.progress())
    signature = None
    if sign is not None:
        signature = signature_path(out)
        with atomic_write(signature) as file:
            file.write(signature_of(out, sign))
    size = out.stat().st_size
    roundings = roundings_of(record.manifest)
    if output.json:
        output.line(
            {
                "file": str(out),
                "bytes": size,
                "rows": record.manifest.rows,
                "rows_digest": record.manifest.rows_digest,
                "without": record.without,
                "licence": record.licence,
                "vectors": {
                    space: msgspec.to_builtins(roundings.get(space))
                    for space in record.manifest.shards
                },
                "signature": None if signature is None else str(signature),
            }
        )
        return
    output.text(f"{record.manifest.rows:,} prompts, {size_text(size)}, in {out}.")
    for part in record.without:
        output.text(f"  without {part}")
    for name, rounding in roundings.items():
        output.text(f"  vectors of {name} {rounding}")
    output.text(f"  licence: {record.licence or 'none stated (--licence)'}")
    output.text(f"  signed: {signature}" if signature else "  not signed (--sign KEY)")
