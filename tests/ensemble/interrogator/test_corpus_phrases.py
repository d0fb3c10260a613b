"""Phrases of the user's own index: without artists, mined once, and used by the member."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from imprompt.core.errors import ConfigError, MemberUnavailable
from imprompt.core.hub.fetch import silent
from imprompt.core.settings import settings
from imprompt.encoders.lite import load_lite
from imprompt.encoders.registry import output_encoder
from imprompt.ensemble.blend_config import (
    BlendConfig,
    InterrogatorSettings,
    load_blend_config,
    with_phrases,
)
from imprompt.ensemble.confidence import Calibration
from imprompt.ensemble.interrogator.corpus_phrases import corpus_phrases, without_artists
from imprompt.ensemble.members import load_ensemble
from imprompt.indexer.build import build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.index_version import IndexVersion, open_version
from imprompt.store.prompts import DuckPrompts
from tests.conftest import Imprompt
from tests.ensemble.builders import picture
from tests.ensemble.interrogator.lists import COLOURS

ARTISTS = ("Greg Rutkowski", "Artgerm", "Joan Miró")
SUBJECTS = ("a fox", "an owl", "a lynx", "a crow")
ADDED = "glass mosaic, oil painting, by greg rutkowski, artgerm, (soft light:1.2)"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of `lite` whose prompts share phrases."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "p.txt").write_text("\n".join(f"{subject}, {ADDED}" for subject in SUBJECTS), "utf-8")
    pair = load_lite()
    build_index(
        folder / "index", [parse_corpus(str(folder / "p.txt"))], pair, extra=[output_encoder(pair)]
    )
    return folder / "index"


@pytest.fixture
def shared(root: Path) -> Iterator[IndexVersion]:
    with open_version(root) as opened:
        yield opened


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("phrase", "stays"),
    [
        ("oil painting", True),
        ("greg rutkowski", False),
        ("art by greg rutkowski", False),
        ("painted by nobody", False),
        ("in the style of a comic", False),
        ("artgerm", False),
        ("smooth artgerm style", False),
        ("joan miro", False),
        ("jane doe", False),
        ("concept art", True),
    ],
)
def test_artists_are_left_out(phrase: str, stays: bool) -> None:
    """Names of the list, credited names, and names credited a tenth as often as alone."""
    counted = [(phrase, 100), ("by jane doe", 10), ("by concept art", 9)]
    assert without_artists(counted, ARTISTS) == ([phrase] if stays else [])


def test_phrases_are_mined_once_for_an_index(
    shared: IndexVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time they are read; other artists, or damage to what was kept, mine them again."""
    lines: list[str] = []
    expected = ("glass mosaic", "oil painting", "soft light")
    assert corpus_phrases(shared, ARTISTS, announce=lines.append) == expected
    assert corpus_phrases(shared, ARTISTS, announce=lines.append) == expected
    assert len(lines) == 1
    assert "4 prompts" in lines[0]
    (path,) = (settings().cache / "phrases" / "mined").iterdir()
    for damage in (
        path.read_bytes()[:-5],
        path.read_bytes().replace(b"mosaic", b"mosaik"),
        b"\xff",
    ):
        path.write_bytes(damage)
        assert corpus_phrases(shared, ARTISTS, announce=silent) == expected
    assert corpus_phrases(shared, ("Oil Painting",), announce=silent) == (
        "artgerm",
        "glass mosaic",
        "soft light",
    )
    monkeypatch.setattr(DuckPrompts, "frequent_phrases", None)
    assert corpus_phrases(shared, ARTISTS, announce=silent) == expected


def test_an_index_without_common_phrases_is_told(lite_index: Path) -> None:
    """One line, with the other way."""
    with (
        open_version(lite_index) as bare,
        pytest.raises(MemberUnavailable, match=r"3 prompts .* no phrases.*--phrases package"),
    ):
        corpus_phrases(bare, ARTISTS, announce=silent)


def test_the_member_chooses_among_them(
    shared: IndexVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mediums and movements are the package's, flavors the corpus's: all of them if few."""
    monkeypatch.setattr(
        "imprompt.ensemble.interrogator.phrase_lists.package_lists", lambda: COLOURS
    )
    blend_config = BlendConfig(
        name="x", weights={"interrogator": 1}, interrogator=InterrogatorSettings(phrases="corpus")
    )
    (prediction,) = load_ensemble(blend_config, shared, load_lite()).predict([picture("red")])
    medium, movement, *flavors = str(prediction.contributions[0].text).split(", ")
    assert medium in COLOURS.mediums
    assert movement in COLOURS.movements
    assert len(flavors) == 3
    assert set(flavors) <= {"artgerm", "glass mosaic", "oil painting", "soft light"}


def test_the_option_changes_a_blend_config() -> None:
    """Only the phrases change, and calibrations are dropped; it is refused without the member."""
    values = dict.fromkeys(
        ("close", "intercept", "nearness", "wording", "agreement", "base_rate", "ece", "auroc"), 0.5
    )
    made = Calibration(encoder="lite", space="s", rows=3, pairs=9, **values)
    notebook = msgspec.structs.replace(load_blend_config("notebook"), calibrations=(made,))
    blend_config = with_phrases(notebook, "corpus")
    assert blend_config.interrogator.phrases == "corpus"
    assert (blend_config.weights, blend_config.sources, blend_config.calibrations) == (
        notebook.weights,
        notebook.sources,
        (),
    )
    assert with_phrases(notebook, "package") == notebook
    with pytest.raises(ConfigError, match="package or corpus"):
        with_phrases(blend_config, "web")
    with pytest.raises(ConfigError, match="interrogator, which blend config default does not use"):
        with_phrases(load_blend_config("default"), "corpus")


def test_the_command_line_takes_it(
    imprompt: Imprompt, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`query --explain --phrases corpus` uses phrases of the corpus; invalid uses are refused."""
    monkeypatch.setattr(
        "imprompt.ensemble.interrogator.phrase_lists.package_lists", lambda: COLOURS
    )
    picture("red").save(tmp_path / "red.png")
    blend_config = tmp_path / "mine.json"
    blend_config.write_text('{"name": "mine", "weights": {"interrogator": 1}}', "utf-8")
    asked = ["query", tmp_path / "red.png", "--index", root, "--blend", blend_config]
    done = imprompt(*asked, "--explain", "--phrases", "corpus", "--json")
    assert done.code == 0, done.err
    said = done.lines[0]["explanation"]["contributions"][0]["text"]
    assert {"glass mosaic", "oil painting", "soft light"} & set(said.split(", "))
    assert "phrase lists alone" in done.err
    (plain,) = imprompt(*asked, "--phrases", "corpus", "--json").lines
    assert plain["prompt"] == done.lines[0]["prompt"]
    assert "explanation" not in plain
    assert imprompt(*asked, "--phrases", "corpus", "--text", "red").code == 10
    assert imprompt(*asked, "--explain", "--phrases", "web").code == 10
    out = tmp_path / "out.csv"
    done = imprompt(
        "submit",
        tmp_path,
        "--out",
        out,
        "--blend",
        blend_config,
        "--phrases",
        "corpus",
        "--index",
        root,
    )
    assert (done.code, out.is_file()) == (0, True), done.err
