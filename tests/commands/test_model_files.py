"""What a blend config of the user's own needs beside the usual files."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.ensemble.blend_config import BlendConfig, KnnSettings
from imprompt.ensemble.members import LOADERS
from imprompt.environment.model_files import blend_needs


def test_a_trained_tower_and_a_second_encoder_are_among_the_needs(tmp_path: Path) -> None:
    """The file of `vit`, with or without ARCH//, and the encoder that knn rescores with."""
    tower = tmp_path / "tower.pth"
    tower.touch()
    for source in (str(tower), f"vit_base_patch16_224//{tower}"):
        blend_config = BlendConfig(
            name="mine",
            weights={"vit": 1, "knn": 1},
            sources={"vit": source},
            knn=KnnSettings(rescore="ViT-L-14/openai"),
        )
        needs = {need.name: need for need in blend_needs(blend_config)}
        assert needs["member vit"].local == (tower,)
        assert needs["member vit"].extra == "vit"
        assert needs["encoder ViT-L-14/openai"].wanted()


@pytest.mark.parametrize("member", LOADERS)
def test_every_member_says_what_it_needs(member: str) -> None:
    """A member without an entry would look ready when its files are missing."""
    needs = blend_needs(BlendConfig(name=member, weights={member: 1.0}))
    assert f"member {member}" in {need.name for need in needs}
