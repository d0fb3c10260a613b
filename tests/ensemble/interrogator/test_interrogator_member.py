"""The member's choice is the library's own, and its prompts are the notebook's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imprompt.core.errors import MemberUnavailable
from imprompt.core.hub.fetch import silent
from imprompt.core.protocols import EnsembleMember
from imprompt.core.values import Prediction
from imprompt.encoders.openclip import load_openclip
from imprompt.ensemble.blend_config import BlendConfig, InterrogatorSettings, load_blend_config
from imprompt.ensemble.interrogator.interrogator_member import Interrogator, fitting, prompt_parts
from imprompt.ensemble.interrogator.phrase_vectors import PhraseTable, phrase_table
from imprompt.ensemble.members import LOADERS, load_ensemble
from imprompt.store.index_version import IndexVersion, open_version
from tests.assets.scenes import held_out_scenes
from tests.encoders.clip_models import random_pictures, write_model
from tests.ensemble.builders import WORDS, FixedMember, neighbourhood, picture
from tests.ensemble.interrogator.lists import COLOURS, short_lists
from tests.ensemble.interrogator.reference import library
from tests.retriever.colours import ColourPair

FLAVORS = 2500
"""More than the library ranks at once (2,048)."""


def read_alike(chosen: list[list[str]], table: PhraseTable) -> list[list[int]]:
    """Group labels that have equal rows, such as "hyper-realistic" and "hyper - realistic"."""
    first: dict[bytes, int] = {}
    place = {
        label: first.setdefault(row.tobytes(), at)
        for at, (label, row) in enumerate(zip(table.labels, table.rows, strict=True))
    }
    return [[place[label] for label in labels] for labels in chosen]


def colours(
    version: IndexVersion,
    *,
    captioner: EnsembleMember | None = None,
    settings: InterrogatorSettings = InterrogatorSettings(),  # noqa: B008 a frozen value
) -> Interrogator:
    return Interrogator(
        COLOURS,
        settings=settings,
        encoder=ColourPair(),
        neighbourhood=neighbourhood(version),
        minilm=WORDS,
        captioner=captioner,
        announce=silent,
    )


# The library calls torch.cuda.amp.autocast, which warns that it is old, and that there is no CUDA.
@pytest.mark.filterwarnings("ignore:.*(autocast|CUDA is not available)")
@pytest.mark.parametrize("model", ["random", "trained"])
def test_labels_are_the_librarys_own(
    model: str, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal features give the same labels in the same order, ties apart, and the same prompt."""
    import torch
    from clip_interrogator.clip_interrogator import _truncate_to_fit

    folder = tiny_clip if model == "trained" else write_model(tmp_path / "model", "vit")
    pictures = (
        [seen for seen, _ in held_out_scenes(12, seed=3)]
        if model == "trained"
        else random_pictures()
    )
    theirs = library(folder, short_lists(FLAVORS), tmp_path / "data", monkeypatch)
    pair = load_openclip(str(folder), device="cpu")
    features = pair.images.encode(pictures)
    lists = short_lists(FLAVORS)
    choices = []
    for kind, n in (("mediums", 2), ("movements", 3), ("flavors", 20)):
        table = phrase_table(getattr(lists, kind), pair, announce=silent)
        ours = table.top(features, n)
        rank = getattr(theirs, kind).rank
        expected = [rank(torch.from_numpy(feature[None]), n) for feature in features]
        assert read_alike(ours, table) == read_alike(expected, table), kind
        choices.append(ours)
    assert len({tuple(row) for row in choices[2]}) > 1, "the pictures are told apart"
    for caption in ("", "a small thing, and another", choices[0][0][0] + " of a thing"):
        prompts = [prompt_parts(caption, *row) for row in zip(*choices, strict=True)]
        cut = [_truncate_to_fit(", ".join(parts), theirs.tokenize) for parts in prompts]
        assert fitting(prompts, pair.texts, max_tokens=pair.spec.max_tokens) == cut
        assert any(", ".join(parts) != text for parts, text in zip(prompts, cut, strict=True)), (
            "some are cut"
        )


def test_prompts_are_caption_medium_movement_flavors(version: IndexVersion) -> None:
    """The vector embeds the prompt; a medium that begins the caption is not repeated."""
    images = [picture("red"), picture("blue")]
    said = colours(version, captioner=FixedMember("caption", "a red painting of a cat")).predict(
        images
    )
    assert said.texts == (
        "a red painting of a cat, red art, red, red and green, green",
        "a red painting of a cat, a blue photo, blue art, blue, deep blue, blue and green",
    )
    np.testing.assert_array_equal(said.vectors, WORDS.encode(said.texts))
    alone = colours(
        version, settings=InterrogatorSettings(mediums=0, movements=2, flavors=1)
    ).predict(images[:1])
    assert alone.texts == ("red art, green art, red",)


def test_an_empty_caption_leaves_no_comma(version: IndexVersion) -> None:
    """The labels alone, as without a captioner; a captioner without texts counts as none."""
    plain = colours(version).predict([picture("red")]).texts
    assert plain == ("a red painting, red art, red, red and green, green",)
    for captioner in (FixedMember("caption", ""), FixedMember("caption", "x", mute=True)):
        assert colours(version, captioner=captioner).predict([picture("red")]).texts == plain


@pytest.fixture(scope="module")
def lite(lite_index: Path) -> Iterator[IndexVersion]:
    with open_version(lite_index) as opened:
        yield opened


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader finds short lists."""
    monkeypatch.setattr(
        "imprompt.ensemble.interrogator.phrase_lists.package_lists", lambda: COLOURS
    )


def loaded(
    lite: IndexVersion, blend_config: BlendConfig, *, pair: Any = None, **options: Any
) -> tuple[Any, list[str]]:
    from imprompt.encoders.lite import load_lite

    lines: list[str] = []
    return load_ensemble(
        blend_config, lite, pair or load_lite(), announce=lines.append, **options
    ), lines


def test_with_lite_it_votes_without_a_captioner_and_says_so(lite: IndexVersion, few: None) -> None:
    """One line tells so; it predicts, and no model is loaded, even if one is named."""
    blend_config = BlendConfig(
        name="x", weights={"interrogator": 1}, sources={"caption": "no/where"}
    )
    members, lines = loaded(lite, blend_config, offline=True)
    assert [line for line in lines if "phrase lists alone" in line and "lite" in line]
    (prediction,) = members.predict([picture("red")])
    assert prediction.contributions[0].member == "interrogator"
    assert len(str(prediction.contributions[0].text).split(", ")) == 5


def test_the_blend_config_captioner_speaks_first_and_once(
    lite: IndexVersion, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caption of the member `caption` begins the prompt, in any order of the blend config."""
    sayer = FixedMember("caption", "a lake at night")
    monkeypatch.setitem(LOADERS, "caption", lambda _pool: sayer)
    members, lines = loaded(lite, BlendConfig(name="x", weights={"interrogator": 1, "caption": 1}))
    (prediction,) = members.predict([picture("blue")])
    assert str(
        {part.member: part.text for part in prediction.contributions}["interrogator"]
    ).startswith("a lake at night, ")
    assert sayer.batches == [1]
    assert lines == []


def test_a_named_captioner_has_to_be_there(
    version: IndexVersion, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other encoders than `lite` the source is loaded; a failure names what to fetch."""
    blend_config = BlendConfig(
        name="x", weights={"interrogator": 1}, sources={"caption": "no/where"}
    )
    with pytest.raises(
        MemberUnavailable,
        match=r"interrogator: its captioner cannot be used: no/where.*--offline.*Fetch",
    ):
        loaded(version, blend_config, pair=ColourPair(), offline=True)
    monkeypatch.setattr(
        "imprompt.ensemble.members._load_caption", lambda _pool: FixedMember("caption", "a lake")
    )
    members, lines = loaded(version, blend_config, pair=ColourPair())
    (prediction,) = members.predict([picture("blue")])
    assert str(prediction.contributions[0].text).startswith("a lake, ")
    assert lines == []


def test_the_notebook_blend_fails_for_the_missing_member(lite: IndexVersion, few: None) -> None:
    """On a bare machine that is OFA; before any phrase is encoded."""
    with pytest.raises(MemberUnavailable, match=r"ofa: OFA-Sys/ofa-large-caption/.*Fetch"):
        loaded(lite, load_blend_config("notebook"), offline=True)
    members, _ = loaded(lite, load_blend_config("notebook"), offline=True, degrade=True)
    assert set(members.shares) == {"vit", "interrogator"}


def test_a_prompt_is_cut_at_the_tower(version: IndexVersion) -> None:
    """Parts are dropped from the end; the first part stays at any length; no prompts are fine."""
    texts = ColourPair().texts
    parts = [["one two", "three", "four five"], ["a b c d e f"], ["a b c d", "e"]]
    assert fitting(parts, texts, max_tokens=4) == ["one two, three", "a b c d e f", "a b c d"]
    assert fitting([], texts, max_tokens=4) == []


def test_nothing_is_asked_of_the_captioner_for_no_pictures(version: IndexVersion) -> None:
    """No pictures give no rows and no texts."""
    sayer = FixedMember("caption", "x")
    said: Prediction = colours(version, captioner=sayer).predict([])
    assert (said.vectors.shape, said.texts, sayer.batches) == ((0, 384), (), [])
