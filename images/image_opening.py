"""Untrusted image files, opened up to their header: format and size, before pixels are decoded."""

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
from imprompt.core.pip_lines import install_extra
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
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
# Plugin classes, not `PIL.Image.open`: that tries every format, and compares the size with a global
# limit (a warning above it, an error above twice the limit) before a caller can report the size.
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
"""Formats that the packages of the extra `formats` read."""
PLUGIN_MODULES = tuple(module for kind, (module, _) in _PLUGINS.items() if kind not in _EXTRA)
FORMATS = tuple(_SIGNATURES)
"""The supported formats, recognized by a file's first bytes; its name plays no part."""

_KINDS = (
    (stat.S_ISDIR, "a folder, not an image file"),
    (stat.S_ISFIFO, "a named pipe, not an image file"),
    (stat.S_ISSOCK, "a socket, not an image file"),
    (stat.S_ISCHR, "a device, not an image file"),
    (stat.S_ISBLK, "a device, not an image file"),
)


def source_name(source: Path | bytes) -> str:
    """Return the image's name in messages."""
    return str(source) if isinstance(source, Path) else "image in memory"


@contextmanager
def opened_file(
    source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS
) -> Iterator[tuple[IO[bytes], str]]:
    """Open a regular file (or bytes) at its start; give it with its format, one of `FORMATS`.

    Never waits for a pipe or a device.

    Raises:
        ImageRejected: the file is missing, unreadable, not a regular file, empty, too large, or of
            an unknown format.
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
            raise ImageRejected(name, f"not an image in a supported format ({', '.join(FORMATS)})")
        yield file, kind


@contextmanager
def opened_header(
    source: Path | bytes, *, limits: ImageLimits = DEFAULT_LIMITS, decode: bool = False
) -> Iterator[ImageFile]:
    """Open an image with its size, mode and metadata, without decoding a pixel.

    Args:
        source: a file, or an image file's bytes.
        limits: checked before a decoder sees the file.
        decode: the caller will load the pixels, so count a JPEG's scans too.

    Raises:
        MetadataRejected: its EXIF is beyond the limit.
        ImageRejected: as `opened_file`, or the header is damaged or announces more work than
            `limits` allows.
    """
    with opened_structure(source, limits=limits, decode=decode) as (image, _):
        yield image


@contextmanager
def opened_structure(
    source: Path | bytes, *, limits: ImageLimits, decode: bool
) -> Iterator[tuple[ImageFile, Structure]]:
    """Open an image as `opened_header` does; give it with the file's structure."""
    name = source_name(source)
    with opened_file(source, limits=limits) as (file, kind):
        try:
            structure = inspect(file, kind, name, limits, decode=decode)
        except OSError as error:
            raise ImageRejected(name, f"the file cannot be read ({describe(error)})") from error
        if structure.canvas is not None:
            check_pixels(structure.canvas, kind, name, limits)
            check_eager(structure, limits)
        image = _plugin_image(file, kind, name)
        check_pixels(image.size, kind, name, limits)
        check_work(image, structure, limits)
        yield image, structure


def _plugin_image(file: IO[bytes], kind: str, name: str) -> ImageFile:
    from PIL.Image import DecompressionBombError

    module, class_name = _PLUGINS[kind]
    try:
        with quiet_pillow():
            image: ImageFile = getattr(import_module(module), class_name)(file, "")
    except ImportError as error:
        if kind in _EXTRA:
            reason = f"{kind} needs packages that are not installed"
            raise ImageRejected(
                name, reason, hint=f"Install them: {install_extra('formats')}"
            ) from error
        raise ImageRejected(name, f"the installed Pillow cannot read {kind}") from error
    except DecompressionBombError as error:
        raise ImageRejected(name, f"the {kind} has too many pixels ({describe(error)})") from error
    except Exception as error:
        # Plugins raise any exception: SyntaxError, ValueError, KeyError, struct.error, zlib.error …
        raise ImageRejected(name, packed_text(error) or f"the {kind} header is damaged") from error
    return image


def packed_text(error: Exception) -> str:
    """Return the reason if Pillow, which has no exception for it, refused a PNG for its texts."""
    from PIL.PngImagePlugin import MAX_TEXT_CHUNK, MAX_TEXT_MEMORY

    if "MAX_TEXT_CHUNK" in str(error):
        return f"a packed text or profile in the PNG has more than {MAX_TEXT_CHUNK:,} bytes"
    if "MAX_TEXT_MEMORY" in str(error):
        return f"the texts in the PNG have more than {MAX_TEXT_MEMORY:,} bytes"
    return ""


def describe(error: Exception) -> str:
    """Return one short line about a foreign exception."""
    return " ".join(str(error).split())[:120] or type(error).__name__


@contextmanager
def _open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open without waiting; check the kind before (devices may react to opening) and after."""
    try:
        _require_regular(path, path.stat().st_mode)
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError as error:
        raise ImageRejected(path, "there is no such file") from error
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else str(error)
        raise ImageRejected(path, f"the file cannot be opened ({reason.lower()})") from error
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(path, os.fstat(descriptor).st_mode)
        yield file


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kinds = (kind for test, kind in _KINDS if test(mode))
        raise ImageRejected(path, next(kinds, "not a regular file"))


def _read(file: IO[bytes], name: str, n_bytes: int) -> bytes:
    try:
        return file.read(n_bytes)
    except OSError as error:
        raise ImageRejected(name, f"the file cannot be read ({describe(error)})") from error


class _PillowSilencer:
    """Turns Pillow's warnings off while at least one thread is inside.

    `warnings.catch_warnings` alone is not enough: overlapping threads restore each other's filters.
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


_SILENCER = _PillowSilencer()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Suppress Pillow's warnings, which a caller's filters could turn into errors."""
    _SILENCER.enter()
    try:
        yield
    finally:
        _SILENCER.leave()
