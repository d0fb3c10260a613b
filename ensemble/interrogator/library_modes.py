"""The modes of the library itself, one picture at a time, with the model of the index and the lists that are encoded already."""

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
from imprompt.encoders.openclip import OpenClipEncoder
from imprompt.ensemble.blend_config import Mode
from imprompt.ensemble.interrogator.phrase_lists import PhraseLists
from imprompt.ensemble.interrogator.phrase_vectors import phrase_table

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_MODEL_NAME = "ViT-B-32/shared"
"""The library wants a name with one stroke, takes a tokenizer by what stands before it, and loads nothing by it."""


class LibraryModes:
    """`best`, `fast` or `negative` of clip-interrogator over the model of a pair.

    Its tables of artists, flavors, mediums, movements and sites come from our cache, where the
    library would encode them anew, each text padded to the full context.

    Raises:
        MemberUnavailable: the library cannot be imported, or cannot work with the tokenizer of this
            model.
    """

    def __init__(
        self, pair: OpenClipEncoder, lists: PhraseLists, mode: Mode, *, announce: Announce
    ) -> None:
        self._pair = pair
        self._lists = lists
        self._mode = mode
        self._announce = announce
        try:
            with _unwarned():
                import clip_interrogator
        except ImportError as error:
            raise MemberUnavailable(
                "interrogator",
                f"clip-interrogator cannot be imported: {error}",
                hint="pip install 'imprompt[interrogator]'",
            ) from error
        self._package = clip_interrogator
        if (
            int(pair.model.tokenizer(["a"])[0][-1]) != 0
        ):  # by the last token the library tells whether a text fills the context
            raise MemberUnavailable(
                "interrogator",
                f"the library takes every text for too long: the tokenizer of {pair.spec.name} does not pad with zeros",
                hint='Use the mode "classic".',
            )

    def prompts(self, images: Sequence[Image], beginnings: Sequence[str]) -> list[str]:
        """One prompt for each upright RGB picture, by the library's own defaults.

        Args:
            beginnings: for each picture what `best` and `fast` begin with, none empty: its caption.
        """
        with _unwarned():
            return [
                self._prompt(image, beginning)
                for image, beginning in zip(images, beginnings, strict=True)
            ]

    def _prompt(self, image: Image, beginning: str) -> str:
        library = self.library
        if self._mode == "negative":
            return str(library.interrogate_negative(image))
        asked = library.interrogate_fast if self._mode == "fast" else library.interrogate
        return str(asked(image, caption=beginning))

    @cached_property
    def library(self) -> Any:
        """The library's `Interrogator`, made with empty lists and without a model, which are put in afterwards."""
        model = self._pair.model
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
            made = self._package.Interrogator(config)
        made.clip_model, made.clip_preprocess, made.tokenize = (
            model.network,
            model.transform,
            model.tokenizer,
        )
        lists = self._lists
        names = [
            f"{credit} {artist}" for credit in ("by", "inspired by") for artist in lists.artists
        ]
        tables = {
            made.artists: names,
            made.flavors: lists.flavors,
            made.mediums: lists.mediums,
            made.movements: lists.movements,
            made.negative: lists.negative,
            made.trendings: made.trendings.labels,  # the sites, which stand in the library's code
        }
        for table, labels in tables.items():
            ours = phrase_table(labels, self._pair, announce=self._announce)
            table.labels = list(ours.labels)
            table.embeds = list(
                ours.rows.astype(np.float16) if model.device == "cuda" else ours.rows
            )
        return made


class _NoTower:
    """Stands for the model while the library makes its tables: only its own list of sites is shown to it."""

    def to(self, _device: str) -> _NoTower:
        return self

    def encode_text(self, tokens: Tensor) -> Tensor:
        return tokens[:, :1].float() + 1


@contextmanager
def _unwarned() -> Iterator[None]:
    """The library calls functions of torch that are going away, or do nothing without CUDA; nobody here can change that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
