"""What the environment says: where the index and caches lie, and whether the network may be used."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from imprompt.core.errors import ConfigError
from imprompt.core.text import as_utf8

INDEX_VARIABLE = "IMPROMPT_INDEX"
OFFLINE_VARIABLE = "IMPROMPT_OFFLINE"
MILVUS_TOKEN_VARIABLE = "IMPROMPT_MILVUS_TOKEN"  # noqa: S105 the name of a variable

_MILVUS = "milvus:"
_LITE_SUFFIX = ".db"


@dataclass(frozen=True, slots=True)
class MilvusPlace:
    """Where a pushed index lies: `address` is that of a server, http://HOST:PORT[/DATABASE], or a file of Milvus Lite.

    It never holds credentials; `str` gives what `--index` takes.
    """

    address: str

    @property
    def file(self) -> Path | None:
        """The file of Milvus Lite; None for a server."""
        return None if self.address.startswith(("http://", "https://")) else Path(self.address)

    def __str__(self) -> str:
        return f"{_MILVUS}{self.address}"


IndexPlace: TypeAlias = "Path | MilvusPlace"
"""A folder of this machine, or Milvus."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one run: where the index lies, where caches lie;

    `offline` shuts `imprompt.core.hub.fetch`.
    """

    place: IndexPlace
    cache: Path
    offline: bool

    @property
    def index(self) -> Path:
        """The folder of the index, for what can only be done there.

        Raises:
            ConfigError: the index lies on Milvus.
        """
        if isinstance(self.place, MilvusPlace):
            raise ConfigError(
                f"{self.place} is on Milvus, where this command does nothing: it needs the folder of an index.",
                hint="Name the folder with --index; what was changed there goes to Milvus with `python cli.py push`.",
            )
        return self.place


def index_place(named: str) -> IndexPlace:
    """What `--index` names: a folder, or milvus:http://HOST:PORT[/DATABASE], or milvus:FILE.db.

    Raises:
        ConfigError: the address is not of these forms, or holds credentials; it is not repeated,
            because it may hold them.
    """
    if not named.startswith(_MILVUS):
        if as_utf8(named) != named:
            raise ConfigError(
                f"The index's folder {as_utf8(named)} has bytes in its name that are no UTF-8.",
                hint="Name another folder.",
            )
        return Path(named).expanduser().absolute()
    address = named.removeprefix(_MILVUS)
    hint = f"Name milvus:http://HOST:PORT[/DATABASE], or milvus:FILE{_LITE_SUFFIX} for Milvus Lite."
    if not re.match(r"[a-z]+://", address, re.IGNORECASE):
        if not address.endswith(_LITE_SUFFIX):
            raise ConfigError(
                "The address behind `milvus:` is neither http://… nor a file of Milvus Lite.",
                hint=hint,
            )
        return MilvusPlace(str(Path(address).expanduser().absolute()))
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise ConfigError(
            "The address behind `milvus:` has no valid host or port.", hint=hint
        ) from error
    if "@" in address or parts.query or parts.fragment:
        raise ConfigError(
            "The address behind `milvus:` may not hold a user name, a password or a token, which others would see.",
            hint=f"Set {MILVUS_TOKEN_VARIABLE} to the token, or to USER:PASSWORD.",
        )
    database = parts.path.strip("/")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not re.fullmatch(r"\w*", database)
    ):
        raise ConfigError(
            "The address behind `milvus:` is not http://HOST:PORT[/DATABASE].", hint=hint
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return MilvusPlace(
        f"{parts.scheme}://{host}{f':{port}' if port else ''}{f'/{database}' if database else ''}"
    )


def settings(*, index: str | Path | None = None, offline: bool = False) -> Settings:
    """Options first, then environment variables, then the user's own folders (platformdirs).

    Raises:
        ConfigError: the index is named in a form that is not known.
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
