"""How a verb opens the index that it asks: its options, the version in service and its encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imprompt.commands.options import Device, IndexAddress, Offline
from imprompt.commands.output import Output

if TYPE_CHECKING:
    from imprompt.core.protocols import DualEncoder
    from imprompt.core.settings import IndexPlace, Settings
    from imprompt.store.open_index import OpenIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """Where the index is, and how models are loaded."""

    index: IndexAddress = None
    device: Device = "auto"
    offline: Offline = False

    def settings(self) -> Settings:
        """Return the settings of this run: these options over the environment's."""
        from imprompt.core.settings import settings

        return settings(index=self.index, offline=self.offline)


@dataclass(frozen=True, slots=True)
class LoadedIndex:
    """One version, where it is, its encoder, and how to load further models."""

    place: IndexPlace
    version: OpenIndex
    encoder: DualEncoder
    device: str
    offline: bool


@contextmanager
def open_index(
    output: Output, options: IndexOptions, *, encoder: str | None = None, few: bool = False
) -> Iterator[LoadedIndex]:
    """Open the index for the duration of the block.

    Args:
        output: shows notes about devices and downloads.
        options: where the index is.
        encoder: overrides the encoder that the index was built with.
        few: only a few questions follow. The CPU answers those before a GPU has loaded the vectors,
            so with device "auto" the search stays on the CPU.

    Raises:
        StoreError: there is no index, or it is damaged.
        EncoderError, ConfigError: the encoder or the device cannot be used.
    """
    from imprompt.core.settings import MilvusPlace
    from imprompt.encoders.registry import load_index_encoder
    from imprompt.store.gpu import opened_gpu
    from imprompt.store.open_index import open_place

    settings = options.settings()
    on_cpu = (few and options.device == "auto") or isinstance(settings.place, MilvusPlace)
    search_device = "cpu" if on_cpu else options.device
    with (
        opened_gpu(search_device, announce=output.note) as gpu,
        open_place(settings.place) as version,
    ):
        if gpu is not None:
            version.search_on(gpu)
        spec = version.manifest.encoders[0]
        output.detail(
            f"Index {settings.place}, version {version.manifest.version}, "
            f"encoder {encoder or spec.name}."
        )
        dual = load_index_encoder(
            spec,
            named=encoder,
            device=options.device,
            offline=settings.offline,
            announce=output.note,
        )
        yield LoadedIndex(settings.place, version, dual, options.device, settings.offline)
