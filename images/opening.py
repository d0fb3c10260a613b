"""Image files from strangers, opened as far as their header: what they are and how large, before a pixel is decoded."""

from __future__ import annotations

import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from core.errors import ImageRejected

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is read at most: bytes of the file, pixels by its header, and how many times one side is longer than the other.

    100 million pixels hold 400 MB while they are decoded. The aspect matters because encoders scale the shorter side up:
    1 x 100,000 pixels would become 224 x 22,400,000.
    """

    max_bytes: int = 256 << 20
    max_pixels: int = 100_000_000
    max_aspect: int = 100


DEFAULT_LIMITS = ImageLimits()

_SIGNATURES = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "WebP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II[*+]\x00|MM\x00[*+]"),
    "AVIF": re.compile(rb".{4}ftyp.{0,40}?avi[fs]", re.DOTALL),
}
_SIGNATURE_BYTES = 64
# The plugin's class instead of `PIL.Image.open`: that one tries every format, and compares the size with a global limit of
# its own (a warning above it, an error above its double) before a caller can say what the size was.
_PLUGINS = {
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
}
FORMATS = tuple(_SIGNATURES)
"""The formats that are read, by name; a file's name plays no part, its first bytes do."""

_KINDS = (
    (stat.S_ISDIR, "a folder, not an image file"),
    (stat.S_ISFIFO, "a named pipe, not an image file"),
    (stat.S_ISSOCK, "a socket, not an image file"),
    (stat.S_ISCHR, "a device, not an image file"),
    (stat.S_ISBLK, "a device, not an image file"),
)


def source_name(source: Path | bytes) -> str:
    """How a message names the image."""
    return str(source) if isinstance(source, Path) else "image in memory"


@contextmanager
def opened_file(source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> Iterator[tuple[IO[bytes], str]]:
    """A regular file (or bytes), open at its start, and its format as one of `FORMATS`. Never waits for a pipe or a device.

    Raises:
        ImageRejected: it is not there, may not be read, is no regular file, is empty or too large, or is of no known format.
    """
    name = source_name(source)
    with ExitStack() as stack:
        if isinstance(source, Path):
            file: IO[bytes] = stack.enter_context(_open_regular(source))
            size = os.fstat(file.fileno()).st_size
        else:
            file, size = BytesIO(source), len(source)
        if size == 0:
            raise ImageRejected(name, "the file is empty")
        if size > limits.max_bytes:
            raise ImageRejected(name, f"the file has {size:,} bytes, the limit is {limits.max_bytes:,}")
        prefix = _read(file, name, _SIGNATURE_BYTES)
        file.seek(0)
        kind = next((kind for kind, signature in _SIGNATURES.items() if signature.match(prefix)), None)
        if kind is None:
            raise ImageRejected(name, f"not an image in a format that is read ({', '.join(FORMATS)})")
        yield file, kind


@contextmanager
def opened_header(source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> Iterator[ImageFile]:
    """The image with its size, mode and metadata, no pixel decoded yet; what Pillow raises or warns of inside is mapped.

    Raises:
        ImageRejected: as `opened_file`, or the header is damaged or announces more than `limits` allows.
    """
    name = source_name(source)
    with opened_file(source, limits=limits) as (file, kind):
        image = _plugin_image(file, kind, name)
        width, height = image.size
        if width < 1 or height < 1:
            raise ImageRejected(name, f"the {kind} has no pixels ({width} x {height})")
        if width * height > limits.max_pixels:
            size = f"{width:,} x {height:,} pixels ({width * height:,})"
            raise ImageRejected(name, f"the {kind} has {size}, the limit is {limits.max_pixels:,}")
        if max(width, height) > limits.max_aspect * min(width, height):
            reason = f"the {kind} has {width:,} x {height:,} pixels, one side may be at most {limits.max_aspect} times the other"
            raise ImageRejected(name, reason)
        yield image


def _plugin_image(file: IO[bytes], kind: str, name: str) -> ImageFile:
    from PIL.Image import DecompressionBombError

    module, class_name = _PLUGINS[kind]
    try:
        with quiet_pillow():
            image: ImageFile = getattr(import_module(module), class_name)(file, "")
    except ImportError as error:
        raise ImageRejected(name, f"the installed Pillow cannot read {kind}") from error
    except DecompressionBombError as error:
        raise ImageRejected(name, f"the {kind} has too many pixels ({describe(error)})") from error
    except Exception as error:
        # A plugin raises whatever its parser stumbles upon: SyntaxError, ValueError, KeyError, struct.error, zlib.error …
        raise ImageRejected(name, packed_text(error) or f"the {kind} header is damaged") from error
    return image


def packed_text(error: Exception) -> str:
    """The reason where Pillow refused a PNG for its texts, else nothing: it has no exception of its own for that."""
    from PIL.PngImagePlugin import MAX_TEXT_CHUNK, MAX_TEXT_MEMORY

    if "MAX_TEXT_CHUNK" in str(error):
        return f"a packed text or profile in the PNG has more than {MAX_TEXT_CHUNK:,} bytes"
    return f"the texts in the PNG have more than {MAX_TEXT_MEMORY:,} bytes" if "MAX_TEXT_MEMORY" in str(error) else ""


def describe(error: Exception) -> str:
    """One short line of a foreign exception."""
    return " ".join(str(error).split())[:120] or type(error).__name__


@contextmanager
def _open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open without waiting: the kind is looked at before (a device may act on being opened) and once more on the open file."""
    try:
        _require_regular(path, path.stat().st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ImageRejected(path, "there is no such file") from error
    except (OSError, ValueError) as error:
        reason = (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)).lower()
        raise ImageRejected(path, f"the file cannot be opened ({reason})") from error
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(path, os.fstat(descriptor).st_mode)
        yield file


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ImageRejected(path, next((kind for test, kind in _KINDS if test(mode)), "not a regular file"))


def _read(file: IO[bytes], name: str, n_bytes: int) -> bytes:
    try:
        return file.read(n_bytes)
    except OSError as error:
        raise ImageRejected(name, f"the file cannot be read ({describe(error)})") from error


class _Quiet:
    """Pillow's warnings are off while at least one thread is inside.

    `warnings.catch_warnings` alone is not safe here: two threads that overlap restore each other's filters.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


_QUIET = _Quiet()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """No warning of Pillow's gets out, and none is turned into an error by the caller's filters (odd EXIF is still answered)."""
    _QUIET.enter()
    try:
        yield
    finally:
        _QUIET.leave()
