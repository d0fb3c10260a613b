"""Recipes: which members vote, with what weight, and how the members are set.

Two have a name; a file may hold another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

import msgspec

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import ConfigError
from imprompt.ensemble.blend import check_weights
from imprompt.ensemble.confidence import Calibration

DEFAULT = "default"
CAPTION_SOURCE = "Salesforce/blip-image-captioning-large"
_MOST_LABELS = 100

Mode: TypeAlias = Literal["classic", "best", "fast", "negative"]
Phrases: TypeAlias = Literal["package", "corpus"]


class KnnSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `knn` weighs the `k` nearest prompts: 1 / ((1 - cosine)^power + 1e-4); those below `floor` do not count.

    The defaults are those of the public kNN-regression notebook (motono0223, Stable Diffusion:
    Image to Prompts). `captions_of` names members whose texts join the prompts (+0.016 in the 33rd
    place's write-up). `rescore` names a second encoder whose vectors the index holds (`build-index
    --also`): the k nearest are those of the first, their cosines are mixed with the second's, which
    counts `rescore_share`; see `imprompt.ensemble.rescoring.rescored`.
    """

    k: int = 100
    power: float = 6.0
    floor: float = -1.0
    captions_of: tuple[str, ...] = ()
    rescore: str = ""
    rescore_share: float = 0.5


class InterrogatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `interrogator` adds to a caption.

    `mode` is "classic", so many labels of each kind (the defaults are those of the notebook behind
    `seed`), or one of the library's own, which need a CLIP model and go by the library's defaults.
    `phrases` says where the flavors come from: "package" is the library's list, "corpus" what the
    prompts of the index have in common.
    """

    mode: Mode = "classic"
    phrases: Phrases = "package"
    mediums: int = 1
    movements: int = 1
    flavors: int = 3


class BlendConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights by member's name; only their ratios count.

    `suffixes` are appended to a member's captions, `sources` say where a member's model comes from
    (a folder, or OWNER/NAME of a hub repository; for `vit` a file, a folder, or ARCH//FILE) where
    it is not the usual one. `calibrations` turn an answer's signs into a confidence, each for one
    encoder and one size of corpus.
    """

    name: str
    weights: dict[str, float]
    suffixes: dict[str, str] = {}
    sources: dict[str, str] = {}
    knn: KnnSettings = KnnSettings()
    interrogator: InterrogatorSettings = InterrogatorSettings()
    calibrations: tuple[Calibration, ...] = ()


PRESETS = {
    # Fitted and calibrated by `fit-weights` on generated images; benchmarks/results/evaluation.md
    # has what it is worth.
    DEFAULT: BlendConfig(
        name=DEFAULT,
        weights={"vit": 0.45, "knn": 0.55},
        calibrations=(
            Calibration(
                encoder="lite",
                space="lite-595d5c59da1e",
                rows=100_000,
                close=0.6,
                intercept=-29.4888,
                nearness=12.1603,
                wording=8.4963,
                agreement=14.9151,
                pairs=1945,
                base_rate=0.1141,
                ece=0.0146,
                auroc=0.7901,
            ),
        ),
    ),
    # The notebook that this project began with.
    "seed": BlendConfig(
        name="seed",
        weights={"vit": 0.7488, "interrogator": 0.2112, "ofa": 0.04},
        suffixes={"ofa": ", fine details, masterpiece"},
        sources={"caption": CAPTION_SOURCE},  # what the interrogator's prompts begin with
    ),
}


def load_blend_config(named: str) -> BlendConfig:
    """The blend config of a preset's name, or that of a JSON file.

    Raises:
        ConfigError: there is neither, the file is no blend config, or its weights or settings cannot be
            used.
    """
    if named in PRESETS:
        return PRESETS[named]
    path = Path(named).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"no blend config is called {named!r}.",
            hint=f"Name {', '.join(PRESETS)}, or a JSON file of weights.",
        )
    try:
        blend_config = msgspec.json.decode(path.read_bytes(), type=BlendConfig)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not a blend config: {error}.",
            hint='It holds {"name": ..., "weights": {...}}.',
        ) from error
    check_blend_config(blend_config)
    return blend_config


def with_phrases(blend_config: BlendConfig, phrases: str) -> BlendConfig:
    """The blend config with the flavors of its interrogator taken from "package" or "corpus"; another choice than its own loses its
    calibrations, which were made with that.

    Raises:
        ConfigError: they come from nowhere else, or the blend config asks no interrogator.
    """
    if "interrogator" not in (
        *(name for name, weight in blend_config.weights.items() if weight > 0),
        *blend_config.knn.captions_of,
    ):
        raise ConfigError(
            f"--phrases is about the member interrogator, which blend config {blend_config.name} does not ask.",
            hint="Name a blend config that gives it a weight: --blend seed, or a JSON file.",
        )
    if phrases not in get_args(Phrases):
        raise ConfigError(
            f"phrases come from {' or '.join(get_args(Phrases))}, not from {phrases!r}."
        )
    if phrases == blend_config.interrogator.phrases:
        return blend_config
    chosen = msgspec.structs.replace(blend_config.interrogator, phrases=phrases)
    return msgspec.structs.replace(blend_config, interrogator=chosen, calibrations=())


def check_blend_config(blend_config: BlendConfig) -> None:
    """Raise `ConfigError` where the weights or a setting cannot be used."""
    check_weights(blend_config.weights)
    knn = blend_config.knn
    if knn.k < 1 or not 0 <= knn.power <= 100 or not -1 <= knn.floor <= 1:
        raise ConfigError(
            f"knn cannot be set to k {knn.k}, power {knn.power}, floor {knn.floor}.",
            hint="k is at least 1, power from 0 to 100, floor from -1 to 1.",
        )
    if not 0 <= knn.rescore_share <= 1:
        raise ConfigError(f"rescore_share of knn is {knn.rescore_share}; it is from 0 to 1.")
    if "knn" in knn.captions_of:
        raise ConfigError("knn cannot take its own texts as captions.")
    counts = (
        blend_config.interrogator.mediums,
        blend_config.interrogator.movements,
        blend_config.interrogator.flavors,
    )
    if min(counts) < 0 or not 1 <= sum(counts) <= _MOST_LABELS:
        raise ConfigError(
            "interrogator cannot choose {} mediums, {} movements and {} flavors.".format(*counts),
            hint=f"None is negative, together they are 1 to {_MOST_LABELS}.",
        )


def write_blend_config(path: Path, blend_config: BlendConfig) -> None:
    """Write a blend config that `load_blend_config` reads, whole or not at all.

    Raises:
        ConfigError: its weights or settings cannot be used.
        StorageFull: the disk is full or may not be written.
    """
    check_blend_config(blend_config)
    with atomic_write(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(blend_config), indent=2) + b"\n")
