"""Packs by the name that a user gives: a file, a data set of the hub, or a web address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.errors import ConfigError, ImpromptError, Unreachable
from imprompt.core.hub.data_sets import list_data_set
from imprompt.core.hub.fetch import Announce, fetch
from imprompt.core.hub.hub_files import HubFile
from imprompt.core.hub.web_files import fetch_url, forget, is_missing
from imprompt.core.url_schemes import url_scheme
from imprompt.environment.model_files import PACK_SUFFIX, Need, encoder_need, minilm_need
from imprompt.environment.prefetching import check_installed
from imprompt.indexer.readers.hub_datasets import HUB, parse_hub_spec
from imprompt.store.manifest import Manifest
from imprompt.store.packs.packing import SIGNATURE, signature_path
from imprompt.store.packs.unpacking import open_pack

MINILM_NAME, LITE_NAME = "minilm", "lite"


def _nothing() -> None:
    """Leave a file where it is."""


@dataclass(frozen=True, slots=True)
class LocalPack:
    """A pack on this machine, and where its signature would be.

    `clean_up` removes what was downloaded only for the installation.
    """

    path: Path
    signature: Path
    clean_up: Callable[[], None] = _nothing


def local_pack(source: str, *, signed: bool, offline: bool, announce: Announce) -> LocalPack:
    """Return a pack, after downloading it if it is not here.

    Args:
        source: a file, `hf:OWNER/NAME[@REVISION][:FILE]`, or an https address.
        signed: whether its signature is wanted.

    Raises:
        ConfigError: the source is malformed, or names a data set without one pack.
        WeightsMissing, WeightsRejected, Unreachable: it is not here and cannot be fetched.
        StorageFull: the disk is full or may not be written.
    """
    if source.startswith(HUB):
        return _from_hub(source, signed=signed, offline=offline, announce=announce)
    if url_scheme(source):
        return _from_url(source, signed=signed, offline=offline, announce=announce)
    path = Path(source).expanduser().absolute()
    return LocalPack(path, signature_path(path))


def _from_hub(source: str, *, signed: bool, offline: bool, announce: Announce) -> LocalPack:
    named = parse_hub_spec(source.removeprefix(HUB))
    listing = list_data_set(named.repo, named.revision, offline=offline, announce=announce)
    packs = [name for name in listing.filenames if name.endswith(PACK_SUFFIX)]
    wanted = [named.config] if named.config else packs
    if len(wanted) != 1 or wanted[0] not in packs:
        raise ConfigError(
            f"{source} does not name one of the packs there: {', '.join(packs) or 'none'}.",
            hint=f"Write {HUB}OWNER/NAME[@REVISION]:FILE{PACK_SUFFIX}.",
        )

    def take(name: str) -> Path:
        file = HubFile(named.repo, name, named.revision, "dataset")
        return fetch(file, offline=offline, announce=announce)

    path = take(wanted[0])
    signature = signature_path(path)
    if signed and wanted[0] + SIGNATURE in listing.filenames:
        signature = take(wanted[0] + SIGNATURE)
    return LocalPack(path, signature)


def _from_url(url: str, *, signed: bool, offline: bool, announce: Announce) -> LocalPack:
    path = fetch_url(url, offline=offline, announce=announce)
    base, mark, query = url.partition("?")
    signature_url = f"{base}{SIGNATURE}{mark}{query}"
    signature = signature_path(path)
    if signed:
        try:
            signature = fetch_url(signature_url, offline=offline, announce=announce)
        except Unreachable as error:
            if not is_missing(error):
                raise

    def clean_up() -> None:
        forget(url)
        forget(signature_url)

    return LocalPack(path, signature, clean_up)


def pack_needs(path: Path) -> list[Need]:
    """Return what the encoders of a packed index need; raises what `open_pack` raises."""
    with open_pack(path) as pack:
        return [_encoder_need(encoder.name) for encoder in pack.record.manifest.encoders]


def missing_weights(manifest: Manifest) -> list[str]:
    """Return a line for each encoder whose files are not here, with the command that fetches them.

    Nothing is asked for on the network.
    """
    lines = []
    for encoder in manifest.encoders:
        try:
            problem = _first_problem(_encoder_need(encoder.name))
        except ImpromptError as error:
            problem = error.message
        if problem:
            name = LITE_NAME if encoder.name == MINILM_NAME else encoder.name
            lines.append(
                f"The encoder {encoder.name} cannot be used yet: {problem} "
                f"If you trust it: imprompt prefetch {name}"
            )
    return lines


def _encoder_need(name: str) -> Need:
    return minilm_need() if name == MINILM_NAME else encoder_need(name)


def _first_problem(need: Need) -> str:
    """Return why a need is not met on this machine; "" if it is."""
    from imprompt.core.hub.hub_files import cached_choice

    for _, error in check_installed([need]):
        if error is not None:
            return error.message
    for want in need.settled():
        if not want.optional and cached_choice(want.choices) is None:
            return f"{want.named.filename} of {want.named.repo} is not here."
    return ""
