"""Foreign packs: refused in one line; nothing executed, read, written or asked outside."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from imprompt.core.errors import ImpromptError
from imprompt.indexer.installing import install_pack
from imprompt.store.index_version import open_version
from imprompt.store.packs.packing import pack_version
from imprompt.store.publish import current_name
from tests.hostile.packs import HOSTILE
from tests.hostile.watch import Home, Outcome, check_cheap, check_refused
from tests.indexer.small_index import IVF, build_small

MOST_S = 2.0
MOST_BYTES = 256 << 20
BY_COMMAND = (
    "traversal-record",
    "zip-link",
    "zip-traversal",
    "frames-bomb",
    "record-wide",
    "vectors-code",
    "faiss-kind",
    "prompts-others",
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of a small inverted file."""
    folder = tmp_path_factory.mktemp("good")
    with open_version(build_small(folder, index_factory=IVF)) as version:
        pack_version(version, folder / "good.imprompt")
    return folder / "good.imprompt"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_the_good_one_is_installed(good: Path, home: Home) -> None:
    """What the hostile ones are made of is fine, also taken apart and put together again."""
    from tests.hostile.packs import Parts

    assert install_pack(home.hostile / "index", good).installed
    again = home.hostile / "again.imprompt"
    again.write_bytes(Parts.of(good).sealed().whole())
    assert not install_pack(home.hostile / "index", again).installed


@pytest.mark.parametrize("name", HOSTILE)
def test_in_this_process(name: str, good: Path, home: Home) -> None:
    """Refused soon and in little memory; no index appears, nothing outside is touched."""
    path, root = home.hostile / "x.imprompt", home.hostile / "index"
    path.write_bytes(HOSTILE[name].make(good))
    before, peak = home.state(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    around = {found for found in home.hostile.parent.rglob("*") if root not in found.parents}
    began = time.process_time()
    with pytest.raises(ImpromptError) as caught:
        install_pack(root, path)
    assert time.process_time() - began < MOST_S
    assert caught.value.exit_code in HOSTILE[name].codes, caught.value
    assert "\n" not in str(caught.value)
    assert current_name(root) is None
    assert home.state() == before
    now = {found for found in home.hostile.parent.rglob("*") if root not in found.parents}
    assert now - around <= {root}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown * 1024 < MOST_BYTES, HOSTILE[name].tries


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dangling", "loop"])
def test_what_is_no_file(kind: str, home: Home) -> None:
    """Never opened, never waited for."""
    path = home.hostile / "x.imprompt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {"device": Path("/dev/zero"), "dangling": Path("nowhere"), "loop": path}
        path.symlink_to(targets[kind])
    with pytest.raises(ImpromptError) as caught:
        install_pack(home.hostile / "index", path)
    assert caught.value.exit_code == 10
    assert not (home.hostile / "index").exists()


def test_a_staging_folder_with_a_link_in_it(good: Path, home: Home) -> None:
    """Somebody prepared the folder: nothing is written through the link."""
    from imprompt.store import layout
    from imprompt.store.packs.unpacking import open_pack

    with open_pack(good) as pack:
        staging = layout.staging_folder(home.hostile / "index", pack.record.sha256)
    staging.mkdir(parents=True)
    (staging / "vectors").symlink_to(home.home)
    before = home.state()
    with pytest.raises(ImpromptError, match="a link"):
        install_pack(home.hostile / "index", good)
    assert home.state() == before


@pytest.fixture(scope="module")
def answered(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The cost of a good pack."""
    home = Home(tmp_path_factory.mktemp("answered"))
    outcome = home.run("install", good, "--index", home.hostile / "index", "--offline")
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_COMMAND)
def test_the_command(name: str, good: Path, home: Home, answered: Outcome) -> None:
    """A process of its own, watched: what the libraries do below Python is seen, too."""
    path = home.hostile / "x.imprompt"
    path.write_bytes(HOSTILE[name].make(good))
    outcome = home.run("install", path, "--index", home.hostile / "index", "--offline")
    check_refused(outcome, code=HOSTILE[name].codes)
    assert outcome.out == ""
    check_cheap(outcome, answered)
