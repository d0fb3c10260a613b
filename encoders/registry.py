"""Encoders by name: the only module that knows all names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from imprompt.core.device_names import check_device, check_dtype
from imprompt.core.errors import ConfigError, WeightsMissing
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.protocols import DualEncoder
from imprompt.core.values import EncoderSpec
from imprompt.core.weight_names import HUB_PREFIX, TRANSFORMERS_PREFIX
from imprompt.encoders.caching import CachedTexts
from imprompt.encoders.minilm import load_minilm
from imprompt.encoders.torch_devices import tell_unusable_gpu

__all__ = ["load_encoder", "load_index_encoder", "load_minilm", "output_encoder"]

_LITE = "lite"
_HUB_PREFIXES = (HUB_PREFIX, TRANSFORMERS_PREFIX)
_MULTILINGUAL = ("xlm-roberta", "nllb", "i18n", "siglip2")
"""Parts of the names of architectures whose text towers were trained on many languages."""
_KNOWN_FORMS = (
    "Known forms: lite, lite:HEADFILE, ARCH/PRETRAINED (ViT-L-14/openai), "
    "ARCH/PRETRAINED//FILE (the same, with weights of your own), hf-hub:OWNER/NAME for open_clip, "
    "hf:OWNER/NAME for transformers, and a folder with the files of such a repository."
)


def load_encoder(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    announce: Announce = silent,
    digests: Iterable[str] = (),
) -> DualEncoder:
    """Return the encoder of a name; its towers are read at their first use.

    Args:
        name: `lite`, `lite:HEADFILE`, `ARCH/PRETRAINED`, `ARCH/PRETRAINED//FILE` for a local file
            with weights of that kind (`ARCH//FILE` if all published ones are of one kind),
            `hf-hub:OWNER/NAME` in the layout of open_clip, `hf:OWNER/NAME` in that of transformers,
            or a folder with the files of such a repository.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: the type to compute in: "auto", "float32" or "bfloat16". The spec records any but
            "auto".
        offline: fetch nothing; files in the hub's cache are still used.
        announce: takes a line for the user, such as which files will be fetched.
        digests: sha256 of the weights that are meant, if the hub's cache has several commits.

    Raises:
        ConfigError: unknown name or type, or a device that is missing or lacks the type.
        EncoderError: a package that the encoder needs is not installed.
        WeightsMissing: its weights are not on this machine and cannot be fetched.
        WeightsRejected: a weight file has wrong contents.
    """
    check_device(device)
    check_dtype(dtype)
    if device == "auto":
        tell_unusable_gpu(announce)
    if name == _LITE or name.startswith(f"{_LITE}:"):
        from imprompt.encoders.lite import load_lite

        if dtype != "auto":
            raise ConfigError("--dtype does not apply to lite.", hint="Leave --dtype out.")
        head = name.partition(":")[2]
        return load_lite(Path(head) if head else None, device=device, announce=announce)
    if not name or not ("/" in name or ":" in name or Path(name).is_dir()):
        raise ConfigError(f"unknown encoder {name!r}.", hint=_KNOWN_FORMS)
    from imprompt.encoders.openclip_source import refuse_other_forms
    from imprompt.encoders.transformers_encoder import is_transformers, load_transformers

    refuse_other_forms(name)  # before anybody installs packages for a wrong name
    _check_folder(name)
    if is_transformers(name):
        return load_transformers(
            name, device=device, dtype=dtype, offline=offline, announce=announce, digests=digests
        )
    from imprompt.encoders.openclip import load_openclip

    return load_openclip(
        name, device=device, dtype=dtype, offline=offline, announce=announce, digests=digests
    )


def _check_folder(name: str) -> None:
    """Raise `WeightsMissing` for a path that is no folder, or a folder without a model."""
    from imprompt.encoders.openclip_source import CONFIG_FILE
    from imprompt.encoders.transformers_files import CONFIG

    folder = Path(name)
    if folder.is_dir():
        if not any((folder / file).is_file() for file in (CONFIG, CONFIG_FILE)):
            raise WeightsMissing(
                f"{folder} has neither {CONFIG} nor {CONFIG_FILE}.",
                path=folder,
                hint="Name a folder with the files of a model's repository.",
            )
    elif "//" not in name and (folder.is_absolute() or name.startswith((".", "~"))):
        raise WeightsMissing(
            f"There is no folder {name}.",
            path=folder,
            hint="Name the folder with the encoder's files: --encoder FOLDER.",
        )


def knows_only_english(name: str) -> bool:
    """Return whether the encoder of a name is known to be trained on English texts alone."""
    if name == _LITE or name.startswith(f"{_LITE}:"):
        return True
    from imprompt.encoders import transformers_encoder

    if transformers_encoder.is_transformers(name):
        return transformers_encoder.knows_only_english(name)
    if "/" not in name or name.startswith(_HUB_PREFIXES) or Path(name).is_dir():
        return False
    return not any(part in name.lower() for part in _MULTILINGUAL)


def load_index_encoder(
    spec: EncoderSpec,
    *,
    named: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    announce: Announce = silent,
) -> DualEncoder:
    """Return the encoder that an index names, without fetching a repository of the index's choice.

    An encoder that the user has `named` is loaded instead.

    An index may come from anybody, so only published names are fetched. Its checksums and space are
    compared when it is opened. Of several commits in the hub's cache, the one with its weights is
    used.

    Raises:
        WeightsMissing: the index names a hub repository that was never fetched on this machine.
        ConfigError, EncoderError, WeightsRejected: see `load_encoder`.
    """
    if named:
        return load_encoder(named, device=device, dtype=dtype, offline=offline, announce=announce)
    untrusted = spec.name.startswith(_HUB_PREFIXES)
    try:
        return load_encoder(
            spec.name,
            device=device,
            dtype=dtype,
            offline=offline or untrusted,
            announce=announce,
            digests=spec.weights_sha256.values(),
        )
    except WeightsMissing as error:
        if Path(spec.name).is_absolute() and not Path(spec.name).exists():
            raise WeightsMissing(
                f"The index was made with the encoder in {spec.name}, which is not there.",
                path=error.path,
                hint="Put it back there; query, embed, serve and watch also take --encoder FOLDER.",
            ) from error
        if not untrusted:
            raise
        raise WeightsMissing(
            f"The index was made with {spec.name}, which is not on this machine; "
            "repositories that an index names are not fetched automatically.",
            path=error.path,
            hint=f"If you trust that repository: imprompt prefetch {spec.name}",
        ) from error


def output_encoder(
    encoder: DualEncoder, *, device: str = "auto", announce: Announce = silent
) -> CachedTexts:
    """Return MiniLM, the encoder of the output space; `lite` shares the one in its text tower.

    Raises:
        WeightsMissing, WeightsRejected: its files are missing or have wrong contents.
    """
    from imprompt.encoders.lite import LiteEncoder

    if isinstance(encoder, LiteEncoder):
        return encoder.minilm
    return CachedTexts(load_minilm(device=device, announce=announce))
