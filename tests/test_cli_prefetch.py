"""`prefetch`: all files of a blend config, listed before they are fetched, fetched once."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Imprompt
from tests.core.fake_hub import FakeHub, serve_as_the_hub

ROOT = Path(__file__).resolve().parent.parent
REPO = "someone/tiny"
WEIGHTS = f"{REPO}/open_clip_model.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_clip: Path) -> Iterator[FakeHub]:
    """A hub that has the tiny CLIP model."""
    with serve_as_the_hub(monkeypatch, tmp_path) as served:
        served.files |= {f"{REPO}/{path.name}": path.read_bytes() for path in tiny_clip.iterdir()}
        served.large.add(WEIGHTS)
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
        yield served


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error:")]


def test_a_model_is_fetched_once_and_then_works_without_a_hub(
    hub: FakeHub, imprompt: Imprompt, tmp_path: Path
) -> None:
    """Sizes, licence, host and folder come before the content; then a build needs no request."""
    done = imprompt("prefetch", f"hf-hub:{REPO}")
    assert done.code == 0, done.err
    assert f"{WEIGHTS}: 2.8 MB, licence not known here" in done.err
    assert (
        f"2 files, 2.8 MB, from {hub.address.removeprefix('http://')} to {tmp_path / 'hub'}"
        in " ".join(done.err.split())
    )
    assert done.err.index("2 files") < done.err.index("1 of 2")
    assert max(i for i, asked in enumerate(hub.asked) if asked.startswith("HEAD")) > 0
    assert imprompt("prefetch", f"hf-hub:{REPO}").code == 0
    hub.seen.clear()
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a red circle\na blue square\n", "utf-8")
    built = imprompt(
        "build-index",
        "--corpus",
        corpus,
        "--encoder",
        f"hf-hub:{REPO}",
        "--index",
        tmp_path / "index",
    )
    assert built.code == 0, built.err
    assert imprompt("query", "--text", "circle", "--index", tmp_path / "index").code == 0
    assert not hub.seen


def test_the_list_asks_nobody(hub: FakeHub, imprompt: Imprompt) -> None:
    """Repository, file, address, place, and the size and licence where a page tells them."""
    done = imprompt("prefetch", "--list", "clip", "--json")
    assert done.code == 0
    corpus = next(line for line in done.lines if line["file"] == "metadata.parquet")
    assert corpus["repo"] == "poloclub/diffusiondb"
    assert corpus["url"].endswith("/datasets/poloclub/diffusiondb/resolve/main/metadata.parquet")
    assert corpus["put_at"].endswith("by-hand/datasets/poloclub/diffusiondb/metadata.parquet")
    assert corpus["bytes"] == 195_000_000
    assert corpus["licence"] == "CC0-1.0"
    assert [line["urgency"] for line in done.lines if "laion" in line["repo"]] == [
        "needed",
        "or instead of it",
    ]
    text = imprompt("prefetch", "--list", "clip", "--offline").out
    assert corpus["put_at"] in text
    assert corpus["url"] in text
    assert not hub.seen


@pytest.mark.parametrize("name", ["lite", "default", "vit", "knn"])
def test_what_comes_with_packages_is_only_checked(
    hub: FakeHub, imprompt: Imprompt, name: str
) -> None:
    """Nothing to fetch, nobody to ask."""
    done = imprompt("prefetch", name)
    assert done.code == 0, done.err
    assert f"Everything for {name} is here." in done.err
    assert not hub.seen


def test_the_hub_stands_in_for_a_package(
    hub: FakeHub, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its package MiniLM comes from the hub; what is missing is said once a file."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name.startswith("gt_all") else found(name)
    )
    done = imprompt("prefetch", "lite", "--offline")
    assert done.code == 3
    for name in ("model.safetensors", "tokenizer.json"):
        lines = [line for line in done.err.splitlines() if f"MiniLM-L6-v2/{name} is not" in line]
        assert len(lines) == 1
    assert "which is not installed" not in done.err


def test_offline_names_each_file_by_hand(hub: FakeHub, imprompt: Imprompt) -> None:
    """One file is one line and its code; several are listed, each with address and place."""
    one = imprompt("prefetch", "diffusiondb-2m", "--offline")
    assert one.code == 41
    (line,) = errors(one.err)
    assert "resolve/main/metadata.parquet" in line
    assert "by-hand" in line
    several = imprompt("prefetch", "ofa", "--offline")
    assert several.code == 3
    assert [
        name
        for name in ("config.json", "vocab.json", "merges.txt", "pytorch_model.bin")
        if f"ofa-large-caption/{name} " not in several.err
    ] == []
    assert not hub.seen


def test_what_can_be_had_is_fetched_and_the_rest_listed(hub: FakeHub, imprompt: Imprompt) -> None:
    """A missing and a refused file are listed at the end; the others are here."""
    ofa = "OFA-Sys/ofa-large-caption"
    hub.files |= {f"{ofa}/config.json": b"{}", f"{ofa}/vocab.json": b"{}", f"{ofa}/merges.txt": b""}
    hub.status[f"{ofa}/merges.txt"] = (403, "GatedRepo")
    done = imprompt("prefetch", "ofa", "--json")
    assert done.code == 3
    fetched = [line["file"] for line in done.lines if "path" in line]
    failed = [line["file"] for line in done.lines if "error" in line]
    assert fetched == ["config.json", "vocab.json"]
    assert failed == [f"{ofa}/merges.txt", f"{ofa}/pytorch_model.bin"]
    assert "licence to be accepted" in done.err
    assert "no such file" in done.err


def test_a_hub_that_is_not_there_is_asked_once(
    hub: FakeHub, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further file would wait for the same silence."""
    monkeypatch.setattr("imprompt.core.hub.fetch.ASK_TIMEOUT_S", 0.2)
    hub.hang_s, hub.hang_head = 1.0, True
    done = imprompt("prefetch", "ofa")
    assert done.code == 3
    assert "did not answer in time" in done.err
    assert "was not asked for" in done.err
    assert len(hub.seen) == 1


def test_shards_are_learnt_from_their_index(hub: FakeHub, imprompt: Imprompt) -> None:
    """A model in several files: the index names them, and they are fetched in a second round."""
    blip = "Salesforce/blip-image-captioning-large"
    names = {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}
    hub.files |= {
        f"{blip}/{name}": b"{}"
        for name in ("preprocessor_config.json", "vocab.txt", *names.values())
    }
    hub.files[f"{blip}/config.json"] = b'{"model_type": "blip"}'
    hub.files[f"{blip}/model.safetensors.index.json"] = json.dumps({"weight_map": names}).encode()
    done = imprompt("prefetch", "caption", "--json")
    assert done.code == 0, done.err
    assert [line["file"] for line in done.lines][-2:] == list(names.values())
    assert "vocab.txt" in {line["file"] for line in done.lines}
    before = len(hub.seen)
    assert imprompt("prefetch", "caption").code == 0
    assert len(hub.seen) == before


def test_too_little_space_is_known_before(
    hub: FakeHub, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum is compared with what is free; nothing is fetched."""
    monkeypatch.setattr("imprompt.core.hub.download.free_bytes", lambda folder: 1000)
    done = imprompt("prefetch", f"hf-hub:{REPO}")
    assert done.code == 57
    assert "do not fit" in errors(done.err)[0]
    assert not any(asked.startswith("GET") for asked in hub.asked)


def test_what_is_here_already_needs_no_space(
    hub: FakeHub, imprompt: Imprompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a download that was broken off only the rest is counted."""
    part = (
        tmp_path
        / "hub"
        / "models--someone--tiny"
        / "blobs"
        / f"{hub.digest(WEIGHTS)}.imprompt.incomplete"
    )
    part.parent.mkdir(parents=True)
    part.write_bytes(hub.files[WEIGHTS][:-5000])
    monkeypatch.setattr("imprompt.core.hub.download.free_bytes", lambda folder: 6000)
    assert imprompt("prefetch", f"hf-hub:{REPO}").code == 0


def test_a_backbone_is_found_where_timm_publishes_it(hub: FakeHub, imprompt: Imprompt) -> None:
    """What `train --backbone` begins with, by the name that it takes."""
    lines = imprompt("prefetch", "--list", "vit_base_patch16_224", "--json").lines
    assert [line["file"] for line in lines] == ["model.safetensors", "pytorch_model.bin"]
    assert {line["repo"] for line in lines} == {"timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"}
    assert lines[0]["bytes"] == 346_000_000
    assert lines[0]["licence"] == "Apache-2.0"


def test_a_trained_tower_of_a_recipe_is_a_file_of_the_user(
    hub: FakeHub, imprompt: Imprompt, tmp_path: Path
) -> None:
    """It is looked for, and nothing else in its place."""
    blend_config = tmp_path / "mine.json"
    blend_config.write_text(
        json.dumps(
            {
                "name": "mine",
                "weights": {"vit": 1},
                "sources": {"vit": f"vit_tiny//{tmp_path}/tower.pt"},
            }
        )
    )
    missing = imprompt("prefetch", blend_config)
    assert missing.code == 3
    assert "tower.pt does not exist" in missing.err
    (tmp_path / "tower.pt").touch()
    assert imprompt("prefetch", blend_config).code == 0


@pytest.mark.parametrize(
    "name", ["nonsense", "missing.json", "hf-hub:one", "NoSuchArchitecture/openai"]
)
def test_a_name_that_nothing_has_is_one_line(hub: FakeHub, imprompt: Imprompt, name: str) -> None:
    """With the names there are, or those like it."""
    done = imprompt("prefetch", name)
    assert done.code == 10
    assert len(errors(done.err)) == 1
    assert not hub.seen


def unfinished_bytes(folder: Path) -> int:
    """The size of the largest download that is under way, while files and folders come and go."""
    sizes = [0]
    for base, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".imprompt.incomplete"):
                with suppress(FileNotFoundError):
                    sizes.append((Path(base) / name).stat().st_size)
    return max(sizes)


@pytest.mark.slow
def test_a_kill_in_the_middle_costs_what_was_not_written(tmp_path: Path) -> None:
    """The real command, killed in the middle of 30 MB, resumes after what it has."""
    name = "someone/large/open_clip_model.safetensors"
    content = os.urandom(1 << 20) * 30
    config = b'{"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}}'
    with FakeHub(
        {name: content, "someone/large/open_clip_config.json": config}, large={name}, stall=25 << 20
    ) as hub:
        home = {
            "HF_HOME": str(tmp_path / "hf"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "HF_ENDPOINT": hub.address,
        }
        environment = {**os.environ, **home, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        words = [sys.executable, "cli.py", "prefetch", "hf-hub:someone/large"]
        with subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as process:
            assert hub.stalled.wait(60)
            hub.stall = 0
            while unfinished_bytes(tmp_path / "hf") < 20 << 20:
                assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        hub.released.set()
        hub.seen.clear()
        done = subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Resuming after " in done.stderr
        assert any(
            int(ranged.removeprefix("bytes=").rstrip("-")) >= 20 << 20
            for _, _, ranged in hub.seen
            if ranged
        )
    (fetched,) = (tmp_path / "hf").rglob("open_clip_model.safetensors")
    assert fetched.read_bytes() == content
