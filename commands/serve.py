"""`serve`: the HTTP API, the page, and the endpoints of other tools' clients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.ensemble_options import Blend, Degrade
from imprompt.commands.index_options import IndexOptions
from imprompt.commands.options import EncoderName
from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.core.protocols import DualEncoder


def serve(
    *,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="The address to listen on; any other than loopback needs --token or --no-auth.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="The port to listen on.")
    ] = 7861,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="IMPROMPT_TOKEN",
            help="The bearer token that clients must send. Prefer the environment variable.",
            show_default=False,
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Allow unauthenticated access.")
    ] = False,
    allow_urls: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-urls",
            metavar="HOST",
            help="Let clients name images by URL on this host; repeatable.",
            show_default=False,
        ),
    ] = None,
    thumbnails: Annotated[
        list[Path] | None,
        typer.Option(
            "--thumbnails",
            metavar="FOLDER",
            help="Show the pictures of an images:FOLDER corpus on the page, from this folder; "
            "repeatable.",
            show_default=False,
        ),
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in your browser when the server is ready.")
    ] = False,
    blend: Blend = None,
    degrade: Degrade = False,
    max_batch: Annotated[
        int,
        typer.Option("--max-batch", min=1, max=256, help="Maximum number of questions per batch."),
    ] = 32,
    map_index: Annotated[
        bool,
        typer.Option(
            "--map-index",
            help="Memory-map the index's files instead of reading them; see docs/serving.md.",
        ),
    ] = False,
    location: IndexOptions,
    encoder: EncoderName = None,
    output: Output,
) -> None:
    """Serve the index: a web page, an API, and endpoints for AUTOMATIC1111 and clip-retrieval.

    Models and index are loaded once; newly published versions are picked up automatically.
    docs/serving.md shows the clients. With `--json`, the log is one JSON object per line.
    """
    from imprompt.core.values import EncoderSpec
    from imprompt.encoders.registry import load_index_encoder
    from imprompt.server.server_settings import ServerSettings, check_access
    from imprompt.server.serving import serve as run_server
    from imprompt.store.index_version import pin_manifest

    run = location.settings()
    check_access(host=host, token=token, no_auth=no_auth)
    if isinstance(run.place, Path):  # report a missing index before loading models
        with pin_manifest(run.place):
            output.detail(f"Index {run.place}.")
    config = ServerSettings(
        index=run.place,
        host=host,
        port=port,
        token=token,
        url_hosts=tuple(allow_urls or ()),
        picture_folders=tuple(thumbnails or ()),
        blend_config=blend or "default",
        encoder=encoder,
        degrade=degrade,
        device=location.device,
        offline=run.offline,
        max_batch=max_batch,
        map_index=map_index,
        log_json=output.json,
    )

    def load(spec: EncoderSpec) -> DualEncoder:
        return load_index_encoder(
            spec, named=encoder, device=location.device, offline=run.offline, announce=output.note
        )

    run_server(config, load=load, announce=output.note, open_page=open_page)
