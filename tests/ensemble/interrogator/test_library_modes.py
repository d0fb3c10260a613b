"""The library's own modes give the same prompts with our model, tables and captions."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from imprompt.core.errors import MemberUnavailable
from imprompt.core.hub.fetch import silent
from imprompt.core.pip_lines import install_extra
from imprompt.encoders.openclip import OpenClipEncoder, load_openclip
from imprompt.encoders.registry import output_encoder
from imprompt.ensemble.blend_config import BlendConfig, InterrogatorSettings, Mode
from imprompt.ensemble.interrogator.library_modes import LibraryModes
from imprompt.ensemble.interrogator.phrase_lists import PhraseLists, package_lists
from imprompt.ensemble.interrogator.phrase_vectors import phrase_table
from imprompt.ensemble.members import LOADERS, load_ensemble
from imprompt.indexer.build import build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.index_version import IndexVersion, open_version
from tests.assets.scenes import held_out_scenes
from tests.encoders.clip_models import write_model
from tests.ensemble.builders import FixedMember, picture
from tests.ensemble.interrogator.reference import library
from tests.retriever.colours import ColourPair

MODES: tuple[Mode, ...] = tuple(mode for mode in get_args(Mode) if mode != "classic")
SCENES = [seen for seen, _ in held_out_scenes(2, seed=5)]


def few_lists() -> PhraseLists:
    """Twenty of each kind."""
    lists = package_lists()
    return PhraseLists(**{kind: getattr(lists, kind)[:20] for kind in PhraseLists.__slots__})


@pytest.fixture(scope="module")
def pair(tiny_clip: Path) -> OpenClipEncoder:
    return load_openclip(str(tiny_clip), device="cpu")


@pytest.fixture(scope="module")
def theirs(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        yield library(tiny_clip, few_lists(), tmp_path_factory.mktemp("lists") / "data", patch)


@pytest.fixture(scope="module")
def clip_index(
    pair: OpenClipEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[IndexVersion]:
    folder = tmp_path_factory.mktemp("clip")
    (folder / "p.txt").write_text("a red circle\na blue square\na green cross\n", "utf-8")
    build_index(
        folder / "index", [parse_corpus(str(folder / "p.txt"))], pair, extra=[output_encoder(pair)]
    )
    with open_version(folder / "index") as opened:
        yield opened


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_says_what_the_library_says(mode: Mode, pair: OpenClipEncoder, theirs: Any) -> None:
    """Prompts equal those of an untouched `Interrogator`; its warnings are hidden."""
    captions = ["a red circle", "a blue square on a white background"]
    ours = LibraryModes(pair, few_lists(), mode, announce=silent).prompts(SCENES, captions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = {"best": theirs.interrogate, "fast": theirs.interrogate_fast}
        expected = [
            theirs.interrogate_negative(scene)
            if mode == "negative"
            else asked[mode](scene, caption=caption)
            for scene, caption in zip(SCENES, captions, strict=True)
        ]
    assert ours == expected
    assert all(ours)
    if mode == "fast":
        assert all(text.startswith(caption) for text, caption in zip(ours, captions, strict=True))


@pytest.mark.filterwarnings("ignore:.*(autocast|CUDA is not available)")
def test_its_tables_are_the_ones_that_it_would_encode(pair: OpenClipEncoder, theirs: Any) -> None:
    """Labels are equal, rows as near as a text that is cut is to one that is padded."""
    made = LibraryModes(pair, few_lists(), "fast", announce=silent).library
    for kind in ("artists", "flavors", "mediums", "movements", "trendings", "negative"):
        ours, own = getattr(made, kind), getattr(theirs, kind)
        assert ours.labels == own.labels, kind
        np.testing.assert_allclose(np.stack(ours.embeds), np.stack(own.embeds), atol=1e-3)
    assert made.clip_model is pair.model.network
    assert made.clip_preprocess is pair.model.transform


def test_a_blend_config_chooses_the_mode(
    clip_index: IndexVersion, pair: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt begins with the caption, or with the medium, which is announced."""
    monkeypatch.setattr("imprompt.ensemble.interrogator.phrase_lists.package_lists", few_lists)
    monkeypatch.setitem(LOADERS, "caption", lambda _pool: FixedMember("caption", "a red ring"))
    fast = InterrogatorSettings(mode="fast")
    lines: list[str] = []
    alone = BlendConfig(name="x", weights={"interrogator": 1}, interrogator=fast)
    (prediction,) = load_ensemble(alone, clip_index, pair, announce=lines.append).predict(
        SCENES[:1]
    )
    medium = phrase_table(few_lists().mediums, pair, announce=silent).top(
        pair.images.encode(SCENES[:1]), 1
    )[0][0]
    assert str(prediction.contributions[0].text).startswith(f"{medium}, ")
    assert any("phrase lists alone" in line for line in lines)
    both = BlendConfig(name="x", weights={"interrogator": 1, "caption": 1}, interrogator=fast)
    (prediction,) = load_ensemble(both, clip_index, pair).predict(SCENES[:1])
    assert {str(part.text)[:10] for part in prediction.contributions} == {"a red ring"}


def test_other_encoders_are_refused_with_the_way_out(
    version: IndexVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library needs a CLIP model; the message names the mode, the encoder and the remedy."""
    monkeypatch.setattr("imprompt.ensemble.interrogator.phrase_lists.package_lists", few_lists)
    for mode in MODES:
        blend_config = BlendConfig(
            name="x", weights={"interrogator": 1}, interrogator=InterrogatorSettings(mode=mode)
        )
        with pytest.raises(
            MemberUnavailable,
            match=rf"interrogator: the mode '{mode}' .* colours\. Use the mode \"classic\"",
        ):
            load_ensemble(blend_config, version, ColourPair())
    assert load_ensemble(
        BlendConfig(name="x", weights={"interrogator": 1}), version, ColourPair()
    ).predict([picture("red")])


def test_a_tokenizer_that_the_library_misreads_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a tokenizer would cut all prompts short; a missing library is named, with the remedy."""
    pair = load_openclip(str(write_model(tmp_path / "model", "vit")), device="cpu")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "clip_interrogator", None)
        with pytest.raises(
            MemberUnavailable,
            match=f"cannot be imported: .*{re.escape(install_extra('interrogator'))}",
        ):
            LibraryModes(pair, few_lists(), "fast", announce=silent)
    words = pair.model.tokenizer
    monkeypatch.setattr(pair.model, "tokenizer", lambda texts: words(texts).clamp(min=1))
    with pytest.raises(MemberUnavailable, match="does not pad with zeros"):
        LibraryModes(pair, few_lists(), "fast", announce=silent)
