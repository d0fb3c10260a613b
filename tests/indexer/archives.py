"""WebDatasets for tests: tar archives of samples."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence

from PIL import Image

Members = list[tuple[str, bytes]]


def picture() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(sink, "PNG")
    return sink.getvalue()


def tar(members: Members) -> bytes:
    """An archive of these files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return sink.getvalue()


def samples(captions: Sequence[bytes], *, member: str = "txt") -> Members:
    """A picture and a text for each caption."""
    return [
        (f"part/{number:04d}.{kind}", content)
        for number, caption in enumerate(captions)
        for kind, content in (("png", picture()), (member, caption))
    ]
