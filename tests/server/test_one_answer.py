"""One image, one answer: whoever asks, by whatever way, gets the same prompt."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from imprompt.encoders.lite import LiteEncoder
from imprompt.ensemble.blend_config import load_blend_config
from imprompt.ensemble.ensemble import EnsemblePrediction
from imprompt.ensemble.members import load_ensemble
from imprompt.images.decode import ENOUGH_PX, open_image
from imprompt.retriever import Filters
from imprompt.retriever.filters import select
from imprompt.server import schemas
from imprompt.server.server_settings import ServerSettings
from imprompt.store.index_version import open_version
from tests.conftest import Imprompt
from tests.indexer.doubles import write_image
from tests.server.conftest import Serve
from tests.server.pictures import b64

PROMPTS = (
    "a lighthouse on a cliff at dusk, oil painting, warm light, by greg rutkowski",
    "a stone tower by the sea, oil painting, warm light, highly detailed",
    "a harbour at night, watercolor, calm sea, wide shot",
    "a ship in a storm, wide shot, oil painting, by greg rutkowski",
    "a lake in the mountains, calm sea, warm light, highly detailed",
    "abstract waves of colour, watercolor, highly detailed, wide shot",
)


NEGATIVES = (
    *("blurry, low quality", "low quality,  Blurry", "people, text", "people, text"),
    *("text, people", ""),
)
SETTINGS = (
    *("Steps: 30, Sampler: Euler a, Size: 512x512, Seed: 1", "Steps: 30, Seed: 2, Size: 64x64"),
    *("Steps: 25, Sampler: DDIM, Seed: 3", "Steps: 30, Sampler: euler A, Seed: 4"),
    *("Steps: 25, Sampler: DDIM, Seed: 5", "Steps: 40, Sampler: Heun, Seed: 6, Size: 512x512"),
)


@pytest.fixture(scope="module")
def root(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the prompts of images, which share phrases, negative prompts and settings."""
    folder = tmp_path_factory.mktemp("one")
    for row, prompt in enumerate(PROMPTS):
        path = folder / "images" / f"{row}.png"
        write_image(path, prompt, negative=NEGATIVES[row], settings=SETTINGS[row])
    return build(folder, corpus=f"images:{folder / 'images'}")


@pytest.fixture(scope="module")
def server(serve: Serve, root: Path) -> Iterator[TestClient]:
    with serve(ServerSettings(root)) as client:
        yield client


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file without metadata, so large that it is shrunk while it is decoded."""
    soft = Image.fromarray(np.random.default_rng(1).integers(0, 256, (5, 6, 3), dtype=np.uint8))
    path = tmp_path_factory.mktemp("asked") / "asked.jpg"
    soft.resize((1920, 1600), Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def suggested(answer: dict[str, Any]) -> dict[str, Any]:
    """What is commonest beside the prompts of an answer, counted by hand, nearest first."""
    rows = [hit["row_id"] for hit in answer["nearest"]]
    negatives = {
        row: frozenset(NEGATIVES[row].lower().replace("  ", " ").split(", ")) for row in rows
    }
    counts = Counter(negatives[row] for row in rows if NEGATIVES[row])
    (parts, support), *_ = counts.most_common(1)
    text = next(NEGATIVES[row] for row in rows if negatives[row] == parts)
    settings = []
    for name in ("Sampler", "Steps", "Size"):
        values = [
            match[1] for row in rows if (match := re.search(f"{name}: ([^,]+)", SETTINGS[row]))
        ]
        for value, n in Counter(value.lower() for value in values).most_common(1):
            first = next(other for other in values if other.lower() == value)
            settings += [{"name": name.lower(), "value": first, "support": n}] if n > 1 else []
    negative = {"text": text, "support": support} if support > 1 else None
    return {"n_prompts": len(rows), "negative": negative, "settings": settings}


def by_name(suggestion: dict[str, Any]) -> dict[str, Any]:
    """The same with its settings in the order of their names."""
    settings = sorted(suggestion["settings"], key=lambda setting: str(setting["name"]))
    return {**suggestion, "settings": settings}


def predicted(root: Path, lite: LiteEncoder, image: Path, filters: Filters) -> EnsemblePrediction:
    """Return what the library's ensemble predicts, as `evaluate` asks it."""
    picture = open_image(image, enough_px=ENOUGH_PX)
    with open_version(root) as version:
        ensemble = load_ensemble(load_blend_config("default"), version, lite, offline=True)
        (prediction,) = ensemble.among(select(filters, version.prompts)).predict([picture])
    return prediction


def queried(imprompt: Imprompt, root: Path, image: Path, *words: str) -> dict[str, Any]:
    """Return the answer of the command line."""
    done = imprompt("query", image, *words, "--json", "--index", root)
    assert done.code == 0, done.err
    (answer,) = done.lines
    return answer


def posted(server: TestClient, image: Path, **fields: object) -> dict[str, Any]:
    """Return the result of /v1/query."""
    done = server.post("/v1/query", json={"images": [b64(image.read_bytes())], **fields})
    assert done.status_code == 200, done.text
    (parsed,) = schemas.QueryResponse.model_validate(done.json()).results
    assert "suggested" not in (parsed.model_extra or {})
    result: dict[str, Any] = done.json()["results"][0]
    return result


def submitted(imprompt: Imprompt, root: Path, image: Path, folder: Path) -> str:
    """Return the prompt beside a submission."""
    out = folder / "prompts.csv"
    words = ("--out", folder / "out.npz", "--prompts-out", out, "--index", root)
    done = imprompt("submit", image.parent, *words)
    assert done.code == 0, done.err
    with out.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["imgId"], row["how"]) == ("asked", "estimated")
    return row["prompt"]


def test_every_door_gives_the_same_prompt(
    imprompt: Imprompt,
    server: TestClient,
    lite: LiteEncoder,
    root: Path,
    image: Path,
    tmp_path: Path,
) -> None:
    """Command line, server, clients of other tools, submission and library; explained or not."""
    plain = queried(imprompt, root, image)
    explained = queried(imprompt, root, image, "--explain")
    by_server = posted(server, image)
    by_form = server.post("/v1/query", files={"image": image.read_bytes()}, data={"k": "1"}).json()
    explained_by_server = posted(server, image, explain=True)
    caption = server.post("/sdapi/v1/interrogate", json={"image": b64(image.read_bytes())}).json()
    shown = imprompt("query", image, "--index", root).out
    prompts = {
        "query --json": plain["prompt"],
        "query --explain --json": explained["prompt"],
        "/v1/query": by_server["prompt"],
        "/v1/query, a form": by_form["results"][0]["prompt"],
        "/v1/query, explain": explained_by_server["prompt"],
        "/sdapi/v1/interrogate": caption["caption"],
        "submit --prompts-out": submitted(imprompt, root, image, tmp_path),
        "Ensemble.predict": (by_library := predicted(root, lite, image, Filters())).prompt,
    }
    assert len(set(prompts.values())) == 1, json.dumps(prompts, indent=2)
    assert f"estimated: {plain['prompt']}\n" in shown
    assert len(plain["phrases"]) > 1
    assert by_library.suggestion is not None
    assert dataclasses.asdict(by_library.suggestion) == {
        **plain["suggested"],
        "settings": tuple(plain["suggested"]["settings"]),
    }
    assert by_name(plain["suggested"]) == by_name(suggested(plain))
    assert plain["suggested"]["negative"] == {"text": ANY, "support": 3}
    negative = plain["suggested"]["negative"]["text"]
    assert (
        "suggested, the commonest of the 6 prompts around it:\n"
        f"  negative (3 prompts): {negative}\n" in shown
    )
    assert re.search(r"\bsteps (25|30) \([23]\)", shown)
    for field in ("how", "phrases", "shared", "tags", "confidence", "close", "suggested"):
        assert plain[field] == explained[field] == by_server[field] == explained_by_server[field]
    assert [hit["row_id"] for hit in plain["nearest"]] == [
        hit["row_id"] for hit in by_server["nearest"]
    ]


@pytest.mark.parametrize(
    ("words", "filters"),
    [
        (["--exclude", "warm light"], {"exclude": ["warm light"]}),
        (["--no-artists"], {"no_artists": True}),
        (["--contains", "wide shot"], {"contains": ["wide shot"]}),
        (["--where", "row_id <> 4"], {"where": "row_id <> 4"}),
    ],
)
def test_every_door_that_filters_gives_the_same_prompt(
    imprompt: Imprompt,
    server: TestClient,
    lite: LiteEncoder,
    root: Path,
    image: Path,
    words: list[str],
    filters: dict[str, Any],
) -> None:
    """Of the prompts that pass alone, explained or not."""
    answers = [
        queried(imprompt, root, image, *words),
        queried(imprompt, root, image, *words, "--explain"),
        posted(server, image, filters=filters),
        posted(server, image, filters=filters, explain=True),
    ]
    chosen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in filters.items()
    }
    by_library = predicted(root, lite, image, Filters(**chosen))
    assert {answer["prompt"] for answer in answers} == {by_library.prompt}
    passing = {hit["row_id"] for hit in answers[0]["nearest"]}
    for answer in answers:
        assert by_name(answer["suggested"]) == by_name(suggested(answers[0]))
        assert answer["suggested"]["n_prompts"] == len(passing) < len(PROMPTS)
        assert answer["phrases"] == answers[0]["phrases"] != []
        assert {hit["row_id"] for hit in answer["nearest"]} == passing
        for phrase in (*answer["phrases"], *answer["shared"]):
            assert set(phrase["row_ids"]) <= passing
            for unwanted in filters.get("exclude", []):
                assert unwanted not in phrase["text"]
            assert not (filters.get("no_artists") and phrase["role"] == "artist")


def test_a_text_has_no_prompt_at_any_door(
    imprompt: Imprompt, server: TestClient, root: Path, image: Path
) -> None:
    """Alone and with an image it is searched for, and the nearest prompts are the answer."""
    text = "a ship in a storm"
    answers = [
        *imprompt("query", "--text", text, "--json", "--index", root).lines,
        *imprompt("query", image, "--text", text, "--json", "--index", root).lines,
        *server.post("/v1/search", json={"text": text}).json()["results"],
        *server.post("/v1/query", json={"text": text}).json()["results"],
        posted(server, image, text=text),
    ]
    assert len(answers) == 5
    for answer in answers:
        assert (answer["how"], answer["nearest"][0]["prompt"]) == ("searched", PROMPTS[3])
        fields = {"prompt", "phrases", "shared", "confidence", "close", "suggested"}
        assert not fields & answer.keys()
    for words in ([], [image]):
        shown = imprompt("query", *words, "--text", text, "--index", root).out
        assert "estimated" not in shown
        assert "Phrases" not in shown
        assert "suggested" not in shown


def test_a_prompt_in_the_file_has_its_own_negative_and_no_suggestion(
    imprompt: Imprompt, server: TestClient, root: Path
) -> None:
    """`negative` and `settings` are what the file says, `suggested` is what others used."""
    told = root.parent / "images" / "0.png"
    for answer in (queried(imprompt, root, told), posted(server, told)):
        assert (answer["how"], answer["negative"]) == ("exact", NEGATIVES[0])
        assert answer["settings"]["steps"] == "30"
        assert "suggested" not in answer
    for answer in (
        queried(imprompt, root, told, "--ignore-metadata"),
        posted(server, told, ignore_metadata=True),
    ):
        assert answer["how"] == "estimated"
        assert not {"negative", "settings"} & answer.keys()
        assert answer["suggested"]["negative"]["support"] == 3


def test_without_negative_prompts_nothing_is_suggested(
    imprompt: Imprompt, client: TestClient, index: Path, image: Path
) -> None:
    """Neither in JSON nor in words."""
    for answer in (queried(imprompt, index, image), posted(client, image)):
        assert answer["how"] == "estimated"
        assert "suggested" not in answer
    assert "suggested" not in imprompt("query", image, "--index", index).out
