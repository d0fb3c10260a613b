"""The library's own modes, picture by picture, with the index's model and our encoded lists."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imprompt.core.errors import MemberUnavailable
from imprompt.core.hub.fetch import Announce
from imprompt.core.pip_lines import install_extra
from imprompt.encoders.openclip import OpenClipEncoder
from imprompt.ensemble.blend_config import Mode
from imprompt.ensemble.interrogator.phrase_lists import PhraseLists
from imprompt.ensemble.interrogator.phrase_vectors import phrase_table

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_MODEL_NAME = "ViT-B-32/shared"
"""The library requires a name with one slash, for its tokenizer; it loads nothing by it."""


class LibraryModes:
    """The modes `best`, `fast` and `negative` of clip-interrogator over an encoder's model.

    Its tables of artists, flavors, mediums, movements and sites come from our cache; the library
    would encode them again, each text padded to the full context.

    Raises:
        MemberUnavailable: the library cannot be imported, or does not support the model's
            tokenizer.
    """

    def __init__(
        self, encoder: OpenClipEncoder, lists: PhraseLists, mode: Mode, *, announce: Announce
    ) -> None:
        self._encoder = encoder
        self._lists = lists
        self._mode = mode
        self._announce = announce
        try:
            with _without_warnings():
                import clip_interrogator
        except ImportError as error:
            raise MemberUnavailable(
                "interrogator",
                f"clip-interrogator cannot be imported: {error}",
                hint=install_extra("interrogator"),
            ) from error
        self._package = clip_interrogator
        # A last token other than 0 tells the library that a text fills the context.
        if int(encoder.model.tokenizer(["a"])[0][-1]) != 0:
            raise MemberUnavailable(
                "interrogator",
                f"the library does not support the tokenizer of {encoder.spec.name}, which does "
                "not pad with zeros",
                hint='Use the mode "classic".',
            )

    def prompts(self, images: Sequence[Image], beginnings: Sequence[str]) -> list[str]:
        """Return one prompt for each upright RGB picture, by the library's own defaults.

        Args:
            beginnings: for each picture, a caption to begin with, not empty; `negative` ignores it.
        """
        with _without_warnings():
            return [
                self._prompt(image, beginning)
                for image, beginning in zip(images, beginnings, strict=True)
            ]

    def _prompt(self, image: Image, beginning: str) -> str:
        library = self.library
        if self._mode == "negative":
            return str(library.interrogate_negative(image))
        interrogate = library.interrogate_fast if self._mode == "fast" else library.interrogate
        return str(interrogate(image, caption=beginning))

    @cached_property
    def library(self) -> Any:
        """Return the library's `Interrogator`, made empty, then given our model and tables."""
        model = self._encoder.model
        with tempfile.TemporaryDirectory() as empty:
            for kind in PhraseLists.__slots__:
                (Path(empty) / f"{kind}.txt").touch()
            config = self._package.Config(
                clip_model_name=_MODEL_NAME,
                caption_model_name=None,
                cache_path=None,
                download_cache=False,
                data_path=empty,
                device=model.device,
                quiet=True,
            )
            config.clip_model = _NoTower()
            library = self._package.Interrogator(config)
        library.clip_model = model.network
        library.clip_preprocess = model.transform
        library.tokenize = model.tokenizer
        lists = self._lists
        names = [
            f"{credit} {artist}" for credit in ("by", "inspired by") for artist in lists.artists
        ]
        tables = {
            library.artists: names,
            library.flavors: lists.flavors,
            library.mediums: lists.mediums,
            library.movements: lists.movements,
            library.negative: lists.negative,
            library.trendings: library.trendings.labels,  # the sites, from the library's code
        }
        for table, labels in tables.items():
            cached = phrase_table(labels, self._encoder, announce=self._announce)
            half = model.device == "cuda"
            table.labels = list(cached.labels)
            table.embeds = list(cached.rows.astype(np.float16) if half else cached.rows)
        return library


class _NoTower:
    """Replaces the model while the library makes its tables; it encodes the list of sites only."""

    def to(self, _device: str) -> _NoTower:
        return self

    def encode_text(self, tokens: Tensor) -> Tensor:
        return tokens[:, :1].float() + 1


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide warnings of torch about how the library calls it, which we cannot change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
