"""Encoders by name: the one place that knows which names there are."""

from __future__ import annotations

from pathlib import Path

from imprompt.core.device_names import check_device
from imprompt.core.errors import ConfigError, WeightsMissing
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.protocols import DualEncoder
from imprompt.core.values import EncoderSpec
from imprompt.encoders.caching import LastTexts
from imprompt.encoders.minilm import load_minilm
from imprompt.encoders.torch_devices import tell_unusable_gpu

__all__ = ["encoder_spec", "load_encoder", "load_index_encoder", "load_minilm", "output_encoder"]

_LITE = "lite"
_HUB_PREFIX = "hf-hub:"
_KNOWN_FORMS = (
    "Known forms: lite, lite:HEADFILE, ARCH/PRETRAINED (ViT-L-14/openai), ARCH//FILE (ViT-B-32//weights.safetensors), "
    "hf-hub:OWNER/NAME, and a folder that holds open_clip_config.json."
)


def load_encoder(
    name: str, *, device: str = "auto", offline: bool = False, announce: Announce = silent
) -> DualEncoder:
    """The encoder of that name; its towers are read at their first use.

    Args:
        name: `lite`, `lite:HEADFILE`, `ARCH/PRETRAINED`, `ARCH//FILE`, `hf-hub:OWNER/NAME`, or a
            folder that holds open_clip_config.json.
        device: "auto", "cpu" or "cuda".
        offline: fetch nothing; files that the hub's cache holds are found all the same.
        announce: takes a line for the user, such as what is about to be fetched.

    Raises:
        ConfigError: no encoder has that name, or the device is not there.
        EncoderError: a package that the encoder needs is not installed.
        WeightsMissing: its weights are neither here nor to be had.
        WeightsRejected: a weight file is not what it should be.
    """
    check_device(device)
    if device == "auto":
        tell_unusable_gpu(announce)
    if name == _LITE or name.startswith(f"{_LITE}:"):
        from imprompt.encoders.lite import load_lite

        head = name.partition(":")[2]
        return load_lite(Path(head) if head else None, device=device, announce=announce)
    if not name or not ("/" in name or ":" in name or Path(name).is_dir()):
        raise ConfigError(f"no encoder is called {name!r}.", hint=_KNOWN_FORMS)
    from imprompt.encoders.openclip import load_openclip

    return load_openclip(name, device=device, offline=offline, announce=announce)


def load_index_encoder(
    name: str, *, device: str = "auto", offline: bool = False, announce: Announce = silent
) -> DualEncoder:
    """Return the encoder that an index names, where this machine has it or open_clip's own table says where it lies.

    An index may come from anybody, so it never chooses a repository to fetch from. Checksums and
    the space are compared by whoever opens the index.

    Raises:
        WeightsMissing: the index names a repository of the hub that was never fetched here.
        ConfigError, EncoderError, WeightsRejected: see `load_encoder`.
    """
    if not name.startswith(_HUB_PREFIX):
        return load_encoder(name, device=device, offline=offline, announce=announce)
    try:
        return load_encoder(name, device=device, offline=True, announce=announce)
    except WeightsMissing as error:
        raise WeightsMissing(
            f"The index was made with {name}, which is not on this machine; an index does not choose what is fetched.",
            path=error.path,
            hint=f"If you trust that repository: python cli.py prefetch {name}",
        ) from error


def output_encoder(
    pair: DualEncoder, *, device: str = "auto", announce: Announce = silent
) -> LastTexts:
    """MiniLM, the output space. Where the pair's own texts are made of it, the two share their work.

    Raises:
        WeightsMissing, WeightsRejected: its files are not there, or not what they should be.
    """
    from imprompt.encoders.lite import LiteEncoder

    return (
        pair.minilm
        if isinstance(pair, LiteEncoder)
        else LastTexts(load_minilm(device=device, announce=announce))
    )


def encoder_spec(name: str, *, offline: bool = False, announce: Announce = silent) -> EncoderSpec:
    """What `load_encoder(name).spec` says, without reading a tower;

    `lite` needs no torch for it. Raises what that raises.
    """
    return load_encoder(name, device="cpu", offline=offline, announce=announce).spec
