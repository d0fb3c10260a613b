"""Retriever: questions of each kind are answered correctly, in order; a bad one harms no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imprompt.core.errors import EmptyQuery, ImageRejected, QueryError, SpaceMismatch
from imprompt.core.lookahead import THREADS
from imprompt.retriever import Answer, Question, Retriever
from imprompt.retriever import query_embedding as embedding_module
from imprompt.retriever.search import BATCH_QUESTIONS
from imprompt.store.exact_index import ExactIndex
from imprompt.store.index_version import IndexVersion
from tests.images.builders import png, png_chunk
from tests.images.tool_files import CARRIED_TEXT, DOUBT, stealth
from tests.retriever.colours import PROMPTS, SPEC, ColourPair, ColourPictures

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
PARAMETERS = (
    "a red barn\nNegative prompt: snow\n"
    "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 42, Size: 8x8"
)


@pytest.fixture
def retriever(version: IndexVersion) -> Retriever:
    return Retriever(version, ColourPair())


def picture(
    folder: Path, colour: tuple[int, int, int], *, name: str = "a.png", parameters: str = ""
) -> Path:
    info = PngInfo()
    if parameters:
        info.add_text("parameters", parameters)
    Image.new("RGB", (8, 8), colour).save(folder / name, pnginfo=info)
    return folder / name


def answers(retriever: Retriever, *questions: Question, k: int = 3) -> list[Answer]:
    results = list(retriever.ask(questions, k))
    assert all(isinstance(result, Answer) for result in results), results
    return [result for result in results if isinstance(result, Answer)]


def test_an_image_is_answered_with_the_nearest_prompts(
    retriever: Retriever, tmp_path: Path
) -> None:
    """Searched, without a prompt of its own; scores are cosines and fall."""
    (answer,) = answers(retriever, Question(image=picture(tmp_path, BLUE)))
    assert (answer.how, answer.prompt, answer.estimate) == ("searched", "", None)
    assert (answer.neighbours[0].prompt, answer.neighbours[0].shown) == ("blue", "blue")
    assert answer.neighbours[0].score == pytest.approx(1, abs=1e-3)
    assert answer.neighbours[1].score == pytest.approx(2**-0.5, abs=2e-3)
    assert [hit.score for hit in answer.neighbours] == sorted(
        (hit.score for hit in answer.neighbours), reverse=True
    )
    assert (answer.neighbours[0].source, answer.neighbours[0].source_key) == ("colours.txt", "5")


def test_a_text_alone_is_answered(retriever: Retriever) -> None:
    """White space around it, a decomposed letter and bytes that were no UTF-8 do no harm."""
    for text in ("green", "  green\n", "gr\udce9 green", "e\u0301 green"):
        (answer,) = answers(retriever, Question(text=text))
        assert (answer.image, answer.text, answer.how, answer.prompt) == (
            None,
            text,
            "searched",
            "",
        )
        assert answer.neighbours[0].prompt == "green"


def test_image_and_text_are_mixed_half_and_half(retriever: Retriever, tmp_path: Path) -> None:
    """A blue picture with "red" is nearest to "blue and red", whose vector is the mean of both."""
    (answer,) = answers(retriever, Question(image=picture(tmp_path, BLUE), text="red"))
    assert (answer.how, answer.prompt) == ("searched", "")
    assert answer.neighbours[0].prompt == "blue and red"
    assert answer.neighbours[0].score == pytest.approx(1, abs=1e-3)


def test_a_text_of_white_space_counts_as_none(retriever: Retriever, tmp_path: Path) -> None:
    """With an image it changes nothing."""
    path = picture(tmp_path, BLUE)
    plain, spaced = answers(retriever, Question(image=path), Question(image=path, text=" \n"))
    assert spaced.neighbours == plain.neighbours


def test_a_carried_prompt_is_exact_and_still_has_neighbours(
    retriever: Retriever, tmp_path: Path
) -> None:
    """The file says "a red barn", its pixels are green: prompt from it, neighbours from them."""
    (answer,) = answers(retriever, Question(image=picture(tmp_path, GREEN, parameters=PARAMETERS)))
    assert (answer.how, answer.prompt, answer.negative, answer.tool) == (
        "exact",
        "a red barn",
        "snow",
        "AUTOMATIC1111",
    )
    assert answer.settings["seed"] == "42"
    assert answer.neighbours[0].prompt == "green"


def test_a_prompt_that_is_not_exact_is_carried_with_its_doubt(
    retriever: Retriever, tmp_path: Path
) -> None:
    """The text is answered, and what keeps it from being exact."""
    path = picture(tmp_path, GREEN, parameters=CARRIED_TEXT)
    (answer,) = answers(retriever, Question(image=path))
    assert (answer.how, answer.prompt, answer.negative, answer.doubt) == (
        "carried",
        "a red fox",
        "blurry",
        DOUBT,
    )
    assert answer.to_json()["doubt"] == DOUBT


def test_metadata_is_ignored_when_asked(retriever: Retriever, tmp_path: Path) -> None:
    """The same file, searched for by its pixels alone."""
    path = picture(tmp_path, GREEN, parameters=PARAMETERS)
    exact, ignored = answers(
        retriever, Question(image=path), Question(image=path, ignore_metadata=True)
    )
    assert (ignored.how, ignored.prompt, ignored.negative, ignored.settings) == (
        "searched",
        "",
        "",
        {},
    )
    assert ignored.neighbours[0].prompt == "green"
    assert ignored.neighbours == exact.neighbours


def test_a_prompt_hidden_in_the_pixels_is_exact(retriever: Retriever, tmp_path: Path) -> None:
    """Nothing stands beside the pixels, which are decoded anyway."""
    path = tmp_path / "a.png"
    path.write_bytes(stealth(PARAMETERS, packed=True))
    hidden, ignored = answers(
        retriever, Question(image=path), Question(image=path, ignore_metadata=True)
    )
    assert (hidden.how, hidden.prompt, hidden.negative) == ("exact", "a red barn", "snow")
    assert ignored.how == "searched"


def test_metadata_that_is_too_large_costs_only_itself(retriever: Retriever, tmp_path: Path) -> None:
    """Nine megabytes of text: the pixels are answered, with a note in one line."""
    path = tmp_path / "a.png"
    path.write_bytes(
        png(
            np.full((8, 8, 3), BLUE, np.uint8),
            colour=2,
            before=png_chunk(b"tEXt", b"parameters\0" + b"a" * (9 << 20)),
        )
    )
    (answer,) = answers(retriever, Question(image=path))
    assert (answer.how, answer.neighbours[0].prompt) == ("searched", "blue")
    assert "more than 8,388,608 bytes" in answer.note
    assert answer.to_json()["note"] == answer.note
    assert (
        "note"
        not in answers(retriever, Question(image=picture(tmp_path, BLUE, name="b.png")))[
            0
        ].to_json()
    )


def test_the_same_neighbours_as_the_exact_index(
    retriever: Retriever, version: IndexVersion, tmp_path: Path
) -> None:
    """A second route: the exact index of the stored vectors, searched with the picture's vector."""
    colour = (200, 90, 30)
    path = picture(tmp_path, colour)
    (answer,) = answers(retriever, Question(image=path), k=len(PROMPTS))
    hits = ExactIndex(version.vectors(SPEC.space)).search(
        ColourPictures().encode([Image.open(path)]), len(PROMPTS)
    )
    assert [hit.row_id for hit in answer.neighbours] == hits.ids[0].tolist()
    np.testing.assert_allclose([hit.score for hit in answer.neighbours], hits.scores[0], atol=1e-6)
    assert [hit.prompt for hit in answer.neighbours] == [PROMPTS[row_id] for row_id in hits.ids[0]]


def test_fewer_neighbours_come_where_the_index_holds_fewer(retriever: Retriever) -> None:
    """Eight prompts are all that there are."""
    (answer,) = answers(retriever, Question(text="red"), k=100)
    assert sorted(hit.row_id for hit in answer.neighbours) == list(range(len(PROMPTS)))


@pytest.mark.parametrize("k", [0, -1, 10**9, True, 2.0, "3"])
def test_k_out_of_range_is_refused_at_once(retriever: Retriever, k: int) -> None:
    """Before the first result is taken, with the value and the limits."""
    with pytest.raises(QueryError, match=r"k is .*; it must be a whole number from 1 to "):
        retriever.ask([Question(text="red")], k)


@pytest.mark.parametrize("question", [Question(), Question(text=""), Question(text=" \t\n")])
def test_an_empty_question_is_an_empty_query(retriever: Retriever, question: Question) -> None:
    """As its result, with the remedy."""
    (result,) = retriever.ask([question], 3)
    assert isinstance(result, EmptyQuery)
    assert result.hint


def test_an_image_and_its_opposite_text_have_no_mean(retriever: Retriever, tmp_path: Path) -> None:
    """A mean of length zero has no direction to search in; the other question is answered."""
    opposite, plain = retriever.ask(
        [Question(image=picture(tmp_path, RED), text="unred"), Question(text="red")], 3
    )
    assert isinstance(opposite, QueryError)
    assert isinstance(plain, Answer)


def test_a_bad_question_does_not_stop_the_others(retriever: Retriever, tmp_path: Path) -> None:
    """One result for each, in order, across several batches."""
    good = [
        picture(tmp_path, colour, name=f"{name}.png")
        for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE))
    ]
    (tmp_path / "broken.png").write_bytes(good[0].read_bytes()[:45])
    kinds = [*good, tmp_path / "broken.png", tmp_path / "missing.png", tmp_path, None]
    asked = [Question(image=kinds[i % 7]) for i in range(3 * BATCH_QUESTIONS + 5)]
    results = list(retriever.ask(iter(asked), 1))
    assert len(results) == len(asked)
    for question, result in zip(asked, results, strict=True):
        if question.image in good:
            assert isinstance(result, Answer)
            assert (result.image, result.neighbours[0].prompt) == (
                question.image,
                question.image.stem if question.image else "",
            )
        elif question.image is None:
            assert isinstance(result, EmptyQuery)
        else:
            assert isinstance(result, ImageRejected)
            assert str(question.image) in str(result)


def test_batches_are_bounded_by_count_and_by_pixels(
    version: IndexVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 32 questions per batch, fewer if pictures are large; the answers are the same."""
    path = picture(tmp_path, BLUE)
    pair = ColourPair()
    many = list(Retriever(version, pair).ask([Question(image=path)] * 70, 1))
    assert pair.images.batches == [32, 32, 6]
    monkeypatch.setattr(embedding_module, "MAX_BATCH_PIXELS", 8 * 8 * 4)
    few = list(Retriever(version, pair).ask([Question(image=path)] * 10, 1))
    assert pair.images.batches[3:] == [4, 4, 2]
    assert {result.neighbours[0].prompt for result in many + few if isinstance(result, Answer)} == {
        "blue"
    }


def test_results_come_as_their_batch_is_done(retriever: Retriever, tmp_path: Path) -> None:
    """The first result needs 32 questions; meanwhile 32 more are read, and the rest is not."""
    path = picture(tmp_path, BLUE)
    taken = 0

    def questions() -> Iterator[Question]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield Question(image=path)

    next(retriever.ask(questions(), 1))
    assert BATCH_QUESTIONS <= taken <= 2 * BATCH_QUESTIONS + THREADS


def test_the_answer_names_what_it_rests_on(retriever: Retriever, version: IndexVersion) -> None:
    """Encoder, version and corpora; the one that a program wrote says so."""
    (answer,) = answers(retriever, Question(text="red"))
    assert (answer.encoder, answer.version) == ("colours", version.manifest.version)
    assert answer.corpus == "colours.txt (synthetic), real.txt"
    assert answer.seconds >= 0


def test_json_has_the_promised_keys(retriever: Retriever, tmp_path: Path) -> None:
    """An image that was only searched for has exactly these keys.

    `text`, `prompt`, `negative`, `tool` and `settings` appear only where they mean something.
    """
    path = picture(tmp_path, BLUE)
    exact = picture(tmp_path, GREEN, name="exact.png", parameters=PARAMETERS)
    plain, mixed, carried, text = (
        json.loads(json.dumps(answer.to_json(), allow_nan=False))
        for answer in answers(
            retriever,
            Question(image=path),
            Question(image=path, text="red"),
            Question(image=exact),
            Question(text="red"),
        )
    )
    keys = ["image", "how", "nearest", "encoder", "corpus", "version", "seconds"]
    assert list(plain) == keys
    assert list(plain["nearest"][0]) == [
        "row_id",
        "prompt_key",
        "prompt",
        "shown",
        "score",
        "source",
        "source_key",
        "n_like",
        "closeness",
    ]
    assert set(mixed) - set(keys) == {"text"}
    assert set(carried) - set(keys) == {"prompt", "negative", "tool", "settings", "infotext"}
    assert (plain["image"], text["image"], text["text"]) == (str(path), None, "red")


def test_an_encoder_of_another_space_is_refused_with_the_command_that_fits(
    version: IndexVersion,
) -> None:
    """Both remedies: ask with the index's encoder, or rebuild with this one."""
    other = ColourPair(spec=replace(SPEC, name="other/weights", space="other-space"))
    with pytest.raises(SpaceMismatch) as caught:
        Retriever(version, other)
    assert (caught.value.expected, caught.value.found) == ("colour-space", "other-space")
    assert "--encoder colours" in caught.value.hint
    assert "build-index --encoder other/weights --replace" in caught.value.hint


def test_an_encoder_whose_weights_changed_can_only_be_built_again(version: IndexVersion) -> None:
    """The same name in another space: asking with that name would not help and is not proposed."""
    with pytest.raises(SpaceMismatch) as caught:
        Retriever(version, ColourPair(spec=replace(SPEC, space="colour-space-2")))
    assert "Ask with" not in caught.value.hint
    assert "build-index --encoder colours --replace" in caught.value.hint


def test_no_questions_no_answers(retriever: Retriever) -> None:
    """An empty list loads nothing and gives nothing."""
    assert list(retriever.ask([], 3)) == []
