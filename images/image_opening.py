"""Image files from strangers, opened as far as their header: what they are and how large, before a pixel is decoded."""

from __future__ import annotations

import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from imprompt.core.errors import ImageRejected
from imprompt.images.bounds import DEFAULT_LIMITS as DEFAULT_LIMITS
from imprompt.images.bounds import ImageLimits as ImageLimits
from imprompt.images.bounds import Structure, check_eager, check_pixels, check_work, inspect

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile


_SIGNATURES = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "WebP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II[*+]\x00|MM\x00[*+]"),
    "AVIF": re.compile(rb".{4}ftyp.{0,40}?avi[fs]", re.DOTALL),
    "HEIC": re.compile(rb".{4}ftyp.{0,40}?(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL),
    "JPEG XL": re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n"),
}
_SIGNATURE_BYTES = 64
_INSTALL_FORMATS = "Install them: pip install 'imprompt[formats]'"
# The plugin's class instead of `PIL.Image.open`: that one tries every format, and compares the size
# with a global limit of
# its own (a warning above it, an error above its double) before a caller can say what the size was.
_PLUGINS = {
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIC": ("pillow_heif", "HeifImageFile"),
    "JPEG XL": ("pillow_jxl.JpegXLImagePlugin", "JXLImageFile"),
}
_EXTRA = frozenset({"HEIC", "JPEG XL"})
"""Read by packages of the extra `formats`."""
PLUGIN_MODULES = tuple(module for kind, (module, _) in _PLUGINS.items() if kind not in _EXTRA)
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
def opened_file(
    source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS
) -> Iterator[tuple[IO[bytes], str]]:
    """A regular file (or bytes), open at its start, and its format as one of `FORMATS`. Never waits for a pipe or a device.

    Raises:
        ImageRejected: it is not there, may not be read, is no regular file, is empty or too large,
            or is of no known format.
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
            raise ImageRejected(
                name, f"the file has {size:,} bytes, the limit is {limits.max_bytes:,}"
            )
        prefix = _read(file, name, _SIGNATURE_BYTES)
        file.seek(0)
        kind = next(
            (kind for kind, signature in _SIGNATURES.items() if signature.match(prefix)), None
        )
        if kind is None:
            raise ImageRejected(
                name, f"not an image in a format that is read ({', '.join(FORMATS)})"
            )
        yield file, kind


@contextmanager
def opened_header(
    source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS, decode: bool = False
) -> Iterator[ImageFile]:
    """The image with its size, mode and metadata, no pixel decoded yet; what Pillow raises or warns of inside is mapped.

    Args:
        source: a file, or an image file's bytes.
        limits: what is refused before a decoder sees it.
        decode: the caller will load the pixels; a JPEG's scans are counted as well then.

    Raises:
        MetadataRejected: its EXIF is larger than is read.
        ImageRejected: as `opened_file`, or the header is damaged or announces more work than
            `limits` allows.
    """
    with opened_structure(source, limits=limits, decode=decode) as (image, _):
        yield image


@contextmanager
def opened_structure(
    source: Path | bytes, *, limits: ImageLimits, decode: bool
) -> Iterator[tuple[ImageFile, Structure]]:
    """As `opened_header`, with what the file's structure says."""
    name = source_name(source)
    with opened_file(source, limits=limits) as (file, kind):
        try:
            found = inspect(file, kind, name, limits, decode=decode)
        except OSError as error:
            raise ImageRejected(name, f"the file cannot be read ({describe(error)})") from error
        if found.canvas is not None:
            check_pixels(found.canvas, kind, name, limits)
            check_eager(found, limits)
        image = _plugin_image(file, kind, name)
        check_pixels(image.size, kind, name, limits)
        check_work(image, found, limits)
        yield image, found


def _plugin_image(file: IO[bytes], kind: str, name: str) -> ImageFile:
    from PIL.Image import DecompressionBombError

    module, class_name = _PLUGINS[kind]
    try:
        with quiet_pillow():
            image: ImageFile = getattr(import_module(module), class_name)(file, "")
    except ImportError as error:
        if kind in _EXTRA:
            raise ImageRejected(
                name, f"{kind} is read with packages that are not installed", hint=_INSTALL_FORMATS
            ) from error
        raise ImageRejected(name, f"the installed Pillow cannot read {kind}") from error
    except DecompressionBombError as error:
        raise ImageRejected(name, f"the {kind} has too many pixels ({describe(error)})") from error
    except Exception as error:
        # A plugin raises whatever its parser stumbles upon: SyntaxError, ValueError, KeyError,
        # struct.error, zlib.error …
        raise ImageRejected(name, packed_text(error) or f"the {kind} header is damaged") from error
    return image


def packed_text(error: Exception) -> str:
    """The reason where Pillow refused a PNG for its texts, else nothing: it has no exception of its own for that."""
    from PIL.PngImagePlugin import MAX_TEXT_CHUNK, MAX_TEXT_MEMORY

    if "MAX_TEXT_CHUNK" in str(error):
        return f"a packed text or profile in the PNG has more than {MAX_TEXT_CHUNK:,} bytes"
    return (
        f"the texts in the PNG have more than {MAX_TEXT_MEMORY:,} bytes"
        if "MAX_TEXT_MEMORY" in str(error)
        else ""
    )


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
        reason = (
            os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        ).lower()
        raise ImageRejected(path, f"the file cannot be opened ({reason})") from error
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(path, os.fstat(descriptor).st_mode)
        yield file


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ImageRejected(
            path, next((kind for test, kind in _KINDS if test(mode)), "not a regular file")
        )


def _read(file: IO[bytes], name: str, n_bytes: int) -> bytes:
    try:
        return file.read(n_bytes)
    except OSError as error:
        raise ImageRejected(name, f"the file cannot be read ({describe(error)})") from error


class _Quiet:
    """Pillow's warnings are off while at least one thread is inside.

    `warnings.catch_warnings` alone is not safe here: two threads that overlap restore each other's
    filters.
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
