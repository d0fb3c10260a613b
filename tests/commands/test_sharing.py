"""`pack` and `install` on the command line: signatures, the hub, web servers, what is said."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from imprompt.core.hub.web_files import file_place
from imprompt.core.settings import settings
from imprompt.encoders.minilm import SPACE
from imprompt.store.index_version import open_version
from tests.conftest import Imprompt
from tests.core.fake_hub import FakeHub, serve_as_the_hub
from tests.indexer.hub_worlds import served
from tests.indexer.small_index import build_small, flip

needs_openssh = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small(tmp_path_factory.mktemp("built"))


@pytest.fixture
def packed(imprompt: Imprompt, built: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.imprompt"
    assert imprompt("pack", path, "--index", built, "--licence", "CC0-1.0", "-q").code == 0
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve_as_the_hub(monkeypatch, tmp_path) as hub:
        yield hub


def new_key(path: Path) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@here", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def one_line(text: str) -> bool:
    return len(text.strip().splitlines()) == 1


def test_what_is_said(imprompt: Imprompt, built: Path, tmp_path: Path) -> None:
    """Size, licence, what was left out, that nobody signed; and what the encoder lacks here."""
    out, root = tmp_path / "a.imprompt", tmp_path / "new"
    done = imprompt("pack", out, "--index", built, "--space", "bag", "--without-sources")
    assert done.code == 0
    for said in ("prompts,", "without the vectors of second", "none stated", "not signed"):
        assert said in done.out
    done = imprompt("install", out, "--index", root)
    assert done.code == 0
    for said in ("prompts of corpus 1, corpus 2", "without generation parameters", "not signed"):
        assert said in done.out
    assert "warning: The encoder bag cannot be used yet" in done.err
    done = imprompt("install", out, "--index", root)
    assert (done.code, "Nothing to do" in done.out) == (0, True)
    assert imprompt("verify", "--index", root).code == 0
    (said_json,) = imprompt("pack", out, "--index", built, "--json").lines
    assert (said_json["signature"], said_json["licence"]) == (None, "")
    assert said_json["bytes"] == out.stat().st_size
    (said_json,) = imprompt("install", out, "--index", built, "--json").lines
    assert (said_json["installed"], said_json["signed_by"]) == (False, None)


def test_another_index_needs_replace(
    imprompt: Imprompt, built: Path, packed: Path, tmp_path: Path
) -> None:
    """As `build-index` does: a line with the remedy, and then it is replaced."""
    root = tmp_path / "index"
    (tmp_path / "p.txt").write_text("a red fox\na blue lake\n")
    assert imprompt("build-index", "--corpus", tmp_path / "p.txt", "--index", root).code == 0
    done = imprompt("install", packed, "--index", root)
    assert (done.code, one_line(done.err), "--replace" in done.err) == (56, True, True)
    assert imprompt("install", packed, "--index", root, "--replace").code == 0
    (found,) = imprompt("info", "--index", root, "--json").lines
    assert found["encoders"][0]["name"] == "bag"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["pack", "x.imprompt", "--space", "none"], 10, "no space"),
        (["pack", "x.imprompt", "--sign", "nokey"], 10, "not a file"),
        (["pack", "."], 10, "a folder"),
        (["install", "missing.imprompt"], 10, "cannot be read"),
        (["install", "."], 10, "regular file"),
        (["install", "http://example.org/x.imprompt"], 10, "https"),
        (["install", "https://me:secret@example.org/x.imprompt"], 10, "without a user name"),
        (["install", "ftp://example.org/x.imprompt"], 10, "https"),
        (["install", "https://example.org/x.imprompt", "--offline"], 58, "--offline"),
        (["install", "hf:nobody"], 10, "does not name a data set"),
        (["install", "hf:some/one", "--offline"], 41, "--offline"),
    ],
)
def test_what_cannot_be(
    words: list[str],
    code: int,
    said: str,
    imprompt: Imprompt,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line with the exit code; a password is not repeated; nothing is written."""
    monkeypatch.chdir(tmp_path)
    index = built if words[0] == "pack" else tmp_path / "new"
    done = imprompt(*words, "--index", index)
    assert (done.code, one_line(done.err)) == (code, True), done.err
    assert said in done.err
    assert "secret" not in done.err
    assert list(tmp_path.iterdir()) == []


@needs_openssh
def test_signed_by_a_key(imprompt: Imprompt, built: Path, tmp_path: Path) -> None:
    """By the public key, or a file of allowed signers; others, and changed files, are refused."""
    key, other = new_key(tmp_path / "key"), new_key(tmp_path / "other")
    out, root = tmp_path / "a.imprompt", tmp_path / "new"
    done = imprompt("pack", out, "--index", built, "--sign", key)
    assert (done.code, f"signed: {out}.sig" in done.out) == (0, True), done.err
    assert Path(f"{out}.sig").read_text().startswith("-----BEGIN SSH SIGNATURE-----")
    done = imprompt("install", out, "--index", root)
    assert "not checked" in done.out
    done = imprompt("install", out, "--index", root, "--signer", f"{key}.pub")
    assert (done.code, "signed by key.pub" in done.out) == (0, True), done.err
    allowed = tmp_path / "allowed"
    allowed.write_text(f"me@here {Path(f'{key}.pub').read_text()}")
    (said,) = imprompt("install", out, "--index", root, "--signer", allowed, "--json").lines
    assert said["signed_by"] == "me@here"
    refused = imprompt("install", out, "--index", root, "--signer", f"{other}.pub")
    assert (refused.code, one_line(refused.err)) == (59, True), refused.err
    flip(out, at=-300)
    refused = imprompt("install", out, "--index", tmp_path / "b", "--signer", f"{key}.pub")
    assert (refused.code, one_line(refused.err)) == (59, True), refused.err
    Path(f"{out}.sig").unlink()
    refused = imprompt("install", out, "--index", tmp_path / "b", "--signer", f"{key}.pub")
    assert (refused.code, "not signed" in refused.err) == (59, True)
    refused = imprompt("install", out, "--index", tmp_path / "b", "--signer", key)
    assert (refused.code, "no public key" in refused.err) == (10, True)
    assert not (tmp_path / "b").exists()


@needs_openssh
def test_a_signature_for_something_else_does_not_count(
    imprompt: Imprompt, packed: Path, tmp_path: Path
) -> None:
    """A key that signed the same bytes for another purpose did not sign a pack."""
    key = new_key(tmp_path / "key")
    with packed.open("rb") as file:
        command = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", "git"]
        done = subprocess.run(command, stdin=file, capture_output=True, check=True)
    Path(f"{packed}.sig").write_bytes(done.stdout)
    refused = imprompt("install", packed, "--index", tmp_path / "b", "--signer", f"{key}.pub")
    assert refused.code == 59


def test_without_openssh(
    imprompt: Imprompt, built: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to install, before it packs for hours."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "key").write_text("a key")
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA")
    Path(f"{packed}.sig").write_text("x")
    for words in (
        ["pack", tmp_path / "b.imprompt", "--index", built, "--sign", tmp_path / "key"],
        ["install", packed, "--index", tmp_path / "b", "--signer", tmp_path / "key.pub"],
    ):
        done = imprompt(*words)
        assert (done.code, "Install OpenSSH" in done.err) == (10, True), done.err
    assert not (tmp_path / "b.imprompt").exists()


def test_from_the_hub(imprompt: Imprompt, hub: FakeHub, packed: Path, tmp_path: Path) -> None:
    """The one pack of a data set, or the one that is named; a broken connection is resumed."""
    content = packed.read_bytes()
    hub.files |= served("some/one", {"README.md": b"x", "small.imprompt": content})
    hub.files |= served("some/two", {"a.imprompt": content, "b.imprompt": content})
    hub.large |= {"datasets/some/one/small.imprompt"}
    hub.cut = [len(content) // 3, len(content) // 3]
    done = imprompt("install", "hf:some/one", "--index", tmp_path / "one")
    assert done.code == 0, done.err
    ranges = [asked for _, path, asked in hub.seen if path.endswith(".imprompt") and asked]
    assert ranges, "it went on where the connection broke"
    done = imprompt("install", "hf:some/one", "--index", tmp_path / "other", "--offline")
    assert (done.code, imprompt("verify", "--index", tmp_path / "other").code) == (0, 0)
    done = imprompt("install", "hf:some/two", "--index", tmp_path / "two")
    assert (done.code, "a.imprompt, b.imprompt" in done.err) == (10, True)
    done = imprompt("install", "hf:some/two@main:b.imprompt", "--index", tmp_path / "two")
    assert done.code == 0, done.err


def test_from_a_web_server(
    imprompt: Imprompt, hub: FakeHub, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download is resumed after a kill, without the hub's token, and removed when installed."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    content, url = packed.read_bytes(), f"{hub.address}/share/small.imprompt"
    hub.files["share/small.imprompt"] = content
    hub.cut = [len(content) // 3]
    begun = file_place(url)
    begun.parent.mkdir(parents=True)
    begun.with_name(f"{begun.name}.incomplete").write_bytes(content[:9_000])
    done = imprompt("install", url, "--index", tmp_path / "new")
    assert (done.code, "Resuming after 9.0 kB" in done.err) == (0, True), done.err
    assert hub.seen[0][2] == "bytes=9000-"
    assert len(hub.seen) == 2, "the connection broke once"
    assert [path for path in (settings().cache / "urls").rglob("*") if path.is_file()] == []
    assert imprompt("install", f"{hub.address}/none", "--index", tmp_path / "b").code == 58
    hub.files["share/other.imprompt"] = content[:-1]
    done = imprompt("install", f"{hub.address}/share/other.imprompt", "--index", tmp_path / "b")
    assert (done.code, one_line(done.err.splitlines()[-1])) == (53, True)


def test_prefetch_takes_a_pack(
    imprompt: Imprompt, built: Path, packed: Path, tmp_path: Path
) -> None:
    """For its encoders, here one that nobody knows."""
    assert imprompt("prefetch", packed, "--list").code != 0
    (said,) = imprompt("doctor", "--json", "--index", built).lines
    assert "ssh_keygen" in said["machine"]


def test_one_space_of_lite_brings_minilm_along(imprompt: Imprompt, tmp_path: Path) -> None:
    """MiniLM's vectors follow from those of `lite`: an image is answered like before."""
    things = ("a red fox", "a lighthouse", "a bowl of ramen", "a castle in the snow", "a flower")
    lines = [f"{thing}, {style}" for thing in things for style in ("oil on canvas", "photograph")]
    (tmp_path / "p.txt").write_text("\n".join(lines) + "\n")
    Image.new("RGB", (64, 64), "firebrick").save(tmp_path / "a.png")
    one, other, out = tmp_path / "one", tmp_path / "other", tmp_path / "a.imprompt"
    assert imprompt("build-index", "--corpus", tmp_path / "p.txt", "--index", one).code == 0
    done = imprompt("pack", out, "--index", one, "--space", "lite", "-q")
    assert done.code == 0, done.err
    done = imprompt("install", out, "--index", other)
    assert (done.code, "computed from those of lite" in done.out) == (0, True), done.err
    assert imprompt("verify", "--index", other).code == 0
    assert "Nothing to do" in imprompt("install", out, "--index", other).out
    assert "Nothing to do" in imprompt("install", out, "--index", one).out
    with open_version(one) as old, open_version(other) as new:
        assert new.manifest.plan_sha256 == old.manifest.plan_sha256
        assert new.manifest.encoders == old.manifest.encoders
        rows = [each.vectors(SPACE).block(0, len(lines)) for each in (old, new)]
        assert (rows[0] * rows[1]).sum(axis=1).min() > 0.99999
        assert abs(rows[0] - rows[1]).max() < 1e-3
    answers = []
    for root in (one, other):
        (answer,) = imprompt("query", tmp_path / "a.png", "--json", "--index", root).lines
        answers.append(answer)
    assert answers[0]["how"] == answers[1]["how"] == "estimated"
    assert answers[0]["prompt"] == answers[1]["prompt"]
    scores = [[hit["score"] for hit in answer["nearest"]] for answer in answers]
    assert scores[0] == scores[1], "the searched vectors are the same to the bit"
