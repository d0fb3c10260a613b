"""Fetching from a hub on the loopback interface: complete files, resumed, checked, refused."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from imprompt.core.errors import ConfigError, StorageFull, WeightsMissing, WeightsRejected
from imprompt.core.hub.fetch import fetch, fetch_all, fetch_choice, silent
from imprompt.core.hub.hub_files import (
    HubFile,
    Wanted,
    cached_choice,
    cached_file,
    hand_path,
    wanted,
)
from tests.core.fake_hub import FakeHub, serve_as_the_hub

CONTENT = os.urandom(300_000)
FILE = HubFile("someone/model", "weights.bin")
NAME = "someone/model/weights.bin"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that has one large file."""
    with serve_as_the_hub(monkeypatch, tmp_path) as served:
        served.files[NAME] = CONTENT
        served.large.add(NAME)
        yield served


@pytest.fixture
def cache(hub: FakeHub, tmp_path: Path) -> Path:
    """The hub's cache, empty."""
    return tmp_path / "hub"


def get(file: HubFile = FILE) -> tuple[Path, list[str]]:
    said: list[str] = []
    return fetch(file, offline=False, announce=said.append), said


def partial(cache: Path) -> list[Path]:
    return list(cache.rglob("*.incomplete"))


def test_a_file_is_announced_fetched_and_then_never_asked_for_again(hub: FakeHub) -> None:
    """Name, size and host come before the content; the second call makes no request."""
    path, said = get()
    assert path.read_bytes() == CONTENT
    assert said == ["Fetching weights.bin of someone/model (300.0 kB) from 127.0.0.1."]
    requests = len(hub.seen)
    assert get() == (path, [])
    assert cached_file(FILE) == path
    assert len(hub.seen) == requests


def test_small_files_are_checked_by_the_digest_of_git(hub: FakeHub) -> None:
    """Files that the hub keeps in git state the sha1 of a blob."""
    hub.files["someone/model/config.json"] = b'{"a": 1}'
    path, _ = get(HubFile("someone/model", "config.json"))
    assert path.read_bytes() == b'{"a": 1}'


def test_a_data_set_is_found_under_its_own_address(hub: FakeHub) -> None:
    """Its repository lies below /datasets, in the address and in the cache."""
    hub.files["datasets/someone/prompts/data/a.parquet"] = b"rows"
    path, _ = get(HubFile("someone/prompts", "data/a.parquet", repo_type="dataset"))
    assert path.read_bytes() == b"rows"
    assert "datasets--someone--prompts" in str(path)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: FakeHub) -> None:
    """Within one call: the next request asks for the rest only."""
    hub.cut = [100_000, 50_000]
    path, _ = get()
    assert path.read_bytes() == CONTENT
    starts = [int(ranged.removeprefix("bytes=").rstrip("-")) for _, _, ranged in hub.seen if ranged]
    assert starts == sorted(starts)
    assert len(starts) == 2
    assert starts[-1] > 100_000


def test_another_run_goes_on_where_one_was_broken_off(hub: FakeHub, cache: Path) -> None:
    """An incomplete download is kept, is not yet a file of the cache, and is resumed."""
    hub.cut = [100_000] + [0] * 8
    with pytest.raises(WeightsMissing):
        get()
    (kept,) = partial(cache)
    here = kept.stat().st_size
    assert 50_000 < here <= 100_000
    assert cached_file(FILE) is None
    hub.seen.clear()
    hub.cut.clear()
    path, said = get()
    assert path.read_bytes() == CONTENT
    assert f"bytes={here}-" in [ranged for _, _, ranged in hub.seen]
    assert said[1] == f"Resuming after {here / 1000:.1f} kB of an earlier attempt."
    assert not partial(cache)


def test_a_host_without_ranges_gives_the_whole_file_again(hub: FakeHub, cache: Path) -> None:
    """What is here is not joined to a second beginning."""
    hub.ranges = False
    hub.cut = [100_000]
    assert get()[0].read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_thrown_away(hub: FakeHub, cache: Path) -> None:
    """Whatever wrote it: the file is fetched from its beginning."""
    blobs = cache / "models--someone--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hub.digest(NAME)}.imprompt.incomplete").write_bytes(b"x" * 400_000)
    assert get()[0].read_bytes() == CONTENT


def test_other_bytes_than_the_hub_states_are_refused(hub: FakeHub, cache: Path) -> None:
    """Nothing is put into the cache, and the next call begins anew."""
    hub.lie = True
    with pytest.raises(
        WeightsRejected, match=r"weights\.bin of someone/model is corrupt: checksum mismatch"
    ) as caught:
        get()
    assert "again" in caught.value.hint
    assert cached_file(FILE) is None
    assert [part.stat().st_size for part in partial(cache)] == [0]


def test_a_damaged_part_is_found_out(hub: FakeHub, cache: Path) -> None:
    """A changed incomplete download is refused once, then fetched anew."""
    blobs = cache / "models--someone--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hub.digest(NAME)}.imprompt.incomplete").write_bytes(b"x" * 1000)
    with pytest.raises(WeightsRejected):
        get()
    assert get()[0].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "token", "words", "remedy"),
    [
        ((401, "RepoNotFound"), "", "no such repository, or it is private", "Check the name."),
        ((401, "RepoNotFound"), "t", "no such repository, or it is private", "your token may"),
        ((403, "GatedRepo"), "", "is gated", "run `hf auth login` or set HF_TOKEN"),
        ((403, "GatedRepo"), "t", "your token has no access", "with the account of your token"),
        ((401, ""), "t", "does not accept your token", "Public files need no token."),
        ((401, ""), "", "answered 401", "by hand"),
        ((404, "RevisionNotFound"), "", "has no such revision", "Name another revision"),
        ((404, "EntryNotFound"), "", "the hub has no such file", "what it holds"),
        ((404, ""), "", "the hub has no such file", "what it holds"),
        ((500, ""), "", "answered 500", "by hand"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_helps(
    hub: FakeHub,
    status: tuple[int, str],
    token: str,
    words: str,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reason, and the remedy for it; where that is fetching by hand, from where to where."""
    monkeypatch.setenv("HF_TOKEN", token)
    hub.status[NAME] = status
    with pytest.raises(WeightsMissing) as caught:
        get()
    assert words in caught.value.message
    assert "\n" not in str(caught.value)
    by_hand = f"Fetch {hub.address}/someone/model/resolve/main/weights.bin on a machine"
    if remedy == "by hand":
        assert caught.value.hint.startswith(by_hand)
        assert str(hand_path(FILE)) in caught.value.hint
    else:
        assert remedy in caught.value.hint
        assert by_hand not in caught.value.hint


def test_a_host_that_is_not_there_is_one_line(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection, with the reason and the remedy."""
    from huggingface_hub import constants

    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    with pytest.raises(WeightsMissing, match=r"127\.0\.0\.1:9.*Fetch http"):
        get()


@pytest.mark.parametrize(
    "hang_head", [True, False], ids=["before the headers", "before the content"]
)
def test_a_host_that_stays_silent_is_not_waited_for(
    hub: FakeHub, hang_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after the time limit, and says so."""
    from huggingface_hub import constants

    monkeypatch.setattr("imprompt.core.hub.fetch.ASK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.hang_s, hub.hang_head = 1.0, hang_head
    began = time.monotonic()
    with pytest.raises(WeightsMissing, match="did not answer in time"):
        get()
    assert time.monotonic() - began < 5


def test_a_full_disk_is_known_before_anything_is_fetched(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size and what is free are said; no content is asked for."""
    monkeypatch.setattr(
        "imprompt.core.hub.download.shutil.disk_usage", lambda path: SimpleNamespace(free=1000)
    )
    with pytest.raises(StorageFull, match=r"needs 300\.0 kB .* which has 1\.0 kB free"):
        get()
    assert "GET weights.bin" not in hub.asked


def test_a_cache_that_may_not_be_written_is_named(hub: FakeHub, cache: Path) -> None:
    """A file stands where the folder should be."""
    cache.mkdir()
    (cache / "models--someone--model").touch()
    with pytest.raises(
        StorageFull, match=r"models--someone--model\S* cannot be written: Not a directory"
    ):
        get()


def test_two_at_a_time_fetch_once(hub: FakeHub, cache: Path) -> None:
    """The second waits for the first, says so, and finds its work done."""
    blobs = cache / "models--someone--model" / "blobs"
    blobs.mkdir(parents=True)
    lock = blobs / f"{hub.digest(NAME)}.imprompt.lock"
    said: list[str] = []
    with FileLock(lock):
        waiting = threading.Thread(target=lambda: fetch(FILE, offline=False, announce=said.append))
        waiting.start()
        while not any("waiting" in line for line in said):
            time.sleep(0.01)
        (blobs / hub.digest(NAME)).write_bytes(CONTENT)
    waiting.join()
    found = cached_file(FILE)
    assert found is not None
    assert found.read_bytes() == CONTENT
    assert "GET weights.bin" not in hub.asked
    assert not partial(cache)
    assert not lock.exists()


def test_offline_asks_nobody(hub: FakeHub) -> None:
    """No request at all; the environment variable of the hub's library counts too."""
    with pytest.raises(WeightsMissing, match="--offline is set"):
        fetch(FILE, offline=True, announce=silent)
    assert not hub.seen


def test_the_hubs_own_switch_is_obeyed(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE says the same as --offline, and is named."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsMissing, match="HF_HUB_OFFLINE is set"):
        get()


def test_a_file_that_was_put_there_by_hand_is_found(cache: Path) -> None:
    """At the place that the error names."""
    place = hand_path(FILE)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"by hand")
    assert get() == (place, [])


def test_no_repository_is_an_error_of_the_name(cache: Path) -> None:
    """Before anybody is asked."""
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        get(HubFile("a/b/c", "x"))


def test_the_first_that_there_is_counts(hub: FakeHub) -> None:
    """In the order of preference at the hub; what lies here already goes before all."""
    choices = (HubFile("someone/model", "weights.safetensors"), FILE)
    assert fetch_choice(choices, offline=False, announce=silent).name == "weights.bin"
    hub.files["someone/model/weights.safetensors"] = b"safe"
    assert fetch_choice(choices, offline=False, announce=silent).name == "weights.bin"


def test_what_is_optional_is_asked_for_once(hub: FakeHub) -> None:
    """A missing optional file costs one request; files learnt from others are fetched too."""
    hub.files |= {
        "someone/model/index.json": b"{}",
        "someone/model/extra.txt": b"+",
        "someone/model/shard": b"1",
    }
    extras = [wanted("someone/model", name, optional=True) for name in ("extra.txt", "absent.txt")]

    def wants() -> list[Wanted]:
        index = wanted("someone/model", "index.json")
        known = cached_file(index.choices[0]) is not None
        return [index, *extras, *([wanted("someone/model", "shard")] if known else [])]

    fetch_all(wants, offline=False, announce=silent)
    assert cached_file(HubFile("someone/model", "extra.txt"))
    assert cached_file(HubFile("someone/model", "shard"))
    before = len(hub.seen)
    fetch_all(wants, offline=False, announce=silent)
    fetch_all(wants, offline=True, announce=silent)
    assert len(hub.seen) == before


class TestPassingRefusals:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_it_is_asked_again(self, hub: FakeHub, status: int) -> None:
        """Before the answer about a file, and in its content; each wait is said."""
        hub.passing = [(status, {}), (status, {})]
        path, said = get()
        assert path.read_bytes() == CONTENT
        assert len(hub.waits) == 2
        assert 0.5 <= hub.waits[0] <= 1 <= hub.waits[1] <= 2
        asked_again = [line for line in said if f"answered {status}; trying again in" in line]
        assert [line.split("(")[1] for line in asked_again] == ["1 of 3).", "2 of 3)."]

    def test_it_waits_as_long_as_the_hub_asks(self, hub: FakeHub) -> None:
        """In seconds; a longer wait than a minute is an answer of its own."""
        hub.passing = [(429, {"Retry-After": "7"})]
        get()
        assert hub.waits == [7]
        hub.passing = [(429, {"Retry-After": "3600"})]
        with pytest.raises(WeightsMissing, match="answered 429 and asks to wait 3600 s"):
            get(HubFile("someone/model", "other.bin"))

    def test_it_gives_up(self, hub: FakeHub) -> None:
        """After four requests."""
        hub.status[NAME] = (503, "")
        with pytest.raises(WeightsMissing, match="answered 503"):
            get()
        assert (len(hub.seen), len(hub.waits)) == (4, 3)

    def test_the_content_too(self, hub: FakeHub) -> None:
        """The hub answers about the file, and then refuses the file once."""
        hub.refuse_content = [503]
        path, said = get()
        assert path.read_bytes() == CONTENT
        assert any("answered 503; trying again" in line for line in said)

    def test_an_optional_file_ends_nothing(self, hub: FakeHub) -> None:
        """Whatever the hub says about it; that it is left out is said."""
        hub.files["someone/model/extra.txt"] = b"+"
        hub.status["someone/model/extra.txt"] = (503, "")
        wants = [wanted("someone/model", "extra.txt", optional=True), wanted(*NAMES)]
        said: list[str] = []
        fetch_all(lambda: wants, offline=False, announce=said.append)
        assert cached_file(FILE)
        (line,) = [line for line in said if "optional" in line]
        assert line.startswith("someone/model/extra.txt cannot be fetched: ")


NAMES = ("someone/model", "weights.bin")


class TestOneCommit:
    """All files of a repository are of one commit, wherever `main` moves."""

    WANTS = (wanted("someone/model", "config.json"), wanted(*NAMES))

    @pytest.fixture(autouse=True)
    def two_files(self, hub: FakeHub) -> None:
        hub.files["someone/model/config.json"] = b'{"version": 1}'

    def fetched(self, *, offline: bool = False, digests: tuple[str, ...] = ()) -> dict[str, bytes]:
        fetch_all(lambda: self.WANTS, offline=offline, digests=digests)
        paths = [cached_choice(want.choices) for want in self.WANTS]
        assert len({path.parent for path in paths if path}) == 1
        return {path.name: path.read_bytes() for path in paths if path}

    def test_main_moves_between_two_files(self, hub: FakeHub) -> None:
        """What was told first counts for the whole call."""
        old = dict(hub.files)

        def move() -> None:
            hub.push({NAME: b"new", "someone/model/config.json": b'{"version": 2}'})

        hub.after_head = move
        assert self.fetched() == {"config.json": b'{"version": 1}', "weights.bin": old[NAME]}

    def test_main_moves_between_two_runs(self, hub: FakeHub) -> None:
        """An interrupted fetch that goes on later is all of the new commit."""
        hub.cut = [100_000] + [0] * 8
        with pytest.raises(WeightsMissing):
            self.fetched()
        hub.cut.clear()
        hub.push({"someone/model/config.json": b'{"version": 2}'})
        assert self.fetched() == {"config.json": b'{"version": 2}', "weights.bin": CONTENT}

    def test_another_program_moves_the_reference(self, hub: FakeHub) -> None:
        """One file of a newer commit does not hide the older one, with and without the hub."""
        before = self.fetched()
        hub.push({"someone/model/README.md": b"# More"})
        other_program(hub, "README.md")
        hub.seen.clear()
        assert self.fetched(offline=True) == before
        assert self.fetched() == before
        assert not hub.seen

    def test_weights_that_are_known_by_their_digest_are_found(self, hub: FakeHub) -> None:
        """Also where a newer commit is complete."""
        before, digest = self.fetched(), hub.digest(NAME)
        hub.push({NAME: b"new weights"})
        other_program(hub, "config.json")
        other_program(hub, "weights.bin")
        assert self.fetched()["weights.bin"] == b"new weights"
        assert self.fetched(offline=True, digests=(digest,)) == before
        assert self.fetched()["weights.bin"] == b"new weights"

    def test_only_what_is_new_is_downloaded(self, hub: FakeHub) -> None:
        """A file of the same content is linked."""
        self.fetched()
        hub.push({"someone/model/index.json": b"{}"})
        said: list[str] = []
        wants = [*self.WANTS, wanted("someone/model", "index.json")]
        fetch_all(lambda: wants, offline=False, announce=said.append)
        assert [line.split()[1] for line in said] == ["index.json"]
        paths = [cached_choice(want.choices) for want in wants]
        assert {path and path.parent.name for path in paths} == {hub.commit}


def other_program(hub: FakeHub, filename: str) -> None:
    """Fetch one file as a program does that uses the hub's library alone."""
    from huggingface_hub import hf_hub_download

    hf_hub_download("someone/model", filename)
