"""`lite`: its head's file, its two spaces, and what it must not import."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imprompt.core.errors import FormatVersion, WeightsMissing, WeightsRejected
from imprompt.encoders.efficientnet import POOLED_DIM, STAGES_DIM, Activations
from imprompt.encoders.lite import HEAD_PATH, LiteEncoder, lite_spec, load_lite
from imprompt.encoders.lite_head import (
    BASIS_DIM,
    EXPANDED_DIM,
    PAIRED_DIM,
    TRUNKS,
    LiteHead,
    expanded,
    read_head,
    write_head,
)
from imprompt.encoders.minilm import load_minilm
from imprompt.images.decode import ENOUGH_PX, open_image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def encoder() -> LiteEncoder:
    return load_lite()


@pytest.fixture(scope="module")
def head() -> LiteHead:
    return read_head(HEAD_PATH)


def drawing(colour: str) -> Image.Image:
    """A plain ground with a darker square."""
    image = Image.new("RGB", (90, 60), colour)
    image.paste("black", (30, 20, 60, 40))
    return image


def test_texts_are_minilm_without_the_mean(encoder: LiteEncoder, head: LiteHead) -> None:
    """The index space of texts is MiniLM space minus a constant of the head's file, at length 1."""
    texts = ["a castle above the clouds", "portrait of an old fisherman"]
    shifted = load_minilm().encode(texts) - head.prompt_mean
    np.testing.assert_allclose(
        encoder.texts.encode(texts),
        shifted / np.linalg.norm(shifted, axis=1, keepdims=True),
        atol=1e-6,
    )


def test_images_have_unit_rows_in_both_spaces(encoder: LiteEncoder) -> None:
    """The two spaces are two different answers to one image, each of length 1."""
    images = [drawing("red"), drawing("white")]
    for rows in (encoder.images.encode(images), encoder.images.output(images)):
        assert rows.shape == (2, 384)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.abs(encoder.images.encode(images) - encoder.images.output(images)).max() > 0.01


def test_a_jpeg_decoded_small_is_nearly_the_whole_one(encoder: LiteEncoder) -> None:
    """At 1/2, where `ENOUGH_PX` is left, an image's rows lose less than 1e-3 of their cosine."""
    rng = np.random.default_rng(0)
    shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        (2048, 1536), Image.Resampling.NEAREST
    )
    for place, colour in enumerate(["orange", "navy", "white"]):
        ImageDraw.Draw(shapes).ellipse(
            [300 + 400 * place, 200, 800 + 400 * place, 1100], fill=colour
        )
    file = BytesIO()
    shapes.save(file, "JPEG", quality=90)
    whole, small = (open_image(file.getvalue(), enough_px=enough) for enough in (None, ENOUGH_PX))
    assert (whole.size, small.size) == ((2048, 1536), (1024, 768))
    for look in (encoder.images.encode, encoder.images.output):
        rows = look([whole]), look([small])
        assert 1 - 1e-3 < float((rows[0] * rows[1]).sum()) < 1 + 1e-5
    other = encoder.images.encode([drawing("red")])
    assert float((other * encoder.images.encode([whole])).sum()) < 1 - 0.1


def test_a_row_of_images_does_not_depend_on_its_batch(encoder: LiteEncoder) -> None:
    """An image alone gives what it gives among others."""
    images = [drawing(colour) for colour in ("red", "green", "blue")]
    np.testing.assert_allclose(
        encoder.images.encode(images)[2:], encoder.images.encode(images[2:]), atol=1e-5
    )


def seen_as(rows: np.ndarray) -> dict[str, Activations]:
    """Make up activations of n images: noise, that of the shipped head's kind."""
    rng = np.random.default_rng(int(rows.sum()))
    return {
        name: Activations(
            *(
                np.abs(rng.standard_normal((len(rows), dim))).astype(np.float32)
                for dim in (POOLED_DIM, STAGES_DIM[name], 1000)
            )
        )
        for name in TRUNKS
    }


@pytest.mark.parametrize(("intercept", "bias"), [(50.0, "caption_bias"), (-50.0, "output_bias")])
def test_a_photograph_is_worded_like_a_caption(head: LiteHead, intercept: float, bias: str) -> None:
    """A sure photograph takes the bias of captions, and a picture that is surely none the other."""
    sure = dataclasses.replace(
        head,
        output_weight=np.zeros_like(head.output_weight),
        label_slope=np.zeros_like(head.label_slope),
        label_intercept=np.full_like(head.label_intercept, intercept),
    )
    wanted = getattr(head, bias) / np.linalg.norm(getattr(head, bias))
    np.testing.assert_allclose(sure.outputs(seen_as(np.arange(2))), [wanted] * 2, atol=1e-5)


def test_an_undecided_picture_is_hardly_taken_for_a_photograph(head: LiteHead) -> None:
    """At even odds among the pairs, .15 / 1.15 of the wording is that of captions."""
    even = dataclasses.replace(
        head,
        output_weight=np.zeros_like(head.output_weight),
        output_bias=np.eye(1, 384, dtype=np.float32)[0],
        caption_bias=np.eye(1, 384, 1, dtype=np.float32)[0],
        label_slope=np.zeros_like(head.label_slope),
        label_intercept=np.zeros_like(head.label_intercept),
    )
    (row,) = even.outputs(seen_as(np.arange(1)))
    assert row[1] / (row[0] + row[1]) == pytest.approx(0.15 / 1.15)


def test_likely_tags_are_seen_in_order(head: LiteHead) -> None:
    """From a probability of .15, at most ten, the likeliest first."""
    logits = np.linspace(-3, 3, 13, dtype=np.float32)
    made = dataclasses.replace(
        head,
        tags=tuple(f"tag {number}" for number in range(12)),
        label_weight=np.zeros((EXPANDED_DIM, 13), np.float32),
        label_slope=np.zeros(13, np.float32),
        label_intercept=logits,
    )
    (tags,) = made.seen_tags(seen_as(np.arange(1)))
    assert [tag.text for tag in tags] == [f"tag {number}" for number in range(11, 1, -1)]
    assert tags[0].probability == pytest.approx(1 / (1 + np.exp(-3)))
    unlikely = dataclasses.replace(made, label_intercept=np.full(13, -1.8, np.float32))
    assert unlikely.seen_tags(seen_as(np.arange(2))) == [(), ()]


def test_nothing_gives_no_rows(encoder: LiteEncoder) -> None:
    """An empty batch is answered by (0, 384)."""
    assert (
        encoder.texts.encode([]).shape
        == encoder.images.encode([]).shape
        == encoder.images.output([]).shape
        == (0, 384)
    )


def test_the_spec_names_the_space_and_every_weight_file(
    encoder: LiteEncoder, head: LiteHead
) -> None:
    """The space is named by the mean; the cheap spec is the loaded one's."""
    assert encoder.spec == lite_spec()
    assert encoder.spec.space == head.space
    assert set(encoder.spec.weights_sha256) == {*head.weights_sha256, "head"}
    other = dataclasses.replace(head, prompt_mean=head.prompt_mean + 0.01)
    assert other.space != head.space


def test_expanded_features_are_the_map_of_their_kernel() -> None:
    """Inner products of expanded features are .5 <x, y> + .25 <x, y>² for a complete basis."""
    rows = np.random.default_rng(0).standard_normal((3, PAIRED_DIM)).astype(np.float32)
    basis = np.eye(PAIRED_DIM, BASIS_DIM, dtype=np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = expanded(rows, basis)
    assert found.shape == (3, EXPANDED_DIM)
    np.testing.assert_allclose(
        found @ found.T, (unit @ unit.T) / 2 + (unit @ unit.T) ** 2 / 4, atol=1e-5
    )


def test_a_head_survives_being_written(head: LiteHead, tmp_path: Path) -> None:
    """What is read is what was written, and the space keeps its name."""
    write_head(tmp_path / "head.safetensors", head)
    again = read_head(tmp_path / "head.safetensors")
    assert again.space == head.space
    assert again.training == head.training
    np.testing.assert_array_equal(again.output_weight, head.output_weight)
    assert again.tags == head.tags


def test_the_shipped_head_is_small_and_names_what_it_was_trained_on(head: LiteHead) -> None:
    """At most 10 MB, with the facts of its training inside."""
    assert HEAD_PATH.stat().st_size <= 10_000_000
    assert int(head.training["pairs"]) > 0


def test_the_page_of_weights_names_the_files_that_are_used(encoder: LiteEncoder) -> None:
    """docs/weights.md has the hash of the head and of every backbone, and the head's size."""
    page = (ROOT / "docs" / "weights.md").read_text("utf-8")
    assert [digest for digest in encoder.spec.weights_sha256.values() if digest not in page] == []
    assert f"{HEAD_PATH.stat().st_size:,}" in page


def test_a_head_of_other_backbones_is_refused(head: LiteHead, tmp_path: Path) -> None:
    """A head goes with the backbones it was trained with and no others."""
    other = dataclasses.replace(head, weights_sha256={**head.weights_sha256, "text": "0" * 64})
    write_head(tmp_path / "other.safetensors", other)
    with pytest.raises(WeightsRejected, match="trained with"):
        load_lite(tmp_path / "other.safetensors")


def test_what_is_no_head_is_refused(tmp_path: Path, head: LiteHead) -> None:
    """A missing file, other bytes, other tensors and a newer format each get their own error."""
    from safetensors.numpy import load_file, save_file

    with pytest.raises(WeightsMissing, match=r"none\.safetensors"):
        read_head(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(HEAD_PATH.read_bytes()[:-1])
    with pytest.raises(WeightsRejected, match="safetensors"):
        read_head(broken)
    tensors = load_file(HEAD_PATH)
    newer, older, ours = (
        {"imprompt-lite-head": json.dumps({"format": [major, 0], "tags": head.tags})}
        for major in (9, 1, 2)
    )
    save_file(tensors, broken, metadata=newer)
    with pytest.raises(FormatVersion, match=r"9\.0"):
        read_head(broken)
    save_file(tensors, broken, metadata=older)
    with pytest.raises(FormatVersion, match=r"1\.0") as refused:
        read_head(broken)
    assert "imprompt train" in str(refused.value.hint)
    save_file(tensors, broken)
    with pytest.raises(WeightsRejected, match="metadata"):
        read_head(broken)
    save_file({"output_bias": tensors["output_bias"]}, broken, metadata=ours)
    with pytest.raises(WeightsRejected, match="tensors"):
        read_head(broken)


def test_a_query_by_image_imports_no_heavy_library() -> None:
    """Loading and encoding an image needs torch and Pillow; the spec alone needs neither."""
    script = (
        "import sys, json\n"
        "from imprompt.encoders.lite import lite_spec, load_lite\n"
        "lite_spec()\n"
        "before = 'torch' in sys.modules\n"
        "from PIL import Image\n"
        "load_lite().images.encode([Image.new('RGB', (32, 32))])\n"
        "heavy = {'timm', 'torchvision', 'transformers', 'sentence_transformers', 'sklearn',"
        " 'scipy', 'pyarrow'}\n"
        "print(json.dumps([before, sorted(heavy & set(sys.modules))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [False, []]
