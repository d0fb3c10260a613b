"""New images of a folder: when they are written, once each, and none beyond the folder."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from imprompt.core.errors import QueryError
from imprompt.images.folder_watch import QUIET_MS, FolderWatch

WAIT_S = 60


class Batches:
    """Runs a watch in a thread and collects what it yields."""

    def __init__(self, watch: FolderWatch) -> None:
        self.images: list[Path] = []
        self.error: QueryError | None = None
        self.stop = threading.Event()
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(watch,))
        self._thread.start()

    def _run(self, watch: FolderWatch) -> None:
        try:
            for images in watch.batches(self.stop):
                with self._news:
                    self.images += images
                    self._news.notify()
        except QueryError as error:
            self.error = error

    def wait(self, n: int) -> list[Path]:
        """Return the images once there are n of them."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.images) >= n, WAIT_S), self.images
        return self.images

    def end(self) -> list[Path]:
        """Stop the watch, and return all images."""
        self.stop.set()
        return self.ended()

    def ended(self) -> list[Path]:
        """Return all images once the watch has ended by itself."""
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        return self.images


@pytest.fixture
def watched() -> Iterator[Callable[[FolderWatch], Batches]]:
    """Starts watches, and stops them in the end."""
    started: list[Batches] = []

    def start(watch: FolderWatch) -> Batches:
        started.append(Batches(watch))
        return started[-1]

    yield start
    for each in started:
        each.end()


def draw(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), colour).save(path)
    return path


Watched = Callable[[FolderWatch], Batches]


def test_new_images_are_yielded_and_old_ones_are_not(tmp_path: Path, watched: Watched) -> None:
    """Also in folders that appear; other files and hidden ones never."""
    draw(tmp_path / "old.png")
    batches = watched(FolderWatch(tmp_path))
    new = [draw(tmp_path / "new.png"), draw(tmp_path / "sub" / "deep" / "new.jpg")]
    draw(tmp_path / "sub" / "drawn.png").rename(tmp_path / "without-extension")
    new.append(tmp_path / "without-extension")
    (tmp_path / "LICENSE").write_text("a text")
    draw(tmp_path / ".hidden.png")
    draw(tmp_path / ".thumbs" / "a.png")
    (tmp_path / "new.txt").write_text("a text")
    (tmp_path / "empty.png").write_bytes(b"")
    batches.wait(3)
    last = draw(tmp_path / "last.png")
    batches.wait(4)
    assert sorted(batches.end()) == sorted([*new, last])


def test_images_between_the_start_and_the_first_look_are_not_missed(
    tmp_path: Path, watched: Watched
) -> None:
    """Loading models takes seconds."""
    watch = FolderWatch(tmp_path)
    early = draw(tmp_path / "early.png")
    assert watched(watch).wait(1) == [early]


def test_existing_images_come_first_if_wanted(tmp_path: Path, watched: Watched) -> None:
    """Sorted, and once."""
    there = [draw(tmp_path / name) for name in ("b.png", "a.png")]
    batches = watched(FolderWatch(tmp_path, existing=True))
    batches.wait(2)
    new = draw(tmp_path / "c.png")
    batches.wait(3)
    assert batches.end() == [*sorted(there), new]


def test_an_image_counts_once_it_is_written(tmp_path: Path, watched: Watched) -> None:
    """A file that grows is waited for; one that changes later comes again."""
    content = draw(tmp_path / "whole" / "a.png", "blue").read_bytes()
    folder = tmp_path / "watched"
    folder.mkdir()
    batches = watched(FolderWatch(folder))
    pause = threading.Event()
    with (folder / "a.png").open("wb") as file:
        for start in range(0, len(content), len(content) // 8):
            file.write(content[start : start + len(content) // 8])
            file.flush()
            pause.wait(QUIET_MS / 1000 / 4)
    assert batches.wait(1) == [folder / "a.png"]
    assert (folder / "a.png").read_bytes() == content
    draw(folder / "a.png", "green")
    assert batches.wait(2) == [folder / "a.png"] * 2


def test_links_out_of_the_folder_are_left_alone(tmp_path: Path, watched: Watched) -> None:
    """Links within it are fine; each that is not is said once."""
    secret = draw(tmp_path / "elsewhere" / "secret.png")
    folder = tmp_path / "watched"
    inner = draw(folder / "inner.png")
    said: list[str] = []
    batches = watched(FolderWatch(folder, announce=said.append))
    (folder / "out.png").symlink_to(secret)
    (folder / "in.png").symlink_to(inner)
    assert batches.wait(1) == [folder / "in.png"]
    draw(folder / "new.png")
    batches.wait(2)
    assert batches.end() == [folder / "in.png", folder / "new.png"]
    assert said == [f"{folder / 'out.png'} is a link out of {folder} and is left alone."]


def test_a_folder_that_goes_away_ends_the_watch(tmp_path: Path, watched: Watched) -> None:
    """With one line, and with one at once if there is none."""
    folder = tmp_path / "watched"
    with pytest.raises(QueryError, match="is not a folder"):
        FolderWatch(folder)
    draw(folder / "a.png")
    batches = watched(FolderWatch(folder))
    draw(folder / "b.png")
    batches.wait(1)
    shutil.rmtree(folder)
    assert batches.ended() == [folder / "b.png"]
    assert batches.error is not None
    assert f"{folder} is gone" in batches.error.message


def test_many_images_at_once(tmp_path: Path, watched: Watched) -> None:
    """Each comes exactly once."""
    content = draw(tmp_path / "one.png").read_bytes()
    folder = tmp_path / "watched"
    folder.mkdir()
    batches = watched(FolderWatch(folder))
    for number in range(1000):
        (folder / f"{number:04}.png").write_bytes(content)
    batches.wait(1000)
    found = batches.end()
    assert len(found) == len(set(found)) == 1000
