"""Settings of one server, and the limits on its requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from imprompt.core.errors import ConfigError
from imprompt.core.settings import IndexPlace
from imprompt.images.image_opening import ImageLimits

TOKEN_VARIABLE = "IMPROMPT_TOKEN"  # noqa: S105 the name of a variable
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on one request and on the load of the server; `/v1/info` lists them.

    The bodies of all requests in progress hold at most `max_held_bytes`, and at most `max_waiting`
    jobs wait for each queue; beyond either the server answers 503 with Retry-After. Each image is
    read within `read_timeout_s` by a process that may allocate `reader_memory_bytes`.
    """

    max_body_bytes: int = 64 << 20
    max_image_bytes: int = 32 << 20
    max_pixels: int = 50_000_000
    max_images: int = 16
    max_texts: int = 256
    max_text_characters: int = 10_000
    max_k: int = 1000
    body_timeout_s: float = 20.0
    read_timeout_s: float = 10.0
    reader_memory_bytes: int = 1536 << 20
    answer_timeout_s: float = 60.0
    max_waiting: int = 64
    max_waiting_pixels: int = 200_000_000
    max_held_bytes: int = 256 << 20

    @property
    def image(self) -> ImageLimits:
        """The limits on one image file."""
        return ImageLimits(max_bytes=self.max_image_bytes, max_pixels=self.max_pixels)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one server.

    Args:
        token: what clients must send; None allows unauthenticated access.
        url_hosts: the only hosts that images are fetched from.
        picture_folders: the only folders that pictures of `images:` corpora are shown from.
        encoder: the encoder's name; None uses that of the index.
        degrade: answer without the ensemble members that are unavailable.
        max_batch: jobs per batch, at most; 1 turns micro-batching off.
        watch_s: seconds between checks for a new version of the index.
        map_index: memory-map the index files instead of reading them.
    """

    index: IndexPlace
    host: str = "127.0.0.1"
    port: int = 7861
    token: str | None = None
    url_hosts: tuple[str, ...] = ()
    picture_folders: tuple[Path, ...] = ()
    blend_config: str = "default"
    encoder: str | None = None
    degrade: bool = False
    device: str = "auto"
    offline: bool = False
    max_batch: int = 32
    watch_s: float = 1.0
    map_index: bool = False
    log_json: bool = False
    limits: Limits = field(default_factory=Limits)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK


def check_access(*, host: str, token: str | None, no_auth: bool) -> None:
    """Refuse to open the server to the network without a token, unless `no_auth` allows it.

    Raises:
        ConfigError: `host` is not a loopback address and there is neither a token nor `no_auth`;
            both are set; or the token is too short or not printable ASCII.
    """
    if token is not None and no_auth:
        raise ConfigError("--token and --no-auth cannot be combined.", hint="Use one of them.")
    if token is not None and (
        len(token) < _MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable()
    ):
        raise ConfigError(
            f"The token has {len(token)} characters; it needs at least {_MIN_TOKEN_LENGTH}, "
            "all printable ASCII.",
            hint="Generate one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    if host not in LOOPBACK and token is None and not no_auth:
        raise ConfigError(
            f"{host} can be reached from the network, and no token is set.",
            hint=f"Set --token (or {TOKEN_VARIABLE}), or allow anyone with --no-auth.",
        )
