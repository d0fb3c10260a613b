"""Taggers: compared with the author's demo on ONNX's reference runtime; refusals."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

from imprompt.core.errors import WeightsMissing, WeightsRejected
from imprompt.core.hub.fetch import silent
from imprompt.ensemble.blend_config import BlendConfig
from imprompt.ensemble.caption_sources import load_captioner
from imprompt.ensemble.tagger import Tagger
from imprompt.environment.model_files import blend_needs
from tests.conftest import Imprompt
from tests.core.fake_hub import FakeHub, serve_as_the_hub
from tests.ensemble.tagger_models import (
    CHARACTERS,
    GENERAL,
    RATINGS,
    endless_loop,
    huge_constant,
    load,
    outside,
    save,
    write_tagger,
)

N_TAGS = len(RATINGS) + len(GENERAL) + len(CHARACTERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tagger(tmp_path_factory.mktemp("tagger"))


def loaded(folder: Path, said: list[str] | None = None) -> Tagger:
    announce = silent if said is None else said.append
    return Tagger.load(str(folder), device="cpu", offline=True, announce=announce)


def pictures() -> list[Image.Image]:
    """Wide, tall, small, large and square ones in random colours."""
    rng = np.random.default_rng(1)
    sizes = [(90, 40), (40, 90), (5, 3), (64, 64), (448, 448), (900, 700), (333, 1000)]
    sizes += [(30 + number, 60) for number in range(20)]
    blocks = [Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)) for _ in sizes]
    return [
        block.resize(size, Image.Resampling.NEAREST)
        for block, size in zip(blocks, sizes, strict=True)
    ]


def tags_of_the_demo(folder: Path, picture: Image.Image) -> dict[str, float]:
    """What the Space SmilingWolf/wd-tagger computes (app.py: prepare_image, predict).

    A picture lies on white, is padded to a square with white, resized by Pillow's bicubic filter,
    and its channels are reversed. Ratings, general tags and characters are found by category;
    general tags count above .35, characters above .85.
    """
    network = load(folder / "model.onnx")
    side = network.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    on_white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    on_white.alpha_composite(picture.convert("RGBA"))
    pixels = np.asarray(on_white.convert("RGB"))
    height, width = pixels.shape[:2]
    length = max(height, width)
    above, left = (length - height) // 2, (length - width) // 2
    margins = ((above, length - height - above), (left, length - width - left), (0, 0))
    square = Image.fromarray(np.pad(pixels, margins, constant_values=255))
    if length != side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    red, green, blue = np.moveaxis(np.asarray(square), 2, 0)
    batch = np.stack([blue, green, red], axis=-1)[None].astype(np.float32)
    name = network.graph.input[0].name
    outputs: Any = ReferenceEvaluator(network).run(None, {name: batch})
    row = outputs[0][0]
    above_which = {"0": 0.35, "4": 0.85, "9": 2.0}
    with (folder / "selected_tags.csv").open(encoding="utf-8", newline="") as file:
        tags = zip(csv.DictReader(file), row.tolist(), strict=True)
        return {tag["name"]: p for tag, p in tags if p > above_which[tag["category"]]}


def said_as(name: str) -> str:
    return name if name in ("o_o", "||_||") else name.replace("_", " ")


@pytest.mark.parametrize("options", [{}, {"batch": 1}, {"side": 448}, {"seed": 3, "batch": 3}])
def test_tags_are_those_of_the_demo(options: dict[str, Any], tmp_path: Path) -> None:
    """For every picture, in order of probability; alone and together, whatever the batch's size."""
    folder = write_tagger(tmp_path, **options)
    tagger = loaded(folder)
    captions = tagger.captions(pictures())
    met: set[str] = set()
    for picture, caption in zip(pictures(), captions, strict=True):
        found = tags_of_the_demo(folder, picture)
        ranked = sorted(found, key=lambda name: caption.find(said_as(name)))
        assert caption == ", ".join(map(said_as, ranked))
        assert (np.diff([found[name] for name in ranked]) < 1e-5).all()  # the runtimes round
        met.update(found)
    assert len(set(captions)) > 5
    assert met & set(CHARACTERS)
    assert met & {"o_o", "||_||"}
    assert [tagger.captions([picture])[0] for picture in pictures()] == captions
    assert tagger.captions([]) == []


def test_a_picture_without_tags_has_no_caption(tmp_path: Path) -> None:
    """A line announces it, and the other members decide."""
    said: list[str] = []
    tagger = loaded(write_tagger(tmp_path, bias=-1000.0), said)
    assert tagger.captions(pictures()[:2]) == ["", ""]
    assert said == ["caption: no tag is probable enough for 2 of 2 images."]


def test_a_very_wide_picture_is_padded_small(folder: Path) -> None:
    """As a square it would have 40,000 pixels a side."""
    assert len(loaded(folder).captions([Image.new("RGB", (40_000, 400), "red")])) == 1


def test_it_is_a_caption_of_an_answer(
    folder: Path, lite_index: Path, tmp_path: Path, imprompt: Imprompt
) -> None:
    """Named by its folder in a blend config; it needs no extra."""
    pictures()[0].save(tmp_path / "picture.png")
    blend_config = {
        "name": "anime",
        "weights": {"knn": 0.5, "caption": 0.5},
        "sources": {"caption": str(folder)},
    }
    (tmp_path / "anime.json").write_text(json.dumps(blend_config))
    words = ("query", tmp_path / "picture.png", "--blend", tmp_path / "anime.json", "--explain")
    done = imprompt(*words, "--index", lite_index, "--json", "--offline")
    assert done.code == 0, done.err
    (caption,) = loaded(folder).captions(pictures()[:1])
    assert json.dumps(caption) in json.dumps(done.lines)


class TestHub:
    REPO = "SmilingWolf/wd-vit-tagger-v3"

    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
        with serve_as_the_hub(monkeypatch, tmp_path) as served:
            yield served

    def put(self, hub: FakeHub, folder: Path, repo: str, config: str = "") -> None:
        hub.files |= {f"{repo}/{path.name}": path.read_bytes() for path in folder.iterdir()}
        hub.large.add(f"{repo}/model.onnx")
        if config:
            hub.files[f"{repo}/config.json"] = config.encode()

    def blend(self, tmp_path: Path, repo: str) -> Path:
        path = tmp_path / "anime.json"
        content = {"name": "anime", "weights": {"caption": 1}, "sources": {"caption": repo}}
        path.write_text(json.dumps(content))
        return path

    def test_a_published_name_is_listed_and_fetched(
        self, hub: FakeHub, folder: Path, tmp_path: Path, imprompt: Imprompt
    ) -> None:
        """Its two files are known without a request; afterwards no network is needed."""
        self.put(hub, folder, self.REPO)
        blend = self.blend(tmp_path, self.REPO)
        listed = imprompt("prefetch", "--list", blend, "--json").lines
        assert [line["file"] for line in listed] == ["model.onnx", "selected_tags.csv"]
        assert not hub.seen
        assert imprompt("prefetch", blend).code == 0
        hub.seen.clear()
        captioner = load_captioner(
            self.REPO, style="sentence", device="cpu", offline=True, announce=silent
        )
        assert captioner.captions(pictures()) == loaded(folder).captions(pictures())
        assert [path.name for path in captioner.files] == ["model.onnx", "selected_tags.csv"]
        assert not hub.seen

    @pytest.mark.parametrize(
        "config", ["", '{"architecture": "vit_base_patch16_224", "pretrained_cfg": {}}']
    )
    def test_another_owner(
        self, hub: FakeHub, folder: Path, config: str, tmp_path: Path, imprompt: Imprompt
    ) -> None:
        """Its config.json is timm's; older taggers have none."""
        self.put(hub, folder, "someone/tagger", config)
        assert imprompt("prefetch", self.blend(tmp_path, "someone/tagger")).code == 0
        captioner = load_captioner(
            "someone/tagger", style="tags", device="cpu", offline=True, announce=silent
        )
        assert isinstance(captioner, Tagger)

    def test_a_classifier_of_timm_is_no_tagger(self, hub: FakeHub) -> None:
        """It has no list of tags; its weights are not fetched."""
        hub.files["someone/vit/config.json"] = b'{"architecture": "vit", "pretrained_cfg": {}}'
        hub.files["someone/vit/model.safetensors"] = b"weights"
        with pytest.raises(WeightsMissing, match=r"someone/vit/model\.onnx cannot be fetched"):
            load_captioner(
                "someone/vit", style="tags", device="cpu", offline=False, announce=silent
            )
        assert "GET model.safetensors" not in hub.asked

    @pytest.mark.parametrize(
        ("offline", "words"), [(True, "is not in the cache"), (False, "cannot be fetched")]
    )
    def test_a_repository_that_is_not_there_is_named_by_its_configuration(
        self, hub: FakeHub, offline: bool, words: str
    ) -> None:
        """Not by a tagger's file, which most repositories do not have."""
        assert not hub.files.get("someone/new/config.json")
        with pytest.raises(WeightsMissing, match=rf"someone/new/config\.json {words}"):
            load_captioner(
                "someone/new", style="tags", device="cpu", offline=offline, announce=silent
            )

    def test_what_it_needs(self, folder: Path) -> None:
        """ONNX Runtime is always installed, so no extra."""
        for source in (self.REPO, str(folder)):
            config = BlendConfig(name="a", weights={"caption": 1}, sources={"caption": source})
            assert blend_needs(config)[-1].extra == ""


def changed(
    folder: Path, nodes: list[Any], takes: list[Any], *weights: Any, kind: int = TensorProto.FLOAT
) -> None:
    save(folder / "model.onnx", nodes, takes, None, weights=weights, kind=kind)


def rows(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = folder / "selected_tags.csv"
    path.write_text("\n".join(change(path.read_text("utf-8").splitlines())) + "\n", "utf-8")


MEAN = helper.make_node("ReduceMean", ["input_1"], ["mean"], axes=[1, 2])
IDENTITY = helper.make_node("Identity", ["input_1"], ["out"])
SIDE = ["N", 64, 64, 3]
PLUS = helper.make_node("Add", ["mean", "bias"], ["out"])

HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no graph": (lambda f: (f / "model.onnx").write_bytes(b"\x08" * 99), "cannot be loaded"),
    "channels first": (lambda f: changed(f, [MEAN], ["N", 3, 64, 64]), "channels last"),
    "not square": (lambda f: changed(f, [MEAN], ["N", 64, 32, 3]), "channels last"),
    "any size": (lambda f: changed(f, [MEAN], ["N", "H", "W", 3]), "channels last"),
    "a row of numbers": (lambda f: changed(f, [IDENTITY], ["N"]), "channels last"),
    "many at once": (lambda f: changed(f, [MEAN], [1 << 40, 64, 64, 3]), "images at once"),
    "none at once": (lambda f: changed(f, [MEAN], [0, 64, 64, 3]), "images at once"),
    "too large": (lambda f: changed(f, [MEAN], ["N", 1 << 14, 1 << 14, 3]), "channels last"),
    "integers": (
        lambda f: changed(
            f,
            [helper.make_node("Cast", ["input_1"], ["out"], to=TensorProto.FLOAT)],
            SIDE,
            kind=TensorProto.UINT8,
        ),
        "one input, of float32",
    ),
    "other tags": (lambda f: rows(f, lambda lines: lines[:-1]), "for 1 images and 14 tags"),
    "no probabilities": (
        lambda f: changed(
            f,
            [
                helper.make_node("ReduceMax", ["input_1"], ["most"], axes=[1, 2, 3], keepdims=0),
                helper.make_node("Unsqueeze", ["most", "last"], ["column"]),
                helper.make_node("Expand", ["column", "shape"], ["out"]),
            ],
            SIDE,
            numpy_helper.from_array(np.array([1]), "last"),
            numpy_helper.from_array(np.array([1, N_TAGS]), "shape"),
        ),
        "not probabilities",
    ),
    "a file beside it": (
        lambda f: changed(f, [MEAN, PLUS], SIDE, outside("secret.bin")),
        "cannot be loaded",
    ),
    "a file above it": (
        lambda f: changed(f, [MEAN, PLUS], SIDE, outside("../secret.bin")),
        "cannot be loaded: .*External data",
    ),
    "a file of the system": (
        lambda f: changed(f, [MEAN, PLUS], SIDE, outside("/etc/passwd")),
        "cannot be loaded: .*External data",
    ),
    "an operator of its own": (
        lambda f: changed(
            f, [helper.make_node("RunThis", ["input_1"], ["out"], domain="evil")], SIDE
        ),
        "cannot be loaded",
    ),
    "much memory": (
        lambda f: huge_constant(f / "model.onnx", side=64, n_numbers=2 << 30),
        "needs more than 6.4 GB of memory",
    ),
    "no end": (
        lambda f: endless_loop(f / "model.onnx", side=64, n_tags=N_TAGS),
        r"takes more than 0\.5 s for a batch",
    ),
    "no tags": (lambda f: rows(f, lambda lines: lines[:1]), "has no tags"),
    "no columns": (lambda f: rows(f, lambda lines: lines[1:]), "does not have the columns"),
    "control sequences": (
        lambda f: rows(f, lambda lines: [*lines[:-1], "1,\x1b[2J,0,1"]),
        "has no valid tag in line 16",
    ),
    "a line that is too short": (
        lambda f: rows(f, lambda lines: [*lines[:-1], "1"]),
        "has no valid tag in line 16",
    ),
    "an open quote": (lambda f: rows(f, lambda lines: [*lines, '1,"x']), "not a table of tags"),
    "no text": (
        lambda f: (f / "selected_tags.csv").write_bytes(b"\xff\xfe\x00"),
        "not a table of tags",
    ),
    "an endless table": (
        lambda f: (f / "selected_tags.csv").write_bytes(b"1,a,0,1\n" * (2 << 20)),
        "is longer than",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_a_tagger_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, at the latest for its first image; no other file is read."""
    monkeypatch.setattr("imprompt.encoders.onnx_runtime.TIME_LIMIT_S", 0.5)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    folder = write_tagger(tmp_path / "tagger")
    (folder / "secret.bin").write_bytes(bytes(12))
    spoil, words = HOSTILE[name]
    spoil(folder)
    with pytest.raises(WeightsRejected, match=words) as caught:
        loaded(folder).captions(pictures()[:1])
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = write_tagger(tmp_path)
    (folder / "model.onnx").unlink()
    with pytest.raises(WeightsMissing, match=r"model\.onnx cannot be read: No such file"):
        loaded(folder)
