"""`query` about a folder: lines, a table, text files, prompts alone, standard input, progress."""

from __future__ import annotations

import csv
import functools
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imprompt.commands.answer_text import answer_line, one_line
from imprompt.commands.progress_lines import Lines
from imprompt.retriever.answers import Answer, EstimatedPrompt, Explanation
from tests.commands.test_filter_options import PAINTED, build
from tests.conftest import Imprompt
from tests.images.tool_files import CARRIED

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = "\nNegative prompt: blur\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 8x8"


def carrying(path: Path, prompt: str) -> Path:
    """Return an image whose file carries a prompt, as AUTOMATIC1111 writes it."""
    info = PngInfo()
    info.add_itxt("parameters", prompt + SETTINGS)
    Image.new("RGB", (64, 64), "red").save(path, "PNG", pnginfo=info)
    return path


def plain(path: Path) -> Path:
    """Return an image without a prompt."""
    Image.new("RGB", (64, 64), "red").save(path)
    return path


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline="")))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of prompts that share phrases."""
    return build(tmp_path_factory.mktemp("painted"), PAINTED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images: two exact, one carried, one without a prompt, one that cannot be read."""
    path = tmp_path / "images"
    path.mkdir()
    carrying(path / "a.png", "a :cat: of brass,\nsteam [x] (y:1.2)")
    carrying(path / "b.png", '=HYPERLINK("x"), a "harbour", fog')
    (path / "c.png").write_bytes(CARRIED)
    plain(path / "d.png")
    (path / "e.png").write_text("no picture", "utf-8")
    return path


class TestLines:
    def test_more_than_three_images_get_a_line_each(
        self, folder: Path, index: Path, imprompt: Imprompt
    ) -> None:
        """The path, the prompt as it is, and how; what cannot be read is listed at the end."""
        done = imprompt("query", folder, "--index", index)
        assert done.code == 3
        lines = done.out.splitlines()
        assert lines[:3] == [
            f"{folder / 'a.png'}: a :cat: of brass, steam [x] (y:1.2) [exact]",
            f'{folder / "b.png"}: =HYPERLINK("x"), a "harbour", fog [exact]',
            f"{folder / 'c.png'}: a red fox [carried]",
        ]
        (answer,) = imprompt("query", folder / "d.png", "--json", "--index", index).lines
        assert lines[3:] == [f"{folder / 'd.png'}: {answer['prompt']} [estimated]"]
        assert "1 of 5 failed:" in done.err
        assert "e.png: not an image" in done.err
        assert "error: 4 of 5 were answered." in done.err

    def test_three_are_answered_in_full(
        self, folder: Path, index: Path, imprompt: Imprompt
    ) -> None:
        """And so are more with --verbose or --explain."""
        (folder / "e.png").unlink()
        (folder / "b.png").unlink()
        assert "negative: blur" in imprompt("query", folder, "--index", index).out
        plain(folder / "f.png")
        asked = ("query", folder, "--index", index)
        short = imprompt(*asked)
        assert "--verbose shows all" in short.err
        assert len(short.out.splitlines()) == 4
        assert "--verbose shows all" not in imprompt(*asked, "--quiet").err
        assert "negative: blur" in imprompt(*asked, "--verbose").out
        assert "Contributions to blend default" in imprompt(*asked, "--explain").out
        assert "nearest prompts" in imprompt(*asked, "--text", "a fox").out

    def test_without_an_index_files_answer(self, folder: Path, imprompt: Imprompt) -> None:
        """The lines are the same; what carries none is listed."""
        done = imprompt("query", folder, "--index", folder / "none")
        assert done.code == 3
        assert [line.rpartition(" ")[2] for line in done.out.splitlines()] == [
            "[exact]",
            "[exact]",
            "[carried]",
        ]
        assert "d.png carries no prompt, and none can be estimated." in done.err
        assert done.err.count("No nearest prompts are shown") == 1

    @pytest.mark.parametrize(
        ("confidence", "close", "how"),
        [
            (0.434, True, "estimated, 43%"),
            (0.04, False, "estimated, nothing close"),
            (None, None, "estimated"),
        ],
    )
    def test_how_an_estimate_is_told(
        self, confidence: float | None, close: bool | None, how: str
    ) -> None:
        """With its confidence, if there is one; below the limit nothing is close."""
        answer = Answer(Path("a.png"), None, "a fox", "estimated", ())
        told = Answer(
            Path("a.png"), None, "a fox", "estimated", (), estimate=estimate(confidence, close)
        )
        assert answer_line(answer) == "a.png: a fox [estimated]"
        assert answer_line(told) == f"a.png: a fox [{how}]"


def estimate(confidence: float | None, close: bool | None) -> EstimatedPrompt:
    explanation = Explanation("default", (), (), np.zeros(384, np.float32), 0.0)
    return EstimatedPrompt((), (), (), confidence, close, explanation)


class TestTable:
    def test_a_row_an_image(self, folder: Path, index: Path, imprompt: Imprompt) -> None:
        """With commas, quotes and line breaks as they are; a formula is none any more."""
        done = imprompt("query", folder, "--index", index, "--csv", folder / "t" / "out.csv")
        assert done.code == 3
        assert "5 rows in " in done.err
        rows = table(folder / "t" / "out.csv")
        assert [*rows[0]] == [
            *("image", "prompt", "how", "confidence", "close", "negative", "tool", "error")
        ]
        assert [Path(row["image"]).name for row in rows] == names(folder)[:5]
        assert [row["how"] for row in rows] == ["exact", "exact", "carried", "estimated", ""]
        assert rows[0]["prompt"] == "a :cat: of brass,\nsteam [x] (y:1.2)"
        assert rows[1]["prompt"] == '\'=HYPERLINK("x"), a "harbour", fog'
        assert (rows[0]["negative"], rows[0]["tool"]) == ("blur", "AUTOMATIC1111")
        assert "not an image in a supported format" in rows[4]["error"]
        assert not any(row["error"] for row in rows[:4])
        assert names(folder / "t") == ["out.csv"]

    def test_confidence_and_closeness(self, tmp_path: Path) -> None:
        """As a number and a word; empty where nothing was estimated or no confidence is known."""
        from imprompt.commands.answer_files import prompt_table

        with prompt_table(tmp_path / "out.csv") as rows:
            for confidence, close in ((0.43411, True), (0.04, False), (None, None)):
                given = estimate(confidence, close)
                answer = Answer(Path("-x"), None, "@a", "estimated", (), estimate=given)
                rows.add("-x", answer, None)
        found = table(tmp_path / "out.csv")
        assert [(row["confidence"], row["close"]) for row in found] == [
            ("0.4341", "true"),
            ("0.0400", "false"),
            ("", ""),
        ]
        assert {(row["image"], row["prompt"]) for row in found} == {("'-x", "'@a")}

    def test_it_is_whole_or_not_there(
        self, folder: Path, index: Path, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An older table survives a run that breaks off, and nothing is left beside it."""
        (folder / "t").mkdir()
        (folder / "t" / "out.csv").write_text("old")
        asked = ("query", folder, "--index", index, "--csv", folder / "t" / "out.csv")

        def break_off(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("imprompt.commands.answer_text.answer_line", break_off)
            assert imprompt(*asked).code == 130
        assert (folder / "t" / "out.csv").read_text() == "old"
        assert names(folder / "t") == ["out.csv"]
        assert imprompt(*asked).code == 3
        assert len(table(folder / "t" / "out.csv")) == 5

    def test_its_place_is_checked_at_once(
        self, folder: Path, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A folder, a file in the way, or one of the images."""
        monkeypatch.setattr("imprompt.commands.query.open_index", None)
        before = (folder / "a.png").read_bytes()
        for place in (folder, folder / "a.png" / "x.csv", folder / "a.png"):
            done = imprompt("query", folder, "--csv", place)
            assert (done.code, len(done.err.splitlines())) == (10, 1)
        assert (folder / "a.png").read_bytes() == before


class TestTextFiles:
    def test_the_prompt_alone_beside_each_image(
        self, folder: Path, index: Path, imprompt: Imprompt
    ) -> None:
        """In one line; an unreadable image has none."""
        done = imprompt("query", folder, "--index", index, "--txt")
        assert done.code == 3
        assert "error: 4 of 5 were done." in done.err
        (answer,) = imprompt("query", folder / "d.png", "--json", "--index", index).lines
        assert (folder / "a.txt").read_text() == "a :cat: of brass, steam [x] (y:1.2)\n"
        assert (folder / "c.txt").read_text() == "a red fox\n"
        assert (folder / "d.txt").read_text() == f"{answer['prompt']}\n"
        assert [name for name in names(folder) if not name.endswith(".png")] == [
            *("a.txt", "b.txt", "c.txt", "d.txt")
        ]

    def test_from_files_only(self, folder: Path, index: Path, imprompt: Imprompt) -> None:
        """`exact` writes what a file carries, and no estimate."""
        (folder / "e.png").unlink()
        done = imprompt("query", folder, "--index", index, "--txt", "--txt-from", "exact")
        assert done.code == 0
        assert [name for name in names(folder) if name.endswith("txt")] == [
            *("a.txt", "b.txt", "c.txt")
        ]
        assert imprompt("query", folder, "--index", index, "--txt", "--txt-from", "any").code == 0
        assert (folder / "d.txt").exists()

    def test_nothing_is_overwritten(self, folder: Path, index: Path, imprompt: Imprompt) -> None:
        """Files and links stay as they are, each with a line at the end and in the table."""
        (folder / "a.txt").write_text("mine")
        (folder / "mine.md").write_text("mine")
        (folder / "b.txt").symlink_to(folder / "mine.md")
        (folder / "c.txt").symlink_to(folder / "nowhere.md")
        (folder / "d.txt").mkdir()
        done = imprompt(*("query", folder, "--index", index, "--txt", "--csv", folder / "out.csv"))
        assert done.code == 3
        for name in "abcd":
            text = f"{folder / name}.txt already exists; the prompt of {folder / name}.png was"
            assert done.err.count(text) == 1
        assert (folder / "a.txt").read_text() == (folder / "mine.md").read_text() == "mine"
        assert not (folder / "nowhere.md").exists()
        assert not [name for name in names(folder) if name.startswith(".")]
        rows = table(folder / "out.csv")
        assert [bool(row["prompt"] and row["error"]) for row in rows] == [True] * 4 + [False]

    def test_a_second_run_finds_its_files(
        self, folder: Path, index: Path, imprompt: Imprompt
    ) -> None:
        """What holds the same prompt is done; it is not written again."""
        (folder / "e.png").unlink()
        assert imprompt("query", folder, "--index", index, "--txt").code == 0
        times = [(path, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.txt"))]
        assert imprompt("query", folder, "--index", index, "--txt").code == 0
        assert [(path, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.txt"))] == times

    def test_one_image_alone_is_a_partial_failure_too(
        self, folder: Path, imprompt: Imprompt
    ) -> None:
        """It is answered; only its text file is not written."""
        (folder / "a.txt").write_text("mine")
        done = imprompt("query", folder / "a.png", "-k", "0", "--txt")
        assert done.code == 3
        assert "a :cat: of brass" in done.out
        assert done.err.startswith(f"error: {folder / 'a.txt'} already exists; ")

    def test_two_images_cannot_share_one(self, tmp_path: Path, imprompt: Imprompt) -> None:
        """The first has it; the second is told whose it is."""
        carrying(tmp_path / "a.jpg", "first")
        carrying(tmp_path / "a.png", "second")
        done = imprompt("query", tmp_path, "-k", "0", "--txt")
        assert done.code == 3
        assert f"a.txt holds the prompt of {tmp_path / 'a.jpg'}; that of" in done.err
        assert (tmp_path / "a.txt").read_text() == "first\n"

    def test_a_name_without_room_for_it_stops_no_other(
        self, tmp_path: Path, imprompt: Imprompt
    ) -> None:
        """The partial file's name would be too long for the file system."""
        carrying(tmp_path / f"{'a' * 251}.png", "first")
        carrying(tmp_path / "b.png", "second")
        done = imprompt("query", tmp_path, "-k", "0", "--txt")
        assert done.code == 3
        assert ".txt cannot be written: " in done.err
        assert (tmp_path / "b.txt").read_text() == "second\n"


class TestDescribedCopies:
    def test_each_copy_has_its_answer(
        self, folder: Path, index: Path, imprompt: Imprompt, tmp_path: Path
    ) -> None:
        """The images stay as they are; an estimate in a copy is no prompt of that file."""
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        out = tmp_path / "described"
        done = imprompt("query", folder, "--index", index, "--write-xmp", out)
        assert done.code == 3
        assert "e.png" in done.err
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert names(out) == ["a.png", "b.png", "c.png", "d.png"]
        found = {
            line["image"]: line
            for line in imprompt("query", out, "--json", "--index", index, "-k", "1").lines
        }
        assert found[str(out / "a.png")]["how"] == "exact"
        assert found[str(out / "d.png")]["how"] == "estimated"
        with Image.open(out / "d.png") as image:
            ours = image.getxmp()["xmpmeta"]["RDF"]["Description"]
        assert ours["description"]["Alt"]["li"]["text"] == found[str(out / "d.png")]["prompt"]
        assert ours["How"] == "estimated"

    def test_what_exists_is_not_overwritten(
        self, folder: Path, index: Path, imprompt: Imprompt, tmp_path: Path
    ) -> None:
        """A second run writes nothing, and a link is not followed."""
        out = tmp_path / "described"
        out.mkdir()
        (out / "a.png").write_text("mine")
        (out / "b.png").symlink_to(tmp_path / "nowhere")
        done = imprompt("query", folder / "a.png", folder / "b.png", "-k", "0", "--write-xmp", out)
        assert done.code == 3
        for name in ("a.png", "b.png"):
            assert f"{out / name} already exists; the copy of {folder / name} was not" in done.err
        assert (out / "a.png").read_text() == "mine"
        assert not (tmp_path / "nowhere").exists()

    def test_an_image_with_a_description_is_not_copied(
        self, folder: Path, imprompt: Imprompt, tmp_path: Path
    ) -> None:
        """Its own is worth more."""
        out = tmp_path / "described"
        imprompt("query", folder / "a.png", "-k", "0", "--write-xmp", out)
        done = imprompt("query", out / "a.png", "-k", "0", "--write-xmp", tmp_path / "again")
        assert done.code == 3
        assert f"{out / 'a.png'} was not copied: its XMP has a description of its own." in done.err
        assert not (tmp_path / "again").exists()

    def test_two_images_of_one_name(self, tmp_path: Path, imprompt: Imprompt) -> None:
        """The second is told whose copy is there."""
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
            carrying(tmp_path / folder / "a.png", folder)
        done = imprompt("query", tmp_path, "-k", "0", "--write-xmp", tmp_path / "out")
        assert done.code == 3
        assert f"a.png is the copy of {tmp_path / 'one' / 'a.png'}; that of" in done.err

    def test_the_folder_of_the_images_is_refused(self, folder: Path, imprompt: Imprompt) -> None:
        """And a file in its place."""
        for place in (folder, folder / "a.png"):
            done = imprompt("query", folder, "--write-xmp", place)
            assert (done.code, len(done.err.splitlines())) == (10, 1)


class TestPromptOnly:
    def test_one_line_an_image_and_nothing_else(
        self, folder: Path, index: Path, imprompt: Imprompt
    ) -> None:
        """Line breaks of a prompt are spaces; an image that fails has no line."""
        for option in ("-1", "--prompt-only"):
            done = imprompt("query", folder, "--index", index, option)
            assert done.code == 3
            lines = done.out.splitlines()
            assert lines[0] == "a :cat: of brass, steam [x] (y:1.2)"
            assert len(lines) == 4
        assert imprompt("query", folder / "c.png", "-k", "0", "-1").out == "a red fox\n"

    def test_what_breaks_a_line(self) -> None:
        """Every character that a reader of lines may split at."""
        assert one_line("a\r\nb\n\nc\u2028d\te f  g\n") == "a b c d e f  g"


class TestStandardInput:
    def ask(self, given: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "cli.py", "query", *words], cwd=ROOT, input=given, capture_output=True
        )

    def test_an_image_comes_through_a_pipe(self, folder: Path, index: Path) -> None:
        """Alone and among files, in its place; estimated as well as exact."""
        given = (folder / "b.png").read_bytes()
        done = self.ask(given, "-", "-1", "-k", "0")
        assert (done.returncode, done.stdout) == (0, b'=HYPERLINK("x"), a "harbour", fog\n')
        words = (str(folder / "a.png"), "-", str(folder / "c.png"), "--json")
        done = self.ask((folder / "d.png").read_bytes(), *words, "--index", str(index))
        assert done.returncode == 0, done.stderr
        assert b'"image":"-","prompt":' in done.stdout.splitlines()[1]
        assert b'"how":"estimated"' in done.stdout.splitlines()[1]

    @pytest.mark.parametrize("given", [b"", b"no image"])
    def test_what_is_none_is_refused_by_name(self, given: bytes, tmp_path: Path) -> None:
        """One line, with the exit code of an image that cannot be read."""
        done = self.ask(given, "-", "--index", str(tmp_path))
        assert done.returncode == 32
        assert done.stderr.startswith(b"error: standard input: ")
        assert done.stderr.count(b"\n") == 1

    def test_it_is_bounded(self, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch) -> None:
        """No more than an image file may have is read."""
        from imprompt.images.image_opening import DEFAULT_LIMITS

        class Endless(io.RawIOBase):
            asked = 0

            def read(self, size: int = -1) -> bytes:
                self.asked += size
                return bytes(size)

        endless = Endless()
        monkeypatch.setattr(sys, "stdin", type("Stream", (), {"buffer": endless}))
        done = imprompt("query", "-", "-k", "0")
        assert done.code == 32
        assert "standard input: the file has" in done.err
        assert endless.asked == DEFAULT_LIMITS.max_bytes + 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-", "-"], "- is given twice"),
        (["-", "--txt"], "--txt cannot write next to standard input"),
        (["-", "--write-xmp", "out"], "--write-xmp cannot copy standard input"),
        (["a.png", "--json", "-1"], "--prompt-only and --json exclude each other"),
        (["a.png", "--explain", "-1"], "--prompt-only and --explain exclude each other"),
        (["a.png", "--txt-from", "any"], "--txt-from requires --txt"),
        (["a.png", "--txt", "--txt-from", "all"], "--txt-from is 'all'"),
        (["a.png", "--text", "a", "--txt"], "only work on images without a text"),
        (["a.png", "--text", "a", "--csv", "t.csv"], "only work on images without a text"),
        (["--text", "a", "-1"], "only work on images without a text"),
    ],
)
def test_what_cannot_be_combined_is_one_line(
    words: list[str], says: str, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything is read or written."""
    monkeypatch.chdir(tmp_path)
    done = imprompt("query", *words)
    assert done.code == 10
    assert says in done.err
    assert (len(done.err.splitlines()), done.out) == (1, "")
    assert names(tmp_path) == []


@pytest.mark.parametrize("url", ["https://a.example/b.png?x=1&y=$(z)", "HTTP://a.example//b.png"])
def test_a_url_is_refused_with_the_pipe_to_type(
    url: str, imprompt: Imprompt, tmp_path: Path
) -> None:
    """One line, the exit code of a malformed command line, and a URL that a shell leaves alone."""
    done = imprompt("query", tmp_path / "a.png", url)
    assert done.code == 2
    (line,) = done.err.splitlines()
    shown = f"'{url}'" if "&" in url else url
    assert line.endswith(f"Pipe it: curl -L {shown} | imprompt query -")


def test_a_long_run_tells_its_progress(
    folder: Path, index: Path, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error, unless --quiet; a short run tells nothing."""
    asked = ("query", folder, "--index", index)
    assert "Answering" not in imprompt(*asked).err
    monkeypatch.setattr(
        "imprompt.commands.progress_lines.Lines", functools.partial(Lines, every_s=0)
    )
    done = imprompt(*asked)
    assert "Answering: 5 of 5, " in done.err
    assert "Answering" not in done.out
    assert "Answering" not in imprompt(*asked, "--quiet").err


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
def test_what_is_redirected_at_a_terminal_arrives(folder: Path) -> None:
    """A bar on the terminal's standard error takes no line of standard output."""
    import pty

    main, side = pty.openpty()
    for verb in ("query", "extract"):
        words = [sys.executable, "cli.py", verb, str(folder), "--json"]
        words += ["--index", str(folder / "none")] if verb == "query" else []
        done = subprocess.run(
            words,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=side,
            env={**os.environ, "TERM": "xterm"},
        )
        assert done.returncode == 3
        assert done.stdout.count(b'"how":"exact"') == 2
    os.close(side)
    os.close(main)
