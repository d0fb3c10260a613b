"""Pictures of an `images:` corpus: only those, only from the folders that the operator named."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from imprompt.core.errors import ConfigError, ImageRejected
from imprompt.core.values import Prompt
from imprompt.server.server_settings import Limits
from imprompt.server.thumbnails import folders_by_name, thumbnail
from tests.server.conftest import Serve
from tests.server.pictures import png

NAMES = ("a.png", "b.png", "deep/c.png", "d.png", "e.png")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images that carry prompts, one of them 600 pixels wide."""
    folder = tmp_path_factory.mktemp("served") / "gallery"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        text = f"picture number {number} of a harbour\nSteps: 20, Sampler: Euler a, Seed: {number}"
        (folder / name).write_bytes(png((9, 9, 9), parameters=text, side=600 if number else 64))
    return folder


@pytest.fixture(scope="module")
def pictures(
    gallery: Path, build: Callable[..., Path], serve: Serve
) -> Iterator[tuple[TestClient, str]]:
    """A client of a server that shows them, and the version of the index."""
    index = build(gallery.parent, corpus=f"images:{gallery}")
    limits = Limits(max_image_bytes=1 << 20)
    with serve(index=index, picture_folders=(gallery,), limits=limits) as client:
        yield client, client.get("/v1/info").json()["version"]


def row_of(client: TestClient, name: str) -> int:
    """The row whose prompt was read from this file."""
    (result,) = client.post("/v1/search", json={"text": "harbour", "k": 10}).json()["results"]
    (row,) = [hit["row_id"] for hit in result["nearest"] if hit["source_key"] == name]
    return int(row)


def test_a_picture_is_small_and_has_no_metadata(pictures: tuple[TestClient, str]) -> None:
    """A JPEG of 256 pixels, or 1,024, never larger than the image."""
    client, version = pictures
    assert client.get("/v1/info").json()["pictures"] == ["gallery"]
    path = f"/v1/pictures/{version}/{row_of(client, 'deep/c.png')}"
    for words, side in (("", 256), ("?large=true", 600)):
        done = client.get(path + words)
        assert (done.status_code, done.headers["content-type"]) == (200, "image/jpeg")
        assert done.headers["cache-control"] == "private, max-age=3600"
        assert b"harbour" not in done.content
        with Image.open(io.BytesIO(done.content)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (side, side))
            assert not picture.getexif()


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        (lambda path: path.unlink(), 404),
        (lambda path: path.write_bytes(b"no image"), 404),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), 404),
        (lambda path: path.write_bytes(bytes((1 << 20) + 1)), 404),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), 403),
        (lambda path: (path.unlink(), path.symlink_to("a.png")), 403),
        (lambda path: (path.unlink(), subprocess.run(["mkfifo", path], check=True)), 403),
        (lambda path: (path.unlink(), path.mkdir()), 403),
    ],
    ids=["gone", "text", "cut", "huge", "link out", "link within", "pipe", "folder"],
)
def test_what_is_no_longer_an_image_is_one_clear_problem(
    pictures: tuple[TestClient, str], gallery: Path, damage: Callable[[Path], object], status: int
) -> None:
    """A 404 or 403 that names no path, and the file is put back."""
    client, version = pictures
    path = gallery / "d.png"
    row = row_of(client, "d.png")
    moved = path.rename(gallery.parent / "moved.png")
    path.write_bytes(moved.read_bytes())
    try:
        damage(path)
        done = client.get(f"/v1/pictures/{version}/{row}")
    finally:
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        moved.rename(path)
    assert (done.status_code, done.json()["kind"]) == (status, "no-picture")
    assert done.headers["content-type"] == "application/problem+json"
    assert "gallery" not in done.text and "d.png" not in done.text
    assert client.get(f"/v1/pictures/{version}/{row}").status_code == 200


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ("../moved.png", 403),
        ("deep/../../secret.png", 403),
        ("/etc/passwd", 403),
        ("deep//c.png", 403),
        ("./a.png", 403),
        ("", 403),
        ("deep\\..\\a.png", 403),
        ("C:/windows/a.png", 403),
        ("a.png\0", 403),
        ("gone/a.png", 404),
        ("a.png/b.png", 404),
        ("x" * 5000, 404),
    ],
)
def test_an_index_cannot_name_a_file_elsewhere(
    pictures: tuple[TestClient, str],
    gallery: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    status: int,
) -> None:
    """Its maker may write any path into it."""
    (gallery.parent / "secret.png").write_bytes(png())
    client, version = pictures
    named = Prompt(0, "0" * 64, "x", "x", "gallery", key, 1, 0)
    store = "imprompt.store.prompts.DuckPrompts.get_many"
    monkeypatch.setattr(store, lambda _self, _ids: [named])
    done = client.get(f"/v1/pictures/{version}/0")
    assert (done.status_code, done.json()["kind"]) == (status, "no-picture")


def test_a_folder_that_is_gone_and_rows_that_are_none(
    pictures: tuple[TestClient, str], gallery: Path
) -> None:
    """404 for another version, a row beyond the last, and every row of a folder that was moved."""
    client, version = pictures
    assert client.get(f"/v1/pictures/{version}/999").status_code == 404
    assert client.get("/v1/pictures/20200101T000000.000000Z-00000000/0").status_code == 404
    assert client.get(f"/v1/pictures/{version}/-1").status_code == 422
    assert client.get(f"/v1/pictures/{version}/a").status_code == 422
    elsewhere = gallery.rename(gallery.parent / "elsewhere")
    try:
        assert client.get(f"/v1/pictures/{version}/0").status_code == 404
        gallery.symlink_to(elsewhere)
        assert client.get(f"/v1/pictures/{version}/0").status_code == 403
        gallery.unlink()
    finally:
        elsewhere.rename(gallery)


def test_without_folders_there_are_no_pictures(client: TestClient, index: Path) -> None:
    """Unless the operator names them, and only for prompts that come from them."""
    info = client.get("/v1/info").json()
    assert info["pictures"] == []
    assert client.get(f"/v1/pictures/{info['version']}/0").json()["kind"] == "no-picture"


def test_folders_are_told_by_their_names(tmp_path: Path) -> None:
    """So two of one name, and what is not a folder, are refused."""
    for name in ("a/cats", "b/cats", "dogs"):
        (tmp_path / name).mkdir(parents=True)
    cats, dogs = tmp_path / "a" / "cats", tmp_path / "dogs"
    assert folders_by_name([cats, dogs]) == {"cats": cats, "dogs": dogs}
    with pytest.raises(ConfigError, match="one name, cats"):
        folders_by_name([cats, tmp_path / "b" / "cats"])
    with pytest.raises(ConfigError, match="is not a folder"):
        folders_by_name([tmp_path / "birds"])


def test_pictures_are_decoded_within_the_limits_of_images() -> None:
    """A file of more pixels than a client may send is refused before it is decoded."""
    assert thumbnail(png(side=40), 256, Limits(max_pixels=1600).image)
    with pytest.raises(ImageRejected, match="pixels"):
        thumbnail(png(side=41), 256, Limits(max_pixels=1600).image)
