"""`install`: put a packed index into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.options import IndexFolder, Offline
from imprompt.commands.output import Output
from imprompt.core.text import size_text

if TYPE_CHECKING:
    from imprompt.environment.pack_files import LocalPack
    from imprompt.indexer.installing import InstallReport


def install(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="PACK",
            help="A file that `pack` wrote, `hf:OWNER/NAME[@REVISION][:FILE]` (a data set of the "
            "hub), or an https address.",
            show_default=False,
        ),
    ],
    signer: Annotated[
        Path | None,
        typer.Option(
            "--signer",
            metavar="FILE",
            help="Refuse a pack that is not signed by this public key of OpenSSH, or by one of a "
            "file of allowed signers. [default: signatures are not checked]",
            show_default=False,
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite an index of other content.")
    ] = False,
    index: IndexFolder = None,
    offline: Offline = False,
    output: Output,
) -> None:
    """Install a packed index: check it, unpack it, and put it in service.

    Nothing in the file is run. To resume an interrupted download or installation, repeat the
    command. An index that is there already stays in service until the new one is complete.
    """
    from imprompt.core.settings import settings
    from imprompt.core.signatures import check_signature
    from imprompt.environment.pack_files import local_pack, missing_weights
    from imprompt.indexer.installing import install_pack
    from imprompt.store.paths import refuse_other_files

    run = settings(index=index, offline=offline)
    folder = run.index
    refuse_other_files(folder)
    pack = local_pack(source, signed=signer is not None, offline=run.offline, announce=output.note)
    signed_by = None
    if signer is not None:
        signed_by = check_signature(pack.path, pack.signature, signer)
    report = install_pack(folder, pack.path, replace=replace, progress=output.progress())
    pack.clean_up()
    missing = missing_weights(report.manifest)
    if output.json:
        output.line(
            {
                "installed": report.installed,
                "signed_by": signed_by,
                "licence": report.record.licence,
                "without": report.record.without,
                "derived": report.derived,
                "missing": missing,
                "manifest": report.manifest,
            }
        )
        return
    _show(output, report, pack, folder, signed_by)
    for line in missing:
        output.note(f"warning: {line}")


def _show(
    output: Output, report: InstallReport, pack: LocalPack, folder: Path, signed_by: str | None
) -> None:
    manifest = report.manifest
    if not report.installed:
        output.text(
            f"Nothing to do: {folder} already holds this index "
            f"({manifest.rows:,} prompts, version {manifest.version})."
        )
    else:
        output.text(
            f"{manifest.rows:,} prompts of {manifest.corpus_label}, "
            f"{size_text(manifest.n_bytes)}, in {folder} (version {manifest.version})."
        )
    for part in report.record.without:
        output.text(f"  without {part}")
    if report.derived:
        output.text("  MiniLM's vectors, computed from those of lite")
    output.text(f"  licence, as its packer states it: {report.record.licence or 'none'}")
    if signed_by is not None:
        output.text(f"  signed by {signed_by}")
    elif pack.signature.is_file():
        output.text("  signed, not checked: name the signer's public key with --signer")
    else:
        output.text("  not signed: who packed it is not known")
