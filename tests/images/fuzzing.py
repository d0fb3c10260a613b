"""Random graphs, workflows, EXIF, XMP and infotexts, many of them half right.

python -m tests.images.fuzzing COUNT [SEED]
"""

from __future__ import annotations

import copy
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from imprompt.core.errors import ImageRejected, MetadataRejected
from imprompt.images.prompts.comfyui.node_table import node_kinds
from imprompt.images.prompts.embedded_prompts import prompt_json, read_embedded_prompt
from tests.images.editor import plain, workflow
from tests.images.places import ANY_TEXT, comment_exif, field_exif, png_with, saved, text_chunk
from tests.images.sibling_graphs import SIBLINGS

SLOWEST_S = 1.0
_GRAPHS = [sibling[0] for siblings in SIBLINGS.values() for sibling in siblings.values()]
_WORKFLOW = workflow(*plain().values())
_KINDS = sorted(node_kinds())
_NAMES = sorted(
    {name for kind in node_kinds().values() for name in kind.widgets}
    | {"positive", "negative", "text", "clip", "ctx_01"}
)
_WORDS = (
    *(
        "a red fox",
        "",
        " ",
        "Negative prompt:",
        "Steps: 20",
        "Sampler: Euler a",
        "Seed: 42",
        "Size: 1x1",
        "Template:",
        "{a|b}",
        "__x__",
    ),
    *(
        "\n",
        "\r",
        ",",
        ":",
        '"',
        "\\",
        "\0",
        "\ufeff",
        "\ud800",
        "赤い",
        "<lora:x:1>",
        "(" * 50,
        "(a+)+$",
        "###",
        "Include in Image: ",
    ),
    *("{", "}", "[", "]", "<", "&a;", "prompt:", "workflow:", "0", "-1", "1e999"),
)


def words(draw: random.Random, most: int = 12) -> str:
    return draw.choice(("", " ", ", ")).join(draw.choices(_WORDS, k=draw.randrange(most)))


def value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return words(draw)
    if kind == 2:
        return draw.choice((0, 1, -1, 2, 10**9, 10**30, True, False, None))
    if kind == 3:
        return draw.choice((0.5, -1.0, float("inf"), float("nan")))
    if kind < 6:
        return [str(draw.randrange(12)), draw.randrange(-1, 8)]
    if kind == 6:
        return [value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {words(draw, 3): value(draw, depth + 1) for _ in range(draw.randrange(4))}


def random_graph(draw: random.Random) -> dict[str, Any]:
    """Nodes of the table with any links among them, circles too."""
    return {
        str(key): {
            "class_type": draw.choice(_KINDS),
            "inputs": {draw.choice(_NAMES): value(draw) for _ in range(draw.randrange(6))},
        }
        for key in range(draw.randrange(1, 14))
    }


def damaged(draw: random.Random, whole: Any, depth: int = 0) -> Any:
    """The same with a part of it replaced, left out or doubled."""
    if depth > 6 or draw.random() < 0.03:
        return value(draw)
    if isinstance(whole, dict):
        kept = [key for key in whole if draw.random() > 0.02]
        return {key: damaged(draw, whole[key], depth + 1) for key in kept}
    if isinstance(whole, list):
        return [damaged(draw, item, depth + 1) for item in whole if draw.random() > 0.02]
    return whole


def some_json(draw: random.Random) -> str:
    made: Any = draw.choice(
        (
            lambda: random_graph(draw),
            lambda: damaged(draw, copy.deepcopy(draw.choice(_GRAPHS))),
            lambda: damaged(draw, copy.deepcopy(_WORKFLOW)),
            lambda: {
                "prompt": random_graph(draw),
                "workflow": damaged(draw, copy.deepcopy(_WORKFLOW)),
            },
            lambda: {
                draw.choice(
                    ("nodes", "links", "c", "uc", "prompt", "sampler", "v4_prompt", "edges")
                ): value(draw)
                for _ in range(4)
            },
        )
    )()
    text = json.dumps(made)
    return json.dumps(text) if draw.random() < 0.1 else text


def flipped(draw: random.Random, data: bytes) -> bytes:
    """The same with a few bytes changed, or cut."""
    changed = bytearray(data)
    for _ in range(draw.randrange(4)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed[: draw.randrange(1, len(changed))] if draw.random() < 0.1 else changed)


def one_file(draw: random.Random) -> bytes:
    text = some_json(draw) if draw.random() < 0.5 else words(draw, 60)
    text = text.encode("utf-8", "replace").decode()
    keyword = draw.choice(
        (
            "prompt",
            "workflow",
            "parameters",
            "Comment",
            "invokeai_graph",
            "invokeai_metadata",
            "imagemetahub_data",
            "Dream",
        )
    )
    made: tuple[Callable[[], bytes], ...] = (
        lambda: png_with(text_chunk(keyword, text)),
        lambda: png_with(text_chunk(keyword, text), text_chunk("workflow", json.dumps(_WORKFLOW))),
        lambda: flipped(draw, draw.choice(list(ANY_TEXT.values()))(text)),
        lambda: saved(
            "JPEG",
            exif=flipped(
                draw,
                comment_exif(draw.randbytes(8) + text.encode(draw.choice(("utf-8", "utf-16-le")))),
            ),
        ),
        lambda: saved(
            "JPEG",
            exif=flipped(draw, field_exif(draw.choice((0x010E, 0x010F, 0x9C9C)), text.encode())),
        ),
        lambda: png_with(
            text_chunk(
                "XML:com.adobe.xmp", f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{text}</x:xmpmeta>"
            )
        ),
    )
    weights = (6, 2, 3, 1, 1, 1)
    (chosen,) = draw.choices(made, weights)
    try:
        return chosen()
    except (
        ValueError,
        SystemError,
        OSError,
    ):  # Pillow writes no segment beyond 64 kB, no block that is not one
        return png_with(text_chunk(keyword, text))


def run(count: int, seed: int) -> tuple[int, float]:
    """Read so many files; return how many had a prompt, and the seconds of the slowest.

    Raises:
        AssertionError: one took too long, or an answer cannot be written as JSON in UTF-8.
    """
    n_found, slowest = 0, 0.0
    for number in range(count):
        data = one_file(random.Random(f"{seed} {number}"))  # noqa: S311 -- inputs, not secrets
        begun = time.process_time()
        try:
            found = read_embedded_prompt(data)
        except (ImageRejected, MetadataRejected):
            found = None
        except Exception as error:
            raise AssertionError(f"input {number} of seed {seed}") from error
        took = time.process_time() - begun
        assert took < SLOWEST_S, f"input {number} of seed {seed} took {took:.1f} s"
        slowest = max(slowest, took)
        if found is not None:
            n_found += 1
            json.dumps(prompt_json(found), ensure_ascii=False).encode()
            assert found.prompt == found.prompt.strip() != ""
            assert "\n" not in found.doubt
    return n_found, slowest


if __name__ == "__main__":
    arguments = [int(text) for text in sys.argv[1:]]
    print(run(arguments[0], arguments[1] if len(arguments) > 1 else 0))  # noqa: T201 -- a script
