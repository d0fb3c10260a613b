"""Data sets of the hub: from its cache, from a server like it, and from one that fails."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imprompt.core.errors import ConfigError, CorpusError
from imprompt.core.protocols import CorpusSource
from imprompt.core.values import RawPrompt
from imprompt.indexer.readers.hub_datasets import (
    HubCorpus,
    card_patterns,
    choose_files,
    parse_hub_spec,
)
from imprompt.indexer.readers.sources import NAMED_CORPORA, parse_corpus
from tests.core.fake_hub import COMMIT, FakeHub
from tests.indexer.hub_worlds import fill_cache, listing_of, served

REPO = "somebody/prompts"


def parquet(**columns: list[object]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


FILES = {
    "README.md": b"---\nlicense: cc0-1.0\n---\n# Prompts",
    ".gitattributes": b"*.parquet filter=lfs",
    "LICENSE.txt": b"no prompt",
    "data/test-00000-of-00001.parquet": parquet(prompt=["tested"]),
    "data/train-00000-of-00002.parquet": parquet(prompt=["first", "second"]),
    "data/train-00001-of-00002.parquet": parquet(prompt=["third"]),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache, and a cache of ours, of this test alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "hub"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on this machine; the client believes that it is the hub."""
    with FakeHub(served(REPO, FILES)) as fake:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", fake.address)
        template = f"{fake.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield fake


def rows_of(source: CorpusSource) -> list[RawPrompt]:
    return [row for batch in source.batches(100) for row in batch.prompts]


def texts(source: CorpusSource) -> list[str]:
    return [row.text for row in rows_of(source)]


class TestPresets:
    @pytest.mark.parametrize(
        ("preset", "file"),
        [("diffusiondb-2m", "metadata.parquet"), ("diffusiondb-large", "metadata-large.parquet")],
    )
    def test_diffusiondb_is_read_from_the_cache(self, preset: str, file: str, cache: Path) -> None:
        """Of DiffusionDB's columns: prompts and scores, the preset's name, no user names."""
        columns: dict[str, list[object]] = {
            "image_name": ["a.png", "b.png"],
            "prompt": ["a red fox", "a bowl of ramen"],
            "part_id": [1, 1],
            "seed": [1, 2],
            "step": [50, 50],
            "cfg": [7.0, 7.0],
            "sampler": [8, 8],
            "width": [512, 512],
            "height": [512, 512],
            "user_name": ["deadbeef", "cafe"],
            "timestamp": [None, None],
            "image_nsfw": [0.1, 0.2],
            "prompt_nsfw": [0.001, 0.9],
        }
        commit = fill_cache(cache, "poloclub/diffusiondb", {file: parquet(**columns)})
        source = parse_corpus(preset, offline=True)
        assert rows_of(source) == [
            RawPrompt("a red fox", preset, f"{file}:row 0", nsfw=0.001),
            RawPrompt("a bowl of ramen", preset, f"{file}:row 1", nsfw=0.9),
        ]
        assert source.origin == f"hf:poloclub/diffusiondb@{commit}"

    def test_gustavosta_is_read_from_the_cache(self, cache: Path) -> None:
        """Both of its files, train first, column `Prompt`."""
        files = {
            "data/eval.parquet": parquet(Prompt=["e"]),
            "data/train.parquet": parquet(Prompt=["t"]),
        }
        fill_cache(cache, "Gustavosta/Stable-Diffusion-Prompts", files)
        assert texts(parse_corpus("gustavosta", offline=True)) == ["t", "e"]

    @pytest.mark.parametrize("preset", NAMED_CORPORA)
    def test_one_that_is_not_there_says_what_to_fetch_and_where_to_put_it(
        self, preset: str
    ) -> None:
        """Offline without a cache: one line with address and path; files put there are read."""
        for filename in NAMED_CORPORA[preset].filenames:
            with pytest.raises(CorpusError, match="--offline is set") as caught:
                parse_corpus(preset, offline=True)
            assert "\n" not in str(caught.value)
            found = re.search(
                r"Fetch (\S+) on a machine with a network and put it at (\S+),", caught.value.hint
            )
            assert found is not None
            repo = NAMED_CORPORA[preset].repo
            assert found[1].endswith(f"/datasets/{repo}/resolve/main/{filename}")
            place = Path(found[2])
            place.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({NAMED_CORPORA[preset].column or "": [filename]}), place)
        assert texts(parse_corpus(preset, offline=True)) == list(NAMED_CORPORA[preset].filenames)


class TestFromTheHub:
    def test_files_are_fetched_once_and_pinned(self, hub: FakeHub) -> None:
        """Train before test, in order, announced; the commit is pinned; the cache agrees."""
        said: list[str] = []
        source = parse_corpus(f"hf:{REPO}", announce=said.append)
        assert [(row.text, row.source, row.source_key) for row in rows_of(source)] == [
            ("first", "prompts", "data/train-00000-of-00002.parquet:row 0"),
            ("second", "prompts", "data/train-00000-of-00002.parquet:row 1"),
            ("third", "prompts", "data/train-00001-of-00002.parquet:row 0"),
            ("tested", "prompts", "data/test-00000-of-00001.parquet:row 0"),
        ]
        assert source.origin == f"hf:{REPO}@{COMMIT}"
        assert all(
            any(f"Fetching {name} of {REPO}" in line for line in said)
            for name in FILES
            if name.startswith("data")
        )
        assert not any("LICENSE" in line for line in hub.asked)
        hub.seen.clear()
        pinned = parse_corpus(f"hf:{REPO}@{COMMIT}", offline=True)
        assert hub.seen == []
        assert pinned.fingerprint() == source.fingerprint()
        assert texts(pinned) == texts(source)

    def test_another_commit_is_another_corpus(self, cache: Path) -> None:
        """The same files at another commit have another fingerprint, so another plan."""
        first = fill_cache(cache, REPO, FILES)
        before = parse_corpus(f"hf:{REPO}", offline=True).fingerprint()
        assert fill_cache(cache, REPO, {**FILES, "README.md": b"# more words"}) != first
        assert parse_corpus(f"hf:{REPO}", offline=True).fingerprint() != before

    @pytest.mark.parametrize(
        ("status", "code", "said"),
        [
            (401, "", "answered 401"),
            (401, "RepoNotFound", "no such repository, or it is private"),
            (403, "GatedRepo", "licence"),
            (404, "RepoNotFound", "no such repository, or it is private"),
            (500, "", "answered 500"),
        ],
    )
    @pytest.mark.parametrize("spec", [f"hf:{REPO}", "diffusiondb-2m"])
    def test_a_refusal_is_one_line(
        self, status: int, code: str, said: str, spec: str, hub: FakeHub
    ) -> None:
        """What the hub said, what it means, and what helps."""
        hub.status = dict.fromkeys(
            (listing_of(REPO), "datasets/poloclub/diffusiondb/metadata.parquet"), (status, code)
        )
        with pytest.raises(CorpusError, match=said) as caught:
            parse_corpus(spec)
        assert caught.value.hint
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("spec", [f"hf:{REPO}", f"hf:{REPO}@v1"])
    def test_what_was_fetched_is_found_without_the_hub(
        self, spec: str, hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By its branch or tag, with --offline and while the hub is down: the same corpus."""
        hub.files[f"api/datasets/{REPO}/revision/v1"] = hub.files[listing_of(REPO)]
        first = parse_corpus(spec)
        hub.seen.clear()
        assert parse_corpus(spec, offline=True).fingerprint() == first.fingerprint()
        assert not hub.seen
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        assert parse_corpus(spec).fingerprint() == first.fingerprint()

    def test_a_listing_that_is_refused_for_a_moment(
        self, hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is asked for again."""
        waits: list[float] = []
        monkeypatch.setattr("imprompt.core.retries.time", SimpleNamespace(sleep=waits.append))
        hub.passing = [(503, {}), (429, {"Retry-After": "3"})]
        assert texts(parse_corpus(f"hf:{REPO}"))[0] == "first"
        assert waits[1] == 3

    def test_no_such_data_set(self, hub: FakeHub) -> None:
        """A plain 404 is said as well."""
        with pytest.raises(
            CorpusError, match=r"data set nobody/nothing cannot be listed: .* (404|no such)"
        ):
            parse_corpus("hf:nobody/nothing")

    @pytest.mark.parametrize("spec", [f"hf:{REPO}", "diffusiondb-2m"])
    def test_silence_ends(self, spec: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        """A hub that takes the call and never answers is given up after the time limit."""
        monkeypatch.setattr("imprompt.core.hub.fetch.ASK_TIMEOUT_S", 0.2)
        monkeypatch.setattr("imprompt.core.hub.data_sets.ASK_TIMEOUT_S", 0.2)
        hub.hang_s, hub.hang_head = 1.0, True
        began = time.monotonic()
        with pytest.raises(CorpusError, match="did not answer in time"):
            parse_corpus(spec)
        assert time.monotonic() - began < 0.9

    def test_nobody_there(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no connection is taken at all, that is said in one line."""
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(CorpusError, match=r"cannot be listed: .*refused") as caught:
            parse_corpus(f"hf:{REPO}")
        assert "\n" not in str(caught.value)

    def test_what_lies_here_stands_in_and_says_so(self, hub: FakeHub, cache: Path) -> None:
        """A hub that refuses does not stop a build whose files are cached or put by hand."""
        hub.status = {listing_of(REPO): (401, "")}
        with pytest.raises(CorpusError) as caught:
            parse_corpus(f"hf:{REPO}")
        place = re.search(r"put them into (\S+),", caught.value.hint)
        assert place is not None
        Path(place[1]).mkdir(parents=True)
        (Path(place[1]) / "mine.csv").write_text("prompt\nby hand\n")
        said: list[str] = []
        assert texts(parse_corpus(f"hf:{REPO}", announce=said.append)) == ["by hand"]
        fill_cache(cache, REPO, FILES)
        assert texts(parse_corpus(f"hf:{REPO}", announce=said.append)) == [
            "first",
            "second",
            "third",
            "tested",
        ]
        assert len(said) == 2
        assert all(
            "answered 401" in line and "Reading the files of it that lie in" in line
            for line in said
        )

    def test_a_part_of_a_data_set_is_refused(self, cache: Path) -> None:
        """If the cache lacks one of the numbered pieces, that one is named."""
        fill_cache(
            cache,
            REPO,
            {name: content for name, content in FILES.items() if "train-00000" not in name},
        )
        with pytest.raises(CorpusError, match="lacks data/train-00000-of-00002"):
            parse_corpus(f"hf:{REPO}", offline=True)

    def test_a_data_set_of_other_things(self, cache: Path) -> None:
        """A data set without a table is refused with what it has."""
        fill_cache(cache, REPO, {"README.md": b"", "images.rar": b"", "loader.py": b""})
        with pytest.raises(
            CorpusError, match=r"no data file of a kind that can be read; it has: \.py, \.rar"
        ):
            parse_corpus(f"hf:{REPO}", offline=True)


CARD = b"""---
configs:
- config_name: large
  data_files:
  - split: test
    path: large/test/*.csv
  - split: train
    path: ["large/b.csv", "large/a.csv"]
- config_name: small
  default: true
  data_files: "small/**/*.csv"
- config_name: folder
  data_dir: third
---
"""
CARD_FILES = {
    "README.md": CARD,
    **{
        name: f"prompt,id\n{name},1\n".encode()
        for name in (
            "large/a.csv",
            "large/b.csv",
            "large/test/x.csv",
            "small/one.csv",
            "small/deep/two.csv",
            "third/c.csv",
            "d.csv",
        )
    },
}


class TestConfigurations:
    @pytest.mark.parametrize(
        ("config", "names"),
        [
            ("", ["small/deep/two.csv", "small/one.csv"]),
            (":small", ["small/deep/two.csv", "small/one.csv"]),
            (":large", ["large/test/x.csv", "large/b.csv", "large/a.csv"]),
            (":folder#prompt", ["third/c.csv"]),
        ],
    )
    def test_the_card_says_which_files(self, config: str, names: list[str], cache: Path) -> None:
        """In the order of the card; the default where none is named."""
        fill_cache(cache, REPO, CARD_FILES)
        assert texts(parse_corpus(f"hf:{REPO}{config}", offline=True)) == names

    def test_configurations_are_told_apart(self, cache: Path) -> None:
        """The configuration is a part of the fingerprint, also where it means the same files."""
        fill_cache(cache, REPO, CARD_FILES)
        found = {
            parse_corpus(f"hf:{REPO}{config}", offline=True).fingerprint()
            for config in ("", ":small", ":large")
        }
        assert len(found) == 3

    def test_an_unknown_one_is_answered_with_those_there(self, cache: Path) -> None:
        """The configurations stand in the message."""
        fill_cache(cache, REPO, CARD_FILES)
        with pytest.raises(
            CorpusError, match="no configuration 'huge'; there are: large, small, folder"
        ):
            parse_corpus(f"hf:{REPO}:huge", offline=True)

    def test_without_a_default_one_has_to_be_named(self, tmp_path: Path) -> None:
        """Two configurations of which none is the default are not guessed at."""
        card = tmp_path / "README.md"
        card.write_text(
            "---\nconfigs:\n- config_name: a\n  data_files: a.csv\n"
            "- config_name: b\n  data_files: b.csv\n---\n"
        )
        with pytest.raises(CorpusError, match="several configurations"):
            card_patterns(card, HubCorpus(REPO))

    @pytest.mark.parametrize("front", ["configs: [", "configs: 7", "- a", "configs: [7, {}]", ""])
    def test_a_card_that_makes_no_sense(self, front: str, tmp_path: Path, cache: Path) -> None:
        """Whatever stands in a card: an error that names it, or the files by their names."""
        fill_cache(
            cache, REPO, {"README.md": f"---\n{front}\n---\n".encode(), "train.csv": b"prompt\nx\n"}
        )
        try:
            assert texts(parse_corpus(f"hf:{REPO}", offline=True)) == ["x"]
        except CorpusError as error:
            assert "card" in error.message


class TestChoosingFiles:
    def test_the_kind_that_most_files_have(self) -> None:
        """A stray file of another kind is no data; licences and hidden files are none either."""
        names = [
            "a-train.csv",
            "b-train.csv",
            "dataset_infos.json",
            "requirements.txt",
            ".cache/x.csv",
            "test/0.csv",
            "other.csv",
        ]
        assert choose_files(names, None) == [
            "a-train.csv",
            "b-train.csv",
            "test/0.csv",
            "other.csv",
        ]

    def test_descriptions_are_no_data(self) -> None:
        """Metadata of `datasets` never outnumbers the data; on a tie Parquet is taken."""
        assert choose_files(["dataset_infos.json", "train.parquet"], None) == ["train.parquet"]
        assert choose_files(["dataset_infos.json", "state.json", "train.csv"], None) == [
            "train.csv"
        ]
        assert choose_files(["a.csv", "a.parquet"], None) == ["a.parquet"]
        assert choose_files(["README.md", "loader.py"], None) == []

    def test_texts_where_there_is_nothing_else(self) -> None:
        """A data set of texts is read as one."""
        assert choose_files(["b.txt", "train.txt", "README.md"], None) == ["train.txt", "b.txt"]

    def test_patterns_choose_and_order(self) -> None:
        """A file that two patterns match is read once.

        `*`, `**/`, folders and plain names are understood.
        """
        names = ["a/1.csv", "a/b/2.csv", "c.csv", "d/3.parquet"]
        assert choose_files(names, ["c.csv", "**/*.csv"]) == ["c.csv", "a/1.csv", "a/b/2.csv"]
        assert choose_files(names, ["d/", "./a"]) == ["d/3.parquet", "a/1.csv", "a/b/2.csv"]


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("a/b", HubCorpus("a/b")),
        ("a/b:c", HubCorpus("a/b", config="c")),
        ("a/b#d e", HubCorpus("a/b", column="d e")),
        ("a-1/b.c_d@refs/pr/1:e#f", HubCorpus("a-1/b.c_d", "refs/pr/1", "e", "f")),
    ],
)
def test_a_spec_is_taken_apart(spec: str, parsed: HubCorpus) -> None:
    """Owner, name, revision, configuration, column."""
    assert parse_hub_spec(spec) == parsed


@pytest.mark.parametrize("spec", ["", "a", "a/b/c", "a/b:", "a/b#", "a b/c", "../x", "a/b@"])
def test_a_spec_that_is_none(spec: str) -> None:
    """What is not OWNER/NAME is refused with the form, before anything is asked."""
    with pytest.raises((ConfigError, CorpusError), match="hf:"):
        parse_corpus(f"hf:{spec}", offline=True)
