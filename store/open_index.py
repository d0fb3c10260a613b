"""An open index, in a folder of this machine or on Milvus."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

from imprompt.core.protocols import PromptStore, VectorIndex, VectorStore
from imprompt.core.settings import IndexPlace, MilvusPlace
from imprompt.store.gpu import Gpu
from imprompt.store.index_version import open_version
from imprompt.store.manifest import Manifest
from imprompt.store.publish import current_name


class OpenIndex(Protocol):
    """One version, pinned and checked: its manifest, prompts, vectors and indexes.

    A context manager; safe to read from threads.
    """

    manifest: Manifest

    @property
    def prompts(self) -> PromptStore: ...

    @property
    def published_as(self) -> str:
        """Its name in its place; see `in_service`."""
        ...

    @property
    def space(self) -> str:
        """The space that is searched: that of the first encoder."""
        ...

    @property
    def index_lines(self) -> dict[str, str]:
        """The index of each searched space and its measured recall, in words."""
        ...

    def index(self, space: str) -> VectorIndex:
        """Return the index of a space.

        Raises:
            SpaceMismatch: the version has no index of that space.
        """
        ...

    def vectors(self, space: str) -> VectorStore:
        """Return the stored vectors of a space.

        Raises:
            SpaceMismatch: the version has no vectors of that space.
        """
        ...

    def check_untouched(self) -> None:
        """Raise `Checksum` if a file that is still read was changed since it was opened."""
        ...

    def search_on(self, gpu: Gpu) -> None:
        """Search on the GPU from now on, where this machine searches."""
        ...

    def close(self) -> None:
        """Let go of it; calling it again does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def open_place(place: IndexPlace, *, mapped: bool = True) -> OpenIndex:
    """Open the version in service in a place.

    Args:
        mapped: see `imprompt.store.index_version.open_version`.

    Raises:
        NoIndex: nothing was published there.
        FormatVersion: it was written in another major format.
        Checksum: it is not what was published.
        Unreachable: the server does not answer.
    """
    if isinstance(place, Path):
        return open_version(place, mapped=mapped)
    from imprompt.store.milvus.milvus_version import open_milvus

    return open_milvus(place)


def in_service(place: IndexPlace, opened: OpenIndex | None = None) -> str | None:
    """Return `published_as` of the version in service in a place; None if none is.

    Args:
        opened: a version of that place, whose connection is used where it has one.

    Raises:
        Checksum: the folder does not say.
        Unreachable: the server does not answer.
    """
    if not isinstance(place, MilvusPlace):
        return current_name(place)
    from imprompt.store.milvus.milvus_version import MilvusVersion, open_milvus

    if isinstance(opened, MilvusVersion):
        return opened.in_service()
    with open_milvus(place) as version:
        return version.published_as
