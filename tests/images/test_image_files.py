"""find_images: which files the paths of a command line mean, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.core.errors import QueryError
from imprompt.images.image_files import find_images, require_images


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(root: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_folders_are_walked_in_the_order_of_names(tmp_path: Path) -> None:
    """By name at each level, extensions in any case, other files and hidden ones left out."""
    touch(
        tmp_path,
        "b.PNG",
        "a/z.jpg",
        "a/k/1.webp",
        "c.txt",
        "a.gif",
        ".hidden.png",
        ".git/x.png",
        "z/none.md",
    )
    assert names(tmp_path, find_images([tmp_path])) == ["a/k/1.webp", "a/z.jpg", "a.gif", "b.PNG"]


def test_named_files_are_kept_in_the_order_given(tmp_path: Path) -> None:
    """Another extension, a missing file and a repeat stay: opening tells about each."""
    touch(tmp_path, "picture.data", "folder/a.png")
    paths = [
        tmp_path / "picture.data",
        tmp_path / "missing.png",
        tmp_path / "folder",
        tmp_path / "picture.data",
    ]
    assert names(tmp_path, find_images(paths)) == [
        "picture.data",
        "missing.png",
        "folder/a.png",
        "picture.data",
    ]


def test_links_that_loop_end(tmp_path: Path) -> None:
    """A folder is entered once; links to files and to outer folders are followed."""
    touch(tmp_path, "in/a.png", "out/b.png")
    (tmp_path / "in/again").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in/self.png").symlink_to(tmp_path / "in/self.png")
    (tmp_path / "in/outside").symlink_to(tmp_path / "out", target_is_directory=True)
    assert names(tmp_path, find_images([tmp_path / "in"])) == [
        "in/a.png",
        "in/outside/b.png",
        "in/self.png",
    ]


def test_nothing_gives_nothing(tmp_path: Path) -> None:
    """No paths and an empty folder: an empty list."""
    assert find_images([]) == []
    assert find_images([tmp_path]) == []


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    """Where images are required; a file that is named counts, whatever it is."""
    touch(tmp_path, "notes.txt")
    with pytest.raises(QueryError, match=f"There are no images in {tmp_path}"):
        require_images([tmp_path])
    assert require_images([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    assert require_images([]) == []


def test_patterns_are_expanded_where_the_shell_leaves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted, also below folders; a folder that exists is none, and neither is a file's name."""
    touch(tmp_path, "in [1]/b.png", "in [1]/a.png", "in [1]/c.jpg", "in [1]/d/e.png", "[ab].png")
    touch(tmp_path, "a.png", "b.gif", ".hidden.png")
    folder = tmp_path / "in [1]"
    assert names(tmp_path, find_images([folder / "*.png"])) == ["in [1]/a.png", "in [1]/b.png"]
    assert names(tmp_path, find_images([tmp_path / "?.*"])) == ["a.png", "b.gif"]
    assert names(tmp_path, find_images([tmp_path / "in*"])) == [
        "in [1]/a.png",
        "in [1]/b.png",
        "in [1]/c.jpg",
        "in [1]/d/e.png",
    ]
    assert names(folder, find_images([folder / "**" / "*.png"])) == ["a.png", "b.png", "d/e.png"]
    assert names(folder, find_images([folder / "**"])) == ["a.png", "b.png", "c.jpg", "d/e.png"]
    assert names(tmp_path, find_images([tmp_path / "[ab].png"])) == ["[ab].png"]
    (tmp_path / "[ab].png").unlink()
    assert names(tmp_path, find_images([tmp_path / "[ab].png"])) == ["a.png"]
    monkeypatch.chdir(tmp_path)
    assert require_images([Path("*.png"), Path("b.gif")]) == [Path("a.png"), Path("b.gif")]


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    """It is named, before anything else is looked at."""
    touch(tmp_path, "a.png")
    with pytest.raises(QueryError, match=r"^No file matches '.*/x\*\.png'\."):
        find_images([tmp_path / "a.png", tmp_path / "x*.png"])
