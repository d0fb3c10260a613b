"""What every verb that asks an index begins with: the version that is in service, and its encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.core.protocols import DualEncoder
    from imprompt.store.open_index import OpenIndex


@dataclass(frozen=True, slots=True)
class Opened:
    """One version, its encoder, and how further models are to be loaded."""

    version: OpenIndex
    pair: DualEncoder
    device: str
    offline: bool


@contextmanager
def open_index(
    output: Output,
    *,
    index: str | None,
    device: str,
    offline: bool,
    encoder: str | None = None,
    few: bool = False,
) -> Iterator[Opened]:
    """The index of the options, open as long as the block runs.

    Args:
        index: its folder, or Milvus; None for that of the environment or the user.
        encoder: a name instead of the one that the index was built with.
        few: only some questions are going to be asked. The processor answers them before a GPU has
            the vectors, so the device "auto" leaves the search to it.

    Raises:
        StoreError: there is no index, or it is damaged.
        EncoderError, ConfigError: the encoder or the device cannot be used.
    """
    from imprompt.core.settings import MilvusPlace, settings
    from imprompt.encoders.registry import load_encoder, load_index_encoder
    from imprompt.store.gpu import opened_gpu
    from imprompt.store.open_index import open_place

    chosen = settings(index=index, offline=offline)
    searching = (
        "cpu" if (few and device == "auto") or isinstance(chosen.place, MilvusPlace) else device
    )
    with opened_gpu(searching, announce=output.note) as gpu, open_place(chosen.place) as version:
        if gpu is not None:
            version.search_on(gpu)
        name = encoder or version.manifest.encoders[0].name
        output.detail(f"Index {chosen.place}, version {version.manifest.version}, encoder {name}.")
        load = load_encoder if encoder else load_index_encoder
        pair = load(name, device=device, offline=chosen.offline, announce=output.note)
        yield Opened(version, pair, device, chosen.offline)
