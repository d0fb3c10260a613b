"""New images in a folder, as they appear."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from imprompt.core.errors import QueryError
from imprompt.core.hub.fetch import Announce, silent
from imprompt.images.image_files import extensions, find_images, has_image_name

QUIET_MS = 400
"""How long a file must stay unchanged before it counts as written."""
LOOK_MS = 1000
"""How often to look whether the folder is still there, and whether to stop."""

_Stamp = tuple[int, int, int]


class FolderWatch:
    """The images of a folder and the folders below it, batch by batch as they are written.

    An image is yielded once it has not changed for `QUIET_MS`, and again if it changes later. Names
    that begin with a dot, other files, and files beyond a link out of the folder are left alone.

    Args:
        folder: it must exist.
        existing: yield the images that are there already first.
        announce: takes a line about each image that is left alone because a link leads to it.

    Raises:
        QueryError: it is no folder.
    """

    def __init__(
        self, folder: Path, *, existing: bool = False, announce: Announce = silent
    ) -> None:
        if not folder.is_dir():
            raise QueryError(
                f"{folder} is not a folder.", hint="Name the folder that the images appear in."
            )
        self.folder = folder
        self._root = folder.resolve()
        self._announce = announce
        self._seen: dict[Path, _Stamp] = {}
        self._beyond: set[Path] = set()
        self._extensions = extensions()
        images = find_images([folder])
        self._waiting = set(images) if existing else set()
        if not existing:
            self._seen = {path: stamp for path in images if (stamp := _stamp(path)) is not None}

    def batches(self, stop: threading.Event) -> Iterator[list[Path]]:
        """Yield lists of images, sorted, until `stop` is set.

        Raises:
            QueryError: the folder is gone.
        """
        from watchfiles import watch

        place = self.folder.absolute()
        changes = watch(
            place,
            watch_filter=None,
            debounce=QUIET_MS,
            step=min(QUIET_MS, 100),
            stop_event=stop,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=True,
            ignore_permission_denied=True,
        )
        unfinished: dict[Path, tuple[_Stamp, float]] = {}
        for number, changed in enumerate(changes):
            if not number:  # what came before the system began to notice
                self._waiting.update(find_images([self.folder]))
            if not self.folder.is_dir():
                raise QueryError(
                    f"{self.folder} is gone.", hint="Restore it, then run the command again."
                )
            self._waiting.update(
                self.folder / path.relative_to(place)
                for _, name in changed
                if (path := Path(name)).is_relative_to(place)
            )
            ready: list[Path] = []
            now = time.monotonic()
            for path in sorted(self._waiting):
                stamp = _stamp(path)
                if stamp is None or self._seen.get(path) == stamp or not self._is_ours(path):
                    self._waiting.discard(path)
                    unfinished.pop(path, None)
                    continue
                known, since = unfinished.get(path, (None, now))
                if known != stamp:  # it may still be written: look once more
                    unfinished[path] = (stamp, now)
                elif now - since >= QUIET_MS / 1000:
                    self._waiting.discard(path)
                    del unfinished[path]
                    self._seen[path] = stamp
                    ready.append(path)
            if ready:
                yield ready

    def _is_ours(self, path: Path) -> bool:
        """Return whether a path is an image of this folder by its name and its place."""
        try:
            inside = path.relative_to(self.folder)
            within = path.resolve().is_relative_to(self._root)
        except (ValueError, OSError, RuntimeError):
            return False
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or not has_image_name(path, self._extensions):
            return False
        if not within and path not in self._beyond:
            self._beyond.add(path)
            self._announce(f"{path} is a link out of {self.folder} and is left alone.")
        return within


def _stamp(path: Path) -> _Stamp | None:
    """Return what changes when a file does; None if it is not a file, or empty."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
