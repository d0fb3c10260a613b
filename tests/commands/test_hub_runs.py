"""All commands that download, as processes, against a hub on the loopback interface.

The hub serves large files from another port, its CDN, and knows the user's token. Its repositories
have the real names and small contents, written by the libraries that read them. ViT-H-14 itself has
four gigabytes, so in these processes open_clip's configurations of the presets' models are those of
small networks (see `tests.commands.hub_repositories`). The rest is real: commands, names, files,
requests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.commands.hub_repositories import (
    BACKBONE,
    BLIP,
    CLIP,
    DIFFUSIONDB,
    OFA,
    OTHER_CLIP,
    PACK,
    PICTURES,
    PROMPTS,
    SIGLIP,
    SMALL_CLIP,
    build_lite,
    fill_hub,
    shrink_models,
)
from tests.conftest import Done
from tests.core.fake_hub import FakeHub
from tests.ensemble.vit.drawings import drawn_pairs
from tests.server.processes import ask, started, until_ready

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_of_the_user"  # noqa: S105 for a hub of the tests
REPO = "someone/clip"
WEIGHTS = f"{REPO}/open_clip_model.safetensors"
DEAD = "http://127.0.0.1:9"


@dataclass
class Machine:
    """A user's machine: an empty cache, a token, and the address of the hub."""

    folder: Path
    address: str
    environment: dict[str, str] = field(default_factory=dict)
    token: str = TOKEN

    @property
    def variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED}
        own = {
            "HF_HOME": str(self.folder / "hf"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "HF_ENDPOINT": self.address,
            "HF_TOKEN": self.token,
            "NO_PROXY": "127.0.0.1",
        }
        return {**inherited, **own, **self.environment}

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "cli.py", *map(str, words)]

    def run(self, *words: str | Path) -> Done:
        done = subprocess.run(
            self.command(*words),
            cwd=ROOT,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def fetched(self, name: str) -> list[Path]:
        """Return the files with a name in the hub's cache."""
        return sorted((self.folder / "hf").rglob(name))


_NOT_PASSED = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PYTHONDONTWRITEBYTECODE")
"""Byte code is kept for the next process: it halves the start of one that needs torch."""


@pytest.fixture
def hub(tiny_clip: Path) -> Iterator[FakeHub]:
    """A hub with one repository, whose weights are on its CDN."""
    with FakeHub(cdn=True, tokens={TOKEN: set()}) as served:
        served.files |= {f"{REPO}/{path.name}": path.read_bytes() for path in tiny_clip.iterdir()}
        served.large.add(WEIGHTS)
        yield served


@pytest.fixture
def machine(hub: FakeHub, tmp_path: Path) -> Machine:
    return Machine(tmp_path, hub.address)


def ranges(hub: FakeHub) -> set[int]:
    """Return the offsets of the requests for a part of a file."""
    return {int(asked.removeprefix("bytes=").rstrip("-")) for _, _, asked in hub.seen if asked}


def servers_asked(hub: FakeHub) -> set[str]:
    """Return which of hub and CDN got requests, and check that only the hub got the token.

    A request that huggingface_hub makes on its own account does not count.
    """
    asked = [
        (where, token)
        for (where, token), (_, path, _) in zip(hub.sent, hub.seen, strict=True)
        if "agent-harnesses" not in path
    ]
    assert all(token == (f"Bearer {TOKEN}" if where == "hub" else "") for where, token in asked)
    return {where for where, _ in asked}


def test_a_token_goes_to_the_hub_and_not_to_its_cdn(hub: FakeHub, machine: Machine) -> None:
    """The content comes from another port, is checked, and is then found without a request."""
    done = machine.run("prefetch", f"hf-hub:{REPO}")
    assert done.code == 0, done.err
    (path,) = machine.fetched("open_clip_model.safetensors")
    assert path.read_bytes() == hub.files[WEIGHTS]
    assert servers_asked(hub) == {"hub", "cdn"}
    hub.seen.clear()
    assert machine.run("prefetch", f"hf-hub:{REPO}", "--offline").code == 0
    assert not hub.seen


@pytest.mark.slow
class TestFailures:
    """Failures of a download, as the user of a command sees them."""

    @pytest.mark.parametrize("refusal", [(429, {"Retry-After": "1"}), (503, {})])
    def test_a_busy_hub_is_asked_again(
        self, hub: FakeHub, machine: Machine, refusal: tuple[int, dict[str, str]]
    ) -> None:
        """The command succeeds, and says that it waited."""
        hub.passing = [refusal]
        done = machine.run("prefetch", f"hf-hub:{REPO}")
        assert done.code == 0, done.err
        assert f"answered {refusal[0]}; trying again in 1 s (1 of 3)." in " ".join(done.err.split())

    def test_refused_content_is_asked_for_again(self, hub: FakeHub, machine: Machine) -> None:
        hub.refuse_content = [503]
        done = machine.run("prefetch", f"hf-hub:{REPO}")
        assert done.code == 0, done.err
        assert "answered 503; trying again in" in " ".join(done.err.split())

    def test_a_cut_transfer_is_resumed(self, hub: FakeHub, machine: Machine) -> None:
        """In the same command, after the ten megabytes that were written."""
        hub.files[WEIGHTS] = os.urandom(12 << 20)
        hub.files[f"{REPO}/open_clip_config.json"] = CONFIG
        hub.cut = [1 << 20, 11 << 20]  # the configuration is shorter
        done = machine.run("prefetch", f"hf-hub:{REPO}")
        assert done.code == 0, done.err
        assert ranges(hub) == {10 << 20}
        (path,) = machine.fetched("open_clip_model.safetensors")
        assert path.read_bytes() == hub.files[WEIGHTS]

    def test_a_stalled_transfer_is_resumed(self, hub: FakeHub, machine: Machine) -> None:
        """After HF_HUB_DOWNLOAD_TIMEOUT seconds without data."""
        hub.files[WEIGHTS] = os.urandom(12 << 20)
        hub.stall = 11 << 20
        machine.environment["HF_HUB_DOWNLOAD_TIMEOUT"] = "2"
        words = machine.command("prefetch", f"hf-hub:{REPO}")
        with subprocess.Popen(
            words, cwd=ROOT, env=machine.variables, stderr=subprocess.PIPE, text=True
        ) as process:
            assert hub.stalled.wait(60)
            hub.stall = 0
            err = process.communicate()[1]
        hub.released.set()
        assert process.returncode == 0, err
        assert ranges(hub) == {10 << 20}
        (path,) = machine.fetched("open_clip_model.safetensors")
        assert path.read_bytes() == hub.files[WEIGHTS]

    def test_corrupt_content_is_deleted(self, hub: FakeHub, machine: Machine) -> None:
        """The exit code says so, the cache stays empty, and the next run succeeds."""
        fill_hub(hub, machine.folder / "repositories", DIFFUSIONDB)
        hub.wrong = 1
        index = machine.folder / "index"
        words = ("build-index", "--corpus", "diffusiondb-2m", "--index", index)
        done = machine.run(*words)
        assert done.code == 42
        assert "metadata.parquet of poloclub/diffusiondb is corrupt: checksum mismatch" in done.err
        assert not machine.fetched("metadata.parquet")
        assert machine.run(*words).code == 0

    def test_a_gate(self, hub: FakeHub, machine: Machine) -> None:
        """No token, one without access, an unknown one, then one with access."""
        hub.gated.add(REPO)
        errors = {}
        for token in ("", TOKEN, "hf_expired"):
            machine.token = token
            done = machine.run("prefetch", f"hf-hub:{REPO}")
            assert (done.code, machine.fetched("open_clip*")) == (3, [])
            errors[token] = " ".join(done.err.split())
        page = f"{hub.address}/{REPO}"
        assert f"Accept the licence on {page}, then run `hf auth login`" in errors[""]
        assert f"Accept the licence on {page} with the account of your token" in errors[TOKEN]
        assert "does not accept your token" in errors["hf_expired"]
        hub.tokens[TOKEN].add(REPO)
        machine.token = TOKEN
        assert machine.run("prefetch", f"hf-hub:{REPO}").code == 0

    def test_a_bad_token_and_a_public_repository(self, hub: FakeHub, machine: Machine) -> None:
        machine.token = "hf_expired"  # noqa: S105
        done = machine.run("prefetch", f"hf-hub:{REPO}")
        assert done.code == 3
        assert "Public files need no token." in " ".join(done.err.split())

    def test_main_moves_between_two_files(self, hub: FakeHub, machine: Machine) -> None:
        """Both files are of the commit that the first answer named."""
        old = dict(hub.files)
        hub.after_head = lambda: hub.push({name: content + b" " for name, content in old.items()})
        assert machine.run("prefetch", f"hf-hub:{REPO}").code == 0
        paths = [*machine.fetched("open_clip_config.json"), *machine.fetched("*.safetensors")]
        assert [path.read_bytes() for path in paths] == [
            old[f"{REPO}/{path.name}"] for path in paths
        ]
        assert len({path.parent for path in paths}) == 1

    def test_a_hub_that_is_down(self, machine: Machine) -> None:
        """One line, with what to do by hand."""
        machine.address = DEAD
        done = machine.run("prefetch", f"hf-hub:{REPO}")
        assert done.code == 3
        assert f"Fetch {DEAD}/someone/clip/resolve/main/" in " ".join(done.err.split())


CONFIG = b'{"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}}'


@dataclass
class World:
    """The hub and the machines, with the outputs and requests of each command."""

    hub: FakeHub
    folder: Path
    machines: dict[str, Machine]
    outputs: dict[str, Any] = field(default_factory=dict)
    fetched: dict[str, set[str]] = field(default_factory=dict)

    def run(self, name: str, machine: str, *words: str | Path, out: Path | None = None) -> None:
        """Run a command that must succeed; keep its output, or the file that it writes."""
        self.hub.seen.clear()
        self.hub.sent.clear()
        done = self.machines[machine].run(*words)
        assert done.code == 0, f"{words}: {done.err}"
        self.note(name)
        if out is not None:
            self.outputs[name] = out.read_bytes()
        elif "--json" in words:
            self.outputs[name] = [comparable(line) for line in done.lines]
        else:
            self.outputs[name] = ""

    def serve(self, name: str, machine: str, index: Path, *options: str) -> None:
        """Start a server, send one query, and keep the answer."""
        self.hub.seen.clear()
        self.hub.sent.clear()
        with pytest.MonkeyPatch.context() as patch:
            for variable in _NOT_PASSED:
                patch.delenv(variable, raising=False)
            for variable, value in self.machines[machine].variables.items():
                patch.setenv(variable, value)
            with started(index, index.with_suffix(".log"), *options) as (process, port):
                until_ready(port, process)
                status, answer = ask(port, "/v1/search", {"text": "a castle"})
        assert status == 200
        self.note(name)
        self.outputs[name] = comparable(answer)

    def note(self, name: str) -> None:
        """Keep the repositories that were asked for files or for their list."""
        servers_asked(self.hub)
        self.fetched[name] = {
            match[1] for _, path, _ in self.hub.seen if (match := _REPOSITORY.match(path))
        }


_REPOSITORY = re.compile(r"/(?:api/)?((?:datasets/)?[^/]+/[^/]+)/(?:resolve|revision)/")


def comparable(answer: Any) -> Any:
    """Return an answer without what differs from run to run: times, and versions named by them."""
    if isinstance(answer, dict):
        return {key: comparable(value) for key, value in answer.items() if key not in _OF_A_RUN}
    return [comparable(value) for value in answer] if isinstance(answer, list) else answer


_OF_A_RUN = ("seconds", "version", "created", "files", "machine", "folders", "index")
"""Manifests keep the hashes of all vectors, `doctor` its models and their files."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub with all repositories, and machines on which the presets' models are small."""
    folder = tmp_path_factory.mktemp("world")
    shrunk = shrink_models(folder / "shrunk")
    with FakeHub(cdn=True, tokens={TOKEN: set()}) as hub:
        fill_hub(hub, folder / "repositories")
        machines = {
            name: Machine(folder / name, hub.address, shrunk) for name in ("one", "two", "three")
        }
        drawn_pairs(folder / "pairs", each=1)
        build_lite(folder / "lite")
        (folder / "pictures").mkdir()
        for name in ("0000.png", "0011.png"):
            shutil.copy(folder / "pairs" / name, folder / "pictures" / name)
        yield World(hub, folder, machines)


def run_all(world: World, folder: Path, *options: str) -> None:
    """Run all commands that download; they write into a new folder.

    Each machine has a cache of its own, so the second and the third download again.
    """
    folder.mkdir()
    pictures, clip, other = world.folder / "pictures", folder / "clip", folder / "other"
    run = world.run
    to_clip: list[str | Path] = ["--json", "--index", clip, *options]
    to_other: list[str | Path] = ["--json", "--index", other, *options]
    run("preset", "one", "build-index", "--preset", "clip", *to_clip)
    run("prefetch", "one", "prefetch", "caption", *options)
    submission = folder / "submission.csv"
    words: list[str | Path] = ["submit", pictures, "--blend", "notebook", "--out", submission]
    run("submit", "one", *words, *to_clip, out=submission)
    encoder = f"hf-hub:{OTHER_CLIP}"
    corpus = "hf:someone/prompts"
    run("hf:", "one", "build-index", "--encoder", encoder, "--corpus", corpus, *to_other)
    to_small: list[str | Path] = ["--json", "--index", folder / "small-clip", *options]
    run("small preset", "one", "build-index", "--preset", "clip-small", *to_small)
    to_siglip: list[str | Path] = ["--json", "--index", folder / "siglip", *options]
    run("transformers", "one", "build-index", *OF_TRANSFORMERS, *to_siglip)
    tower = folder / "tower.safetensors"
    pairs = world.folder / "pairs" / "pairs.parquet"
    words = ["train", "--backbone", BACKBONE, "--pairs", pairs, "--epochs", "1", "--out", tower]
    run("train", "one", *words, *options, out=tower)
    asked = ("query", pictures / "0000.png", "--ignore-metadata")
    run("query", "two", *asked, *to_clip)
    small = shutil.copytree(world.folder / "lite" / "index", folder / "small")
    run("add", "two", "add", "diffusiondb-2m", "--index", small, *options)
    run("install", "two", "install", "hf:someone/pack", "--index", folder / "installed", *options)
    world.serve("serve", "three", clip, *options)
    run_listings(world, clip, *options)


def run_listings(world: World, index: Path, *options: str) -> None:
    world.run("doctor", "one", "doctor", "--json", "--index", index, *options)
    for name in ("clip", "notebook"):
        world.run(f"list {name}", "one", "prefetch", "--list", name, "--json", *options)


OF_TRANSFORMERS = ("--encoder", f"hf:{SIGLIP}", "--corpus", "hf:someone/pictures")
FETCHED = {
    "preset": {CLIP, DIFFUSIONDB},
    "prefetch": {BLIP},
    "submit": {OFA},
    "hf:": {OTHER_CLIP, PROMPTS},
    "small preset": {SMALL_CLIP},
    "transformers": {SIGLIP, PICTURES},
    "train": {f"timm/{BACKBONE}"},
    "query": {CLIP},
    "add": {DIFFUSIONDB},
    "install": {PACK},
    "serve": {CLIP},
    "doctor": set[str](),
    "list clip": set[str](),
    "list notebook": set[str](),
}
"""The repositories that each command asks on its first run."""


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestAllCommands:
    """In this order, on the same machines: online, with `--offline`, with the hub down."""

    def test_each_downloads_what_it_needs(self, world: World) -> None:
        """And nothing else; commands that only list files make no request."""
        run_listings(world, world.folder / "none")
        run_all(world, world.folder / "online")
        assert world.fetched == FETCHED

    def test_offline_gives_the_same_without_a_request(self, world: World) -> None:
        """The same answers, vectors and trained weights, to the byte."""
        online, world.outputs, world.fetched = dict(world.outputs), {}, {}
        run_all(world, world.folder / "offline", "--offline")
        assert not set().union(*world.fetched.values())
        for name in FETCHED.keys() - {"prefetch"}:  # which lists what it fetched
            assert world.outputs[name] == online[name], name

    def test_with_the_hub_down_all_is_found(self, world: World) -> None:
        """In the cache, data sets included."""
        online = dict(world.outputs)
        folder = world.folder / "dead"
        folder.mkdir()
        for machine in world.machines.values():
            machine.address = DEAD
        world.run("prefetch", "one", "prefetch", "notebook")
        of_open_clip = ("--encoder", f"hf-hub:{OTHER_CLIP}", "--corpus", "hf:someone/prompts")
        for name, words in (("hf:", of_open_clip), ("transformers", OF_TRANSFORMERS)):
            index = ("--json", "--index", folder / name.strip(":"))
            world.run(name, "one", "build-index", *words, *index)
            assert world.outputs[name] == online[name]
