"""`serve`: the HTTP API, the page, and the endpoints of other tools' clients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imprompt.commands.blend_options import Blend, Degrade
from imprompt.commands.options import (
    Device,
    EncoderName,
    IndexOption,
    Json,
    Offline,
    Quiet,
    Verbose,
)
from imprompt.commands.output import Output


def serve(
    host: Annotated[
        str, typer.Option("--host", help="Any other than loopback needs --token or --no-auth.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="The port to listen on.")
    ] = 7861,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="IMPROMPT_TOKEN",
            help="What clients must send; rather set the variable.",
            show_default=False,
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let everybody ask who reaches the host.")
    ] = False,
    allow_urls: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-urls",
            metavar="HOST",
            help="Fetch images from this host when asked to; may be repeated.",
            show_default=False,
        ),
    ] = None,
    blend: Blend = None,
    degrade: Degrade = False,
    max_batch: Annotated[
        int,
        typer.Option(
            "--max-batch", min=1, max=256, help="Questions that a model gets at once, at most."
        ),
    ] = 32,
    map_index: Annotated[
        bool,
        typer.Option(
            "--map-index",
            help="Map the index's files instead of reading them; docs/serving.md says when.",
        ),
    ] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="The log as JSON, one object a line.")
    ] = False,
    index: IndexOption = None,
    encoder: EncoderName = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Serve the index: a page for the browser, an API, and what clients of AUTOMATIC1111 and clip-retrieval call.

    Models and index are loaded once; a newly published version is taken up by itself.
    docs/serving.md shows the clients.
    """
    from imprompt.core.errors import ConfigError
    from imprompt.core.settings import settings
    from imprompt.encoders.registry import load_encoder, load_index_encoder
    from imprompt.store.index_version import pin_manifest

    try:
        from imprompt.server.server_settings import ServerSettings, check_access
        from imprompt.server.serving import serve as run
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed.",
            hint="Install what serving needs: pip install 'imprompt[serve]'",
        ) from error

    output = Output(json=json, quiet=quiet, verbose=verbose)
    chosen = settings(index=index, offline=offline)
    check_access(host=host, token=token, no_auth=no_auth)
    if isinstance(
        chosen.place, Path
    ):  # a folder without an index is told before the models are loaded; a server is asked once
        with pin_manifest(chosen.place):
            output.detail(f"Index {chosen.place}.")
    config = ServerSettings(
        index=chosen.place,
        host=host,
        port=port,
        token=token,
        url_hosts=tuple(allow_urls or ()),
        blend_config=blend or "default",
        encoder=encoder,
        degrade=degrade,
        device=device,
        offline=chosen.offline,
        max_batch=max_batch,
        map_index=map_index,
        log_json=log_json or json,
    )

    load = load_encoder if encoder else load_index_encoder
    run(
        config,
        load=lambda name: load(name, device=device, offline=chosen.offline, announce=output.note),
        announce=output.note,
    )
