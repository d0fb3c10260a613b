"""`--offline` is silent: with every socket watched, no command opens one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import Imprompt
from tests.evaluation.worlds import THINGS
from tests.indexer.archives import samples, tar

ROOT = Path(__file__).resolve().parent.parent
WATCH = """
import os, sys
def watch(event, args):
    inet = event == "socket.__new__" and int(args[1]) in (2, 10)
    names = ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto")
    if inet or event in names:
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(f"{event} {args}\\n")
        raise OSError("the test closed the network")
sys.addaudithook(watch)
"""
"""An audit hook (PEP 578) sees every socket of Python, and cannot be removed."""

MODELS = [
    ["build-index", "--preset", "clip", "--index", "WORLD/INDEX-2"],
    ["build-index", "--preset", "clip-small", "--index", "WORLD/INDEX-2"],
    ["build-index", "--encoder", "hf-hub:someone/clip", "--index", "WORLD/INDEX-2"],
    ["build-index", "--encoder", "hf:someone/clip", "--index", "WORLD/INDEX-2"],
    [
        "embed",
        "WORLD/PICTURES/a.png",
        "--images",
        "--space",
        "index",
        "--encoder",
        "ViT-L-14/openai",
        "--out",
        "WORLD/OUT.npy",
    ],
    ["query", "WORLD/PICTURES/a.png", "--explain", "--blend", "notebook", "--index", "WORLD/INDEX"],
    ["prefetch", "notebook"],
    ["prefetch", "caption"],
]
"""Commands that need a file which is not here."""

ANSWERS = [
    ["query", "WORLD/PICTURES", "--index", "WORLD/INDEX", "--ignore-metadata"],
    ["query", "WORLD/PICTURES/a.png", "--explain", "--index", "WORLD/INDEX"],
    ["build-index", "--corpus", "WORLD/corpus.txt", "--index", "WORLD/INDEX"],
    ["build-index", "--corpus", "WORLD/samples.tar", "--index", "WORLD/INDEX-4"],
    ["submit", "WORLD/PICTURES", "--out", "WORLD/OUT.csv", "--index", "WORLD/INDEX"],
    ["embed", "--texts", "WORLD/corpus.txt", "--out", "WORLD/OUT.npy"],
    [
        "evaluate",
        "--pairs",
        "WORLD/pairs.parquet",
        "--unseen",
        "--folds",
        "3",
        "--index",
        "WORLD/INDEX",
        "--out",
        "WORLD/OUT.html",
    ],
    ["doctor", "--index", "WORLD/INDEX"],
    ["prefetch", "--list", "notebook"],
    ["prefetch", "--list", "clip"],
    ["prefetch", "default"],
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index, pictures, a corpus, and pairs of both."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "corpus.txt").write_text("\n".join(THINGS), "utf-8")
    captions = [thing.encode() for thing in THINGS]
    (folder / "samples.tar").write_bytes(tar(samples(captions)))
    (folder / "PICTURES").mkdir()
    for number, name in enumerate("abcdefghijkl"):
        Image.new("RGB", (40, 30), (20 * number, 99, 240 - 20 * number)).save(
            folder / "PICTURES" / f"{name}.png"
        )
    pairs = {"image": [f"PICTURES/{name}.png" for name in "abcdefghijkl"], "prompt": THINGS[:12]}
    pq.write_table(pa.table(pairs), folder / "pairs.parquet")
    words = [
        sys.executable,
        "cli.py",
        "build-index",
        "--corpus",
        str(folder / "corpus.txt"),
        "--index",
        str(folder / "INDEX"),
    ]
    subprocess.run([*words, "--offline"], cwd=ROOT, capture_output=True, check=True)
    return folder


def placed(words: list[str], world: Path) -> list[str]:
    """The command with its paths, and --offline."""
    return [*(word.replace("WORLD", str(world)) for word in words), "--offline"]


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Sockets of this process, watched and refused; the hub's own switch is off."""
    tried: list[str] = []

    class Shut(socket.socket):
        def __init__(self, family: int = -1, *args: object, **kwargs: object) -> None:
            if family in (-1, socket.AF_INET, socket.AF_INET6) and "fileno" not in kwargs:
                tried.append(f"socket {family}")
                raise OSError("the test closed the network")
            super().__init__(family, *args, **kwargs)  # type: ignore[arg-type]

    def shut(name: str) -> object:
        def door(*args: object, **kwargs: object) -> None:
            tried.append(f"{name} {args}")
            raise OSError("the test closed the network")

        return door

    monkeypatch.setattr(socket, "socket", Shut)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, shut(name))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tried


def test_the_doors_are_watched(attempts: list[str], imprompt: Imprompt) -> None:
    """Without --offline, the same command is caught trying: or this file would explain nothing."""
    assert imprompt("prefetch", "diffusiondb-2m").code == 41
    assert attempts


@pytest.mark.parametrize("words", ANSWERS, ids=" ".join)
def test_a_command_that_has_all_it_needs_asks_nobody(
    words: list[str], world: Path, attempts: list[str], imprompt: Imprompt
) -> None:
    """It does its work."""
    done = imprompt(*placed(words, world))
    assert done.code == 0, done.err
    assert not attempts


@pytest.mark.parametrize("words", MODELS, ids=" ".join)
def test_a_command_that_lacks_a_file_asks_nobody(
    words: list[str], world: Path, attempts: list[str], imprompt: Imprompt
) -> None:
    """It names the file, the address to fetch by hand, and where to put it."""
    done = imprompt(*placed(words, world))
    assert done.code in (3, 41, 60), done.err
    assert "--offline is set" in done.err
    assert "resolve/main/" in done.err
    assert "by-hand" in done.err
    assert not attempts


@pytest.mark.parametrize(
    ("source", "code"), [("https://example.org/x.imprompt", 58), ("hf:someone/prompts", 41)]
)
def test_a_pack_that_is_not_here_is_not_asked_for(
    source: str, code: int, world: Path, attempts: list[str], imprompt: Imprompt
) -> None:
    """`install` says what to do by hand; a pack that is here is installed without a network."""
    done = imprompt(*placed(["install", source, "--index", "WORLD/INDEX-3"], world))
    assert (done.code, "--offline is set" in done.err) == (code, True), done.err
    pack = world / "OUT.imprompt"
    assert imprompt("pack", pack, "--index", world / "INDEX").code == 0
    done = imprompt(*placed(["install", str(pack), "--index", "WORLD/INDEX-3"], world))
    assert done.code == 0, done.err
    assert not attempts


@pytest.mark.slow
@pytest.mark.parametrize("words", [*ANSWERS, *MODELS], ids=" ".join)
def test_a_whole_process_asks_nobody(words: list[str], world: Path, tmp_path: Path) -> None:
    """From the first import on, in another process, if possible in one without a network."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    log = tmp_path / "attempts"
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    }
    environment |= {
        "PYTHONPATH": str(tmp_path),
        "ATTEMPTS": str(log),
        "HF_HOME": str(tmp_path / "hub"),
    }
    command = [sys.executable, "cli.py", *placed(words, world)]
    alone = ["unshare", "--map-root-user", "--net"]
    if (
        shutil.which("unshare")
        and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    ):
        command = [*alone, *command]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in ((0,) if words in ANSWERS else (3, 41, 60)), done.stderr
    assert not log.exists(), log.read_text()


@pytest.mark.slow
def test_a_whole_process_is_watched(tmp_path: Path) -> None:
    """Without --offline, the hook catches it: or the test above would explain nothing."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "ATTEMPTS": str(tmp_path / "attempts"),
        "HF_HOME": str(tmp_path / "hub"),
    }
    environment["HF_HUB_OFFLINE"] = "0"
    command = [sys.executable, "cli.py", "prefetch", "diffusiondb-2m"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 41
    assert "socket" in (tmp_path / "attempts").read_text()
