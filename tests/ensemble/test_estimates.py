"""Answers of the ensemble, by the library and by the command line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imprompt.core.errors import ImpromptError, MemberUnavailable, QueryError
from imprompt.ensemble.estimates import ask
from imprompt.ensemble.neighbourhood import Neighbourhood
from imprompt.retriever import Answer, Filters, Question, Retriever
from imprompt.store.index_version import IndexVersion
from tests.conftest import Imprompt
from tests.ensemble.builders import FixedMember, ensemble, picture

ROOT = Path(__file__).resolve().parents[2]


def saved(folder: Path, colour: str, *, prompt: str = "") -> Path:
    """A picture as a file, with a prompt in it where one is given."""
    text = PngInfo()
    if prompt:
        text.add_text(
            "parameters",
            f"{prompt}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64",
        )
    path = folder / f"{colour}{'-told' if prompt else ''}.png"
    picture(colour).save(path, pnginfo=text)
    return path


def test_bad_and_good_questions_keep_their_places(version: IndexVersion, tmp_path: Path) -> None:
    """Each question has its own result; a bad one does not shift the estimates after it."""
    members = ensemble(
        version, FixedMember("sayer", "red", mute=True), weights={"knn": 1, "sayer": 1e-9}
    )
    (tmp_path / "bad.png").write_text("no picture", "utf-8")
    asked = [
        Question(image=tmp_path / "bad.png"),
        Question(image=saved(tmp_path, "blue")),
        Question(text="red"),
        Question(image=saved(tmp_path, "red", prompt="an owl of brass")),
        Question(image=saved(tmp_path, "lime"), text="red"),
        Question(image=saved(tmp_path, "red")),
        Question(image=saved(tmp_path, "red", prompt="an owl of brass"), ignore_metadata=True),
    ]
    retriever = Retriever(version, members.neighbourhood.encoder)
    bad, *answers = ask(asked, 3, retriever=retriever, ensemble=members)
    assert isinstance(bad, ImpromptError)
    good = [answer for answer in answers if isinstance(answer, Answer)]
    assert [answer.how for answer in good] == [
        *("estimated", "searched", "exact", "searched", "estimated", "estimated")
    ]
    blue, text, owl, mixed, red, ignored = good
    assert blue.estimate is not None
    assert "blue" in blue.prompt
    assert "red" in red.prompt
    (alone,) = members.predict([picture("blue")])
    np.testing.assert_allclose(blue.estimate.explanation.vector, alone.vector, atol=1e-6)
    assert (blue.prompt, blue.estimate.phrases) == (alone.prompt, alone.phrases)
    assert (text.prompt, text.neighbours[0].prompt, text.estimate) == ("", "red", None)
    assert (mixed.prompt, mixed.neighbours[0].prompt) == ("", "red and green")
    assert (owl.prompt, owl.estimate) == ("an owl of brass", None)
    assert ignored.prompt == red.prompt
    searched = [one for one in retriever.ask(asked[1:], 3) if isinstance(one, Answer)]
    assert [[replace(hit, closeness=None) for hit in answer.neighbours] for answer in good] == [
        [*answer.neighbours] for answer in searched
    ]
    assert all(hit.closeness for answer in good for hit in answer.neighbours)


def test_without_the_ensemble_only_estimates_fail(version: IndexVersion, tmp_path: Path) -> None:
    """A prompt in the file and a text need none of its members."""
    members = ensemble(version, weights={"knn": 1})
    asked = [
        Question(image=saved(tmp_path, "blue")),
        Question(text="red"),
        Question(image=saved(tmp_path, "red", prompt="an owl of brass")),
    ]
    missing = MemberUnavailable("ofa", "its weights are not here", hint="Fetch them.")
    retriever = Retriever(version, members.neighbourhood.encoder)
    blue, text, owl = ask(asked, 3, retriever=retriever, ensemble=missing)
    assert blue is missing
    assert isinstance(text, Answer)
    assert isinstance(owl, Answer)
    assert (text.how, owl.how, owl.prompt) == ("searched", "exact", "an owl of brass")


def test_filters_choose_the_neighbours_and_the_phrases(
    version: IndexVersion, tmp_path: Path
) -> None:
    """The answer names them; one that nothing passes is the question's error."""
    members = ensemble(version, weights={"knn": 1})
    retriever = Retriever(version, members.neighbourhood.encoder)
    asked = [Question(image=saved(tmp_path, "lime"))]
    filters = Filters(exclude=("green",))
    (answer,) = ask(asked, 8, retriever=retriever, ensemble=members, filters=filters)
    assert isinstance(answer, Answer)
    assert answer.estimate is not None
    assert answer.filters == filters
    passing = {hit.row_id for hit in answer.neighbours}
    assert {row_id for phrase in answer.estimate.phrases for row_id in phrase.row_ids} <= passing
    assert "green" not in answer.prompt
    (refused,) = ask(
        asked, 8, retriever=retriever, ensemble=members, filters=Filters(contains=("purple",))
    )
    assert isinstance(refused, QueryError)
    with pytest.raises(QueryError, match="k is 0"):
        ask(asked, 0, retriever=retriever, ensemble=members)


def test_query_explains_every_contribution(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """Shares add up to 1, the vector is a unit of 384 numbers, and no confidence is claimed."""
    path = saved(tmp_path, "red")
    done = imprompt("query", path, "--explain", "--json", "-k", "2", "--index", lite_index)
    assert done.code == 0, done.err
    (answer,) = done.lines
    explanation = answer["explanation"]
    assert explanation["blend"] == "default"
    assert explanation["left_out"] == []
    assert (answer["confidence"], answer["close"]) == (None, None)
    assert sum(part["share"] for part in explanation["contributions"]) == pytest.approx(1)
    assert set(explanation["contributions"][0]) == {"member", "share", "cosine", "text"}
    assert np.linalg.norm(explanation["vector"]) == pytest.approx(1, abs=1e-5)
    assert len(explanation["vector"]) == 384
    assert len(answer["nearest"]) == 2
    shown = imprompt("query", path, "--explain", "--index", lite_index).out
    assert "likely" not in shown
    for words in (
        f"estimated: {answer['prompt']}\n",
        "Contributions to blend default",
        "knn",
        "vit",
        "nearest prompts",
    ):
        assert words in shown


def test_an_explanation_changes_nothing(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """The plain answer is the same without it, and lists no contributions."""
    asked = ("query", saved(tmp_path, "red"), "--index", lite_index)
    (plain,) = imprompt(*asked, "--json").lines
    (explained,) = imprompt(*asked, "--json", "--explain").lines
    assert list(plain) == [
        *("image", "prompt", "how", "phrases", "shared", "tags", "confidence", "close"),
        *("nearest", "encoder", "corpus", "version", "seconds"),
    ]
    assert set(explained) - set(plain) == {"explanation"}
    assert set(plain["phrases"][0]) == {"text", "role", "support", "row_ids"}
    del explained["explanation"], explained["seconds"], plain["seconds"]
    assert plain == explained
    assert plain["prompt"] == ", ".join(phrase["text"] for phrase in plain["phrases"])
    assert plain["phrases"][0]["role"] == "subject"
    assert "Contributions" not in imprompt(*asked).out


def test_options_of_the_ensemble_need_images_without_a_text(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """Nothing is estimated for a text."""
    path = saved(tmp_path, "red")
    for words in (["--explain"], ["--degrade"], ["--blend", "notebook"], ["--phrases", "corpus"]):
        for asked in (["--text", "red"], [path, "--text", "red"], []):
            done = imprompt("query", *asked, *words, "--index", lite_index)
            assert done.code == 10
            assert "work on images without a text" in done.err


def test_another_blend_needs_no_explanation(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """`--blend` alone changes who answers."""
    blend_config = tmp_path / "mine.json"
    blend_config.write_text('{"name": "mine", "weights": {"knn": 1}, "knn": {"k": 1}}', "utf-8")
    asked = ("query", saved(tmp_path, "red"), "--json", "--index", lite_index)
    (answer,) = imprompt(*asked, "--blend", blend_config, "--explain").lines
    assert [part["member"] for part in answer["explanation"]["contributions"]] == ["knn"]
    (plain,) = imprompt(*asked, "--blend", blend_config).lines
    assert plain["prompt"] == answer["prompt"]
    around = {row_id for phrase in plain["phrases"] for row_id in phrase["row_ids"]}
    assert around <= {plain["nearest"][0]["row_id"]}, "of one prompt around the picture"


def test_effort_reaches_the_ensemble(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its search is as thorough as that for the neighbours."""
    efforts: list[float | None] = []
    made = Neighbourhood.__init__

    def noting(self: Neighbourhood, *words: Any, **options: Any) -> None:
        efforts.append(options.get("effort"))
        made(self, *words, **options)

    monkeypatch.setattr(Neighbourhood, "__init__", noting)
    words = ("--effort", "0.5", "--exclude", "lake", "--index", lite_index)
    assert imprompt("query", saved(tmp_path, "red"), *words).code == 0
    assert efforts == [0.5, 0.5], "without and with the filter"


def test_a_missing_member_stops_or_is_left_out(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """The error says what to fetch; with --degrade answer and exit code say what is missing.

    That needs no `--explain`.
    """
    blend_config = tmp_path / "blend_config.json"
    blend_config.write_text('{"name": "mine", "weights": {"vit": 1, "ofa": 1}}', "utf-8")
    words = [
        "query",
        saved(tmp_path, "red"),
        "--explain",
        "--offline",
        "--blend",
        blend_config,
        "--index",
        lite_index,
    ]
    done = imprompt(*words)
    assert done.code == 60
    assert "ofa-large-caption" in done.err
    assert "Fetch" in done.err
    done = imprompt(*words, "--degrade", "--json")
    assert done.code == 4
    (answer,) = done.lines
    assert [(part["member"], part["share"]) for part in answer["explanation"]["contributions"]] == [
        ("vit", 1.0)
    ]
    assert [left["member"] for left in answer["explanation"]["left_out"]] == ["ofa"]
    assert "without ofa" in done.err
    assert "without ofa" in imprompt(*words, "--degrade").out
    words.remove("--explain")
    assert imprompt(*words).code == 60
    done = imprompt(*words, "--degrade", "--json")
    assert done.code == 4
    assert done.lines[0]["prompt"] == answer["prompt"]


def test_a_prompt_in_the_file_needs_no_member(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """Its answer has its neighbours; the picture that needs the ensemble is listed."""
    blend_config = tmp_path / "blend_config.json"
    blend_config.write_text('{"name": "mine", "weights": {"ofa": 1}}', "utf-8")
    told = saved(tmp_path, "red", prompt="an owl of brass")
    words = ("--offline", "--blend", blend_config, "--json", "--index", lite_index)
    done = imprompt("query", told, *words)
    assert done.code == 0, done.err
    assert (done.lines[0]["how"], done.lines[0]["prompt"]) == ("exact", "an owl of brass")
    assert len(done.lines[0]["nearest"]) == 3
    done = imprompt("query", told, saved(tmp_path, "blue"), *words)
    assert done.code == 3
    assert [line.get("prompt") for line in done.lines] == ["an owl of brass", None]
    assert done.lines[1]["error"]["kind"] == "member-unavailable"


def test_a_single_bad_image_is_its_own_error(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """As without an explanation."""
    (tmp_path / "bad.png").write_text("no", "utf-8")
    assert imprompt("query", tmp_path / "bad.png", "--explain", "--index", lite_index).code == 32


def test_a_query_imports_no_model_that_it_does_not_use(lite_index: Path, tmp_path: Path) -> None:
    """The default blend of `lite` runs on ONNX Runtime alone."""
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    script = (
        "import sys\n"
        "sys.argv = ['cli', 'query', sys.argv[1], '--index', sys.argv[2], '--quiet', '--json']\n"
        "from imprompt import cli\n"
        "assert cli.run() == 0\n"
        "heavy = ('torch', 'transformers', 'timm', 'torchvision', 'open_clip')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "x.png"), str(lite_index)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
