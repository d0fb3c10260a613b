"""Submissions: rows, ids, order, formats, bad input, and the check against a sample."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imprompt.core.errors import ConfigError, SubmissionRejected
from imprompt.core.values import Vectors
from imprompt.encoders.minilm import load_minilm
from imprompt.ensemble.blend_config import BlendConfig
from imprompt.ensemble.ensemble import Ensemble
from imprompt.ensemble.submission.format_checks import check_submission
from imprompt.ensemble.submission.formats import DIM, image_order, read_submission, write_submission
from imprompt.ensemble.submission.submission_job import SubmitReport, submit
from imprompt.ensemble.submission.submission_plan import depends_on
from imprompt.store.index_version import IndexVersion
from tests.conftest import Imprompt
from tests.ensemble.builders import WORDS, FixedMember, ensemble, neighbourhood, save_pictures

DATA = Path(
    os.environ.get("IMPROMPT_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
KAGGLE = DATA / "kaggle-sample"
needs_kaggle = pytest.mark.skipif(
    not KAGGLE.is_dir(), reason=f"the competition's sample is not at {KAGGLE}"
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    save_pictures(tmp_path / "images", 5)
    return tmp_path / "images"


@pytest.fixture
def answer(version: IndexVersion, images: Path, tmp_path: Path) -> Callable[..., SubmitReport]:
    """Answers the folder of images into `out`."""
    members = ensemble(
        version, FixedMember("sayer", "green hill"), weights={"knn": 0.9, "sayer": 0.1}
    )

    def run(
        out: Path,
        *,
        sample: Path | None = None,
        prompts_out: Path | None = None,
        ignore_metadata: bool = False,
    ) -> SubmitReport:
        return submit(
            images,
            out,
            ensemble=members,
            depends_on={},
            sample=sample,
            prompts_out=prompts_out,
            ignore_metadata=ignore_metadata,
        )

    return run


def table(path: Path) -> tuple[list[str], Vectors]:
    """Ids of images in their order, and their rows."""
    rows = list(read_submission(path))
    ids = list(dict.fromkeys(row_id.rpartition("_")[0] for row_id, _ in rows))
    return ids, np.array([value for _, value in rows], np.float32).reshape(-1, DIM)


def write_sample(path: Path, ids: list[str]) -> Path:
    write_submission(path, ids, np.full((len(ids), DIM), DIM**-0.5, np.float32))
    return path


def test_rows_are_the_predictions_of_the_images(
    version: IndexVersion, answer: Callable[..., SubmitReport], images: Path
) -> None:
    """Ids sorted, 384 rows each in the competition's columns, the vectors those of the ensemble."""
    out = images.parent / "out.csv"
    report = answer(out, prompts_out=images.parent / "prompts.csv")
    ids = sorted(path.stem for path in images.iterdir())
    lines = out.read_text("utf-8").splitlines()
    assert lines[0] == "imgId_eId,val"
    assert [line.partition(",")[0] for line in lines[1:]] == [
        f"{name}_{i}" for name in ids for i in range(DIM)
    ]
    members = ensemble(
        version, FixedMember("sayer", "green hill"), weights={"knn": 0.9, "sayer": 0.1}
    )
    predictions = members.predict([Image.open(images / f"{name}.png") for name in ids])
    np.testing.assert_allclose(
        table(out)[1], [prediction.vector for prediction in predictions], atol=1e-6
    )
    prompts = (images.parent / "prompts.csv").read_text("utf-8").splitlines()
    assert prompts == [
        "imgId,prompt,how",
        *(f"{name},{v.prompt},estimated" for name, v in zip(ids, predictions, strict=True)),
    ]
    assert (report.images, report.failed, report.missing, report.surplus, report.resumed) == (
        5,
        (),
        (),
        (),
        0,
    )


def test_formats_hold_the_same_numbers(answer: Callable[..., SubmitReport], images: Path) -> None:
    """CSV, Parquet and npz agree bit for bit; other suffixes are refused at once."""
    for suffix in ("csv", "parquet", "npz"):
        answer(images.parent / f"out.{suffix}")
    ids, rows = table(images.parent / "out.csv")
    for suffix in ("parquet", "npz"):
        assert table(images.parent / f"out.{suffix}")[0] == ids
        np.testing.assert_array_equal(table(images.parent / f"out.{suffix}")[1], rows)
    assert pyarrow.parquet.read_schema(images.parent / "out.parquet").names == ["imgId_eId", "val"]
    with pytest.raises(ConfigError, match="suffix"):
        answer(images.parent / "out.xlsx")


def test_two_runs_give_the_same_bytes(answer: Callable[..., SubmitReport], images: Path) -> None:
    """Nothing in any format depends on the time or the run."""
    for suffix in ("csv", "parquet", "npz"):
        out = images.parent / f"out.{suffix}"
        answer(out)
        first = out.read_bytes()
        answer(out)
        assert out.read_bytes() == first


def test_another_model_file_is_another_job(
    version: IndexVersion, images: Path, tmp_path: Path
) -> None:
    """Finished batches belong to the bytes of the models: with another model all is done again."""
    model, out = tmp_path / "model.safetensors", tmp_path / "out.csv"
    model.write_bytes(b"first")
    sayer = FixedMember("sayer", "green hill")
    around = neighbourhood(version)
    blend_config = BlendConfig(name="test", weights={"sayer": 1})
    members = Ensemble(
        [sayer], blend_config, neighbourhood=around, minilm=WORDS, files={"sayer": [model]}
    )

    def run() -> SubmitReport:
        return submit(images, out, ensemble=members, depends_on=depends_on(version, members))

    before = depends_on(version, members)
    assert before == depends_on(version, members)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "imprompt.ensemble.submission.submission_job.write_submission",
            lambda *_: Path("/nowhere").stat(),
        )
        with pytest.raises(FileNotFoundError):
            run()
    model.write_bytes(b"other")
    assert depends_on(version, members) != before
    assert run().resumed == 0
    assert sum(sayer.batches) == 10


def test_a_sample_gives_the_order(
    answer: Callable[..., SubmitReport], images: Path, tmp_path: Path
) -> None:
    """The sample gives ids and order; ids without image, and images without id, are listed."""
    ids = sorted(path.stem for path in images.iterdir())
    wanted = [ids[3], "absent", ids[0], ids[4]]
    sample = write_sample(tmp_path / "sample.csv", wanted)
    report = answer(tmp_path / "out.csv", sample=sample)
    found, rows = table(tmp_path / "out.csv")
    assert found == wanted
    assert report.missing == ("absent",)
    assert report.surplus == (ids[1], ids[2])
    answer(tmp_path / "all.csv")
    all_ids, all_rows = table(tmp_path / "all.csv")
    for place in (0, 2, 3):
        # Other neighbours in the batch change last bits only.
        np.testing.assert_allclose(rows[place], all_rows[all_ids.index(wanted[place])], atol=1e-6)
    assert check_submission(tmp_path / "out.csv", sample=sample).problems == ()


def test_a_bad_image_gets_the_mean_of_the_corpus(
    version: IndexVersion, answer: Callable[..., SubmitReport], images: Path, tmp_path: Path
) -> None:
    """It costs nobody else anything and is listed with its reason."""
    (images / "000a.png").write_text("no picture", "utf-8")
    report = answer(tmp_path / "out.csv", prompts_out=tmp_path / "prompts.csv")
    ids, rows = table(tmp_path / "out.csv")
    assert ids[0] == "000a"
    np.testing.assert_array_equal(rows[0], ensemble(version, weights={"knn": 1}).neighbourhood.mean)
    assert [name for name, _ in report.failed] == ["000a"]
    assert "000a.png" in report.failed[0][1]
    assert (tmp_path / "prompts.csv").read_text("utf-8").splitlines()[1] == "000a,,failed"


def test_a_prompt_in_the_file_is_taken(
    answer: Callable[..., SubmitReport], images: Path, tmp_path: Path
) -> None:
    """An image that carries its prompt is answered with that prompt's embedding."""
    text = PngInfo()
    text.add_text(
        "parameters",
        "an owl of brass\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64",
    )
    Image.new("RGB", (24, 24), "teal").save(images / "zzz.png", pnginfo=text)
    report = answer(tmp_path / "out.csv", prompts_out=tmp_path / "prompts.csv")
    assert report.exact == 1
    np.testing.assert_array_equal(
        table(tmp_path / "out.csv")[1][-1], WORDS.encode(["an owl of brass"])[0]
    )
    assert (tmp_path / "prompts.csv").read_text("utf-8").splitlines()[
        -1
    ] == "zzz,an owl of brass,exact"
    assert answer(tmp_path / "out.csv", ignore_metadata=True).exact == 0
    assert (
        np.abs(table(tmp_path / "out.csv")[1][-1] - WORDS.encode(["an owl of brass"])[0]).max()
        > 0.01
    )


def test_large_pictures_come_in_parts(
    answer: Callable[..., SubmitReport],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory is bounded by pixels: a batch that is read in parts gives the same submission."""
    answer(tmp_path / "whole.csv")
    monkeypatch.setattr("imprompt.retriever.query_embedding.MAX_BATCH_PIXELS", 2 * 24 * 24)
    answer(tmp_path / "parts.csv")
    np.testing.assert_allclose(
        table(tmp_path / "parts.csv")[1], table(tmp_path / "whole.csv")[1], atol=1e-6
    )


def test_folders_that_cannot_be_submitted(
    answer: Callable[..., SubmitReport], images: Path, tmp_path: Path
) -> None:
    """No images, two of one stem, none of the sample's ids: one clear line, nothing written."""
    out = tmp_path / "out.csv"
    with pytest.raises(ConfigError, match="none of the 1 images"):
        answer(out, sample=write_sample(tmp_path / "sample.csv", ["other"]))
    stem = next(images.iterdir()).stem
    Image.new("RGB", (9, 9)).save(images / f"{stem}.jpg")
    with pytest.raises(ConfigError, match=f"same id, {stem}"):
        answer(out)
    for path in images.iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="no images"):
        answer(out)
    images.rmdir()
    with pytest.raises(ConfigError, match="not a folder"):
        answer(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample.csv"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "columns"),
        (b"imgId_eId,value\n", "columns"),
        (b"imgId_eId,val\n", "no rows"),
        (b"imgId_eId,val\na_0,1\n", "384"),
        (b"imgId_eId,val\na_1,1\n", "instead of a_0"),
        (b"imgId_eId,val\na_0,1,2\n", "3 fields"),
        (b"imgId_eId,val\n\xff_0,1\n", "decode"),
    ],
)
def test_what_is_no_sample(content: bytes, reason: str, tmp_path: Path) -> None:
    """Wrong columns, missing rows, bytes that are no text: refused, with the place."""
    (tmp_path / "sample.csv").write_bytes(content)
    with pytest.raises(SubmissionRejected, match=reason):
        image_order(tmp_path / "sample.csv")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_files_that_are_something_else(suffix: str, tmp_path: Path) -> None:
    """Random bytes, nothing at all and a missing file are refused in every format."""
    path = tmp_path / f"x{suffix}"
    for content in (b"", bytes(range(256)) * 9, None):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SubmissionRejected):
            list(read_submission(path))


class TestCheck:
    IDS = ("b", "a", "c")

    @pytest.fixture
    def sample(self, tmp_path: Path) -> Path:
        return write_sample(tmp_path / "sample.csv", list(self.IDS))

    def problems(self, sample: Path, change: Callable[[list[str]], object]) -> tuple[str, ...]:
        """What is wrong with the sample after its lines were changed."""
        lines = sample.read_text("utf-8").splitlines()
        change(lines)
        path = sample.with_name("changed.csv")
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return check_submission(path, sample=sample).problems

    def test_the_sample_itself_passes(self, sample: Path) -> None:
        """Nothing is wrong with it, and what it holds is counted."""
        checked = check_submission(sample, sample=sample)
        assert (checked.images, checked.rows, checked.problems) == (3, 3 * DIM, ())

    def test_each_fault_is_named(self, sample: Path) -> None:
        """One fault at a time, one line each that names the first place."""

        def line(number: int, text: str) -> Callable[[list[str]], None]:
            return lambda lines: lines.__setitem__(number, text)

        assert "twice: b_1" in self.problems(sample, line(1, "b_1,0.051031036"))[0]
        assert "not finite: b_4" in self.problems(sample, line(5, "b_4,nan"))[0]
        assert "not finite: b_4" in self.problems(sample, line(5, "b_4,"))[0]
        assert "length 1: b (" in self.problems(sample, line(5, "b_4,0.9"))[0]
        assert "'b_384'" in self.problems(sample, line(5, "b_384,0.051031036"))[0]
        assert "'b_04'" in self.problems(sample, line(5, "b_04,0.051031036"))[0]
        assert (
            "without all 384 rows: c (383)" in self.problems(sample, lambda lines: lines.pop())[0]
        )
        assert (
            "missing: b"
            in self.problems(sample, lambda lines: lines.__delitem__(slice(1, 1 + DIM)))[0]
        )
        assert "does not have: x" in self.problems(sample, lambda lines: lines.append("x_0,1"))[0]

    def test_the_order_counts(self, sample: Path) -> None:
        """Two rows or two images that changed places are found, where all else is right."""

        def swap(lines: list[str]) -> None:
            lines[9], lines[10] = lines[10], lines[9]

        def swap_images(lines: list[str]) -> None:
            lines[1:] = lines[1 + DIM :] + lines[1 : 1 + DIM]

        assert self.problems(sample, swap) == (
            "1 place where the order differs from the sample's: row 9 is b_9",
        )
        assert "row 1 is a_0" in self.problems(sample, swap_images)[0]


@needs_kaggle
def test_minilm_gives_the_hosts_own_vectors() -> None:
    """The host's check: MiniLM of the seven prompts is the sample submission, to 1e-6."""
    import csv

    with (KAGGLE / "prompts.csv").open(encoding="utf-8", newline="") as file:
        prompts = {row["imgId"]: row["prompt"] for row in csv.DictReader(file)}
    ids, rows = table(KAGGLE / "sample_submission.csv")
    np.testing.assert_allclose(
        load_minilm().encode([prompts[name] for name in ids]), rows, atol=1e-6
    )


@needs_kaggle
def test_the_competitions_images_are_submitted(
    imprompt: Imprompt, lite_index: Path, tmp_path: Path
) -> None:
    """`submit` on the official images passes `--check`; a wrong id does not."""
    sample, out = KAGGLE / "sample_submission.csv", tmp_path / "submission.csv"
    words = ["submit", KAGGLE / "images", "--out", out, "--sample", sample, "--index", lite_index]
    done = imprompt(*words, "--json")
    assert done.code == 0, done.err
    assert done.lines[0]["images"] == 7
    assert imprompt("submit", "--check", out, "--sample", sample).code == 0
    (bad := tmp_path / "bad.csv").write_text(
        out.read_text("utf-8").replace("_383,", "_384,"), "utf-8"
    )
    done = imprompt("submit", "--check", bad, "--sample", sample, "--json")
    assert done.code == 70
    assert len(done.lines[0]["problems"]) == 2


def test_the_command_tells_what_went_wrong(
    imprompt: Imprompt, images: Path, lite_index: Path, tmp_path: Path
) -> None:
    """Bad images and missing members have exit codes, and the submission is written."""
    index, out = lite_index, tmp_path / "out.csv"
    blend_config = tmp_path / "r.json"
    blend_config.write_text('{"name": "mine", "weights": {"vit": 1, "ofa": 1}}', "utf-8")
    words = ["submit", images, "--out", out, "--index", index, "--offline", "--blend", blend_config]
    assert imprompt(*words).code == 60
    assert not out.exists()
    assert imprompt(*words, "--degrade").code == 4
    assert len(table(out)[0]) == 5
    (images / "bad.png").write_text("no", "utf-8")
    done = imprompt("submit", images, "--out", out, "--index", index)
    assert done.code == 3
    assert "bad.png" in done.err
    assert len(table(out)[0]) == 6
    assert imprompt("submit", images, "--index", index).code == 10
    assert imprompt("submit", "--check", out).code == 10
