"""Every reader of models against each hostile one: nothing foreign runs or is fetched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from imprompt.core.errors import (
    ConfigError,
    EncoderError,
    MemberUnavailable,
    WeightsMissing,
    WeightsRejected,
)
from imprompt.core.hub.fetch import silent
from imprompt.core.hub.hub_files import HubFile
from imprompt.core.values import EncoderSpec
from imprompt.encoders.foreign import closed_libraries
from imprompt.encoders.registry import load_encoder, load_index_encoder, output_encoder
from imprompt.ensemble.blend_config import load_blend_config
from imprompt.ensemble.image_to_text import ImageToText
from imprompt.ensemble.members import load_ensemble
from imprompt.indexer.build import build_index
from imprompt.indexer.ray_engine import NamedSpaces
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.store.index_version import open_version
from tests.conftest import Imprompt
from tests.encoders.clip_models import write_model
from tests.ensemble.test_image_to_text import make_blip
from tests.hostile.models import CAPTIONERS, OPENCLIP, spoiled
from tests.hostile.watch import Home, Outcome, check_cheap, check_harmless, check_refused


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP and a small BLIP, both harmless."""
    folder = tmp_path_factory.mktemp("good")
    write_model(folder / "clip", "vit")
    make_blip(folder / "blip")
    return folder


@pytest.mark.parametrize("name", OPENCLIP)
def test_no_hostile_clip_is_loaded(
    name: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In process: one line of the product's own, and no canary."""
    monkeypatch.setenv("CANARIES", str(tmp_path))
    folder = spoiled(good / "clip", tmp_path / "model", OPENCLIP[name])
    with pytest.raises(EncoderError) as caught:
        pair = load_encoder(str(folder), device="cpu", offline=True)
        pair.texts.encode(["a lighthouse"])
        pair.images.encode([Image.new("RGB", (32, 32))])
    assert caught.value.exit_code in OPENCLIP[name].codes, caught.value
    assert "\n" not in caught.value.message
    assert not list(tmp_path.glob("canary*"))


@pytest.mark.parametrize("name", CAPTIONERS)
def test_no_hostile_captioner_is_loaded(
    name: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In process: one line of the product's own, and no canary."""
    monkeypatch.setenv("CANARIES", str(tmp_path))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = spoiled(good / "blip", tmp_path / "model", CAPTIONERS[name])
    with pytest.raises(WeightsRejected) as caught:
        ImageToText.load(str(folder), device="cpu", offline=True, announce=silent)
    assert "\n" not in caught.value.message
    assert "trust_remote_code" not in caught.value.message
    assert not list(tmp_path.glob("canary*"))


def test_a_good_model_of_each_kind_is_loaded(good: Path) -> None:
    """The checks refuse nothing that is harmless."""
    assert load_encoder(str(good / "clip"), device="cpu").texts.encode(["a"]).shape == (1, 24)
    assert ImageToText.load(
        str(good / "blip"), device="cpu", offline=True, announce=silent
    ).captions([Image.new("RGB", (8, 8))])


def test_every_configuration_of_open_clip_passes() -> None:
    """Models that open_clip ships are accepted: names, tokenizer options, sizes without weights."""
    import open_clip

    from imprompt.encoders.foreign import check_openclip

    names = open_clip.list_models()
    assert len(names) > 100
    for name in names:
        check_openclip(open_clip.get_model_config(name), path=Path(name))


def test_the_hub_is_not_reached_from_a_closed_library() -> None:
    """Inside the block the hub's client refuses every request of a library."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    before = constants.HF_HUB_OFFLINE
    with closed_libraries():
        assert constants.is_offline_mode()
        with pytest.raises((LocalEntryNotFoundError, OfflineModeIsEnabled)):
            hf_hub_download("someone/evil", "config.json")
    assert before == constants.HF_HUB_OFFLINE


def test_an_index_does_not_choose_what_is_fetched() -> None:
    """The repository that an index names is never fetched; the user is told how to fetch it."""
    with pytest.raises(
        WeightsMissing, match=r"an index names are not fetched.*prefetch hf-hub:someone/evil"
    ) as caught:
        load_index_encoder(
            EncoderSpec("hf-hub:someone/evil", "evil", 8, 77), device="cpu", offline=False
        )
    assert caught.value.exit_code == 41


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..\\..\\b"])
def test_no_file_of_a_repository_lies_outside_of_it(name: str) -> None:
    """Names of files come from configurations and listings of the hub."""
    with pytest.raises(ConfigError, match="is not a path inside the repository"):
        HubFile("someone/evil", name)


def build(home: Home, encoder: str | Path) -> Outcome:
    corpus = home.hostile / "corpus.txt"
    corpus.write_text("a lighthouse\na harbour at dusk\n")
    return home.run(
        "build-index",
        "--corpus",
        corpus,
        "--encoder",
        encoder,
        "--index",
        home.hostile / "index",
        stdin=b"y\n" * 9,
    )


def caption(home: Home, folder: Path) -> Outcome:
    """Ask `query` for captions by that model, over an index of `lite`.

    "y" is ready on standard input for any question.
    """
    blend = home.hostile / "blend.json"
    blend.write_text(
        json.dumps({"name": "x", "weights": {"caption": 1.0}, "sources": {"caption": str(folder)}})
    )
    Image.new("RGB", (32, 32), "red").save(home.hostile / "red.png")
    words = (
        "query",
        home.hostile / "red.png",
        "--explain",
        "--blend",
        blend,
        "--index",
        home.hostile / "index",
    )
    return home.run(*words, stdin=b"y\n" * 9)


@pytest.fixture(scope="module")
def fair_build(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The cost of a good CLIP."""
    home = Home(tmp_path_factory.mktemp("fair"))
    outcome = build(home, shutil.copytree(good / "clip", home.hostile / "good"))
    assert outcome.code == 0, outcome.err
    check_harmless(outcome)
    return outcome


@pytest.fixture(scope="module")
def captioning(good: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Outcome]:
    """A home with an index, and what a good captioner costs."""
    home = Home(tmp_path_factory.mktemp("captioning"))
    assert build(home, "lite").code == 0
    outcome = caption(home, good / "blip")
    assert outcome.code == 0, outcome.err
    check_harmless(outcome)
    return home, outcome


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "code-tokenizer",
        "code-tokenizer-asked",
        "code-tower",
        "code-pickle",
        "timm-from-hub",
        "wide",
    ],
)
def test_a_whole_process_runs_nothing_of_a_hostile_clip(
    name: str, good: Path, fair_build: Outcome, tmp_path: Path
) -> None:
    """`build-index --encoder FOLDER`, all prompts answered: no code, no request, no costly work."""
    home = Home(tmp_path)
    found = build(home, spoiled(good / "clip", home.hostile / "model", OPENCLIP[name]))
    check_refused(found, code=OPENCLIP[name].codes)
    check_cheap(found, fair_build)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["code-config", "code-processor", "adapter", "kernel", "beams"])
def test_a_whole_process_runs_nothing_of_a_hostile_captioner(
    name: str, good: Path, captioning: tuple[Home, Outcome]
) -> None:
    """`query --blend` with a captioner: no code, no request, no question."""
    home, fair = captioning
    found = caption(home, spoiled(good / "blip", home.hostile / name, CAPTIONERS[name]))
    check_refused(found, code=CAPTIONERS[name].codes)
    check_cheap(found, fair)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small index of lite, for the doors that ask one."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "corpus.txt").write_text("a lighthouse\na harbour at dusk\n")
    Image.new("RGB", (32, 32), "red").save(folder / "red.png")
    pair = load_encoder("lite", device="cpu")
    build_index(
        folder / "index",
        [parse_corpus(str(folder / "corpus.txt"))],
        pair,
        extra=[output_encoder(pair, device="cpu")],
    )
    return folder


DOORS: dict[str, tuple[str, ...]] = {
    "build-index": (
        "build-index",
        "--corpus",
        "FOLDER/corpus.txt",
        "--encoder",
        "MODEL",
        "--index",
        "FOLDER/other",
    ),
    "query": ("query", "FOLDER/red.png", "--encoder", "MODEL", "--index", "FOLDER/index"),
    "embed": (
        "embed",
        "--texts",
        "FOLDER/corpus.txt",
        "--space",
        "index",
        "--encoder",
        "MODEL",
        "--out",
        "FOLDER/x.npy",
    ),
    "train": (
        "train",
        "--pairs",
        "FOLDER/pairs.csv",
        "--backbone",
        "MODEL",
        "--out",
        "FOLDER/x.safetensors",
    ),
}
CODES = {"query": (43,), "train": (20, 10)}
"""Further exit codes of a door: a space is compared, and pairs are read, before any weights."""


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", OPENCLIP)
def test_no_door_lets_a_hostile_clip_in(
    name: str,
    door: str,
    good: Path,
    index: Path,
    tmp_path: Path,
    imprompt: Imprompt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every command that takes an encoder: one line, the model's own code, no canary."""
    monkeypatch.setenv("CANARIES", str(tmp_path))
    folder = spoiled(good / "clip", tmp_path / "model", OPENCLIP[name])
    done = imprompt(
        *(word.replace("MODEL", str(folder)).replace("FOLDER", str(index)) for word in DOORS[door])
    )
    assert done.code in OPENCLIP[name].codes + CODES.get(door, ()), done.err
    assert "fault of imprompt" not in done.err
    assert not list(tmp_path.glob("canary*"))
    assert not (index / "x.npy").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPENCLIP)
def test_no_worker_of_a_cluster_loads_a_hostile_clip(
    name: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An actor of Ray that loads an encoder by this name refuses it."""
    monkeypatch.setenv("CANARIES", str(tmp_path))
    folder = spoiled(good / "clip", tmp_path / "model", OPENCLIP[name])
    with pytest.raises(EncoderError):
        NamedSpaces(str(folder), device="cpu")()[0].texts().encode(["a"])
    assert not list(tmp_path.glob("canary*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPTIONERS)
def test_a_server_answers_without_a_hostile_captioner(
    name: str, good: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serve --blend`, and `submit`: the member is refused by name, and its code does not run."""
    monkeypatch.setenv("CANARIES", str(tmp_path))
    folder = spoiled(good / "blip", tmp_path / "model", CAPTIONERS[name])
    blend = tmp_path / "blend.json"
    blend.write_text(
        json.dumps({"name": "x", "weights": {"caption": 1.0}, "sources": {"caption": str(folder)}})
    )
    with (
        open_version(index / "index") as version,
        pytest.raises(MemberUnavailable, match="caption: "),
    ):
        load_ensemble(
            load_blend_config(str(blend)),
            version,
            load_encoder("lite", device="cpu"),
            degrade=False,
            device="cpu",
        )
    assert not list(tmp_path.glob("canary*"))
