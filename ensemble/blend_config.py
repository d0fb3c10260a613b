"""A blend config: the weights and settings of an ensemble, built in or read from a JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

import msgspec

from imprompt.core.atomic_files import atomic_write
from imprompt.core.errors import ConfigError
from imprompt.ensemble.blend import check_weights
from imprompt.ensemble.confidence import Calibration

DEFAULT = "default"
NOTEBOOK = "notebook"
CAPTION_SOURCE = "Salesforce/blip-image-captioning-large"
_MOST_LABELS = 100

Mode: TypeAlias = Literal["classic", "best", "fast", "negative"]
Phrases: TypeAlias = Literal["package", "corpus"]
CaptionStyle: TypeAlias = Literal["sentence", "tags"]


class KnnSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `knn` weighs the `k` nearest prompts: 1 / ((1 - cosine)^power + 1e-4).

    Prompts below the cosine `floor` do not count. The defaults are those of the public
    kNN-regression notebook (motono0223, Stable Diffusion: Image to Prompts). `captions_of` names
    members whose texts join the prompts (+0.016 in the 33rd place's write-up). `rescore` names a
    second encoder whose vectors the index stores (`build-index --also`), and `rescore_share` is its
    part in the mixed cosines; see `imprompt.ensemble.rescoring.rescored`.
    """

    k: int = 100
    power: float = 6.0
    floor: float = -1.0
    captions_of: tuple[str, ...] = ()
    rescore: str = ""
    rescore_share: float = 0.5


class InterrogatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `interrogator` adds to a caption.

    The mode "classic" takes a fixed number of labels of each kind (by default those of the
    notebook); the other modes are the library's, which need a CLIP model. Flavors are the
    library's for the `phrases` "package", and mined from the prompts of the index for "corpus".
    """

    mode: Mode = "classic"
    phrases: Phrases = "package"
    mediums: int = 1
    movements: int = 1
    flavors: int = 3


class BlendConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The weights and settings of an ensemble.

    `weights` by member; only their ratios count. `suffixes` are appended to a member's captions.
    `sources` override where a member's model comes from: a folder, or OWNER/NAME of a hub
    repository; for `vit` a file, a folder, or ARCH//FILE; for `caption` also openai:URL#MODEL, a
    server. `caption_style` is what `caption` writes: a sentence, or comma-separated tags; taggers
    always write tags. `calibrations` turn the features of a prediction into a
    confidence, each for one encoder and one size of corpus.
    """

    name: str
    weights: dict[str, float]
    suffixes: dict[str, str] = {}
    sources: dict[str, str] = {}
    caption_style: CaptionStyle = "sentence"
    knn: KnnSettings = KnnSettings()
    interrogator: InterrogatorSettings = InterrogatorSettings()
    calibrations: tuple[Calibration, ...] = ()


BLEND_CONFIGS = {
    # Fitted and calibrated by `fit-weights` on generated images; measured in
    # benchmarks/results/evaluation.md.
    DEFAULT: BlendConfig(
        name=DEFAULT,
        weights={"vit": 0.5, "knn": 0.5},
        calibrations=(
            Calibration(
                encoder="lite",
                space="lite-595d5c59da1e",
                rows=97_173,
                close=0.6,
                intercept=-21.9746,
                nearness=6.2484,
                wording=14.7913,
                agreement=5.1868,
                pairs=1_945,
                base_rate=0.1799,
                ece=0.032,
                auroc=0.7511,
            ),
        ),
    ),
    # The weights of the notebook that this project began with.
    NOTEBOOK: BlendConfig(
        name=NOTEBOOK,
        weights={"vit": 0.7488, "interrogator": 0.2112, "ofa": 0.04},
        suffixes={"ofa": ", fine details, masterpiece"},
        sources={"caption": CAPTION_SOURCE},  # the interrogator's prompts begin with its captions
    ),
}


def load_blend_config(name: str) -> BlendConfig:
    """Return the built-in blend config of this name, or the one in the JSON file `name`.

    Raises:
        ConfigError: there is neither, the file is not a blend config, or its settings are invalid.
    """
    if name in BLEND_CONFIGS:
        return BLEND_CONFIGS[name]
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"No blend config is called {name!r}.",
            hint=f"Name {', '.join(BLEND_CONFIGS)}, or a JSON file of weights.",
        )
    try:
        blend_config = msgspec.json.decode(path.read_bytes(), type=BlendConfig)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not a blend config: {error}.",
            hint='It must hold {"name": ..., "weights": {...}}.',
        ) from error
    check_blend_config(blend_config)
    return blend_config


def with_phrases(blend_config: BlendConfig, phrases: str) -> BlendConfig:
    """Return the blend config with its interrogator's flavors from "package" or "corpus".

    A change drops the calibrations, which were measured with the other flavors.

    Raises:
        ConfigError: `phrases` is neither, or the blend config does not use the interrogator.
    """
    members = {name for name, weight in blend_config.weights.items() if weight > 0}
    if "interrogator" not in members.union(blend_config.knn.captions_of):
        raise ConfigError(
            f"--phrases needs the member interrogator, which blend config {blend_config.name} "
            "does not use.",
            hint=f"Name one that gives it a weight: --blend {NOTEBOOK}, or a JSON file.",
        )
    if phrases not in get_args(Phrases):
        raise ConfigError(f"--phrases is {' or '.join(get_args(Phrases))}, not {phrases!r}.")
    if phrases == blend_config.interrogator.phrases:
        return blend_config
    settings = msgspec.structs.replace(blend_config.interrogator, phrases=phrases)
    return msgspec.structs.replace(blend_config, interrogator=settings, calibrations=())


def check_blend_config(blend_config: BlendConfig) -> None:
    """Raise `ConfigError` unless all weights and settings are in their ranges."""
    check_weights(blend_config.weights)
    knn = blend_config.knn
    if knn.k < 1 or not 0 <= knn.power <= 100 or not -1 <= knn.floor <= 1:
        raise ConfigError(
            f"knn cannot use k {knn.k}, power {knn.power}, floor {knn.floor}.",
            hint="k is at least 1, power from 0 to 100, floor from -1 to 1.",
        )
    if not 0 <= knn.rescore_share <= 1:
        raise ConfigError(f"rescore_share of knn is {knn.rescore_share}; it must be from 0 to 1.")
    if "knn" in knn.captions_of:
        raise ConfigError("captions_of of knn cannot name knn itself.")
    labels = blend_config.interrogator
    counts = (labels.mediums, labels.movements, labels.flavors)
    if min(counts) < 0 or not 1 <= sum(counts) <= _MOST_LABELS:
        raise ConfigError(
            "interrogator cannot choose {} mediums, {} movements and {} flavors.".format(*counts),
            hint=f"Each is at least 0, and together they are from 1 to {_MOST_LABELS}.",
        )


def write_blend_config(path: Path, blend_config: BlendConfig) -> None:
    """Write a blend config for `load_blend_config`, atomically.

    Raises:
        ConfigError: a weight or setting is not valid.
        StorageFull: the disk is full or read-only.
    """
    check_blend_config(blend_config)
    with atomic_write(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(blend_config), indent=2) + b"\n")
