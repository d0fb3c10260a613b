"""Words for the small world."""

from __future__ import annotations

from imprompt.ensemble.blend_config import BlendConfig

BLEND_CONFIG = BlendConfig(name="test", weights={"vit": 0.5, "knn": 0.5})

# fmt: off
THINGS = (
    "a castle on a hill", "an old map", "a steam train", "two ravens", "the harbour at dusk",
    "a bowl of noodles", "a chess game", "a wedding cake", "a desert caravan", "an astronaut",
    "a violin maker", "the stock exchange", "a coral reef", "a hospital corridor",
    "an ice hockey match", "a lighthouse keeper", "a tax form", "a robot surgeon",
    "a field of tulips", "a broken umbrella", "a parliament debate", "a dragon skeleton",
    "a ballet rehearsal", "a coffee grinder", "a volcano", "a fishing net", "a medieval battle",
    "a dentist", "a skateboard", "an opera singer", "a microscope", "a snowy forest",
    "a parking garage", "a samurai", "a tomato salad", "an elephant", "a violet nebula",
    "a knitted sweater", "a crowded subway", "a marble statue",
)
# fmt: on
