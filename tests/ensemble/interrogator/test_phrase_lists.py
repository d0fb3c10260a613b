"""The phrase lists of the package, and what becomes of damaged ones."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imprompt.core.errors import MemberUnavailable
from imprompt.core.pip_lines import install_extra
from imprompt.ensemble.interrogator.phrase_lists import PACKAGE, labels_of, package_lists

ROOT = Path(__file__).resolve().parents[3]


def test_the_packages_lists_are_read_without_its_code() -> None:
    """All kinds are there, clean; neither the package nor what it imports is loaded for them."""
    script = (
        "import sys\nfrom imprompt.ensemble.interrogator.phrase_lists import package_lists\n"
        "lists = package_lists()\n"
        "print(len(lists.mediums), len(lists.movements), len(lists.flavors), len(lists.artists),"
        " len(lists.negative), sorted(set(sys.modules)"
        " & {'clip_interrogator', 'torch', 'open_clip', 'transformers'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["95", "200", "100954", "5265", "41", "[]"]
    lists = package_lists()
    for kind in (lists.mediums, lists.movements, lists.flavors, lists.artists, lists.negative):
        assert all(label == label.strip() != "" for label in kind)
        assert len({label.casefold() for label in kind}) == len(kind)


def test_blank_and_repeated_labels_are_left_out() -> None:
    """The first of its kind stays, as it is written there."""
    assert labels_of(["Oil", "", " ink ", "oil", "INK", "ash\r"]) == ("Oil", "ink", "ash")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the installed package that goes before it; its folder of lists."""
    real = importlib.metadata.distribution(PACKAGE)
    for file in real.files or ():
        if file.suffix in (".txt", ".py") or file.name in ("METADATA", "RECORD"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), tmp_path / file)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "clip_interrogator" / "data"


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "not text", "empty"])
def test_a_damaged_list_is_refused(installed: Path, damage: str) -> None:
    """By the digest in the package's own record; the remedy installs it again."""
    assert len(package_lists().mediums) == 95
    path = installed / "mediums.txt"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        wrong = {
            "cut": content[:-20],
            "changed": content.replace(b"cartoon", b"cartoom"),
            "not text": b"\xff",
            "empty": b"\n",
        }
        path.write_bytes(wrong[damage])
    with pytest.raises(MemberUnavailable, match=r"interrogator: .*mediums.*force-reinstall"):
        package_lists()


def test_without_the_package_the_member_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line, with the command of pip."""

    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(
        MemberUnavailable, match=f"not installed.*{re.escape(install_extra('interrogator'))}"
    ):
        package_lists()
