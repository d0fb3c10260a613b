"""Data sets as the library `datasets` writes and reads them, from a hub on this machine.

For each layout the library itself is the oracle: the same texts in the same order.
"""

from __future__ import annotations

import gc
import json
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from imprompt.core.errors import CorpusError
from imprompt.core.values import RawPrompt
from imprompt.indexer.readers import webdatasets
from imprompt.indexer.readers.sources import parse_corpus
from tests.core.fake_hub import COMMIT, FakeHub, serve_as_the_hub
from tests.indexer.archives import picture, samples, tar
from tests.indexer.corpus_rows import rows_of, texts
from tests.indexer.hub_worlds import listing_of, served

REPO = "somebody/prompts"
TRAIN = [
    "a red fox",
    "a lake, at dusk",
    'a "quoted" thing',
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
]
TEST = ["the sea"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the library writes prompts into a folder, and reads them from it."""

    write: Callable[[Path], object]
    read: Callable[[Path], list[str]]


def table(prompts: list[str]) -> Any:
    return datasets.Dataset.from_dict({"id": list(range(len(prompts))), "prompt": prompts})


def both() -> Any:
    return datasets.DatasetDict(train=table(TRAIN), test=table(TEST))


def loaded(builder: str, column: str, *patterns: str) -> Callable[[Path], list[str]]:
    """What `load_dataset` reads from these files, one after the other."""

    def read(folder: Path) -> list[str]:
        files = [str(path) for pattern in patterns for path in sorted(folder.glob(pattern))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves metadata.csv open
            rows = datasets.load_dataset(
                builder, data_files=files, split="train", cache_dir=str(folder.parent / "library")
            )
            found = list(rows[column])
            gc.collect()
        return found

    return read


def from_disk(folder: Path) -> list[str]:
    splits = datasets.load_from_disk(str(folder))
    return [*splits["train"]["prompt"], *splits["test"]["prompt"]]


def write_shards(folder: Path) -> None:
    for number, prompts in enumerate((TRAIN, TEST)):
        content = tar(samples([prompt.encode() for prompt in prompts]))
        (folder / f"{number:05d}.tar").write_bytes(content)
    (folder / "sizes.json").write_text(json.dumps({"00000.tar": 4, "00001.tar": 1}))


def write_pictures(folder: Path, *, suffix: str) -> None:
    """An image folder: pictures, and a table that names them with their captions."""
    names = [f"{number:04d}.png" for number in range(len(TRAIN))]
    for name in names:
        (folder / name).write_bytes(picture())
    rows = datasets.Dataset.from_dict({"file_name": names, "text": TRAIN})
    getattr(rows, {"jsonl": "to_json", "csv": "to_csv"}[suffix])(str(folder / f"metadata.{suffix}"))


LAYOUTS = {
    "parquet": Layout(
        lambda folder: (
            table(TRAIN).to_parquet(folder / "train.parquet"),
            table(TEST).to_parquet(folder / "test.parquet"),
        ),
        loaded("parquet", "prompt", "train.parquet", "test.parquet"),
    ),
    "csv": Layout(
        lambda folder: table(TRAIN).to_csv(folder / "train.csv", index=False),
        loaded("csv", "prompt", "*.csv"),
    ),
    "jsonl": Layout(
        lambda folder: table(TRAIN).to_json(folder / "train.jsonl"),
        loaded("json", "prompt", "*.jsonl"),
    ),
    "text": Layout(
        lambda folder: (folder / "train.txt").write_text("\n".join(TRAIN), "utf-8"),
        loaded("text", "text", "*.txt"),
    ),
    "save_to_disk": Layout(lambda folder: both().save_to_disk(str(folder)), from_disk),
    "webdataset": Layout(write_shards, loaded("webdataset", "txt", "*.tar")),
    "image folder, JSON": Layout(
        lambda folder: write_pictures(folder, suffix="jsonl"),
        loaded("imagefolder", "text", "*.png", "metadata.jsonl"),
    ),
    "image folder, CSV": Layout(
        lambda folder: write_pictures(folder, suffix="csv"),
        loaded("imagefolder", "text", "*.png", "metadata.csv"),
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each layout in a folder."""
    datasets.disable_progress_bars()
    made = {}
    for name, layout in LAYOUTS.items():
        made[name] = tmp_path_factory.mktemp("layout") / "prompts"
        made[name].mkdir()
        layout.write(made[name])
    return made


@pytest.fixture(params=LAYOUTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve_as_the_hub(monkeypatch, tmp_path) as fake:
        yield fake


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(spec: str, **options: Any) -> tuple[list[RawPrompt], str]:
    """The prompts of a corpus, and its fingerprint."""
    source = parse_corpus(spec, **options)
    return [row for batch in source.batches(3) for row in batch.prompts], source.fingerprint()


def test_each_layout_is_read_as_the_library_reads_it(
    name: str, folders: dict[str, Path], hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetched, read again, with --offline and from a dead hub: the library's texts, one commit."""
    files = contents(folders[name])
    hub.files |= served(REPO, files)
    rows, fingerprint = read(f"hf:{REPO}")
    assert [row.text for row in rows] == LAYOUTS[name].read(folders[name])
    assert len({row.source_key for row in rows}) == len(rows)
    assert not [line for line in hub.asked if line.endswith(".png")]  # no picture is fetched
    hub.seen.clear()
    assert read(f"hf:{REPO}", offline=True) == (rows, fingerprint)
    assert read(f"hf:{REPO}@{COMMIT}", offline=True) == (rows, fingerprint)
    assert not hub.seen
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert read(f"hf:{REPO}") == (rows, fingerprint)


def test_each_layout_is_read_from_a_local_folder(name: str, folders: dict[str, Path]) -> None:
    """The same texts, files by their names."""
    found = texts(rows_of(folders[name]))
    assert sorted(found) == sorted(LAYOUTS[name].read(folders[name]))


def test_a_branch_that_moves(folders: dict[str, Path], hub: FakeHub) -> None:
    """The commit that was asked for stays what it was; the branch is another corpus."""
    files = contents(folders["webdataset"])
    hub.files |= served(REPO, files)
    first, before = read(f"hf:{REPO}"), hub.commit
    assert parse_corpus(f"hf:{REPO}").origin == f"hf:{REPO}@{before}"
    hub.files[f"api/datasets/{REPO}/revision/{before}"] = hub.files[listing_of(REPO)]
    changed = files | {"00001.tar": tar(samples([b"something new"]))}
    hub.push({})
    hub.files |= served(REPO, changed, commit=hub.commit)
    assert read(f"hf:{REPO}@{before}") == first
    moved, fingerprint = read(f"hf:{REPO}")
    assert [row.text for row in moved] == [*TRAIN, "something new"]
    assert fingerprint != first[1]


def test_an_archive_needs_the_package_before_it_is_fetched(
    folders: dict[str, Path], hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fetched in vain; the error names the layout and what to install."""
    monkeypatch.setattr(webdatasets, "EXTRA", "no-such-package")
    hub.files |= served(REPO, contents(folders["webdataset"]))
    with pytest.raises(CorpusError, match=f"hf:{REPO} is read as a WebDataset") as caught:
        parse_corpus(f"hf:{REPO}")
    assert "pip install" in caught.value.hint
    assert not [line for line in hub.asked if line.endswith(".tar")]


class Canary:
    """A pickle that makes a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def code(tmp_path: Path) -> dict[str, bytes]:
    """A loading script and a pickle that leave a canary where they run."""
    canary = tmp_path / "canary"
    script = f"import pathlib\npathlib.Path({str(canary)!r}).touch()\n".encode()
    return {
        "prompts.py": script,
        "data.pkl": pickle.dumps(Canary(canary)),
        "dataset_infos.json": b"{}",
    }


def test_a_script_is_refused(code: dict[str, bytes], hub: FakeHub, tmp_path: Path) -> None:
    """A data set that only its own code reads is refused by what it has; nothing is fetched."""
    hub.files |= served(REPO, code)
    with pytest.raises(CorpusError, match=r"it has: \.json, \.pkl, \.py"):
        parse_corpus(f"hf:{REPO}")
    assert hub.asked == ["GET main"]
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("kind", ["parquet", "save_to_disk", "webdataset"])
def test_code_beside_the_data_is_left_alone(
    kind: str, code: dict[str, bytes], folders: dict[str, Path], hub: FakeHub, tmp_path: Path
) -> None:
    """The data are read, the code is not fetched."""
    hub.files |= served(REPO, code | contents(folders[kind]))
    assert [row.text for row in read(f"hf:{REPO}")[0]] == [*TRAIN, *TEST]
    assert not [line for line in hub.asked if line.endswith((".py", ".pkl"))]
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("kind", ["parquet", "arrow", "tar"])
@pytest.mark.parametrize("content", [b"", b"PAR1 ARROW1", pickle.dumps(Canary(Path("/")))])
def test_a_broken_file_is_one_line(kind: str, content: bytes, hub: FakeHub) -> None:
    """Whatever the hub sends under a name."""
    hub.files |= served(REPO, {f"train.{kind}": content})
    with pytest.raises(CorpusError, match="cannot be read as") as caught:
        parse_corpus(f"hf:{REPO}")
    assert "\n" not in str(caught.value)


def test_what_map_leaves_beside_a_saved_data_set(tmp_path: Path) -> None:
    """`map` writes its result beside the tables that it read; only those saved are the data."""
    folder = tmp_path / "saved"
    table(TRAIN).save_to_disk(str(folder))
    datasets.load_from_disk(str(folder)).map(lambda row: {"prompt": row["prompt"].upper()})
    assert list(folder.glob("cache-*.arrow"))
    assert texts(rows_of(folder)) == TRAIN


def test_a_saved_selection(tmp_path: Path) -> None:
    """The library writes the chosen rows alone."""
    table(TRAIN).select([3, 0]).save_to_disk(str(tmp_path / "saved"))
    assert texts(rows_of(tmp_path / "saved")) == [TRAIN[3], TRAIN[0]]


def test_pictures_are_no_prompts(tmp_path: Path) -> None:
    """A folder of pictures whose table has no caption is refused by its columns."""
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    (tmp_path / "metadata.csv").write_text("file_name,mask_file_name\n0.png,0.png\n")
    with pytest.raises(CorpusError, match="it has: file_name, mask_file_name"):
        parse_corpus(str(tmp_path))
