"""`plan` and the options of `build-index` that choose the index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from imprompt.commands.options import size_bytes
from imprompt.core.device_names import NvidiaDriver
from imprompt.core.errors import ConfigError
from imprompt.store.index_version import open_version
from tests.conftest import Imprompt
from tests.store.test_index_version import rewrite_manifest


def test_plan(imprompt: Imprompt) -> None:
    """The kind of index, its bytes and its reasons, for people and for programs."""
    shown = imprompt("plan", "--rows", "2M")
    assert shown.code == 0
    assert "IVF1024x2,PQ96x4fs" in shown.out
    assert "fit into memory" in shown.out
    assert "1.0 GB while a corpus of that many rows is read" in shown.out
    answer = json.loads(imprompt("plan", "--rows", "2e6", "--json").out)
    assert (answer["rows"], answer["factory"]) == (2_000_000, "IVF1024x2,PQ96x4fs")


def test_a_budget_too_small_says_the_smallest(imprompt: Imprompt) -> None:
    """The refusal names the budget that works, and how many rows the one that was given holds."""
    refused = imprompt("plan", "--rows", "1e8", "--memory-budget", "1GiB")
    assert refused.code == 10
    assert "--memory-budget 5901MB" in refused.err
    assert "at most about 18,000,000 rows" in refused.err
    assert imprompt("plan", "--rows", "18e6", "--memory-budget", "1GiB").code == 0


@pytest.mark.parametrize(
    ("rows", "budget", "said"),
    [
        ("2M", "50MB", "--memory-budget 116MB or more, or take at most about 830,000 rows."),
        (
            "100",
            "50kB",
            "the smallest needs 64 kB. Say --memory-budget 64kB or more, "
            "or take at most about 65 rows.",
        ),
        (
            "1",
            "100",
            "fits into 100 bytes; the smallest needs 768 bytes. Say --memory-budget 1kB or more.",
        ),
    ],
)
def test_the_smallest_is_the_smallest(
    imprompt: Imprompt, rows: str, budget: str, said: str
) -> None:
    """Also where a scan of all vectors is smaller than lists, and where not one row fits."""
    refused = imprompt("plan", "--rows", rows, "--memory-budget", budget)
    assert refused.code == 10
    assert refused.err.endswith(f"{said}\n")


def test_an_index_that_finds_too_little_says_so(
    imprompt: Imprompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measured recall, the wanted one, and the remedy; nothing if it is enough."""
    (tmp_path / "corpus.txt").write_text(
        "\n".join(f"a fox, study number {i}" for i in range(9)), "utf-8"
    )
    words = ["build-index", "--corpus", tmp_path / "corpus.txt"]
    assert "ten nearest" not in imprompt(*words, "--index", tmp_path / "enough").out
    monkeypatch.setattr("imprompt.store.indexes.WANTED_RECALL", 1.5)
    said = " ".join(imprompt(*words, "--index", tmp_path / "less").out.split())
    assert (
        "The index SQfp16 finds 1.000 of the ten nearest prompts, below 1.5. "
        "`query --effort 1` searches exactly." in said
    )


def test_an_index_that_grows_beyond_its_budget(imprompt: Imprompt, tmp_path: Path) -> None:
    """`add` refuses before encoding and names the budget that works; the old index stays."""
    index, more = tmp_path / "index", tmp_path / "more.txt"
    (tmp_path / "few.txt").write_text(
        "\n".join(f"a fox, study number {i}" for i in range(9)), "utf-8"
    )
    more.write_text(
        "\n".join(f"the harbour of city {i} at night, oil on canvas" for i in range(9)), "utf-8"
    )
    rules = ["--near-duplicates", "off", "--memory-budget", "10kB"]
    assert (
        imprompt("build-index", "--corpus", tmp_path / "few.txt", "--index", index, *rules).code
        == 0
    )
    refused = imprompt("add", more, "--index", index)
    assert refused.code == 10
    assert (
        "fits into 10 kB; the smallest needs 14 kB. Say --memory-budget 14kB or more" in refused.err
    )
    with open_version(index) as version:
        assert version.manifest.rows == 9
    assert imprompt("add", more, "--index", index, "--memory-budget", "20kB").code == 0
    with open_version(index) as version:
        assert (version.manifest.rows, version.manifest.plan["memory_budget_bytes"]) == (18, 20_000)


GPU = NvidiaDriver("", present=True, gpu="Some GPU, 8 GiB", cuda=(13, 0), memory_bytes=8 << 30)


def test_a_gpu_is_planned_for(imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the GPU must hold, and whether it can; `--device cpu` does not ask the driver."""
    monkeypatch.setattr("imprompt.core.device_names.nvidia_driver", lambda: GPU)
    few, many, without = (
        " ".join(imprompt("plan", "--rows", rows, "--device", device).out.split())
        for rows, device in (("2M", "auto"), ("20M", "auto"), ("2M", "cpu"))
    )
    assert "on the GPU 1.5 GB of 8.6 GB (Some GPU, 8 GiB), with the extra gpu: exact search" in few
    assert "not used: the vectors take 15.4 GB, Some GPU, 8 GiB has 8.6 GB" in many
    assert "GPU" not in without
    refused = imprompt("plan", "--rows", "20M", "--device", "cuda")
    assert refused.code == 10
    assert refused.err.startswith(
        "error: Some GPU, 8 GiB cannot hold the vectors, 15.4 GB. Choose --device auto"
    )
    assert few.split("on the GPU")[0].strip(" ─") in without
    assert (
        json.loads(imprompt("plan", "--rows", "2M", "--json").out)["gpu_bytes"]
        == 2_000_000 * 384 * 2
    )


def test_a_gpu_that_is_not_there(imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda` insists, in one line; `auto` plans for the processor without a word."""
    monkeypatch.setattr(
        "imprompt.core.device_names.nvidia_driver",
        lambda: NvidiaDriver("there is no NVIDIA driver here", present=False),
    )
    refused = imprompt("plan", "--rows", "2M", "--device", "cuda")
    assert refused.code == 10
    assert "There is no GPU to plan for: there is no NVIDIA driver here." in refused.err
    assert "GPU" not in imprompt("plan", "--rows", "2M").out


def test_parts_are_shown(imprompt: Imprompt) -> None:
    """A hundred million prompts: parts, memory to build, and vectors read from disk."""
    shown = json.loads(imprompt("plan", "--rows", "1e8", "--memory-budget", "24GiB", "--json").out)
    assert (shown["parts"], shown["factory"]) == (40, "IVF8192x2,PQ96x4fs")
    assert shown["build_memory_bytes"] < 3e9 < shown["index_bytes"]
    assert "read from disk" in shown["reasons"][-1]
    assert "in 40 parts of" in imprompt("plan", "--rows", "1e8", "--memory-budget", "24GiB").out


@pytest.mark.parametrize("rows", ["x", "", "nan", "inf", "-3", "M"])
def test_rows_that_are_no_number(imprompt: Imprompt, rows: str) -> None:
    """One clear line, no traceback."""
    refused = imprompt("plan", "--rows", rows)
    assert refused.code == 10
    assert "Traceback" not in refused.err


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 << 30), ("500 MB", 500_000_000), ("1.5g", 1_500_000_000), ("7", 7)],
)
def test_sizes(text: str, size: int) -> None:
    """Sizes as people type them."""
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "z", "-1", "0", "4QB", "1e3", "4 G B"])
def test_no_sizes(text: str) -> None:
    """What is no size is refused by value."""
    with pytest.raises(ConfigError, match="not a size"):
        size_bytes(text)


def test_a_factory_of_ones_own(imprompt: Imprompt, tmp_path: Path) -> None:
    """`--index-factory` overrides the plan; an unknown one is refused before encoding."""
    corpus = tmp_path / "prompts.txt"
    corpus.write_text(
        "\n".join(
            f"a {colour} {thing}"
            for colour in ("red", "blue")
            for thing in ("cat", "dog", "ship", "hill")
        )
    )
    index = tmp_path / "index"
    common = ("build-index", "--corpus", str(corpus), "--index", str(index))
    assert imprompt(*common, "--index-factory", "IVF4,RaBitQ").code == 0
    with open_version(index) as version:
        assert [info.factory for info in version.manifest.indexes.values()] == ["IVF4,RaBitQ"]
    found = imprompt("query", "--text", "a red cat", "--index", str(index), "--json")
    assert json.loads(found.out)["nearest"][0]["prompt"] == "a red cat"
    assert imprompt("verify", "--index", str(index)).code == 0
    refused = imprompt(*common, "--index-factory", "PQ7")
    assert refused.code == 10
    assert "PQ7" in refused.err


def test_effort(imprompt: Imprompt, tmp_path: Path) -> None:
    """`--effort 0` searches one list of a large index, `--effort 1` searches exactly."""
    rng = np.random.default_rng(0)
    words = [
        f"{a}{b}"
        for a in ("ba", "ke", "mi", "ro", "tu", "xa")
        for b in ("dor", "len", "nis", "vak")
    ]
    corpus = tmp_path / "prompts.txt"
    corpus.write_text("\n".join(" ".join(rng.choice(words, 5)) for _ in range(700)))
    index = tmp_path / "index"
    assert (
        imprompt(
            "build-index", "--corpus", corpus, "--index", index, "--index-factory", "IVF64,RaBitQ"
        ).code
        == 0
    )
    ask = ("query", "--text", "badorlen", "-k", "50", "--index", index, "--json")
    exact, least = (imprompt(*ask, "--effort", effort).lines[0]["nearest"] for effort in ("1", "0"))
    assert len(exact) == len(least) == 50
    assert exact[0]["score"] >= least[0]["score"]
    assert [hit["row_id"] for hit in exact] != [hit["row_id"] for hit in least]
    assert imprompt(*ask, "--effort", "2").code == 2


def test_an_index_of_an_older_format_is_built_again(imprompt: Imprompt, tmp_path: Path) -> None:
    """A query and a build name the problem and the remedy; built again, the index answers."""
    corpus = tmp_path / "prompts.txt"
    corpus.write_text(
        "\n".join(f"a {colour} house number {n}" for n in range(30) for colour in ("red", "blue")),
        "utf-8",
    )
    common = (
        "build-index",
        "--corpus",
        corpus,
        "--index",
        tmp_path / "index",
        "--index-factory",
        "IVF4,RaBitQ",
    )
    assert imprompt(*common).code == 0
    rewrite_manifest(tmp_path / "index", format=[1, 2])
    ask = ("query", "--text", "a red house number 7", "--index", tmp_path / "index", "--json")
    refused = imprompt(*ask)
    assert refused.code == 52
    assert "is in format 1.2" in refused.err
    assert "imprompt build-index --replace" in refused.err
    assert imprompt(*common).code == 52
    assert imprompt(*common, "--replace").code == 0
    assert imprompt(*ask).lines[0]["nearest"][0]["prompt"] == "a red house number 7"
