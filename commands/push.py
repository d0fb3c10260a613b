"""`push`: send the index of a folder to Milvus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from imprompt.commands.options import IndexFolder
from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.core.settings import MilvusPlace
    from imprompt.store.milvus.upload import PushReport


def push(
    *,
    address: Annotated[
        str,
        typer.Argument(
            metavar="milvus:ADDRESS",
            help="`milvus:URL` (http://HOST:PORT, or with /DATABASE), or `milvus:FILE.db` for "
            "Milvus Lite. "
            "[env for the token: IMPROMPT_MILVUS_TOKEN]",
        ),
    ],
    index_type: Annotated[
        str | None,
        typer.Option(
            "--milvus-index-type",
            metavar="TYPE",
            help="FLAT, HNSW, IVF_FLAT or IVF_SQ8; on a cluster also IVF_RABITQ, DISKANN or "
            "GPU_CAGRA.",
            show_default="FLAT up to 100,000 prompts, HNSW above",
        ),
    ] = None,
    index_params: Annotated[
        str | None,
        typer.Option(
            "--milvus-index-params",
            metavar="JSON",
            help="Index parameters that override the type's defaults, such as '{\"nlist\": 4096}'.",
            show_default=False,
        ),
    ] = None,
    replicas: Annotated[
        int, typer.Option("--replicas", min=1, help="Copies in the memory of a cluster.")
    ] = 1,
    keep: Annotated[
        int, typer.Option("--keep", min=0, help="Number of older versions to keep on Milvus.")
    ] = 1,
    drop_unfinished: Annotated[
        bool,
        typer.Option(
            "--drop-unfinished",
            help="Drop what interrupted pushes of other versions left; no push may be running.",
        ),
    ] = False,
    index: IndexFolder = None,
    output: Output,
) -> None:
    """Send the index to Milvus, for `query`, `submit` and `serve` with `--index milvus:ADDRESS`.

    The new version replaces the old one there once it is complete. To resume an interrupted push,
    repeat the command; pushing a version again sends nothing.
    """
    from imprompt.core.settings import settings
    from imprompt.store.milvus.upload import PushOptions
    from imprompt.store.milvus.upload import push as send

    target = _milvus_place(address)
    options = PushOptions(index_type, _params(index_params), replicas, keep, drop_unfinished)
    report = send(settings(index=index).index, target, options=options, progress=output.progress())
    if output.json:
        output.line(report)
    else:
        _show(output, report, str(target))


def _milvus_place(address: str) -> MilvusPlace:
    from imprompt.core.errors import ConfigError
    from imprompt.core.settings import MilvusPlace, index_place

    place = index_place(address)
    if isinstance(place, MilvusPlace):
        return place
    raise ConfigError(
        f"{address} is not an address of Milvus.",
        hint="Name milvus:http://HOST:PORT[/DATABASE], or milvus:FILE.db.",
    )


def _params(text: str | None) -> dict[str, Any] | None:
    import msgspec

    from imprompt.core.errors import ConfigError

    try:
        return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"--milvus-index-params is not a JSON object: {error}.",
            hint="Write it like '{\"nlist\": 4096}'.",
        ) from error


def _show(output: Output, report: PushReport, target: str) -> None:
    if not report.changed and not report.sent:
        output.text(
            f"Nothing to do: {target} already serves this index "
            f"({report.rows:,} prompts, version {report.version})."
        )
    else:
        output.text(
            f"{report.rows:,} prompts in service on {target}, {report.sent:,} of them sent now, "
            f"{report.seconds:.1f} s (version {report.version}, index {report.kind}, "
            f"recall@5 of the check queries {report.recall_at_5:.3f})."
        )
    for collection in report.dropped:
        output.text(f"dropped {collection}")
