"""A prompt is read wherever tools and other programs write it, whatever its encoding is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imprompt.core.errors import MetadataRejected
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt, read_embedded_prompt
from tests.images.builders import png_chunk
from tests.images.fuzzing import run
from tests.images.graphs import SETTINGS, graph, node
from tests.images.places import (
    ANY_TEXT,
    COMMENTS,
    Place,
    comment_exif,
    exif_of,
    extended_xmp_jpeg,
    jpeg_segments,
    packet,
    png_with,
    saved,
    text_chunk,
    twice,
    unicode_comment,
    xmp_jpeg,
)

LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x512, Model: own"
TEXT = f"a red fox,\nin snow\nNegative prompt: blurry\n{LINE}"
JAPANESE = f"赤い狐, 雪の中で, 高品質な写真\nNegative prompt: 低品質\n{LINE}"
GRAPH = json.dumps(graph())


@pytest.mark.parametrize("place", ANY_TEXT.values(), ids=ANY_TEXT.keys())
def test_an_infotext_is_read_in_each_place(place: Place) -> None:
    """With its lines."""
    found = read_embedded_prompt(place(TEXT))
    assert found is not None
    assert (found.prompt, found.negative, found.tool) == (
        "a red fox,\nin snow",
        "blurry",
        "AUTOMATIC1111",
    )
    assert (found.settings["seed"], found.how) == ("42", "exact")


@pytest.mark.parametrize("place", ANY_TEXT.values(), ids=ANY_TEXT.keys())
def test_a_graph_is_read_in_each_place(place: Place) -> None:
    """The same places hold ComfyUI's JSON."""
    found = read_embedded_prompt(place(json.dumps({"prompt": graph(), "workflow": {"nodes": []}})))
    assert found == EmbeddedPrompt("a red fox", "blurry", "ComfyUI", SETTINGS)


@pytest.mark.parametrize("text", [TEXT, JAPANESE], ids=["Latin", "Japanese"])
@pytest.mark.parametrize("comment", COMMENTS.values(), ids=COMMENTS.keys())
def test_a_user_comment_is_read_in_each_encoding(comment: Place, text: str) -> None:
    """By its label where that is right, else by its look."""
    found = read_embedded_prompt(saved("JPEG", exif=comment_exif(comment(text))))
    assert found is not None
    prompt, _, rest = text.partition("\nNegative prompt: ")
    assert (found.prompt, found.negative) == (prompt, rest.partition("\n")[0])


@pytest.mark.parametrize("encoding", ["iso2022_jp", "shift_jis"])
def test_japanese_under_its_own_label_is_read(encoding: str) -> None:
    """As the standard has it, and as cameras write it."""
    found = read_embedded_prompt(
        saved("JPEG", exif=comment_exif(b"JIS\0\0\0\0\0" + JAPANESE.encode(encoding)))
    )
    assert found is not None
    assert found.prompt.startswith("赤い狐")


GRAPHS = {
    "PNG, capital keyword": png_with(text_chunk("Prompt", GRAPH)),
    "PNG, private chunk behind the pixels": png_with(
        behind=png_chunk(b"comf", b"prompt\0" + GRAPH.encode())
    ),
    "XMP of ComfyUI in WebP": saved("WEBP", xmp=packet("prompt", GRAPH, form="element")),
    "XMP of ComfyUI in PNG": png_with(
        text_chunk("XML:com.adobe.xmp", packet("prompt", GRAPH, form="element").decode())
    ),
    "XMP of ComfyUI in JPEG": xmp_jpeg(packet("prompt", GRAPH, form="attribute")),
    "XMP of ComfyUI in AVIF": saved("AVIF", xmp=packet("prompt", GRAPH)),
    "extended XMP": extended_xmp_jpeg(GRAPH),
    "encoded twice": png_with(text_chunk("prompt", twice(graph()))),
    "encoded thrice": png_with(text_chunk("prompt", json.dumps(twice(graph())))),
    "encoded twice inside": png_with(text_chunk("prompt", json.dumps({"prompt": GRAPH}))),
    "a byte-order mark": png_with(text_chunk("prompt", "\ufeff" + GRAPH)),
    "beside an infotext without settings": png_with(
        text_chunk("prompt", GRAPH), text_chunk("Comment", "holiday")
    ),
}


@pytest.mark.parametrize("data", GRAPHS.values(), ids=GRAPHS.keys())
def test_a_graph_is_read_where_comfyui_and_its_nodes_write_it(data: bytes) -> None:
    """And however often it was encoded."""
    assert read_embedded_prompt(data) == EmbeddedPrompt("a red fox", "blurry", "ComfyUI", SETTINGS)


def test_raw_line_ends_in_json_are_read() -> None:
    """As some nodes write them: no JSON, strictly."""
    text = json.dumps(graph(yes=node("CLIPTextEncode", text="a red fox,\nin snow"))).replace(
        "\\n", "\n"
    )
    found = read_embedded_prompt(png_with(text_chunk("prompt", text)))
    assert found is not None
    assert found.prompt == "a red fox,\nin snow"


@pytest.mark.parametrize("place", ["PNG text", "XMP property"])
def test_an_infotext_is_read_under_a_keyword_of_ones_own(place: str) -> None:
    """With its settings: a negative prompt's mark alone is none."""

    def placed(text: str) -> bytes:
        if place == "PNG text":
            return png_with(text_chunk("my-own-notes", text))
        return xmp_jpeg(packet("History", text))

    found = read_embedded_prompt(placed(TEXT))
    assert found is not None
    assert (found.prompt, found.negative) == ("a red fox,\nin snow", "blurry")
    assert read_embedded_prompt(placed("a talk\nNegative prompt: what it is")) is None


@pytest.mark.parametrize(
    "text", [f"\nNegative prompt: blurry\n{LINE}", f"Negative prompt: b\n{LINE}", f"\n{LINE}"]
)
@pytest.mark.parametrize("place", ANY_TEXT.values(), ids=ANY_TEXT.keys())
def test_an_infotext_with_an_empty_prompt_has_none(place: Place, text: str) -> None:
    """Never the whole text, and never what stands behind the mark."""
    assert read_embedded_prompt(place(text)) is None


@pytest.mark.parametrize("text", ["None", "null", "undefined", "NaN", " \n"])
def test_a_word_for_nothing_is_no_prompt(text: str) -> None:
    """It asked for a text that it did not have."""
    assert read_embedded_prompt(png_with(text_chunk("parameters", text))) is None


def test_an_empty_prompt_hides_no_graph() -> None:
    """The webui's form as a node wrote it, beside ComfyUI's graph."""
    text = text_chunk("parameters", f"\nNegative prompt: b\n{LINE}")
    found = read_embedded_prompt(png_with(text, text_chunk("prompt", GRAPH)))
    assert found is not None
    assert (found.prompt, found.tool) == ("a red fox", "ComfyUI")


JOB = "0123abcd-0123-4567-89ab-0123456789ab"


@pytest.mark.parametrize(
    "data",
    [
        png_with(
            text_chunk("Description", f"a red fox --ar 1:1 --v 6.0 Job ID: {JOB}"),
            text_chunk("Author", "own"),
        ),
        xmp_jpeg(packet("description", f"a red fox --ar 1:1 --v 6.0 Job ID: {JOB}")),
    ],
    ids=["PNG", "XMP"],
)
def test_midjourneys_description_is_read(data: bytes) -> None:
    """Its switches belong to the prompt, the job's number does not."""
    wanted = EmbeddedPrompt("a red fox --ar 1:1 --v 6.0", "", "Midjourney", {"job_id": JOB})
    assert read_embedded_prompt(data) == wanted


@pytest.mark.parametrize(
    "text", ["a red fox Job ID: 17", "Job ID: ", f"Job ID: {JOB}", f"a job {JOB}"]
)
def test_another_description_is_no_job(text: str) -> None:
    """Only a whole number ends it, and only a prompt stands before it."""
    assert read_embedded_prompt(png_with(text_chunk("Description", text))) is None


OBJECTS: dict[str, tuple[dict[str, object], str]] = {
    "a script": ({"negative_prompt": "blurry", "seed": 4, "steps": 20}, ""),
    "DiffusionBee": ({"negative_prompt": "blurry", "seed": 4, "model": "own"}, ""),
    "AI Horde": ({"params": {"seed": "4"}, "models": ["own"]}, "AI Horde"),
    "Fooocus-MRE": (
        {"real_prompt": ["a red fox"], "negative_prompt": "blurry", "seed": 4},
        "Fooocus",
    ),
}


@pytest.mark.parametrize("case", OBJECTS)
@pytest.mark.parametrize("keyword", ["Comment", "parameters", "UserComment"])
def test_an_object_with_a_prompt_is_read(case: str, keyword: str) -> None:
    """Whoever wrote it, if settings stand beside the prompt."""
    fields, tool = OBJECTS[case]
    prompt = "a red fox ### blurry" if case == "AI Horde" else "a red fox"
    found = read_embedded_prompt(
        png_with(text_chunk(keyword, json.dumps({"prompt": prompt, **fields})))
    )
    assert found is not None
    assert (found.prompt, found.negative, found.tool, found.how) == (
        "a red fox",
        "blurry",
        tool,
        "exact",
    )


def test_width_and_height_are_a_size_too() -> None:
    """As in the other tools' settings; what a tool calls its size stays."""
    fields = {"prompt": "a red fox", "seed": 4, "width": 512, "height": 768}
    for more, size in (({}, "512x768"), ({"size": "own"}, "own")):
        found = read_embedded_prompt(png_with(text_chunk("Comment", json.dumps(fields | more))))
        assert found is not None
        assert (found.settings["width"], found.settings["size"]) == ("512", size)


def test_texts_of_prompt_and_negative_prompt_are_read() -> None:
    """As scripts write them, and Sygil with a name before."""
    for name, tool in (("", ""), ("SD:", "Sygil")):
        texts = {
            f"{name}prompt": "a red fox",
            f"{name}negative_prompt": "blurry",
            f"{name}seed": "4",
        }
        found = read_embedded_prompt(png_with(*(text_chunk(*item) for item in texts.items())))
        assert found == EmbeddedPrompt("a red fox", "blurry", tool, {"seed": "4"})


@pytest.mark.parametrize(
    "value", [{"prompt": "a question"}, {"prompt": 4, "seed": 4}, {"prompt": "[1]", "seed": 4}]
)
def test_another_object_is_no_prompt(value: object) -> None:
    """A prompt alone may be one for a language model."""
    assert read_embedded_prompt(png_with(text_chunk("Comment", json.dumps(value)))) is None


def test_an_xmp_packet_that_is_a_bomb_has_no_texts() -> None:
    """Entities are refused before they are unpacked."""
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><x>&b;</x>'
    assert read_embedded_prompt(xmp_jpeg(bomb.encode())) is None
    assert read_embedded_prompt(xmp_jpeg(b"<x:xmpmeta")) is None


def test_a_packet_in_the_wrong_place_hides_nothing() -> None:
    """Camera's XMP beside the tool's comment."""
    segments = (
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet("CreatorTool", "Camera 1.0")),
        (0xFE, TEXT.encode()),
    )
    found = read_embedded_prompt(jpeg_segments(*segments))
    assert found is not None
    assert found.negative == "blurry"


def test_two_texts_of_one_keyword_are_both_looked_at() -> None:
    """The first is no prompt."""
    found = read_embedded_prompt(
        png_with(text_chunk("Comment", "holiday"), text_chunk("Comment", TEXT))
    )
    assert found is not None
    assert found.negative == "blurry"


def test_a_prompt_alone_is_exact_only_under_its_own_keyword() -> None:
    """A photograph's comment is none."""
    found = read_embedded_prompt(png_with(text_chunk("parameters", "a red fox, in snow")))
    assert found == EmbeddedPrompt("a red fox, in snow", "", "AUTOMATIC1111")
    for data in (
        png_with(text_chunk("Comment", "a red fox, in snow")),
        saved("JPEG", exif=unicode_comment("a red fox, in snow")),
        xmp_jpeg(packet("description", "a red fox, in snow")),
        jpeg_segments((0xFE, b"a red fox, in snow")),
    ):
        assert read_embedded_prompt(data) is None


def test_who_wrote_an_infotext_is_told_by_the_software_field() -> None:
    """Clients of the AI Horde write AUTOMATIC1111's form."""

    def fill(exif: object) -> None:
        exif[0x0131] = "ArtBot - Create images with Stable Diffusion, utilizing the AI Horde"  # type: ignore[index]
        exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + f"a red fox ### blurry\n{LINE}".encode()  # type: ignore[attr-defined]

    found = read_embedded_prompt(saved("JPEG", exif=exif_of(fill)))
    assert found is not None
    assert (found.prompt, found.negative, found.tool) == ("a red fox", "blurry", "ArtBot")


@pytest.mark.timeout(20)
def test_texts_without_end_are_bounded(tmp_path: Path) -> None:
    """Thousands of packed texts that unpack to megabytes each, countless comments, deep XMP."""
    many = b"".join(text_chunk(f"k{n}", "x" * (9 << 20), "zTXt") for n in range(3))
    with pytest.raises(MetadataRejected):
        read_embedded_prompt(png_with(many * 100))
    assert read_embedded_prompt(png_with(text_chunk("a", "b") * 50_000)) is None
    deep = (
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>"
        + b"<a>" * 50_000
        + b"</a>" * 50_000
        + b"</x:xmpmeta>"
    )
    assert read_embedded_prompt(png_with(text_chunk("XML:com.adobe.xmp", deep.decode()))) is None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_random_graphs_exif_xmp_and_infotexts_are_read_without_fault_or_hang() -> None:
    """Half right, damaged, circular; some have a prompt still."""
    n_found, _ = run(5_000, seed=1)
    assert n_found > 500
