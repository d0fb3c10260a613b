"""Negative prompts and settings of images: from the files into an index, and through changes."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from imprompt.core.errors import Checksum
from imprompt.core.values import Parameters
from imprompt.indexer.adding import add_corpora
from imprompt.indexer.build import BuildOptions, build_index
from imprompt.indexer.cleaning_rules import Cleaning
from imprompt.indexer.readers.rows import StreamedSource
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.indexer.removing import remove_prompts, rules_where
from imprompt.indexer.semantic_duplicates import dedupe_similar
from imprompt.store import layout
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from tests.hostile.indexes import plain_manifest, seal, version
from tests.images.tool_files import png_texts
from tests.indexer.doubles import BagPair, listed, write_image
from tests.store.builders import reseal

SETTINGS = (
    "Steps: 30, Sampler: Euler a, Schedule type: Karras, CFG scale: 7.0, Seed: 4242, "
    "Size: 512x768, Model hash: abcdef, Model: dreamy, Clip skip: 2, Version: v1.10.1"
)
KEPT = {
    "model": "dreamy",
    "sampler": "Euler a",
    "scheduler": "Karras",
    "steps": "30",
    "cfg_scale": "7",
    "size": "512x768",
    "clip_skip": "2",
}
FOX = Parameters("blurry, low quality", KEPT)
STEPS = Parameters("", {"steps": "20", "size": "8x8"})


def images(folder: Path) -> StreamedSource:
    return parse_corpus(f"images:{folder}")


def build(root: Path, *sources: StreamedSource, cleaning: Cleaning | None = None) -> Path:
    options = BuildOptions(replace=True, cleaning=cleaning or Cleaning())
    build_index(root, sources, BagPair(), options=options)
    return root


def found(root: Path) -> dict[str, Parameters]:
    """What the index in service has, by prompt; it is whole, and the manifest counts them."""
    assert verify(root) == []
    with open_version(root) as opened:
        rows = range(len(opened.prompts))
        parameters = opened.prompts.parameters(rows)
        assert opened.manifest.parameters == len(parameters)
        return {
            prompt.text: parameters[prompt.row_id]
            for prompt in opened.prompts.get_many(rows)
            if prompt.row_id in parameters
        }


def tables(root: Path) -> list[str]:
    with duckdb.connect(str(version(root) / layout.PROMPTS), read_only=True) as connection:
        return [name for (name,) in connection.execute("SHOW TABLES").fetchall()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of a fox (with all of it), a lake (with settings) and a hill (a bare prompt)."""
    write_image(
        tmp_path / "images" / "fox.png",
        "a red fox",
        negative="blurry, low quality",
        settings=SETTINGS,
    )
    write_image(tmp_path / "images" / "lake.png", "a lake at night")
    (tmp_path / "images" / "hill.png").write_bytes(png_texts({"parameters": "a green hill"}))
    return tmp_path / "images"


def test_what_an_image_carries_beside_its_prompt_is_read(folder: Path) -> None:
    """The negative prompt and the few settings that may suit another picture, not its seed."""
    rows = [row for batch in images(folder).batches(10) for row in batch.prompts]
    assert {row.text: row.parameters for row in rows} == {
        "a red fox": FOX,
        "a lake at night": STEPS,
        "a green hill": None,
    }


def test_width_and_height_are_a_size_and_graphs_are_no_setting(tmp_path: Path) -> None:
    """As InvokeAI writes them; a value that no setting has, and a negative prompt of a book."""
    record = {
        "positive_prompt": "a fox",
        "negative_prompt": "blur, " * 2000,
        "width": 640,
        "height": 512,
        "steps": 12.0,
        "cfg_scale": 7.5,
        "vae": "x" * 201,
    }
    texts = {"invokeai_metadata": json.dumps(record)}
    (tmp_path / "a.png").write_bytes(png_texts(texts))
    (batch,) = images(tmp_path).batches(10)
    assert [row.parameters for row in batch.prompts] == [
        Parameters("", {"steps": "12", "cfg_scale": "7.5", "size": "640x512"})
    ]


def test_an_index_keeps_them(folder: Path, tmp_path: Path) -> None:
    """Only for rows that have any; a corpus without leaves no trace in the file."""
    root = build(tmp_path / "index", images(folder))
    assert found(root) == {"a red fox": FOX, "a lake at night": STEPS}
    assert tables(root) == ["parameters", "prompts"]
    plain = build(tmp_path / "plain", listed(["a red fox", "a lake"]))
    assert found(plain) == {}
    assert tables(plain) == ["prompts"]


def test_another_negative_prompt_is_another_corpus(folder: Path) -> None:
    """The fingerprint covers what an index keeps, and nothing else of the metadata."""
    before = images(folder).fingerprint()
    write_image(
        folder / "fox.png",
        "a red fox",
        negative="blurry, low quality",
        settings=SETTINGS.replace("4242", "7"),
    )
    assert images(folder).fingerprint() == before
    for change in ({"negative": "blurry"}, {"settings": SETTINGS.replace("30", "31")}):
        named = {"negative": "blurry, low quality", "settings": SETTINGS} | change
        write_image(folder / "fox.png", "a red fox", **named)
        assert images(folder).fingerprint() != before


def test_of_duplicates_the_kept_row_keeps_its_own(folder: Path, tmp_path: Path) -> None:
    """Equal prompts and near ones: the first stands for all, with what it came with or nothing."""
    write_image(folder / "fox-again.png", "a  red fox", negative="another")
    write_image(folder / "g-hill.png", "a green hill", negative="another")
    many = "a very long and winding road through hills and fields at dawn"
    write_image(folder / "road-1.png", many, negative="cars")
    write_image(folder / "road-2.png", f"{many} {many}", negative="trucks")
    root = build(tmp_path / "index", images(folder))
    assert found(root) == {
        "a  red fox": Parameters("another", STEPS.settings),
        "a lake at night": STEPS,
        "a green hill": Parameters("another", STEPS.settings),
        many: Parameters("cars", STEPS.settings),
    }


def test_an_earlier_row_without_any_stays_without(folder: Path, tmp_path: Path) -> None:
    """Nothing is taken over from the duplicate that is dropped for it."""
    root = build(tmp_path / "index", listed(["a red fox"]), images(folder))
    assert found(root) == {"a lake at night": STEPS}


@pytest.mark.parametrize("contacts", [True, False])
def test_a_contact_costs_the_negative_prompt_alone(tmp_path: Path, contacts: bool) -> None:
    """Prompt and settings stay; words that only an unsafe prompt may not hold stay, too."""
    write_image(tmp_path / "images" / "a.png", "a fox", negative="by jane@mail.org")
    write_image(tmp_path / "images" / "b.png", "a lake", negative="nsfw, porn")
    root = build(
        tmp_path / "index", images(tmp_path / "images"), cleaning=Cleaning(contacts=contacts)
    )
    assert found(root) == {
        "a fox": Parameters("" if contacts else "by jane@mail.org", STEPS.settings),
        "a lake": Parameters("nsfw, porn", STEPS.settings),
    }


def test_adding_keeps_and_brings_them(folder: Path, tmp_path: Path) -> None:
    """To an index with some, and to one without any; existing rows keep what they have."""
    write_image(tmp_path / "more" / "owl.png", "an owl", negative="cats")
    write_image(tmp_path / "more" / "fox.png", "a red fox", negative="later")
    owl = {"an owl": Parameters("cats", STEPS.settings)}
    root = build(tmp_path / "index", images(folder))
    add_corpora(root, [images(tmp_path / "more")], BagPair())
    assert found(root) == {"a red fox": FOX, "a lake at night": STEPS} | owl
    add_corpora(root, [listed(["a wolf"])], BagPair())
    assert found(root) == {"a red fox": FOX, "a lake at night": STEPS} | owl
    plain = build(tmp_path / "plain", listed(["a red fox", "a lake"]))
    add_corpora(plain, [images(tmp_path / "more")], BagPair())
    assert found(plain) == owl


def test_removing_leaves_those_of_the_others(folder: Path, tmp_path: Path) -> None:
    """Under their new row ids; the table goes with its last row."""
    root = build(tmp_path / "index", listed(["a wolf"]), images(folder))
    remove_prompts(root, rules_where("text = 'a red fox'"))
    assert found(root) == {"a lake at night": STEPS}
    assert not any(
        b"low quality" in path.read_bytes() for path in root.rglob("*") if path.is_file()
    )
    remove_prompts(root, rules_where("text = 'a lake at night'"))
    assert found(root) == {}
    assert tables(root) == ["prompts"]


def test_deduping_leaves_those_of_the_kept(folder: Path, tmp_path: Path) -> None:
    """The prompt that stays has its own, not those of the one dropped for it."""
    write_image(folder / "fox-2.png", "a red fox fox", negative="another")
    root = build(tmp_path / "index", images(folder), cleaning=Cleaning(near_duplicates=None))
    assert len(found(root)) == 3
    assert dedupe_similar(root, cosine=0.8).duplicates == 1
    assert found(root) == {
        "a lake at night": STEPS,
        "a red fox fox": Parameters("another", STEPS.settings),
    }


def test_an_index_of_format_3_0_answers_and_grows(folder: Path, tmp_path: Path) -> None:
    """Its manifest counts none; what is added brings the first."""
    root = build(tmp_path / "index", listed(["a red fox", "a lake"]))
    manifest = plain_manifest(root)
    del manifest["parameters"]
    manifest["format"] = [3, 0]
    reseal(root, json.dumps(manifest).encode())
    assert found(root) == {}
    with open_version(root) as opened:
        assert opened.manifest.format == (3, 0)
    add_corpora(root, [images(folder)], BagPair())
    assert found(root) == {"a lake at night": STEPS}
    with open_version(root) as opened:
        assert opened.manifest.format == (3, 1)


def change(root: Path, sql: str) -> None:
    """Change the database of prompts, with its record in the manifest."""
    path = version(root) / layout.PROMPTS
    path.chmod(0o644)
    with duckdb.connect(str(path)) as connection:
        connection.execute(sql)
    seal(root, plain_manifest(root), files=[layout.PROMPTS])


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE parameters SET negative = 'sharp' WHERE negative <> ''",
        """UPDATE parameters SET settings = '{"steps":"1"}'""",
        "DELETE FROM parameters WHERE negative = ''",
    ],
)
def test_verify_notices_another_negative_prompt_or_setting(
    folder: Path, tmp_path: Path, sql: str
) -> None:
    """The digest of the rows covers them."""
    root = build(tmp_path / "index", images(folder))
    change(root, sql)
    assert any("digest" in str(problem) for problem in verify(root))


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE parameters SET settings = '[1]'",
        """UPDATE parameters SET settings = '{"steps": 1}'""",
        "UPDATE parameters SET settings = repeat('[', 100000)",
        "UPDATE parameters SET negative = NULL",
    ],
)
def test_what_no_build_writes_is_refused_where_it_is_read(
    folder: Path, tmp_path: Path, sql: str
) -> None:
    """One line that names the file."""
    root = build(tmp_path / "index", images(folder))
    change(root, sql)
    with open_version(root) as opened, pytest.raises(Checksum, match=r"prompts\.duckdb") as caught:
        opened.prompts.parameters([0, 1, 2])
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE parameters",
        "ALTER TABLE parameters ADD COLUMN more VARCHAR",
        "ALTER TABLE parameters RENAME TO honest;CREATE VIEW parameters AS SELECT * FROM honest",
    ],
)
def test_another_table_of_parameters_is_refused_when_it_is_opened(
    folder: Path, tmp_path: Path, sql: str
) -> None:
    """Where the manifest counts some: a file without the table, or with another one."""
    root = build(tmp_path / "index", images(folder))
    change(root, sql)
    with pytest.raises(Checksum):
        open_version(root)
    assert verify(root)


def test_a_table_that_the_manifest_does_not_count_is_not_read(tmp_path: Path) -> None:
    """And `verify` names it."""
    root = build(tmp_path / "index", listed(["a red fox", "a lake"]))
    change(
        root,
        """CREATE TABLE parameters AS SELECT 0::BIGINT AS row_id, 'bad' AS negative,
        '{}' AS settings""",
    )
    with open_version(root) as opened:
        assert opened.prompts.parameters([0]) == {}
    assert any("parameters" in str(problem) for problem in verify(root))
