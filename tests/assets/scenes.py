"""Drawn scenes, each with its one right text: the tiny CLIP model is trained and tested on them.

Three kinds of scene, over colours, shapes, sizes and backgrounds:

    pair    a small red circle left of a large blue square on a white background
    group   three large green rings on a black background
    place   a small yellow cross at the top left on a grey background

A scene's *combination* (its colours and shapes in no order, with the axis, number or place) decides
by a hash whether it is held out, whatever the sizes and the background. So no held-out text was
ever trained on, nor its mirror image, nor the text with the colours exchanged.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40),
    "orange": (247, 140, 20),
    "yellow": (250, 222, 50),
    "green": (40, 150, 60),
    "blue": (40, 70, 210),
    "purple": (135, 45, 165),
}
BACKGROUNDS = {
    "white": (246, 246, 246),
    "grey": (140, 140, 140),
    "black": (14, 14, 14),
    "pink": (250, 190, 205),
}
SHAPES = ("circle", "ring", "square", "triangle", "cross")
RADII = {"small": 0.12, "large": 0.2}  # of the picture's side
RELATIONS = {"left of": (-1, 0), "above": (0, -1)}
NUMBERS = {"two": 2, "three": 3, "four": 4}
PLACES = {
    "in the centre": (0, 0),
    "at the top left": (-1, -1),
    "at the top right": (1, -1),
    "at the bottom left": (-1, 1),
    "at the bottom right": (1, 1),
}
T = TypeVar("T")

SIDE_PX = 144
HELD_OUT_SHARE = 0.125

_OFFSET = 0.24  # of a thing's centre from the picture's, in sides
_LAYOUTS = ([*RELATIONS], [*NUMBERS], [*PLACES])


@dataclass(frozen=True, slots=True)
class Thing:
    """A drawn thing: a size, a colour, a shape."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a background.

    `layout` is a relation (two things), a number or a place (one thing).
    """

    things: tuple[Thing, ...]
    layout: str
    background: str

    @property
    def text(self) -> str:
        """The sentence that describes the scene."""
        if self.layout in RELATIONS:
            what = f"a {self.things[0]} {self.layout} a {self.things[1]}"
        elif self.layout in NUMBERS:
            what = (
                f"{self.layout} {self.things[0]}{'es' if self.things[0].shape == 'cross' else 's'}"
            )
        else:
            what = f"a {self.things[0]} {self.layout}"
        return f"{what} on a {self.background} background"

    @property
    def held_out(self) -> bool:
        """Return whether the combination is held out of training."""
        colours = sorted(thing.colour for thing in self.things)
        shapes = sorted(thing.shape for thing in self.things)
        combination = " ".join([*colours, *shapes, self.layout])
        return hashlib.sha256(combination.encode()).digest()[0] < 256 * HELD_OUT_SHARE


def random_scene(rng: np.random.Generator) -> Scene:
    """Any scene of the grammar: six in ten are pairs, the rest groups and places."""
    kind = rng.choice(3, p=[0.6, 0.2, 0.2])
    layout = _one_of(rng, _LAYOUTS[kind])
    things = [_random_thing(rng)]
    while kind == 0 and len(things) < 2:
        other = _random_thing(rng)
        if other != things[0]:  # two things alike are a group
            things.append(other)
    return Scene(tuple(things), layout, _one_of(rng, [*BACKGROUNDS]))


def near_misses(scene: Scene) -> list[Scene]:
    """Return scenes that differ in one respect: two properties swapped, or one word changed."""
    others = [replace(scene, background=name) for name in BACKGROUNDS]
    for layouts in _LAYOUTS:
        if scene.layout in layouts:
            others += [replace(scene, layout=layout) for layout in layouts]
    others += exchanges(scene)
    for i, thing in enumerate(scene.things):
        changed = [replace(thing, colour=name) for name in COLOURS]
        changed += [replace(thing, shape=name) for name in SHAPES]
        changed += [replace(thing, size=name) for name in RADII]
        others += [
            replace(scene, things=(*scene.things[:i], new, *scene.things[i + 1 :]))
            for new in changed
        ]
    return [
        other for other in others if other != scene and len(set(other.things)) == len(other.things)
    ]


def exchanges(scene: Scene) -> list[Scene]:
    """Return the different scenes with two places, colours, shapes or sizes swapped.

    They share the scene's combination, so they are held out where the scene is.
    """
    if len(scene.things) != 2:
        return []
    left, right = scene.things
    swapped = [
        (right, left),
        (replace(left, colour=right.colour), replace(right, colour=left.colour)),
        (replace(left, shape=right.shape), replace(right, shape=left.shape)),
        (replace(left, size=right.size), replace(right, size=left.size)),
    ]
    found = (replace(scene, things=things) for things in swapped)
    return [other for other in found if other != scene]


def training_batch(n: int, rng: np.random.Generator) -> list[Scene]:
    """Return `n` training scenes in families: a scene, up to two swaps, one more near miss."""
    scenes: dict[Scene, Scene] = {}
    while len(scenes) < n:
        scene = random_scene(rng)
        if scene.held_out or scene in scenes:
            continue
        for chosen in [
            scene,
            *_drawn(exchanges(scene), 2, rng),
            *_drawn(near_misses(scene), 1, rng),
        ]:
            if not chosen.held_out:
                scenes.setdefault(chosen, chosen)
    return list(scenes.values())[:n]


def held_out_scenes(n: int, *, seed: int = 0) -> list[tuple[Image.Image, str]]:
    """Return `n` held-out pictures with their texts, the same for the same seed.

    Every picture has exactly one right text among the n. A scene of two things comes with a second
    one that differs from it in a swap only, so that counting words does not find the right
    text.

    Args:
        n: 1 to 1000.
        seed: of the choice and of the drawing.
    """
    rng = np.random.default_rng([seed, 1])
    scenes: dict[Scene, Scene] = {}
    while len(scenes) < n:
        scene = random_scene(rng)
        if scene.held_out:
            twins = exchanges(scene)
            for chosen in [scene, _one_of(rng, twins)] if twins else [scene]:
                scenes.setdefault(chosen, chosen)
    return [(draw(scene, rng), scene.text) for scene in list(scenes.values())[:n]]


def draw(scene: Scene, rng: np.random.Generator, *, side_px: int = SIDE_PX) -> Image.Image:
    """The scene as an RGB picture; `rng` varies places, radii, angles and shades a little."""
    ground = _shade(BACKGROUNDS[scene.background], rng)
    picture = Image.new("RGB", (side_px, side_px), ground)
    pen = ImageDraw.Draw(picture)
    for thing, (x, y) in zip(_drawn_things(scene), _directions(scene, rng), strict=True):
        centre = side_px * (0.5 + _OFFSET * np.array([x, y]) + rng.uniform(-0.02, 0.02, 2))
        radius = side_px * RADII[thing.size] * rng.uniform(0.92, 1.08)
        _draw_shape(
            pen,
            thing.shape,
            centre,
            radius,
            rng.uniform(-0.12, 0.12),
            _shade(COLOURS[thing.colour], rng),
        )
    return picture


def _drawn_things(scene: Scene) -> Sequence[Thing]:
    return scene.things * NUMBERS.get(scene.layout, 1)


def _directions(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return the offset of each thing from the centre, in units of `_OFFSET`."""
    if scene.layout in PLACES:
        return [PLACES[scene.layout]]
    if scene.layout in NUMBERS:
        corners = [(-1, -1), (1, -1), (-1, 1), (1, 1)]
        return [corners[i] for i in rng.permutation(4)[: NUMBERS[scene.layout]]]
    x, y = RELATIONS[scene.layout]
    drift = rng.uniform(-0.3, 0.3)  # the pair as a whole moves across its axis
    return [(x + drift * abs(y), y + drift * abs(x)), (-x + drift * abs(y), -y + drift * abs(x))]


def _draw_shape(
    pen: ImageDraw.ImageDraw,
    shape: str,
    centre: np.ndarray,
    radius: float,
    angle: float,
    colour: tuple[int, int, int],
) -> None:
    if shape in ("circle", "ring"):
        width = round(0.4 * radius) if shape == "ring" else 0
        pen.ellipse(
            [*(centre - radius), *(centre + radius)],
            fill=None if width else colour,
            outline=colour,
            width=width,
        )
        return
    corners = [(r * radius, math.pi * a + angle) for r, a in _OUTLINES[shape]]
    pen.polygon(
        [(centre[0] + r * math.sin(a), centre[1] - r * math.cos(a)) for r, a in corners],
        fill=colour,
    )


# Corners as (radius, angle in half turns, clockwise from the top). The cross is a plus whose arms
# are 0.6 radii wide.
_ARM = (math.hypot(1, 0.3), math.atan(0.3) / math.pi)
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(1.2, 0.25 + 0.5 * i) for i in range(4)],
    "triangle": [(1.2, 2 * i / 3) for i in range(3)],
    "cross": [
        corner
        for i in range(4)
        for corner in (
            (_ARM[0], 0.5 * i - _ARM[1]),
            (_ARM[0], 0.5 * i + _ARM[1]),
            (0.3 * math.sqrt(2), 0.5 * i + 0.25),
        )
    ],
}


def _random_thing(rng: np.random.Generator) -> Thing:
    return Thing(_one_of(rng, [*RADII]), _one_of(rng, [*COLOURS]), _one_of(rng, SHAPES))


def _shade(colour: tuple[int, int, int], rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.array(colour) + rng.integers(-8, 9, 3), 0, 255).tolist()
    return red, green, blue


def _one_of(rng: np.random.Generator, values: Sequence[T]) -> T:
    return values[int(rng.integers(len(values)))]


def _drawn(scenes: list[Scene], n: int, rng: np.random.Generator) -> list[Scene]:
    return [scenes[i] for i in rng.permutation(len(scenes))[:n]]
