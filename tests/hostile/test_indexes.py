"""Foreign indexes: refused in one line; nothing executed, read, written or asked outside.

Every index of the collection goes through every door in this process. A process of its own costs
seconds, so `query` alone is asked with each that way, and every command with one of each kind.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imprompt.indexer.build
from imprompt.core.errors import ImpromptError
from imprompt.core.settings import MilvusPlace
from imprompt.encoders.registry import load_encoder, output_encoder
from imprompt.indexer.adding import add_corpora
from imprompt.indexer.build import build_index
from imprompt.indexer.readers.sources import parse_corpus
from imprompt.indexer.reindexing import reindex
from imprompt.indexer.removing import remove_prompts, rules_where
from imprompt.indexer.semantic_duplicates import dedupe_similar
from imprompt.store.index_version import open_version
from imprompt.store.integrity import verify
from imprompt.store.milvus.upload import PushOptions, push
from imprompt.store.publish import collect_garbage, current_name
from tests.hostile.indexes import HOSTILE, HostileIndex
from tests.hostile.watch import (
    ROOT,
    SECRET,
    Home,
    Outcome,
    check_cheap,
    check_harmless,
    check_refused,
)
from tests.store.builders import build

ROWS = 400
MOST_S = 2.0
MOST_BYTES = 256 << 20
EVERYWHERE = (
    "duckdb-view-lying",
    "shard-short",
    "link-versions-NAME",
    "pipe-listed",
    "manifest-deep",
    "faiss-codes",
    "current-link",
)
NEW = "a prompt that was not there before"
REFUSALS = (10, 50, 51, 52, 53, 57)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good index by the built-in encoder."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "prompts.txt").write_text(
        "".join(f"a lighthouse of {i} stones at dusk, oil on canvas\n" for i in range(ROWS))
    )
    (folder / "more.txt").write_text(f"{NEW}\n")
    pair = load_encoder("lite")
    build_index(
        folder / "index",
        [parse_corpus(str(folder / "prompts.txt"))],
        pair,
        extra=[output_encoder(pair)],
    )
    return folder / "index"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def made(name: str, good: Path, home: Home) -> tuple[Path, HostileIndex]:
    """A copy of the good index, made hostile."""
    root = home.hostile / "index"
    shutil.copytree(good, root)
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    HOSTILE[name].build(root, home.home)
    return root, HOSTILE[name]


def ask(root: Path) -> None:
    """Open it, search it, read everything in it."""
    with open_version(root) as version:
        vectors = version.vectors(version.space)
        for k in (1, 10):
            hits = version.index(version.space).search(vectors.block(0, 3), k)
            found = version.prompts.get_many(hits.ids[hits.ids >= 0])
        assert not any(SECRET in prompt.text for prompt in found)
        vectors.block(0, len(vectors))
        version.prompts.digest()


def add(root: Path) -> None:
    corpus = root.parent / "more.txt"
    corpus.write_text(f"{NEW}\n")
    pair = load_encoder("lite")
    add_corpora(root, [parse_corpus(str(corpus))], pair, extra=[output_encoder(pair)])


def served(root: Path) -> None:
    """As `serve` opens it, and as the worker of a cluster does: by name, read instead of mapped."""
    open_version(root, mapped=False).close()
    open_version(root, current_name(root)).close()


DOORS: dict[str, Callable[[Path], object]] = {
    "ask": ask,
    "serve": served,
    "add": add,
    "remove": lambda root: remove_prompts(root, rules_where("text LIKE '% 7 %'")),
    "dedupe": lambda root: dedupe_similar(root, cosine=0.999),
    "push": lambda root: push(
        root, MilvusPlace(str(root.parent / "push.db")), options=PushOptions()
    ),
    "gc": lambda root: collect_garbage(root, keep=0),
    "reindex": lambda root: reindex(root, index_factory="IVF4,SQ8"),  # last: it may repair it
}


def outside(home: Home) -> dict[str, tuple[int, int]]:
    """Mode and time of everything but the index, links not followed."""
    found = {}
    for path in sorted(home.home.rglob("*")):
        state = path.lstat()
        found[str(path)] = (stat.S_IMODE(state.st_mode), state.st_mtime_ns)
    return found


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.slow
def test_in_this_process(name: str, good: Path, home: Home) -> None:
    """Every door but one that only tidies refuses it, soon and in little memory.

    `verify` names a problem and never waits. What `reindex` accepts is whole afterwards, since it
    reads nothing of the old index.
    """
    root, hostile = made(name, good, home)
    before, contents, peak = (
        outside(home),
        home.state(),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )
    began = time.monotonic()
    try:
        problems = verify(root)
    except ImpromptError as error:
        assert error.exit_code in REFUSALS
    else:
        assert problems, f"verify called it whole: {hostile.tries}"
        assert SECRET not in "".join(map(str, problems))
    assert time.monotonic() - began < MOST_S + 4
    for door, enter in DOORS.items():
        began = time.monotonic()
        if door == "push" and not hostile.opens:
            continue
        try:
            enter(root)
        except ImpromptError as error:
            codes = hostile.codes if hostile.opens and door in ("ask", "serve") else REFUSALS
            assert error.exit_code in codes, (door, error)
            assert "\n" not in error.message, (door, error)
            assert SECRET not in str(error)
        else:
            assert (
                door == "gc"
                or (door == "reindex" and verify(root) == [])
                or not hostile.opens
                or (door != "ask" and name in ("vectors-infinite",))
            ), door
        assert door == "push" or not hostile.opens or time.monotonic() - began < MOST_S + 4, door
        assert home.state() == contents, door
        assert outside(home) == before, door
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown * 1024 < MOST_BYTES, hostile.tries


@pytest.fixture(scope="module")
def answered(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The cost of a good index."""
    home = Home(tmp_path_factory.mktemp("answered"))
    shutil.copytree(good, home.hostile / "index")
    outcome = home.run(
        "query", "--text", "a lighthouse", "-k", "1", "--index", home.hostile / "index", "--offline"
    )
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in HOSTILE
        if name.startswith(("duckdb", "link", "pipe", "faiss", "npy-code", "manifest-deep"))
    ],
)
def test_query(name: str, good: Path, home: Home, answered: Outcome) -> None:
    """A process of its own, watched: what the libraries do below Python is seen, too."""
    root, hostile = made(name, good, home)
    outcome = home.run(
        "query", "--text", "a lighthouse", "-k", "1", "--index", root, "--offline", timeout_s=60
    )
    if hostile.opens:
        check_refused(outcome, code=hostile.codes)
        assert outcome.out == ""
    else:
        check_harmless(outcome)
        assert outcome.code == 0
    check_cheap(outcome, answered)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYWHERE)
def test_every_command(name: str, good: Path, home: Home) -> None:
    """Each command that opens an index refuses one of each kind in one line.

    `gc` may end well, and `reindex` where only the index is hostile, which it makes anew.
    """
    root, _ = made(name, good, home)
    corpus = home.hostile / "more.txt"
    corpus.write_text(f"{NEW}\n")
    (home.hostile / "images").mkdir()
    Image.new("RGB", (64, 64), "teal").save(home.hostile / "images" / "a.png")
    commands: dict[str, list[str | Path]] = {
        "verify": ["verify"],
        "info": ["info"],
        "add": ["add", corpus, "--offline"],
        "remove": ["remove", "--where", "text LIKE '% 7 %'"],
        "dedupe": ["dedupe"],
        "push": ["push", f"milvus:{home.hostile / 'push.db'}"],
        "submit": [
            "submit",
            home.hostile / "images",
            "--out",
            home.hostile / "out.csv",
            "--offline",
        ],
        "serve": ["serve", "--port", "18765", "--offline"],
        "gc": ["gc"],
        "reindex": ["reindex", "--index-factory", "IVF4,SQ8"],
    }
    for verb, words in commands.items():
        program = [sys.executable, str(ROOT / "cli.py"), *map(str, words), "--index", str(root)]
        outcome = home.run_program(
            ["env", *(["MAY_LISTEN=1"] if verb == "serve" else []), *program], timeout_s=60
        )
        if outcome.code == 0 and (verb == "gc" or (verb == "reindex" and name == "faiss-codes")):
            check_harmless(outcome)
        else:
            check_refused(outcome, code=REFUSALS)


@pytest.mark.parametrize("place", ["versions", "staging"])
@pytest.mark.parametrize("tidy", ["gc", "remove"])
def test_links_go_and_what_they_lead_to_stays(
    place: str, tidy: str, good: Path, home: Home
) -> None:
    """A link below versions/ or staging/ is removed as a link."""
    root = home.hostile / "index"
    shutil.copytree(good, root)
    target = home.home.parent / "kept"
    target.mkdir()
    (target / "a.txt").write_text("kept")
    (root / place).mkdir(exist_ok=True)
    (root / place / "20200101T000000.000000Z-00000000").symlink_to(target)
    DOORS[tidy](root)
    assert not (root / place / "20200101T000000.000000Z-00000000").is_symlink()
    assert (target / "a.txt").read_text() == "kept"
    assert verify(root) == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "second name"])
@pytest.mark.parametrize("file", ["LOCK", "journal"])
def test_what_writes_refuses_what_is_not_its_own_file(
    kind: str, file: str, good: Path, home: Home
) -> None:
    """Lock and journal are written to on resuming: neither may be a link that leads elsewhere."""
    root, secret = home.hostile / "index", home.home / "secret.txt"
    shutil.copytree(good, root)
    before = home.state()
    if file == "journal":
        staging = _broken_off(root)
        path = staging / "journal.jsonl"
    else:
        path = root / "LOCK"
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(secret)
    elif kind == "second name":
        path.hardlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    began = time.monotonic()
    with pytest.raises(ImpromptError) as caught:
        add(root)
    assert caught.value.exit_code in REFUSALS
    assert time.monotonic() - began < MOST_S + 4
    assert home.state() == before


def _broken_off(root: Path) -> Path:
    """The staging folder of an addition that ended when its journal was begun."""
    with pytest.MonkeyPatch.context() as patch:

        def broken(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(imprompt.indexer.build, "number_prompts", broken)
        with pytest.raises(KeyboardInterrupt):
            add(root)
    (staging,) = (root / "staging").iterdir()
    return staging


@pytest.mark.parametrize("folder", ["vectors", "index", "duckdb-spilled"])
def test_a_broken_off_build_with_a_link_in_it(folder: str, good: Path, home: Home) -> None:
    """A folder of a staged build that is a link would take its files elsewhere."""
    root = home.hostile / "index"
    shutil.copytree(good, root)
    before = home.state()
    (_broken_off(root) / folder).symlink_to(home.home)
    with pytest.raises(ImpromptError, match="a link"):
        add(root)
    assert home.state() == before


def test_a_journal_that_names_other_files(good: Path, home: Home) -> None:
    """A journal line about a file outside the layout is treated as torn, and the build resumes."""
    root = home.hostile / "index"
    shutil.copytree(good, root)
    staging = _broken_off(root)
    record = {"file": "../../../../home/.bashrc", "rows": 1 << 47, "bytes": 1, "sha256": "0" * 64}
    line = {"type": "shard", "space": "lite", "number": 0, "truncated": 0, "record": record}
    (staging / "journal.jsonl").write_text(json.dumps(line) + "\n" + '{"a":' + "[" * 100_000 + "\n")
    before = home.state()
    add(root)
    assert home.state() == before
    assert verify(root) == []
    with open_version(root) as version:
        assert np.isin(
            NEW, [prompt.text for prompt in version.prompts.get_many(range(len(version.prompts)))]
        )


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["SQfp16", "IVF16x2,PQ4x4fs", "IVF16,RaBitQ", "IVF16,SQ8"])
def test_headers_of_faiss(factory: str, tmp_path: Path) -> None:
    """Forty mutated headers of each kind: refused or harmless, no crash, no more memory."""
    build(tmp_path, rows=700, factory=factory)
    program = Path(__file__).with_name("mutate_headers.py")
    found = {}
    for count in (0, 40):
        words: list[str | Path] = [sys.executable, program, tmp_path, str(count), "3"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found[count] = [json.loads(line) for line in done.stdout.splitlines()]
    said = [one["said"] for one in found[40][:-1]]
    assert len(said) == 40
    assert {*said} <= {"Checksum", "FormatVersion", "fine"}
    assert said.count("Checksum") > (39 if factory == "SQfp16" else 1)
    assert found[40][-1]["peak_bytes"] - found[0][-1]["peak_bytes"] < MOST_BYTES
