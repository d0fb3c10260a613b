"""Blend configs by name and by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.core.errors import ConfigError
from imprompt.ensemble.blend_config import (
    BLEND_CONFIGS,
    BlendConfig,
    KnnSettings,
    check_blend_config,
    load_blend_config,
    write_blend_config,
)


@pytest.mark.parametrize("name", BLEND_CONFIGS)
def test_built_in_blend_configs_are_valid(name: str) -> None:
    """Each goes by its own name and passes the checks that a file has to pass."""
    blend_config = load_blend_config(name)
    assert blend_config.name == name
    check_blend_config(blend_config)


def test_the_notebook_has_its_weights() -> None:
    """The weights and the suffix of the notebook that the project began with."""
    notebook = BLEND_CONFIGS["notebook"]
    assert notebook.weights == {"vit": 0.7488, "interrogator": 0.2112, "ofa": 0.04}
    assert notebook.suffixes == {"ofa": ", fine details, masterpiece"}


def test_a_blend_config_survives_its_file(tmp_path: Path) -> None:
    """What was written is what is read."""
    blend_config = BlendConfig(
        name="mine",
        weights={"knn": 0.2, "vit": 0.8},
        knn=KnnSettings(k=7, power=2, floor=0.1, captions_of=("ofa",)),
    )
    write_blend_config(tmp_path / "mine.json", blend_config)
    assert load_blend_config(str(tmp_path / "mine.json")) == blend_config


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"name": "x"}',
        '{"name": "x", "weights": {"vit": "much"}}',
        '{"name": "x", "weights": {"vit": -1, "knn": 2}}',
        '{"name": "x", "weights": {"vit": 0}}',
        '{"name": "x", "weights": {"vit": 1}, "colour": 1}',
        '{"name": "x", "weights": {"vit": 1}, "knn": {"k": 0}}',
        '{"name": "x", "weights": {"vit": 1}, "knn": {"floor": 2}}',
        '{"name": "x", "weights": {"vit": 1}, "knn": {"captions_of": ["knn"]}}',
        '{"name": "x", "weights": {"vit": 1}, "interrogator": {"flavors": -1}}',
        '{"name": "x", "weights": {"vit": 1},'
        ' "interrogator": {"mediums": 0, "movements": 0, "flavors": 0}}',
        '{"name": "x", "weights": {"vit": 1}, "interrogator": {"flavors": 101}}',
        '{"name": "x", "weights": {"vit": 1}, "interrogator": {"mode": "slow"}}',
        '{"name": "x", "weights": {"vit": 1}, "interrogator": {"phrases": "web"}}',
        "\udcff",
    ],
)
def test_an_invalid_blend_config_is_refused(content: str, tmp_path: Path) -> None:
    """Broken JSON, other fields, negative and zero-sum weights, settings out of range."""
    path = tmp_path / "blend_config.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError):
        load_blend_config(str(path))


def test_an_unknown_name_lists_the_known_ones() -> None:
    """The remedy stands in the same line."""
    with pytest.raises(ConfigError, match="notebook"):
        load_blend_config("notebok")
