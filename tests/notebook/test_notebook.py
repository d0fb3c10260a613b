"""`import imprompt`: the same answers as the command line, for notebooks."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import imprompt
from imprompt.core.errors import (
    ConfigError,
    ImageRejected,
    IndexDiffers,
    NoIndex,
    PartialFailure,
    QueryError,
)
from tests.commands.test_filter_options import PAINTED
from tests.commands.test_query_folder import carrying
from tests.conftest import Imprompt

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook") / "index"


@pytest.fixture(scope="module")
def index(folder: Path) -> Iterator[imprompt.Index]:
    with imprompt.Index.build(prompts=PAINTED, folder=folder, quiet=True) as built:
        yield built


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.effect_noise((96, 64), 60).convert("RGB").save(path)
    return path


def without_time(answer: Any) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in ("seconds", "image")}


def test_it_answers_as_the_command_line_does(
    index: imprompt.Index, folder: Path, photo: Path, imprompt: Imprompt
) -> None:
    """Prompt, phrases, neighbours and all else, for an image, and for a text."""
    (said,) = imprompt("query", photo, "--index", folder, "-k", "3", "--json").lines
    found = json.loads(json.dumps(index.query(photo, k=3).to_json()))
    assert without_time(found) == without_time(said)
    words = ("query", "--text", "a fox", "--contains", "oil", "--index", folder, "-k", "2")
    (said,) = imprompt(*words, "--json").lines
    hits = index.search("a fox", k=2, contains="oil").nearest
    assert [hit.prompt for hit in hits] == [hit["prompt"] for hit in said["nearest"]]


def test_it_remembers_the_options_it_was_opened_with(
    index: imprompt.Index, folder: Path, photo: Path
) -> None:
    """For images and texts; a call's own win, and the others stay."""
    with imprompt.Index.open(folder, k=2, exclude=["oil"]) as opened:
        short = opened.query(photo).nearest
        assert short == index.query(photo, k=2, exclude=["oil"]).nearest
        assert len(short) == 2
        assert not any("oil" in hit.prompt for hit in opened.query(photo, k=6).nearest)
        assert len(opened.query(photo, k=1).nearest) == 1
        assert opened.search("a fox").nearest == index.search("a fox", k=2, exclude="oil").nearest
        assert any("oil" in hit.prompt for hit in opened.search("oil", exclude=()).nearest)


def test_an_unknown_option_is_refused(index: imprompt.Index, folder: Path, photo: Path) -> None:
    """By name, with those there are."""
    known = r"There is no option '\w+'; there are k, where, contains, exclude, no_artists"
    for call, option in (
        (partial(imprompt.Index.open, folder), {"K": 2}),
        (partial(index.query, photo), {"exlude": ["oil"]}),
        (partial(index.search, "a fox"), {"ignore_metadata": True}),
    ):
        with pytest.raises(TypeError, match=known):
            call(**option)


def test_it_reads_the_users_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the folder; arguments and the environment win over it."""
    config = tmp_path / "config.toml"
    config.write_text(f"index = {json.dumps(str(folder))}\ndevice = 'cpu'\n[query]\nk = 3\n")
    monkeypatch.setenv("IMPROMPT_CONFIG", str(config))
    monkeypatch.delenv("IMPROMPT_INDEX", raising=False)
    with imprompt.Index.open() as opened:
        assert opened.folder == str(folder)
    with pytest.raises(imprompt.ImpromptError, match="no index in"):
        imprompt.Index.open(tmp_path / "nowhere")
    monkeypatch.setenv("IMPROMPT_INDEX", str(tmp_path / "elsewhere"))
    with pytest.raises(imprompt.ImpromptError, match="elsewhere"):
        imprompt.Index.open()
    config.write_text("device = 1\n")
    with pytest.raises(imprompt.ImpromptError, match="device = 1 cannot be used: it takes text"):
        imprompt.Index.open(folder)


def test_a_text_in_another_language_gets_a_note(index: imprompt.Index) -> None:
    """`lite` knows English only; for English nothing is said."""
    note = index.search("ein Leuchtturm in der Dämmerung").note
    assert note == "The text seems to be German; lite knows English only."
    assert not index.search("a lighthouse at dusk").note


def test_every_form_of_a_picture_has_one_answer(index: imprompt.Index, photo: Path) -> None:
    """A path, its text, the bytes, a Pillow image, an array, also of another mode."""
    with Image.open(photo) as opened:
        picture = opened.convert("RGB")
    forms = [photo, str(photo), photo.read_bytes(), picture, np.array(picture)]
    answers = index.query(forms, k=2)
    assert len({answer.prompt for answer in answers}) == 1
    assert {answer.how for answer in answers} == {"estimated"}
    assert index.query(np.array(picture.convert("L"))).prompt
    assert index.query(picture.convert("CMYK")).prompt
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(file, "PNG", exif=exif)
    with Image.open(io.BytesIO(file.getvalue())) as upright:
        assert index.query(upright).prompt == answers[0].prompt


def test_a_file_with_a_prompt_is_exact(index: imprompt.Index, tmp_path: Path) -> None:
    """Its pixels alone are not, and `read_prompt` needs no index."""
    path = carrying(tmp_path / "a.png", "a red fox, oil painting")
    answer = index.query(path)
    assert (answer.prompt, answer.how, answer.negative) == (
        "a red fox, oil painting",
        "exact",
        "blur",
    )
    assert answer.confidence is None
    with Image.open(path) as picture:
        assert index.query(picture).how == "estimated"
    found = imprompt.read_prompt(path)
    assert found is not None
    assert (found.prompt, found.how) == ("a red fox, oil painting", "exact")
    assert imprompt.read_prompt(str(path)) == imprompt.read_prompt(path.read_bytes()) == found


def test_a_list_keeps_its_failures(index: imprompt.Index, photo: Path, tmp_path: Path) -> None:
    """In their places, with the error; one image alone raises it."""
    missing = tmp_path / "missing.png"
    answers = index.query([photo, missing, photo])
    assert [each.error is None for each in answers] == [True, False, True]
    assert [each.image for each in answers.failed] == [str(missing)]
    rows = answers.rows()
    assert rows[0]["prompt"] == answers[0].prompt
    assert rows[1] == dict.fromkeys(rows[1]) | {
        "image": str(missing),
        "error": str(answers[1].error),
    }
    with pytest.raises(ImageRejected):
        index.query(missing)
    with pytest.raises(ImageRejected):
        _ = answers[1].prompt
    assert answers[1].to_json()["error"]["kind"] == "image-rejected"


class Texts(HTMLParser):
    """Collects the texts of a page, and fails on a tag that no answer writes."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {"style", "div", "img", "p", "span", "small", "table", "tr", "td", "th"}
        assert tag in known, (tag, attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def shown(value: Any) -> str:
    page = Texts()
    page.feed(value._repr_html_())
    return " ".join(page.texts)


def test_what_a_notebook_shows(index: imprompt.Index, photo: Path, tmp_path: Path) -> None:
    """Picture, prompt, phrases and neighbours; prompts are text, whatever they hold."""
    answer = index.query(photo, k=3)
    page = shown(answer)
    assert answer.prompt in page
    assert all(phrase.text in page for phrase in answer.phrases)
    assert answer.nearest[0].shown in page
    html = answer._repr_html_()
    data = re.search(r'src="data:image/jpeg;base64,([A-Za-z0-9+/=]+)"', html)
    assert data is not None
    hostile = carrying(
        tmp_path / "hostile.png", "<script>alert(1)</script> & <img src=x onerror=y>"
    )
    both = index.query([hostile, tmp_path / "<b>missing</b>.png"])
    assert "<script>alert(1)</script>" in shown(both[0])
    assert "<script>" not in both[0]._repr_html_()
    assert "<b>missing" not in both._repr_html_()
    assert "<b>missing</b>" in shown(both)
    assert "prompts" in repr(index)
    assert answer.prompt in repr(answer)
    assert "score" not in shown(index.search("a fox"))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (3, "int is not an image"),
        (np.zeros((4, 4, 3)), "An array of float64 with the shape (4, 4, 3) is not an image"),
        (np.zeros((4, 4, 2), np.uint8), "with the shape (4, 4, 2)"),
        (np.zeros((0, 4, 3), np.uint8), "has no pixels"),
    ],
)
def test_what_is_no_image(index: imprompt.Index, image: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        index.query(image)


def test_building_again(index: imprompt.Index, folder: Path, tmp_path: Path) -> None:
    """The same prompts are there already; others need `replace`; and what cannot be."""
    with imprompt.Index.build(prompts=PAINTED, folder=folder, quiet=True) as again:
        assert len(again) == len(index)
        assert again.folder == str(folder)
    with pytest.raises(IndexDiffers):
        imprompt.Index.build(prompts=["another"], folder=folder, quiet=True)
    with pytest.raises(ConfigError, match="exclude each other"):
        imprompt.Index.build("a.txt", folder, prompts=["b"])
    with pytest.raises(ConfigError, match="one text"):
        imprompt.Index.build(prompts="a fox", folder=folder)
    with pytest.raises(ConfigError, match="no preset 'large'"):
        imprompt.Index.build(preset="large", folder=folder)
    with pytest.raises(NoIndex):
        imprompt.Index.open(tmp_path / "none")
    with pytest.raises(ConfigError, match="list of texts"):
        imprompt.embed_prompts("a fox")
    with pytest.raises(QueryError, match="No image"):
        index.query([])


def test_a_corpus_is_built_as_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its report, unless quiet."""
    corpus = tmp_path / "prompts.txt"
    corpus.write_text("a red fox\na blue bowl\n", "utf-8")
    with imprompt.Index.build(corpus, tmp_path / "index") as built:
        assert len(built) == 2
        assert built.corpus == "prompts.txt"
    assert "2 prompts" in capsys.readouterr().out
    with imprompt.Index.build([corpus], tmp_path / "index", quiet=True):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_submission(index: imprompt.Index, photo: Path, imprompt: Imprompt) -> None:
    """The bytes of the command line's, and the list of what could not be read."""
    images = photo.parent / "images"
    images.mkdir()
    photo.rename(images / "one.png")
    out = index.submit(images, images.parent / "a.csv", quiet=True)
    folder = index.folder
    done = imprompt("submit", images, "--out", images.parent / "b.csv", "--index", folder)
    assert done.code == 0, done.err
    assert out.read_bytes() == (images.parent / "b.csv").read_bytes()
    (images / "two.png").write_bytes(b"no image")
    with pytest.raises(PartialFailure, match="1 of 2"):
        index.submit(images, images.parent / "c.csv", quiet=True)
    assert (images.parent / "c.csv").read_text().count("two_") == 384


def test_embeddings_are_those_of_minilm() -> None:
    rows = imprompt.embed_prompts(["a red fox", "a blue bowl", "a red fox"])
    assert rows.shape == (3, 384)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(rows[0], rows[2])


def test_importing_is_cheap_and_names_are_there() -> None:
    """No library is loaded before a name is used, and `dir` lists the names."""
    code = (
        "import sys, imprompt; "
        "heavy = {'numpy', 'PIL', 'duckdb', 'faiss', 'onnxruntime', 'torch', 'typer'}; "
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys(); "
        "assert set(imprompt.__all__) <= set(dir(imprompt)); "
        "assert all(getattr(imprompt, name) for name in imprompt.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = imprompt.nothing


def code_of(page: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))


def test_the_examples_of_the_docs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of docs/notebook.md, in order, in a folder with the files that it names."""
    monkeypatch.chdir(tmp_path)
    carrying(tmp_path / "lighthouse.png", "a lighthouse at dusk")
    picture = Image.open(ROOT / "docs" / "images" / "china.jpg")
    picture.save(tmp_path / "photo.jpg", quality=95)
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "one.jpg")
    code = code_of((ROOT / "docs" / "notebook.md").read_text("utf-8"))
    exec(compile(code, "notebook.md", "exec"), {})  # noqa: S102 our own examples
    assert (tmp_path / "submission.csv").read_text().count("one_") == 384


def test_the_kaggle_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a folder laid out as the competition's to `submission.csv`, without a network."""
    place = tmp_path / "competition"
    (place / "images").mkdir(parents=True)
    names = ["20057f34d", "27e894f60"]
    for name in names:
        Image.effect_noise((64, 64), 50).convert("RGB").save(place / "images" / f"{name}.png")
    rows = "".join(f"{name}_{entry},0.01\n" for name in names for entry in range(384))
    (place / "sample_submission.csv").write_text(f"imgId_eId,val\n{rows}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPETITION", str(place))
    (tmp_path / "prompts.txt").write_text("\n".join(PAINTED), "utf-8")
    monkeypatch.setenv("PROMPTS", str(tmp_path / "prompts.txt"))
    notebook = json.loads((ROOT / "examples" / "kaggle.ipynb").read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names_of_notebook: dict[str, Any] = {}
    for cell in cells:
        code = "\n".join(line for line in cell.splitlines() if not line.startswith(("%", "!")))
        exec(compile(code, "kaggle.ipynb", "exec"), names_of_notebook)  # noqa: S102 our own
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert lines[0] == "imgId_eId,val"
    assert [line.partition(",")[0] for line in lines[1:]] == [
        line.partition(",")[0] for line in rows.splitlines()
    ]
