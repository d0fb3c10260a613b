"""`vit`: an image tower that answers in MiniLM space at once.

The embedded one is the head of `lite`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from imprompt.core.values import Prediction, Vectors

if TYPE_CHECKING:
    from PIL.Image import Image


class OutputTower(Protocol):
    """An image tower with a head for MiniLM space."""

    def output(self, items: Sequence[Image]) -> Vectors:
        """(n, 384) unit rows in MiniLM space, in the order given."""
        ...


class Regressor:
    """The member over such a tower; it has no words."""

    name = "vit"

    def __init__(self, tower: OutputTower) -> None:
        self._tower = tower

    def predict(self, images: Sequence[Image]) -> Prediction:
        """The tower's estimates."""
        return Prediction(self._tower.output(images))
