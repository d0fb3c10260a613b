"""Builds on real Ray clusters of several nodes: the index equals a local one, despite kills."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from imprompt.core.errors import ClusterError, WorkerDiffers
from imprompt.core.progress import SILENT, Silent
from imprompt.core.protocols import ProgressTask
from imprompt.encoders.registry import load_encoder, output_encoder
from imprompt.indexer.build import BuildOptions, BuildReport, build_index
from imprompt.indexer.engine import Engine, LocalEngine
from imprompt.indexer.ray_engine import NamedSpaces, RayEngine
from imprompt.indexer.ray_session import Pool, ray_cluster
from imprompt.indexer.ray_stream import Rounds, stream
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.indexer.readers.starter import starter_source
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.manifest import Manifest
from tests.indexer import ray_driver
from tests.indexer.doubles import write_corpus
from tests.indexer.ray_nodes import REPOSITORY, Nodes, nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Ray warns of settings of its own, and leaves sockets and processes to the collector.
    pytest.mark.filterwarnings("ignore"),
]

ROWS = 2000
UNREADABLE = 9
SHARD_ROWS = 128
THREADS = 1


@dataclass(frozen=True, slots=True)
class BuildCase:
    """A corpus with unreadable rows, and the result of a local build with one thread."""

    corpus: Path
    root: Path
    whole: Manifest


@pytest.fixture(scope="module")
def started() -> Iterator[Nodes]:
    with nodes(2) as both:
        yield both


@pytest.fixture
def cluster(started: Nodes) -> Nodes:
    """The same nodes for every test, without the losses of an earlier one."""
    started.settle()
    return started


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildCase]:
    import torch

    folder = tmp_path_factory.mktemp("bench")
    lines = [prompt.text.encode() for prompt in next(iter(starter_source().batches(ROWS))).prompts]
    for place in range(UNREADABLE):
        lines.insert(place * 211 + 3, b"poisoned \xff row")
    corpus = folder / "corpus.txt"
    corpus.write_bytes(b"\n".join(lines) + b"\n")
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield BuildCase(
        corpus, folder / "local", build(folder / "local", corpus, LocalEngine()).manifest
    )
    torch.set_num_threads(before)


def build(root: Path, corpus: Path, engine: Engine, progress: Any = None) -> BuildReport:
    """The corpus by `lite`, as the command builds it, in small batches and shards."""
    pair = load_encoder("lite", device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imprompt.indexer.engine.READ_ROWS", 300)
        patch.setattr("imprompt.indexer.ray_engine.READ_ROWS", 300)
        options = BuildOptions(shard_rows=SHARD_ROWS)
        source = parse_corpus(str(corpus))
        minilm = output_encoder(pair, device="cpu")
        return build_index(
            root,
            [source],
            pair,
            options=options,
            extra=[minilm],
            engine=engine,
            progress=progress or SILENT,
        )


def assert_same(root: Path, case: BuildCase) -> None:
    """Plan, rows and funnel agree; vectors exactly if their provenance does, else to 1e-3."""
    assert verify(root) == []
    with open_version(root) as found, open_version(case.root) as whole:
        assert found.manifest.plan_sha256 == case.whole.plan_sha256
        assert found.manifest.rows_digest == case.whole.rows_digest
        assert found.manifest.funnel == case.whole.funnel
        assert found.manifest.funnel["bad UTF-8"] == UNREADABLE
        for space, records in case.whole.shards.items():
            for here, there in zip(records, found.manifest.shards[space], strict=True):
                assert (here.file, here.rows) == (there.file, there.rows)
                assert here.sha256 == there.sha256 or here.provenance != there.provenance
            rows = found.vectors(space).block(0, whole.manifest.rows)
            np.testing.assert_allclose(
                rows, whole.vectors(space).block(0, whole.manifest.rows), atol=1e-3
            )
        space = case.whole.encoders[0].space
        queries = whole.vectors(space).block(0, 50)
        mine, yours = found.index(space).search(queries, 10), whole.index(space).search(queries, 10)
        np.testing.assert_allclose(mine.scores, yours.scores, atol=1e-3)


class Calling(Silent):
    """A progress that calls somebody once, when so many rows are encoded."""

    def __init__(self, rows: int, call: Any) -> None:
        self.left, self.call, self.encoding = rows, call, False

    def start(self, label: str, total: int | None) -> ProgressTask:
        self.encoding = label.startswith("Encoding")
        return self

    def advance(self, n: int) -> None:
        if self.encoding and self.left > 0:
            self.left -= n
            if self.left <= 0:
                self.call()


def test_a_cluster_builds_what_this_machine_builds(
    cluster: Nodes, case: BuildCase, tmp_path: Path
) -> None:
    """Two nodes with the same number of threads give the same bytes and the same funnel."""
    with ray_cluster(cluster.address, device="cpu") as offered:
        assert offered.devices == Pool(2, 2, 1)
        build(tmp_path, case.corpus, RayEngine(offered, NamedSpaces("lite", device="cpu")))
    assert_same(tmp_path, case)
    with open_version(tmp_path) as found:
        assert found.manifest.shards == case.whole.shards  # records hold sha256 and provenance


def test_a_node_is_lost_during_a_build(cluster: Nodes, case: BuildCase, tmp_path: Path) -> None:
    """Another actor repeats lost work; shards leave nothing in the shared folder."""
    cluster.grow()
    lost: list[int] = []

    def lose() -> None:
        cluster.lose()
        lost.append(1)

    with ray_cluster(cluster.address, device="cpu") as offered:
        assert offered.devices.most == 3
        engine = RayEngine(
            offered, NamedSpaces("lite", device="cpu"), shards=str(tmp_path / "shared")
        )
        report = build(tmp_path / "index", case.corpus, engine, Calling(3 * SHARD_ROWS, lose))
    assert lost == [1]
    assert report.encoded == 2 * case.whole.rows
    assert_same(tmp_path / "index", case)
    assert list((tmp_path / "shared").iterdir()) == []


def test_the_driver_is_killed_during_a_build(cluster: Nodes, tmp_path: Path) -> None:
    """The local engine finishes what the cluster began; then nothing is left to do."""
    corpus = write_corpus(tmp_path / "corpus.txt", 600)
    command = [
        sys.executable,
        str(Path(ray_driver.__file__)),
        str(tmp_path / "index"),
        str(corpus),
        cluster.address,
    ]
    killed = subprocess.run(
        command, cwd=REPOSITORY, env=None, capture_output=True, check=False, timeout=600
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    whole = ray_driver.build(tmp_path / "whole", corpus, LocalEngine()).manifest
    report = ray_driver.build(tmp_path / "index", corpus, LocalEngine())
    assert report.encoded == whole.rows - ray_driver.FINISHED * ray_driver.SHARD_ROWS
    assert report.manifest.rows_digest == whole.rows_digest
    assert report.manifest.shards == whole.shards
    with ray_cluster(cluster.address) as offered:
        assert not ray_driver.build(
            tmp_path / "index", corpus, RayEngine(offered, ray_driver.spaces)
        ).built


def test_a_stream_is_bounded(cluster: Nodes) -> None:
    """Twice what the object stores hold goes through them, as results are read."""
    with ray_cluster(cluster.address) as offered:
        seen = [(*result, time.time()) for result in stream(big_items, sizes, pool=offered.devices)]
    assert [(place, size) for place, size, _, _ in seen] == [
        (place, BIG_BYTES) for place in range(N_BIG)
    ]
    made = np.array([when for _, _, when, _ in seen])
    ahead = [int((made < arrived).sum()) - place for place, _, _, arrived in seen]
    assert max(ahead) * BIG_BYTES <= 100 << 20


N_BIG, BIG_BYTES = 80, 5 << 20


def big_items() -> Iterator[tuple[int, bytes, float]]:
    for place in range(N_BIG):
        yield place, b"x" * BIG_BYTES, time.time()


def sizes() -> Any:
    def size(item: tuple[int, bytes, float]) -> tuple[int, int, float]:
        time.sleep(0.05)
        return item[0], len(item[1]), item[2]

    return size


def test_every_node_is_lost(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a node for an actor, the end is one line after a while; Ray prints nothing."""
    with nodes(1) as alone, ray_cluster(alone.address) as offered:
        capfd.readouterr()
        came = []
        with pytest.raises(
            ClusterError, match="3 times in a row: no node that is left has room for an actor"
        ):
            for result in Rounds(lambda: stream(big_items, sizes, pool=offered.devices)):
                came.append(result)
                if len(came) == 2:
                    alone.lose()
    assert len(came) < N_BIG
    printed = capfd.readouterr()
    assert "aylet" not in printed.out + printed.err


def test_workers_of_other_code_are_refused(cluster: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, before any work is done."""
    monkeypatch.setattr("imprompt.indexer.ray_stream.code_sha256", lambda: "another")
    with (
        ray_cluster(cluster.address) as offered,
        pytest.raises(WorkerDiffers, match="runs other code"),
    ):
        list(stream(big_items, sizes, pool=offered.devices))


def test_the_command_is_quiet_and_leaves_nothing(case: BuildCase, tmp_path: Path) -> None:
    """Ray ends with the command, listens on loopback only, and prints what a local build does."""
    corpus, index = tmp_path / "corpus.txt", tmp_path / "index"
    corpus.write_bytes(b"".join(case.corpus.read_bytes().splitlines(keepends=True)[:40]))
    command = [
        sys.executable,
        "cli.py",
        "build-index",
        "--corpus",
        str(corpus),
        "--index",
        str(index),
        "--engine",
        "ray",
        "--json",
    ]
    heard: set[tuple[str, int]] = set()
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=out, stderr=err)
        while process.poll() is None:
            heard |= set(listeners(process.pid))
            time.sleep(0.2)
    assert process.returncode == 0, (tmp_path / "err").read_text()
    assert (tmp_path / "out").read_text().count("\n") == 1
    notes = (tmp_path / "err").read_text().splitlines()
    assert notes[0] == f"Building the index in {index}."
    assert all(line.startswith("  left out: corpus.txt:") for line in notes[1:]), notes
    assert {address.removeprefix("::ffff:") for address, _ in heard} == {"127.0.0.1"}
    assert not [
        line for line in map(command_line, psutil.process_iter()) if "imprompt-ray-" in line
    ]
    assert verify(index) == []


def listeners(pid: int) -> Iterator[tuple[str, int]]:
    """(address, port) of all that a process and its children listen at."""
    with suppress(psutil.Error):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with suppress(psutil.Error):
                yield from (
                    each.laddr[:2]
                    for each in process.net_connections("tcp")
                    if each.status == psutil.CONN_LISTEN
                )


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
