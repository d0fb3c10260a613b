"""Every bad file gets one short reason with value and limit, without a traceback or a wait."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imprompt.core.errors import ImageRejected
from imprompt.images.decode import open_image
from imprompt.images.image_opening import ImageLimits
from tests.images.hostile_files import HOSTILE, picture_bytes


@pytest.mark.timeout(10)
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    """The message is one line, names the file and the reason, and comes within seconds."""
    make, reason = HOSTILE[case]
    path = tmp_path / "picture.png"
    make(path)
    with pytest.raises(ImageRejected) as caught:
        open_image(path)
    assert reason in caught.value.reason
    assert caught.value.path == str(path) or caught.value.path == path
    assert "\n" not in str(caught.value)
    assert len(caught.value.reason) < 200


@pytest.mark.timeout(10)
def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's file is named as one."""
    monkeypatch.chdir(tmp_path)  # the path of a socket may have 108 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        with pytest.raises(ImageRejected, match="a socket"):
            open_image(Path("s.png"))


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 300 + ".png"])
def test_a_path_that_no_file_can_have_is_refused(name: str, tmp_path: Path) -> None:
    """NUL bytes and names that are too long."""
    with pytest.raises(ImageRejected, match="cannot be opened"):
        open_image(tmp_path / name)


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    """Run as nobody where the tests run as root."""
    path = tmp_path / "secret.png"
    path.write_bytes(picture_bytes("PNG"))
    path.chmod(0)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from imprompt.images.decode import open_image; import PIL.PngImagePlugin\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try: open_image(Path(sys.argv[1]))\n"
        "except Exception as error: sys.stdout.write(f'{type(error).__name__} {error}')"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert "ImageRejected" in done.stdout
    assert "permission denied" in done.stdout


def test_limits_are_the_callers() -> None:
    """Bytes, pixels, aspect: a limit one below is an error with both numbers, the value is not."""
    data = picture_bytes("PNG")
    limits = ImageLimits(max_bytes=len(data), max_pixels=64 * 48, max_aspect=2)
    assert open_image(data, limits=limits).size == (64, 48)
    for tighter, value in (
        (
            ImageLimits(max_bytes=len(data) - 1),
            f"{len(data):,} bytes, the limit is {len(data) - 1:,}",
        ),
        (ImageLimits(max_pixels=64 * 48 - 1), "64 x 48 pixels (3,072), the limit is 3,071"),
        (ImageLimits(max_aspect=1), "64 x 48 pixels, one side may be at most 1 times the other"),
    ):
        with pytest.raises(ImageRejected) as caught:
            open_image(data, limits=tighter)
        assert value in caught.value.reason


def test_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    """The 40,000 x 40,000 picture and the text bomb are refused within 200 MB of address space."""
    paths = [tmp_path / "wide.png", tmp_path / "text.png"]
    HOSTILE["40,000 x 40,000 PNG"][0](paths[0])
    HOSTILE["zip bomb"][0](paths[1])
    code = (
        "import resource, sys; from pathlib import Path; import PIL.PngImagePlugin\n"
        "from imprompt.images.decode import open_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: open_image(Path(path))\n"
        "    except Exception: pass\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "sys.stdout.write(str(grown // (1 if sys.platform != 'darwin' else 1024)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 50_000, "kilobytes"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_bytes_that_were_flipped_or_cut_are_answered_or_refused(
    kind: str, data: st.DataObject
) -> None:
    """Whatever a few wrong bytes do inside Pillow: a picture or ImageRejected, nothing else."""
    content = bytearray(picture_bytes(kind, (24, 16)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    for version in (bytes(content), bytes(content[:cut])):
        try:
            assert open_image(version, limits=ImageLimits(max_pixels=1_000_000)).mode == "RGB"
        except ImageRejected as error:
            assert "\n" not in str(error)
