"""A description in the XMP of a copy: Pillow reads it, and nothing else of the file has changed."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imprompt.images.image_opening import DEFAULT_LIMITS
from imprompt.images.metadata.file_texts import read_texts
from imprompt.images.metadata.xmp_writing import CannotDescribeError, with_description
from imprompt.images.prompts.embedded_prompts import read_embedded_prompt

PROMPT = "a cat & a <dog>, “neon”\nfog"
ABOUT = {"How": "estimated", "Confidence": "0.3100"}
FORMATS = {
    "png": {"format": "PNG"},
    "jpeg": {"format": "JPEG"},
    "webp": {"format": "WEBP"},
    "lossless": {"format": "WEBP", "lossless": True},
}
LIGHTROOM = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description r:about="uuid:7"'
    b' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4">%s</r:Description></r:RDF>'
    b'</x:xmpmeta><?xpacket end="w"?>'
)


def picture(mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (30, 41, len(mode)), dtype=np.uint8)
    return Image.fromarray(values, mode)


def saved(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def described(data: bytes) -> dict[str, Any]:
    """Return the rdf:Description that holds the description, as Pillow reads it."""
    found = opened(data).getxmp()["xmpmeta"]["RDF"]["Description"]
    several = found if isinstance(found, list) else [found]
    (ours,) = [each for each in several if "description" in each]
    return dict(ours)


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
class TestEveryFormat:
    def test_pillow_reads_the_description(self, options: dict[str, Any]) -> None:
        """Markup and quotes stay text."""
        found = described(with_description(saved(picture(), **options), PROMPT, ABOUT))
        assert found["description"]["Alt"]["li"]["text"] == PROMPT
        assert (found["How"], found["Confidence"]) == ("estimated", "0.3100")

    def test_the_rest_of_the_file_is_the_same(self, options: dict[str, Any]) -> None:
        """Pixels, EXIF and colour profile."""
        exif = Image.Exif()
        exif[0x010F] = "a camera"
        profile = b"a profile of colours"
        for extra in ({}, {"exif": exif, "icc_profile": profile}):
            before = saved(picture(), **options, **extra)
            after = with_description(before, PROMPT, ABOUT)
            old, new = opened(before), opened(after)
            assert np.array_equal(np.asarray(old), np.asarray(new))
            assert new.info.get("icc_profile") == old.info.get("icc_profile")
            assert dict(new.getexif()) == dict(old.getexif())
            assert len(after) > len(before)

    def test_it_is_no_prompt_of_the_file(self, options: dict[str, Any]) -> None:
        """Not even where it looks like one."""
        prompt = "a fox\nNegative prompt: blur\nSteps: 20, Sampler: Euler, Seed: 1, Size: 8x8"
        data = with_description(saved(picture(), **options), prompt, ABOUT)
        assert read_embedded_prompt(data) is None
        assert "ImageDescription" not in read_texts(data, limits=DEFAULT_LIMITS).texts

    def test_xmp_that_is_there_is_kept(self, options: dict[str, Any]) -> None:
        """The description stands beside it, about the same resource."""
        data = with_description(saved(picture(), **options, **xmp(b"", options)), PROMPT, ABOUT)
        found = opened(data).getxmp()["xmpmeta"]["RDF"]["Description"]
        assert [each["about"] for each in found] == ["uuid:7", "uuid:7"]
        assert found[0]["Rating"] == "4"
        assert described(data)["description"]["Alt"]["li"]["text"] == PROMPT

    def test_a_description_that_is_there_is_not_replaced(self, options: dict[str, Any]) -> None:
        """Nor gets it a second one beside it, ours included."""
        own = (
            b'<d:description xmlns:d="http://purl.org/dc/elements/1.1/"><r:Alt>'
            b'<r:li xml:lang="x-default">mine</r:li></r:Alt></d:description>'
        )
        data = saved(picture(), **options, **xmp(own, options))
        ours = with_description(saved(picture(), **options), PROMPT, ABOUT)
        for each in (data, ours):
            with pytest.raises(CannotDescribeError, match="description of its own"):
                with_description(each, PROMPT, ABOUT)

    def test_damaged_xmp_is_left_alone(self, options: dict[str, Any]) -> None:
        """It may hold what somebody still needs."""
        packet = (LIGHTROOM % b"")[:-60]
        data = saved(picture(), **options, **packed(packet, options))
        with pytest.raises(CannotDescribeError, match="its XMP cannot be read"):
            with_description(data, PROMPT, ABOUT)

    @given(cut=st.floats(0, 1))
    def test_a_cut_file_is_refused_or_gets_it(self, options: dict[str, Any], cut: float) -> None:
        """No other error comes out, wherever it ends."""
        data = saved(picture(), **options)
        try:
            after = with_description(data[: int(cut * len(data))], PROMPT, ABOUT)
        except CannotDescribeError:
            return
        assert b"dc:description" in after

    @given(places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8))
    def test_hostile_bytes_raise_nothing_else(
        self, options: dict[str, Any], places: list[tuple[float, int]]
    ) -> None:
        """Whatever the structure says."""
        data = bytearray(saved(picture(), **options, **xmp(b"", options)))
        for place, value in places:
            data[int(place * (len(data) - 1))] = value
        try:
            with_description(bytes(data), PROMPT, ABOUT)
        except CannotDescribeError:
            return


def packed(packet: bytes, options: dict[str, Any]) -> dict[str, Any]:
    """Return Pillow's options that save a packet, compressed in PNG."""
    if options["format"] != "PNG":
        return {"xmp": packet}
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=True)
    return {"pnginfo": info}


def xmp(properties: bytes, options: dict[str, Any]) -> dict[str, Any]:
    return packed(LIGHTROOM % properties, options)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [True, False])
def test_webp_keeps_size_and_transparency(mode: str, *, lossless: bool) -> None:
    """A file of one chunk gets the header of an extended one."""
    before = saved(picture(mode), format="WEBP", lossless=lossless)
    after = opened(with_description(before, PROMPT, {}))
    assert (after.size, after.mode) == ((41, 30), mode)
    assert np.array_equal(np.asarray(after), np.asarray(opened(before)))


def test_a_prompt_of_the_file_is_still_read_from_the_copy() -> None:
    """The description beside it changes nothing."""
    info = PngInfo()
    info.add_itxt(
        "parameters", "a fox\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 8x8"
    )
    data = with_description(saved(picture(), format="PNG", pnginfo=info), PROMPT, {"How": "exact"})
    found = read_embedded_prompt(data)
    assert found is not None
    assert found.prompt == "a fox"


def test_a_jpeg_without_room_is_refused() -> None:
    """A segment has at most 65,535 bytes."""
    with pytest.raises(CannotDescribeError, match="longer than a JPEG holds"):
        with_description(saved(picture(), format="JPEG"), "x" * 70_000, {})
    assert with_description(saved(picture(), format="PNG"), "x" * 70_000, {})


def test_a_bomb_in_a_compressed_chunk_is_refused() -> None:
    """9 MiB of blanks are a few kilobytes."""
    body = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * (9 << 20))
    chunk = len(body).to_bytes(4, "big") + b"iTXt" + body
    data = saved(picture(), format="PNG")
    data = data[:33] + chunk + zlib.crc32(chunk[4:]).to_bytes(4, "big") + data[33:]
    with pytest.raises(CannotDescribeError, match="too large"):
        with_description(data, PROMPT, {})


@pytest.mark.parametrize(
    "chunk",
    [
        b"VP8X\0\0\0\0",
        b"VP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a\0\0\0\0",
        b"VP8L\x02\0\0\0\x2f\0",
        b"ICCP\0\0\0\0",
        b"",
    ],
)
def test_a_webp_without_a_size_is_refused(chunk: bytes) -> None:
    """Whichever header it has."""
    body = b"WEBP" + chunk
    with pytest.raises(CannotDescribeError, match="damaged"):
        with_description(b"RIFF" + len(body).to_bytes(4, "little") + body, PROMPT, {})


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP"])
def test_other_formats_are_refused(kind: str) -> None:
    """By name of those that work."""
    with pytest.raises(CannotDescribeError, match="only PNG, JPEG and WebP"):
        with_description(saved(picture(), format=kind), PROMPT, {})
