"""A processor that a package was not built for is one line, not the end of the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.core.errors import ConfigError
from imprompt.store import duckdb_import
from imprompt.store.duckdb_import import has_avx2, import_duckdb
from tests.conftest import Imprompt


def test_this_machine_runs_the_tests() -> None:
    assert import_duckdb().__name__ == "duckdb"


@pytest.mark.parametrize("machine", ["x86_64", "AMD64"])
def test_without_avx2(
    machine: str, imprompt: Imprompt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command ends in one line, and no version is left."""
    monkeypatch.setattr(duckdb_import, "has_avx2", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: machine)
    (tmp_path / "prompts.txt").write_text("a red fox\n")
    done = imprompt(
        "build-index", "--corpus", tmp_path / "prompts.txt", "--index", tmp_path / "index"
    )
    assert done.code == ConfigError.exit_code
    assert "duckdb needs a processor with AVX2" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "index" / "CURRENT").exists()


def test_other_processors_have_no_avx2_and_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb_import, "has_avx2", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert import_duckdb().__name__ == "duckdb"


def test_numpy_says_it() -> None:
    """Its table has the feature by this name; an empty one would be taken for a yes."""
    from numpy._core import _multiarray_umath

    assert "AVX2" in _multiarray_umath.__cpu_features__
    assert has_avx2() == _multiarray_umath.__cpu_features__["AVX2"]
