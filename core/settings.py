"""Settings of a run: where index and caches are, and whether the network may be used."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from imprompt.core.errors import ConfigError
from imprompt.core.text import as_utf8
from imprompt.core.url_schemes import url_scheme

INDEX_VARIABLE = "IMPROMPT_INDEX"
OFFLINE_VARIABLE = "IMPROMPT_OFFLINE"
CONFIG_VARIABLE = "IMPROMPT_CONFIG"
MILVUS_TOKEN_VARIABLE = "IMPROMPT_MILVUS_TOKEN"  # noqa: S105 the name of a variable

_MILVUS = "milvus:"
_LITE_SUFFIX = ".db"


@dataclass(frozen=True, slots=True)
class MilvusPlace:
    """Where a pushed index is: a server, http://HOST:PORT[/DATABASE], or a file of Milvus Lite.

    It never holds credentials; `str` returns what `--index` takes.
    """

    address: str

    @property
    def file(self) -> Path | None:
        """Return the file of Milvus Lite; None for a server."""
        return None if self.address.startswith(("http://", "https://")) else Path(self.address)

    def __str__(self) -> str:
        return f"{_MILVUS}{self.address}"


IndexPlace: TypeAlias = "Path | MilvusPlace"
"""A folder of this machine, or Milvus."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the index and the caches are; `offline` turns off `imprompt.core.hub.fetch`."""

    place: IndexPlace
    cache: Path
    offline: bool

    @property
    def index(self) -> Path:
        """Return the folder of the index.

        Raises:
            ConfigError: the index is on Milvus.
        """
        if isinstance(self.place, MilvusPlace):
            raise ConfigError(
                f"{self.place} is on Milvus; this command needs a local index folder.",
                hint="Name the folder with --index, then send it to Milvus with `imprompt push`.",
            )
        return self.place


def index_place(named: str) -> IndexPlace:
    """Return the folder, or the address on Milvus, that `--index` names.

    Raises:
        ConfigError: the address is malformed or holds credentials. The message does not repeat it,
            because it may hold them.
    """
    if not named.startswith(_MILVUS):
        if as_utf8(named) != named:
            raise ConfigError(
                f"The name of the index folder {as_utf8(named)} is not UTF-8.",
                hint="Name another folder.",
            )
        return Path(named).expanduser().absolute()
    address = named.removeprefix(_MILVUS)
    hint = f"Name milvus:http://HOST:PORT[/DATABASE], or milvus:FILE{_LITE_SUFFIX} for Milvus Lite."
    if not url_scheme(address):
        if not address.endswith(_LITE_SUFFIX):
            raise ConfigError(
                "The address after `milvus:` is neither http://… nor a file of Milvus Lite.",
                hint=hint,
            )
        return MilvusPlace(str(Path(address).expanduser().absolute()))
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise ConfigError(
            "The address after `milvus:` has no valid host or port.", hint=hint
        ) from error
    if "@" in address or parts.query or parts.fragment:
        raise ConfigError(
            "The address after `milvus:` may not hold a user name, a password or a token: others "
            "could see it.",
            hint=f"Set {MILVUS_TOKEN_VARIABLE} to the token, or to USER:PASSWORD.",
        )
    database = parts.path.strip("/")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not re.fullmatch(r"\w*", database)
    ):
        raise ConfigError(
            "The address after `milvus:` is not http://HOST:PORT[/DATABASE].", hint=hint
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return MilvusPlace(
        f"{parts.scheme}://{host}{f':{port}' if port else ''}{f'/{database}' if database else ''}"
    )


def config_path() -> Path:
    """Return where the user's defaults for options are, if there are any."""
    import platformdirs

    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named).expanduser().absolute()
    return (platformdirs.user_config_path("imprompt") / "config.toml").absolute()


def settings(*, index: str | Path | None = None, offline: bool = False) -> Settings:
    """Return the settings: options first, then environment variables, then user folders.

    Raises:
        ConfigError: the name of the index is malformed.
    """
    import platformdirs

    named = index or os.environ.get(INDEX_VARIABLE)
    return Settings(
        place=index_place(str(named))
        if named
        else (platformdirs.user_data_path("imprompt") / "index").absolute(),
        cache=platformdirs.user_cache_path("imprompt").absolute(),
        offline=offline or os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0"),
    )
