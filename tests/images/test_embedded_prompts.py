"""read_embedded_prompt: what tools write beside the pixels, in self-made files of each kind."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imprompt.core.errors import ImageRejected, MetadataRejected
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, read_embedded_prompt
from tests.images.builders import png, png_chunk, text_bomb
from tests.images.graphs import SETTINGS, graph, node

PARAMETERS = (
    "a lighthouse at dusk, (oil on canvas:1.2)\nsecond line, café 灯台\n"
    "Negative prompt: blurry, low quality\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, "
    "Size: 512x512, Model hash: 0123abcd, Model: own-model"
)
PROMPT = "a lighthouse at dusk, (oil on canvas:1.2)\nsecond line, café 灯台"
PIXELS = np.zeros((2, 2, 3), np.uint8)


def check_a1111(found: EmbeddedPrompt | None) -> None:
    assert found is not None
    assert (found.prompt, found.negative, found.tool) == (
        PROMPT,
        "blurry, low quality",
        "AUTOMATIC1111",
    )
    wanted = {
        "sampler": "Euler a",
        "steps": "20",
        "cfg_scale": "7",
        "seed": "42",
        "model": "own-model",
        "model_hash": "0123abcd",
    }
    assert found.settings.items() >= wanted.items()


def international(text: str, *, packed: bool = False) -> bytes:
    body = text.encode()
    return png_chunk(
        b"iTXt",
        b"parameters\0" + bytes([packed, 0]) + b"\0\0" + (zlib.compress(body) if packed else body),
    )


@pytest.mark.parametrize(
    "chunk",
    [
        international(PARAMETERS),
        international(PARAMETERS, packed=True),
        png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(PARAMETERS.encode())),
        png_chunk(b"tEXt", b"parameters\0" + PARAMETERS.encode()),
    ],
    ids=["iTXt", "iTXt packed", "zTXt", "tEXt in UTF-8"],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_automatic1111_in_png_text_of_each_kind(chunk: bytes, place: str, tmp_path: Path) -> None:
    """Before and behind the pixels alike."""
    path = tmp_path / "a.png"
    path.write_bytes(png(PIXELS, colour=2, **{place: chunk}))
    check_a1111(read_embedded_prompt(path))


def test_latin_1_text_is_read_as_such(tmp_path: Path) -> None:
    """tEXt as its specification has it, and as Pillow writes it."""
    info = PngInfo()
    info.add_text("parameters", "café\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 42")
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=info)
    found = read_embedded_prompt(tmp_path / "a.png")
    assert found is not None
    assert (found.prompt, found.negative) == ("café", "")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "AVIF"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + PARAMETERS.encode("utf-16-be"),
        b"UNICODE\0" + PARAMETERS.encode("utf-16-le"),
        b"ASCII\0\0\0" + PARAMETERS.encode(),
        bytes(8) + PARAMETERS.encode(),
        PARAMETERS.encode(),
    ],
    ids=["big-endian", "little-endian", "ASCII", "no label", "bare"],
)
def test_automatic1111_in_the_exif_user_comment(kind: str, comment: bytes, tmp_path: Path) -> None:
    """Each encoding that writers use, in each format that holds EXIF."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    Image.fromarray(PIXELS).save(tmp_path / "a.bin", kind, exif=exif.tobytes())
    check_a1111(read_embedded_prompt(tmp_path / "a.bin"))


@pytest.mark.parametrize("place", ["PNG text", "WebP EXIF", "JPEG comment"])
def test_comfyui_is_found_where_its_nodes_write_it(place: str, tmp_path: Path) -> None:
    """The graph is alone, contains NaN as ComfyUI writes it, or is one of two in a comment."""
    nodes = graph(extra={"class_type": "X", "inputs": {}, "is_changed": [float("nan")]})
    path, exif = tmp_path / "a.bin", Image.Exif()
    if place == "PNG text":
        path.write_bytes(
            png(
                PIXELS,
                colour=2,
                before=png_chunk(b"tEXt", b"prompt\0" + json.dumps(nodes).encode()),
            )
        )
    elif place == "WebP EXIF":
        exif[0x0110] = "prompt:" + json.dumps(nodes)
        exif[0x010F] = "workflow:{}"
        Image.fromarray(PIXELS).save(path, "WEBP", exif=exif.tobytes())
    else:
        exif[0x9286] = json.dumps({"prompt": nodes, "workflow": {"nodes": []}})
        Image.fromarray(PIXELS).save(path, "JPEG", exif=exif.tobytes())
    assert read_embedded_prompt(path) == EmbeddedPrompt("a red fox", "blurry", "ComfyUI", SETTINGS)


def test_invokeai_2_with_a_prompt_that_is_no_list(tmp_path: Path) -> None:
    """sd-parsers refuses it."""
    text = json.dumps(
        {
            "app_version": "2.2.4",
            "image": {"prompt": "a red fox", "cfg_scale": 7.5, "sampler": "k_lms", "seed": 7},
        }
    )
    path = tmp_path / "a.png"
    path.write_bytes(
        png(PIXELS, colour=2, before=png_chunk(b"tEXt", b"sd-metadata\0" + text.encode()))
    )
    settings = {"cfg_scale": "7.5", "sampler": "k_lms", "seed": "7"}
    assert read_embedded_prompt(path) == EmbeddedPrompt("a red fox", "", "InvokeAI", settings)


def test_a_picture_without_a_prompt_has_none(tmp_path: Path) -> None:
    """Plain files of each format, a camera's EXIF, a comment that is no prompt."""
    exif = Image.Exif()
    exif[0x010F] = "Camera maker"
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0holiday"
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        Image.fromarray(PIXELS).save(
            tmp_path / kind, kind, **({} if kind in ("GIF", "BMP") else {"exif": exif.tobytes()})
        )
        assert read_embedded_prompt(tmp_path / kind) is None


TOO_LARGE = {
    "bomb": (text_bomb(64), "a text.* unpacks to more than 8,388,608"),
    "50 MB": (
        png_chunk(b"tEXt", b"parameters\0" + b"a, " * (50 << 20 >> 2)),
        "a text.* has more than 8,388,608",
    ),
    "50 MB of JSON": (
        png_chunk(b"tEXt", b'prompt\0{"a": "' + b"x" * (50 << 20) + b'"}'),
        "a text.* has more than 8,388,608",
    ),
    "many packed texts": (
        b"".join(
            png_chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(bytes(3 << 20))) for n in range(12)
        ),
        "the texts.* have more than 33,554,432",
    ),
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("case", TOO_LARGE)
def test_texts_that_are_too_large_are_said_to_be(case: str, tmp_path: Path) -> None:
    """Within seconds, in one line with the limit; what is beyond it is not read."""
    path = tmp_path / "a.png"
    chunk, reason = TOO_LARGE[case]
    path.write_bytes(png(PIXELS, colour=2, before=chunk))
    with pytest.raises(MetadataRejected, match=f"{reason} bytes"):
        read_embedded_prompt(path)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_large_text_hides_no_small_one(case: str, tmp_path: Path) -> None:
    """Before and behind it."""
    path = tmp_path / "a.png"
    chunk = TOO_LARGE[case][0]
    small = png_chunk(b"tEXt", b"Comment\0" + PARAMETERS.encode())
    for before in (small + chunk, chunk + small):
        path.write_bytes(png(PIXELS, colour=2, before=before))
        check_a1111(read_embedded_prompt(path))


HOSTILE_TEXTS = {
    "7 MB of parameters": png_chunk(b"tEXt", b"parameters\0" + b"Steps: 1, " * (7 << 20 >> 4)),
    "a pattern's worst text": png_chunk(b"tEXt", b"parameters\0" + b"Hashes:{" * 8000),
    "a source of spaces": png_chunk(b"tEXt", b"Comment\0{}")
    + png_chunk(b"tEXt", b"Description\0x")
    + png_chunk(b"tEXt", b"Source\0" + b" " * 65000),
    "deep JSON": png_chunk(b"tEXt", b"prompt\0" + b'{"a":' * 500_000),
    "bad JSON": png_chunk(b"tEXt", b'prompt\0{"a": }'),
    "JSON of another kind": png_chunk(
        b"tEXt", b'prompt\0{"1": [1, 2], "2": {"inputs": 3}, "3": {"inputs": {"a": ["1"]}}}'
    ),
    "a long number": png_chunk(b"tEXt", b'prompt\0{"a": ' + b"9" * 100_000 + b"}"),
    "no keyword": png_chunk(b"tEXt", b"\0text"),
    "no separator": png_chunk(b"zTXt", b"parameters") + png_chunk(b"iTXt", b"parameters"),
    "not packed": png_chunk(b"zTXt", b"parameters\0\0not zlib"),
    "bad EXIF": png_chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "a chunk beyond the file": struct.pack(">I", 0xFFFFFFF0) + b"tEXtparameters\0abc",
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("case", HOSTILE_TEXTS)
def test_hostile_texts_are_no_prompt(case: str, tmp_path: Path) -> None:
    """Within seconds, and without an exception."""
    path = tmp_path / "a.png"
    path.write_bytes(png(PIXELS, colour=2, before=HOSTILE_TEXTS[case]))
    assert read_embedded_prompt(path) is None


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    """The same reasons as opening it: missing, a folder, empty, text."""
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    for name, reason in (
        ("missing.png", "no such file"),
        ("", "a folder"),
        ("empty.png", "empty"),
        ("text.png", "not an image"),
    ):
        with pytest.raises(ImageRejected, match=reason):
            read_embedded_prompt(tmp_path / name)


def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """Nobody ever writes into it."""
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageRejected, match="a named pipe"):
        read_embedded_prompt(tmp_path / "pipe.png")


def test_text_that_cannot_be_written_as_utf_8_is_made_so(tmp_path: Path) -> None:
    """NUL bytes go, half a surrogate pair becomes a question mark."""
    nodes = json.dumps(graph(yes=node("CLIPTextEncode", text="a\0 red \ud800fox")))
    path = tmp_path / "a.png"
    path.write_bytes(png(PIXELS, colour=2, before=png_chunk(b"tEXt", b"prompt\0" + nodes.encode())))
    found = read_embedded_prompt(path)
    assert found is not None
    assert found.prompt == "a red ?fox"
