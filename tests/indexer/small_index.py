"""A small index with everything that an index can have, for tests of what is done with one."""

from __future__ import annotations

from pathlib import Path

from imprompt.indexer.build import BuildOptions, build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store import layout
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.manifest import Manifest
from imprompt.store.publish import current_name
from tests.indexer.doubles import BagOfWords, BagPair, write_corpus, write_image

IVF = "IVF4,SQ8"


def build_small(folder: Path, *, index_factory: str | None = None) -> Path:
    """Build an index of 300 lines and four images with parameters, in two spaces."""
    corpus = write_corpus(folder / "corpus.txt", 300)
    for i in range(4):
        write_image(folder / "images" / f"{i}.png", f"image {i} of a lake", negative=f"blur {i}")
    build_index(
        folder / "index",
        [parse_corpus(str(corpus)), parse_corpus(f"images:{folder / 'images'}")],
        BagPair(),
        options=BuildOptions(shard_rows=50, index_factory=index_factory),
        extra=[BagOfWords("second", dim=7)],
    )
    return folder / "index"


def manifest_in_service(root: Path) -> Manifest:
    """Of an index that is whole: it opens, and `verify` finds nothing."""
    assert verify(root) == []
    with open_version(root) as version:
        return version.manifest


def version_folder(root: Path) -> Path:
    """The folder of the version in service."""
    name = current_name(root)
    assert name is not None
    return layout.version_folder(root, name)


def flip(path: Path, at: int = -1) -> None:
    """Change one bit of a file."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
