"""Tables as they really occur: odd delimiters, headers, comments, line ends; guesses are told."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from imprompt.core.errors import CorpusError
from imprompt.core.values import RawPrompt
from imprompt.indexer.readers.sources import parse_corpus

FOX, LAKE = "a red fox, in snow", "a blue lake, with trees, dusk"


def read(path: Path, column: str | None = None) -> tuple[list[str], list[str]]:
    """(prompts, what the build says of the file)."""
    said: list[str] = []
    source = parse_corpus(str(path), column=column, announce=said.append)
    return [row.text for row in source.open_rows(0) if isinstance(row, RawPrompt)], said


SAID = {
    "semicolons": f"prompt;steps\n{FOX};20\n{LAKE};30\n",
    "tabs in a csv": f"prompt\tsteps\n{FOX}\t20\n{LAKE}\t30\n",
    "bars": f"steps|prompt\n20|{FOX}\n30|{LAKE}\n",
    "Excel's first line": f"sep=;\nprompt;steps\n{FOX};20\n{LAKE};30\n",
    "Excel's first line, quoted": f'"sep=|"\nprompt|steps\n{FOX}|20\n{LAKE}|30\n',
    "comments": "# exported by a tool\n# on a day, at an hour\n"
    f'prompt,steps\n"{FOX}",20\n"{LAKE}",30\n',
    "no header": f"{FOX}\n{LAKE}\n",
    "no header, quoted": f'"{FOX}"\n"{LAKE}"\n',
    "no header, semicolons": f"1;{FOX}\n2;{LAKE}\n",
    "another name, semicolons": f"id;caption\n1;{FOX}\n2;{LAKE}\n",
}
SILENT = {
    "plain": f'prompt,steps\n"{FOX}",20\n"{LAKE}",30\n',
    "carriage returns": f'prompt,steps\r"{FOX}",20\r"{LAKE}",30\r',
    "windows": f'\ufeffprompt,steps\r\n"{FOX}",20\r\n"{LAKE}",30\r\n',
    "commas that nobody quoted": f"prompt\n{FOX}\n{LAKE}\n",
    "a blank line first": f'\nprompt,steps\n"{FOX}",20\n"{LAKE}",30\n',
}


@pytest.mark.parametrize("name", SAID)
def test_a_form_that_is_guessed_is_read_and_told(name: str, tmp_path: Path) -> None:
    """Both prompts come whole, and one line shows the first as it was read."""
    path = tmp_path / "prompts.csv"
    path.write_text(SAID[name], "utf-8")
    texts, said = read(
        path,
        column="2" if name == "no header, semicolons" else "caption" if "another" in name else None,
    )
    assert texts == [FOX, LAKE]
    assert len(said) == 1
    assert said[0].startswith("prompts.csv is read as ")
    assert said[0].endswith(FOX)
    assert ("no header line" in said[0]) == ("no header" in name)


@pytest.mark.parametrize("name", SILENT)
def test_a_form_that_is_plain_is_read_without_a_word(name: str, tmp_path: Path) -> None:
    """A header with `prompt` and the suffix's own delimiter."""
    path = tmp_path / "prompts.csv"
    path.write_bytes(SILENT[name].encode())
    assert read(path) == ([FOX, LAKE], [])


def test_two_quotes_left_open_do_not_swallow_what_stands_between(tmp_path: Path) -> None:
    """The second would close the first amid a word; each costs its own line, and is named."""
    path = tmp_path / "prompts.csv"
    path.write_text(
        'steps,prompt\n20,"a fox\n30,a 5" lens\n40,"the sea\n50,"a hill, a lake"\n60,"two\nlines"\n'
    )
    assert read(path)[0] == ['a 5" lens', "a hill, a lake", "two\nlines"]
    rows = parse_corpus(str(path)).open_rows(0)
    assert [row.source_key for row in rows if not isinstance(row, RawPrompt)] == [
        "line 2",
        "line 4",
    ]


def test_a_prompt_a_line_keeps_its_quotes(tmp_path: Path) -> None:
    """Where lines are prompts, a quote is a quote, unless it encloses the whole line."""
    path = tmp_path / "prompts.csv"
    path.write_text(
        'prompt\n"open" sign, neon\n"a fox, a hill"\na 5" lens\n"never closed\nthe sea\n'
    )
    assert read(path)[0] == [
        '"open" sign, neon',
        "a fox, a hill",
        'a 5" lens',
        '"never closed',
        "the sea",
    ]


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_carriage_returns_end_lines(suffix: str, tmp_path: Path) -> None:
    """In texts and JSON lines as in tables."""
    path = tmp_path / f"prompts.{suffix}"
    lines = (
        [FOX, LAKE] if suffix == "txt" else [json.dumps({"prompt": text}) for text in (FOX, LAKE)]
    )
    path.write_bytes("\r".join(lines).encode())
    assert read(path)[0] == [FOX, LAKE]


def test_an_array_of_prompts(tmp_path: Path) -> None:
    """JSON texts, with a number among them that is left out."""
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([FOX, 7, LAKE]))
    assert read(path)[0] == [FOX, LAKE]
    source = parse_corpus(str(path))
    assert [row.source_key for row in source.open_rows(1)] == ["item 1", "item 2"]


def arrow(path: Path, texts: list[str], *, stream: bool = True) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    table = pa.table({"prompt": texts, "n_submitted": list(range(1, len(texts) + 1))})
    with (
        pa.OSFile(str(path), "wb") as file,
        (pa.ipc.new_stream if stream else pa.ipc.new_file)(file, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=2)


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    """The Arrow files in their order; the JSON beside them is no corpus."""
    for part in range(2):
        arrow(
            tmp_path / "set" / "train" / f"data-0000{part}-of-00002.arrow",
            [f"prompt {part} {row}" for row in range(5)],
        )
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / "set" / "train" / name).write_text('{"prompt": "no prompt"}')
    texts, _ = read(tmp_path / "set")
    assert texts == [f"prompt {part} {row}" for part in range(2) for row in range(5)]
    source = parse_corpus(str(tmp_path / "set"))
    assert [row.text for row in source.open_rows(7) if isinstance(row, RawPrompt)] == texts[7:]


def test_an_arrow_file_and_its_damage(tmp_path: Path) -> None:
    """The file form is read, too; a cut file and a selection of rows are one-line errors."""
    arrow(tmp_path / "a" / "x.arrow", [FOX, LAKE, "the sea"], stream=False)
    assert read(tmp_path / "a" / "x.arrow")[0] == [FOX, LAKE, "the sea"]
    (tmp_path / "cut.arrow").write_bytes((tmp_path / "a" / "x.arrow").read_bytes()[:-40])
    with pytest.raises(CorpusError, match="cannot be read as Arrow") as caught:
        read(tmp_path / "cut.arrow")
    assert "\n" not in str(caught.value)
    (tmp_path / "a" / "indices.arrow").write_bytes(b"")
    with pytest.raises(CorpusError, match="selects a subset of its table's rows"):
        read(tmp_path / "a" / "x.arrow")
