"""How one server runs, and what it takes at most."""

from __future__ import annotations

from dataclasses import dataclass, field

from imprompt.core.errors import ConfigError
from imprompt.core.settings import IndexPlace
from imprompt.images.image_opening import ImageLimits

TOKEN_VARIABLE = "IMPROMPT_TOKEN"  # noqa: S105 the name of a variable
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may hold, and how much waits at once; `/v1/info` states them.

    All bodies that are being read or answered together hold at most `max_held_bytes`; `max_waiting`
    questions wait for each model. Beyond either comes 503 with Retry-After. An image is read within
    `read_timeout_s` by a process that may take `reader_memory_bytes`; `image` says what its file
    may ask for.
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
        return ImageLimits(max_bytes=self.max_image_bytes, max_pixels=self.max_pixels)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One server: its index, its models, who may ask, and how it speaks.

    `encoder` None takes the index's own. `token` None lets everybody ask who reaches `host`.
    `url_hosts` are the only hosts that images are fetched from. `max_batch` is how many questions a
    model gets at once; 1 turns micro-batching off. `watch_s` is how often the index's place is
    looked at for a new version. `map_index` maps the files of the index instead of reading them.
    """

    index: IndexPlace
    host: str = "127.0.0.1"
    port: int = 7861
    token: str | None = None
    url_hosts: tuple[str, ...] = ()
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
        return self.host in LOOPBACK


def check_access(*, host: str, token: str | None, no_auth: bool) -> None:
    """Refuse to open a server to the network without a token, unless that was asked for in so many words.

    Raises:
        ConfigError: the host is not this machine's own and there is neither a token nor `no_auth`,
            or the token is short.
    """
    if token is not None and no_auth:
        raise ConfigError("--token and --no-auth exclude each other.", hint="Give one of them.")
    if token is not None and (
        len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable()
    ):
        raise ConfigError(
            f"the token has {len(token)} characters; it needs at least {_SHORTEST_TOKEN}, all of them printable ASCII.",
            hint="Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    if host not in LOOPBACK and token is None and not no_auth:
        raise ConfigError(
            f"{host} is reached by others, and no token was given.",
            hint=f"Give --token (or {TOKEN_VARIABLE}), or say --no-auth to let everybody ask.",
        )
