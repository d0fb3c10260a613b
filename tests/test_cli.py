"""The command line as a user meets it: answers, refusals, exit codes, one clear line each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.ipc
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.main import get_command

from imprompt.cli import app
from imprompt.core.errors import ConfigError, NoIndex, StorageFull
from tests.conftest import Imprompt
from tests.images.builders import png_chunk
from tests.images.tool_files import CARRIED, DOUBT, HIDDEN_FILES, TOOL_FILES, png_with_chunks

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = [
    "a red fox in the snow",
    "a bowl of ramen",
    "a lighthouse at dusk",
    "portrait of an old sailor",
    "a yellow flower",
]
VERBS = {str(command.name): command for command in app.registered_commands}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "prompts.txt"
    path.write_text("\n".join([*PROMPTS, "a  bowl of ramen", ""]), "utf-8")
    return path


@pytest.fixture(scope="module")
def index(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of five prompts, built once by the command line."""
    folder = tmp_path_factory.mktemp("index")
    words = [
        sys.executable,
        "cli.py",
        "build-index",
        "--corpus",
        str(corpus),
        "--index",
        str(folder),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(folder) in done.stdout + done.stderr, "every build prints where"
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr, "no bars where there is no terminal"
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 64), (200, 180, 20)).save(path)
    return path


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def test_help_shows_every_verb_in_its_panel(imprompt: Imprompt) -> None:
    """One screen tells what there is, in four panels."""
    done = imprompt("--help")
    assert done.code == 0
    for word in [*VERBS, "Ask", "Corpus", "Improve", "Operate"]:
        assert word in done.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(imprompt: Imprompt, verb: str) -> None:
    """`VERB --help` names its options and ends well."""
    done = imprompt(verb, "--help")
    assert done.code == 0
    assert "--json" in done.out


def help_texts(verb: str) -> list[str]:
    """The help of the verb and of its options, as written in the code."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    described = [commands[verb], *commands[verb].params]
    return [" ".join(item.help.split()) for item in described if getattr(item, "help", None)]


def shown_words(page: str) -> str:
    """The words of a help page, without its boxes and line breaks."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", page).split())


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_shown_to_the_last_bracket(
    imprompt: Imprompt, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in square brackets is taken for markup, on the screen and in docs/cli.md."""
    import docs.write_cli_page as writer

    monkeypatch.setenv("COLUMNS", "1000")
    section = re.search(
        rf"^## {verb}$.*?(?=^## )", writer.PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert section
    for page in (imprompt(verb, "--help").out, section.group()):
        words = shown_words(page)
        assert [text for text in help_texts(verb) if text not in words] == []


def test_some_help_has_brackets() -> None:
    """So the test above tests something."""
    texts = [text for verb in VERBS for text in help_texts(verb)]
    assert sum("[env: IMPROMPT_" in text for text in texts) > len(VERBS)


def test_the_page_of_the_command_line_is_up_to_date() -> None:
    """docs/cli.md is what `make docs` would write now."""
    import docs.write_cli_page as writer

    assert writer.PAGE.read_text("utf-8") == writer.page(), "run `make docs`"


def test_query_without_an_index_says_how_to_build_one(
    imprompt: Imprompt, picture: Path, tmp_path: Path
) -> None:
    """The first thing that a newcomer gets wrong has its remedy in the same line."""
    done = imprompt("query", picture, "--index", tmp_path / "nothing")
    assert done.code == 51
    assert "build-index" in one_line(done.err)


def test_query_without_a_question_is_refused(imprompt: Imprompt, index: Path) -> None:
    """Neither image nor text is not a question."""
    done = imprompt("query", "--index", index)
    assert done.code == 31
    assert "Name an image file, a text" in one_line(done.err)


def test_a_text_finds_its_prompt(imprompt: Imprompt, index: Path) -> None:
    """The JSON answer has every field, and scores are cosines in falling order."""
    done = imprompt("query", "--text", "noodle soup", "-k", "3", "--json", "--index", index)
    assert done.code == 0
    (answer,) = done.lines
    fields = {"image", "text", "how", "nearest", "encoder", "corpus", "version", "seconds"}
    assert set(answer) == fields, "a text that was searched for has no prompt of its own"
    assert answer["nearest"][0]["prompt"] == "a bowl of ramen"
    assert answer["how"] == "searched"
    assert answer["encoder"] == "lite"
    assert len(answer["nearest"]) == 3
    for hit in answer["nearest"]:
        assert set(hit) == {
            "row_id",
            "prompt_key",
            "prompt",
            "shown",
            "score",
            "source",
            "source_key",
            "n_like",
            "closeness",
        }
    scores = [hit["score"] for hit in answer["nearest"]]
    assert scores == sorted(scores, reverse=True)
    assert -1 <= scores[-1] <= scores[0] <= 1


def test_a_picture_gets_an_estimate_and_a_table(
    imprompt: Imprompt, index: Path, picture: Path
) -> None:
    """Without --json a person reads the prompt, how it was found, its phrases, the neighbours."""
    done = imprompt("query", picture, "-k", "2", "--index", index)
    assert done.code == 0
    (answer,) = imprompt("query", picture, "-k", "2", "--json", "--index", index).lines
    assert f"estimated: {answer['prompt']}" in done.out
    for phrase in answer["phrases"]:
        assert re.search(rf"{phrase['role']} .*{re.escape(phrase['text'])} ", done.out)
    assert "2 nearest prompts" in done.out


def test_a_prompt_in_the_file_is_exact(imprompt: Imprompt, index: Path, tmp_path: Path) -> None:
    """What the file itself says wins, and the neighbours are still shown."""
    text = PngInfo()
    text.add_text(
        "parameters",
        "an owl of brass\nNegative prompt: blur\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64",
    )
    path = tmp_path / "owl.png"
    Image.new("RGB", (64, 64)).save(path, pnginfo=text)
    (answer,) = imprompt("query", path, "--json", "--index", index).lines
    assert (answer["how"], answer["prompt"], answer["negative"]) == (
        "exact",
        "an owl of brass",
        "blur",
    )
    assert len(answer["nearest"]) == len(PROMPTS)


def test_a_prompt_that_is_not_exact_is_said_to_be_carried(
    imprompt: Imprompt, index: Path, tmp_path: Path
) -> None:
    """With the node that stands in between, in each form of both verbs."""
    path = tmp_path / "fox.png"
    path.write_bytes(CARRIED)
    for line in (
        *imprompt("query", path, "--json", "--index", index).lines,
        *imprompt("extract", path, "--json").lines,
    ):
        assert (line["how"], line["prompt"], line["doubt"]) == ("carried", "a red fox", DOUBT)
    shown = imprompt("query", path, "--index", index).out
    assert "carried, written in the file by ComfyUI: a red fox" in shown
    assert f"not exact: {DOUBT}" in shown
    listed = imprompt("extract", path)
    assert "carried" in listed.out
    assert "1 of them not exactly" in listed.err


def test_metadata_is_ignored_on_demand(imprompt: Imprompt, index: Path, tmp_path: Path) -> None:
    """What the file carries is shown with its settings, or left aside."""
    path = tmp_path / "forge.png"
    path.write_bytes(TOOL_FILES["forge.png"].data)
    shown = imprompt("query", path, "--index", index).out
    for words in (
        "exact, written in the file by AUTOMATIC1111",
        "negative: blurry, low quality",
        "steps 20",
        "seed 42",
    ):
        assert words in shown
    (answer,) = imprompt("query", path, "--ignore-metadata", "--json", "--index", index).lines
    assert answer["how"] == "estimated"
    assert answer["prompt"] == ", ".join(phrase["text"] for phrase in answer["phrases"])


@pytest.mark.parametrize("verb", ["query", "extract"])
def test_a_folder_without_images_is_said_to_be_one(
    imprompt: Imprompt, index: Path, tmp_path: Path, verb: str
) -> None:
    """Not that nothing was asked."""
    done = imprompt(verb, tmp_path, *(["--index", index] if verb == "query" else []))
    assert done.code == 30
    assert f"no images in {tmp_path}" in one_line(done.err)


def test_extract_names_what_it_cannot_read_and_goes_on(imprompt: Imprompt, tmp_path: Path) -> None:
    """Texts that are too large are one line with the limit; hidden prompts are read on demand."""
    (tmp_path / "a.png").write_bytes(
        png_with_chunks(png_chunk(b"tEXt", b"parameters\0" + b"a" * (9 << 20)))
    )
    (tmp_path / "b.png").write_bytes(TOOL_FILES["swarmui.png"].data)
    (tmp_path / "c.png").write_bytes(HIDDEN_FILES["novelai-hidden.png"].data)
    done = imprompt("extract", tmp_path, "--json")
    assert done.code == 3
    assert [line.get("tool") for line in done.lines] == [None, "SwarmUI", None]
    assert "more than 8,388,608 bytes" in done.lines[0]["error"]["message"]
    assert [
        line.get("tool") for line in imprompt("extract", tmp_path, "--json", "--hidden").lines
    ] == [None, "SwarmUI", "NovelAI"]


def test_an_image_and_a_text_are_mixed(imprompt: Imprompt, index: Path, picture: Path) -> None:
    """A text moves the answer of an image towards itself."""
    (alone,) = imprompt("query", picture, "--json", "--index", index).lines
    (mixed,) = imprompt(
        "query", picture, "--text", "a lighthouse at dusk", "--json", "--index", index
    ).lines
    score = {"alone": 0.0, "mixed": 0.0}
    for name, answer in (("alone", alone), ("mixed", mixed)):
        score[name] = next(
            hit["score"] for hit in answer["nearest"] if hit["prompt"] == "a lighthouse at dusk"
        )
    assert score["mixed"] > score["alone"] + 0.1


def test_bad_images_never_stop_the_good_ones(
    imprompt: Imprompt, index: Path, picture: Path, tmp_path: Path
) -> None:
    """Each bad file is named with its reason, the good one is answered, the exit code tells."""
    (tmp_path / "text.png").write_text("no picture", "utf-8")
    (tmp_path / "empty.png").touch()
    files = [tmp_path / "text.png", picture, tmp_path / "empty.png", tmp_path / "missing.png"]
    done = imprompt("query", *files, "--json", "--index", index)
    assert done.code == 3
    assert [line["image"] for line in done.lines] == [str(path) for path in files]
    assert [("error" in line) for line in done.lines] == [True, False, True, True]
    for name in ("text.png", "empty.png", "missing.png"):
        assert name in done.err
    assert "Traceback" not in done.err


def test_a_single_bad_image_has_its_own_exit_code(
    imprompt: Imprompt, index: Path, tmp_path: Path
) -> None:
    """A missing file is one line and code 32."""
    done = imprompt("query", tmp_path / "missing.png", "--index", index)
    assert done.code == 32
    assert "missing.png" in one_line(done.err)


def test_building_the_same_again_does_nothing(
    imprompt: Imprompt, index: Path, corpus: Path
) -> None:
    """A second run of the same command finds everything in place."""
    before = imprompt("info", "--json", "--index", index).lines[0]
    done = imprompt("build-index", "--corpus", corpus, "--index", index)
    assert done.code == 0
    assert imprompt("info", "--json", "--index", index).lines[0] == before


def test_another_corpus_needs_replace(imprompt: Imprompt, corpus: Path, tmp_path: Path) -> None:
    """An index is never silently exchanged for one of something else."""
    place = tmp_path / "index"
    assert imprompt("build-index", "--corpus", corpus, "--index", place).code == 0
    other = tmp_path / "other.txt"
    other.write_text("something else\n", "utf-8")
    done = imprompt("build-index", "--corpus", other, "--index", place)
    assert done.code == 56
    assert "--replace" in one_line(done.err)
    assert imprompt("info", "--json", "--index", place).lines[0]["rows"] == len(PROMPTS)
    assert imprompt("build-index", "--corpus", other, "--index", place, "--replace").code == 0
    assert imprompt("info", "--json", "--index", place).lines[0]["rows"] == 1
    done = imprompt("gc", "--json", "--index", place)
    assert done.code == 0
    assert len(done.lines) == 1
    assert imprompt("verify", "--index", place).code == 0
    done = imprompt("gc", "--index", tmp_path / "nowhere")
    assert (done.code, one_line(done.err).startswith("error: There is no folder")) == (51, True)


def test_info_counts_what_was_dropped(imprompt: Imprompt, index: Path) -> None:
    """The funnel stays with the index: six lines, one of them a duplicate."""
    (manifest,) = imprompt("info", "--json", "--index", index).lines
    assert manifest["rows"] == len(PROMPTS)
    assert [encoder["name"] for encoder in manifest["encoders"]] == ["lite", "minilm"]
    assert len(manifest["indexes"]) == 1, "only the space that is searched is indexed"
    assert {"version", "rows_digest", "funnel"} <= set(manifest)
    assert manifest["funnel"]["kept"] == len(PROMPTS)
    assert (
        sum(count for reason, count in manifest["funnel"].items() if reason not in ("read", "kept"))
        == manifest["funnel"]["read"] - 5
    )
    assert "5" in imprompt("info", "--index", index).out


def test_verify_finds_one_flipped_byte(imprompt: Imprompt, corpus: Path, tmp_path: Path) -> None:
    """Damage anywhere is found, named, and has its exit code."""
    place = tmp_path / "index"
    imprompt("build-index", "--corpus", corpus, "--index", place)
    shard = next(place.glob("versions/*/vectors/*/*.npy"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    done = imprompt("verify", "--index", place)
    assert done.code == 53
    assert shard.name in done.out


def test_extract_reads_the_prompt_without_an_index(
    imprompt: Imprompt, picture: Path, tmp_path: Path
) -> None:
    """A folder gives a line for each image, and null where a file carries nothing."""
    text = PngInfo()
    text.add_text(
        "parameters",
        "an owl of brass\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64",
    )
    Image.new("RGB", (64, 64)).save(tmp_path / "owl.png", pnginfo=text)
    done = imprompt("extract", tmp_path, "--json")
    assert done.code == 0
    found = {Path(line["image"]).name: line["prompt"] for line in done.lines}
    assert found == {"owl.png": "an owl of brass", picture.name: None}
    assert set(done.lines[0]) == {"image", "prompt", "how", "negative", "tool", "settings", "doubt"}


def test_embed_writes_unit_rows_in_order(imprompt: Imprompt, corpus: Path, tmp_path: Path) -> None:
    """A line each, in the order of the file, repeats included."""
    out = tmp_path / "out.npy"
    assert imprompt("embed", "--texts", corpus, "--space", "output", "--out", out).code == 0
    vectors = np.load(out)
    assert vectors.shape == (6, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert float(vectors[1] @ vectors[5]) > 0.999, "the same words"
    assert float(vectors[0] @ vectors[1]) < 0.9


def test_embed_reads_every_kind_of_table(imprompt: Imprompt, tmp_path: Path) -> None:
    """An Arrow table is read as one, not as lines of text."""
    table = pyarrow.table({"prompt": ["a red fox", "a bowl of ramen"]})
    with pyarrow.ipc.new_file(tmp_path / "prompts.arrow", table.schema) as file:
        file.write_table(table)
    texts, out = tmp_path / "prompts.arrow", tmp_path / "out.npy"
    assert imprompt("embed", "--texts", texts, "--space", "output", "--out", out).code == 0
    assert np.load(out).shape == (2, 384)


def test_embed_keeps_rows_in_step_when_an_image_is_bad(
    imprompt: Imprompt, index: Path, picture: Path, tmp_path: Path
) -> None:
    """The bad image's row is zeros, it is listed, and the exit code tells."""
    out = tmp_path / "out.npy"
    (tmp_path / "bad.png").write_text("no", "utf-8")
    done = imprompt(
        "embed",
        "--images",
        picture,
        tmp_path / "bad.png",
        picture,
        "--space",
        "index",
        "--out",
        out,
        "--index",
        index,
    )
    assert done.code == 3
    vectors = np.load(out)
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1], atol=1e-5)
    assert np.allclose(vectors[0], vectors[2], atol=1e-5)


@pytest.mark.parametrize(
    "words", [[], ["--images"], ["a.png"], ["--images", "a.png", "--texts", "b.txt"]]
)
def test_embed_takes_images_or_texts(imprompt: Imprompt, words: list[str], tmp_path: Path) -> None:
    """Both or neither is refused before any model is loaded."""
    done = imprompt("embed", *words, "--out", tmp_path / "o.npy")
    assert done.code == 10
    assert "--images" in one_line(done.err)


def test_an_index_of_another_encoder_is_not_asked(
    imprompt: Imprompt, index: Path, tiny_clip: Path
) -> None:
    """Vectors of two spaces are never compared; the message says which command fits."""
    done = imprompt("query", "--text", "x", "--encoder", tiny_clip, "--index", index)
    assert done.code == 43
    assert "--encoder lite" in one_line(done.err)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--corpus", "missing.parquet"], 20),
        (["--corpus", "."], 20),
        (["--encoder", "no-such-model"], 10),
        (["--encoder", "ViT-L-14/openai", "--offline"], 41),
        (["--preset", "clip", "--offline"], 41),
    ],
)
def test_a_build_that_cannot_be_is_one_line(
    imprompt: Imprompt, words: list[str], code: int, tmp_path: Path
) -> None:
    """What is missing is named, nothing is left behind."""
    done = imprompt("build-index", *words, "--index", tmp_path / "index")
    one_line(done.err)
    assert done.code == code, done.err
    assert not (tmp_path / "index" / "CURRENT").exists()


def test_an_unknown_option_is_usage(imprompt: Imprompt) -> None:
    """A wrong word of the command line is code 2, as everywhere."""
    assert imprompt("query", "--no-such-option").code == 2


def test_colours_and_markup_in_prompts_stay_text(imprompt: Imprompt, tmp_path: Path) -> None:
    """Square brackets are common in prompts; they are never read as markup.

    The nearest prompts are shown without them, and are in JSON as they were typed.
    """
    typed = "a [red] fox [/] [bold]x"
    (tmp_path / "p.txt").write_text(f"{typed}\n", "utf-8")
    imprompt("build-index", "--corpus", tmp_path / "p.txt", "--index", tmp_path / "index")
    asked = ("--contains", "[red] fox [/]", "--index", tmp_path / "index")
    shown = imprompt("query", "--text", typed, *asked).out
    for words in (f"\n{typed}\n", "contains '[red] fox [/]'", " a red fox / bold x "):
        assert words in shown
    (answer,) = imprompt("query", "--text", "fox", "--json", *asked).lines
    (hit,) = answer["nearest"]
    assert (hit["prompt"], hit["shown"]) == (typed, "a red fox / bold x")
    info = PngInfo()
    info.add_text("parameters", f"{typed}\nSteps: 20, Sampler: Euler a, Seed: 1, Size: 8x8")
    Image.new("RGB", (8, 8)).save(tmp_path / "fox.png", pnginfo=info)
    assert f": {typed}\n" in imprompt("query", tmp_path / "fox.png", *asked).out


def test_an_unexpected_error_is_one_line_and_a_traceback_on_demand() -> None:
    """A fault of ours is said as one; --verbose shows where it comes from."""
    script = """
from imprompt import cli
from imprompt.commands import info
from imprompt.core import settings

settings.settings = None
cli.main()
"""
    for words, shown in ((["info"], False), (["info", "--verbose"], True)):
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == shown
        assert re.search("TypeError", done.stderr)


def test_the_quick_end_waits_for_threads_and_exit_handlers() -> None:
    """Threads and exit handlers of a verb finish first, and its exit code stays."""
    script = """
import atexit, threading, time
from imprompt import cli
from imprompt.core import errors, settings as settings_module

def settings(**_):
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    atexit.register(print, "handler")
    raise errors.NoIndex("nothing here")

settings_module.settings = settings
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "info"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "thread\nhandler\n"
    assert done.stderr == "error: nothing here\n"
    assert done.returncode == NoIndex.exit_code


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="this system has no device that is always full"
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words", ["query --text fox --json", "plan --rows 2M", "plan --rows 2M --json"]
)
def test_an_answer_that_cannot_be_written_is_no_success(
    words: str, unbuffered: str, index: Path
) -> None:
    """A full disk at standard output is noticed at the last flush, and told in one line."""
    line = [
        sys.executable,
        "cli.py",
        *words.split(),
        *(["--index", str(index)] if "query" in words else []),
    ]
    with Path("/dev/full").open("wb") as full:
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(
            line,
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            check=False,
        )
    assert done.returncode == StorageFull.exit_code
    assert re.fullmatch(
        r"error: standard output.* cannot be written: No space left on device\. "
        r"Free some space.*\n",
        done.stderr,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words", ["plan --rows 2M", "plan --rows 2M --json", "--help", "plan --help"]
)
def test_a_reader_that_left_is_no_fault(words: str, unbuffered: str) -> None:
    """`| head` ends a command silently, with the exit code of a broken pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    line = [sys.executable, "cli.py", *words.split()]
    done = subprocess.run(
        line,
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_interrupted_verb_says_what_is_kept() -> None:
    """Ctrl-C is one line and the code that shells know."""
    script = """
import os, signal
from imprompt import cli
from imprompt.core import settings

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs lack it
settings.settings = lambda **_: os.kill(os.getpid(), signal.SIGINT)
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "info"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    assert done.stderr == "Interrupted. Finished work is kept; run the command again to resume.\n"


def test_running_the_command_line_leaves_the_process_its_exit_code() -> None:
    """Who calls `run` goes on, and ends as it wants to."""
    script = (
        "import sys, cli\nsys.argv = ['cli.py', 'plan', '--rows', '0']\n"
        "assert cli.run()\nsys.exit(7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 7


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", ["info", "query --text fox --json"])
def test_closed_streams_are_no_fault(words: str, closed: str, index: Path) -> None:
    """What was closed by the caller stays unsaid, and no file of ours takes its place."""
    line = f'{sys.executable} cli.py {words} --index "{index}" {closed}'
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (" >&-" not in f" {closed}")


def test_a_name_that_is_no_text_keeps_its_exit_code() -> None:
    """With standard error closed, too, an error that names a path of other bytes is that error."""
    line = f"{sys.executable} cli.py info --index \"$(printf '/tmp/a\\377b')\" 2>&-"
    assert (
        subprocess.run(["sh", "-c", line], cwd=ROOT, check=False).returncode
        == ConfigError.exit_code
    )


def test_progress_is_drawn_on_a_terminal_only(corpus: Path, tmp_path: Path) -> None:
    """On a pseudo-terminal a bar appears on standard error; standard output stays clean JSON."""
    import pty

    main, side = pty.openpty()
    words = [
        sys.executable,
        "cli.py",
        "build-index",
        "--corpus",
        str(corpus),
        "--index",
        str(tmp_path / "i"),
        "--json",
    ]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=side, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(side)
        drawn = b""
        try:
            while chunk := os.read(main, 4096):
                drawn += chunk
        except OSError:
            pass  # the terminal's other end was closed: the process is done
        out = process.stdout.read() if process.stdout else b""
    os.close(main)
    assert process.returncode == 0
    assert b"\x1b[" in drawn
    assert out.count(b"\n") == 1
    assert out.startswith(b"{")
