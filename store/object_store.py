"""Transfer of shards between machines, through a shared folder or a bucket of an object store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from imprompt.core.errors import Checksum, ConfigError, StoreError, first_line
from imprompt.core.text import as_utf8
from imprompt.core.url_schemes import url_scheme
from imprompt.store.manifest import ShardRecord

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_CHUNK_BYTES = 1 << 20
_PARAMETERS = frozenset({"endpoint_override", "region", "scheme"})
_SCHEMES = frozenset({"file", "gs", "s3"})
_CREDENTIALS = (
    "Keep credentials out of it: they are taken from the environment, the profile or the role of "
    "each machine, as its SDK does."
)


class ObjectStore:
    """The folder of one build there. Files are named by their sha256, so equal shards are one.

    Args:
        url: an absolute path, `file:///…`, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`, as
            `checked_url` gave it.
        plan_sha256: of the build.

    Raises:
        StoreError: the place cannot be reached; also from its methods.
    """

    def __init__(self, url: str, plan_sha256: str) -> None:
        from pyarrow.fs import FileSystem, LocalFileSystem

        self._url = url
        with self._errors():
            self._files, base = (
                FileSystem.from_uri(url) if url_scheme(url) else (LocalFileSystem(), url)
            )
        self._folder = f"{base}/imprompt-{plan_sha256[:16]}"

    def put(self, folder: Path, record: ShardRecord) -> None:
        """Copy a shard of a local folder to its place, where it appears whole or not at all."""
        final = self._place(record)
        # An object of a store appears when it is whole; a file of a folder while it is written.
        partial = f"{final}.{uuid.uuid4().hex}.tmp" if _is_folder(self._files) else final
        with self._errors():
            self._files.create_dir(self._folder)
            with (
                (folder / record.file).open("rb") as source,
                self._files.open_output_stream(partial) as target,
            ):
                while chunk := source.read(_CHUNK_BYTES):
                    target.write(chunk)
            if partial != final:
                self._files.move(partial, final)

    def chunks(self, record: ShardRecord) -> Iterator[bytes]:
        """Yield the bytes of a shard that was put.

        Raises:
            Checksum: it is gone.
        """
        with self._errors(), self._files.open_input_stream(self._place(record)) as source:
            while chunk := source.read(_CHUNK_BYTES):
                yield chunk

    def clear(self) -> None:
        """Remove what the build put there; what cannot be removed stays."""
        with suppress(OSError):
            self._files.delete_dir(self._folder)

    def _place(self, record: ShardRecord) -> str:
        return f"{self._folder}/{record.sha256}.npy"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import pyarrow

        try:
            yield
        except FileNotFoundError as error:
            raise Checksum(f"A shard is gone from {self._url}.", path=Path(self._folder)) from error
        except (OSError, pyarrow.ArrowException) as error:
            raise StoreError(
                f"{self._url} cannot be used: {first_line(error)}.",
                hint="Check the address and who may write there.",
            ) from error


def checked_url(text: str) -> str:
    """Return a URL of an object store that a user typed, a path made absolute.

    Raises:
        ConfigError: its scheme is not known, it is not UTF-8, or it holds credentials, which the
            message does not repeat.
    """
    if as_utf8(text) != text:
        raise ConfigError(
            f"The name of the folder of shards {as_utf8(text)} is not UTF-8.",
            hint="Name another folder.",
        )
    if not url_scheme(text):
        return str(Path(text).expanduser().absolute())
    parts = urlsplit(text)
    if parts.scheme not in _SCHEMES:
        raise ConfigError(
            f"A URL of the kind {parts.scheme}:// cannot hold shards.",
            hint="Name a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.",
        )
    surplus = sorted(
        {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - _PARAMETERS
    )
    if "@" in parts.netloc or surplus:
        surplus_part = f"the parameter {', '.join(surplus)}" if surplus else "a user or a key"
        raise ConfigError(
            f"The {parts.scheme}:// URL of the shards holds {surplus_part}.", hint=_CREDENTIALS
        )
    return urlunsplit(parts)


def _is_folder(files: FileSystem) -> bool:
    return bool(files.type_name == "local")
