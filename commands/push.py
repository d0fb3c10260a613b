"""`push`: the index of a folder to Milvus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from imprompt.commands.options import IndexFolder, Json, Quiet, Verbose
from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.store.milvus.upload import PushReport


def push(
    place: Annotated[
        str,
        typer.Argument(
            metavar="milvus:ADDRESS",
            help="`milvus:http://HOST:PORT`, `milvus:http://HOST:PORT/DATABASE`, or `milvus:FILE.db` for Milvus Lite. "
            "A token goes into IMPROMPT_MILVUS_TOKEN.",
        ),
    ],
    index_type: Annotated[
        str | None,
        typer.Option(
            "--milvus-index-type",
            metavar="TYPE",
            help="FLAT, HNSW, IVF_FLAT, IVF_SQ8; on a cluster also IVF_RABITQ, DISKANN, GPU_CAGRA.",
            show_default="FLAT up to 100,000 prompts, HNSW above",
        ),
    ] = None,
    index_params: Annotated[
        str | None,
        typer.Option(
            "--milvus-index-params",
            metavar="JSON",
            help="Over the type's own: '{\"nlist\": 4096}'.",
            show_default=False,
        ),
    ] = None,
    replicas: Annotated[
        int, typer.Option("--replicas", min=1, help="In the memory of a cluster.")
    ] = 1,
    keep: Annotated[
        int,
        typer.Option(
            "--keep", min=0, help="How many versions that were in service before stay there."
        ),
    ] = 1,
    drop_unfinished: Annotated[
        bool,
        typer.Option(
            "--drop-unfinished",
            help="Drop what pushes of other versions left behind; none may be running.",
        ),
    ] = False,
    index: IndexFolder = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Send the index of a folder to Milvus, where `query`, `submit` and `serve` find it: `--index milvus:ADDRESS`.

    It is in service there when it is whole, and not before. A push that was broken off goes on
    where it stopped when the same command is given again; pushed twice, nothing is sent.
    """
    from imprompt.core.errors import ConfigError
    from imprompt.core.settings import MilvusPlace, index_place, settings
    from imprompt.store.milvus.upload import PushOptions
    from imprompt.store.milvus.upload import push as send

    output = Output(json=json, quiet=quiet, verbose=verbose)
    target = index_place(place)
    if not isinstance(target, MilvusPlace):
        raise ConfigError(
            f"{place} is not on Milvus.",
            hint="Name milvus:http://HOST:PORT[/DATABASE], or milvus:FILE.db.",
        )
    options = PushOptions(index_type, _params(index_params), replicas, keep, drop_unfinished)
    report = send(settings(index=index).index, target, options=options, progress=output.progress())
    if json:
        output.line(report)
    else:
        _show(output, report, str(target))


def _params(text: str | None) -> dict[str, Any] | None:
    import msgspec

    from imprompt.core.errors import ConfigError

    try:
        return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"--milvus-index-params is no JSON object: {error}.",
            hint="Such as '{\"nlist\": 4096}'.",
        ) from error


def _show(output: Output, report: PushReport, target: str) -> None:
    if not report.changed and not report.sent:
        output.text(
            f"Nothing to do: {target} has just this index in service ({report.rows:,} prompts, {report.version})."
        )
    else:
        output.text(
            f"{report.rows:,} prompts in service on {target}, {report.sent:,} of them sent now, {report.seconds:.1f} s "
            f"(version {report.version}, index {report.kind}, recall@5 of the probes {report.recall_at_5:.3f})."
        )
    for collection in report.dropped:
        output.text(f"dropped {collection}")
