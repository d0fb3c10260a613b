"""`caption`: an image-to-text model of transformers, from a folder or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import MemberUnavailable, WeightsRejected
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.hub.hub_files import Wanted
from imprompt.core.pip_lines import install_extra
from imprompt.encoders import transformers_files
from imprompt.encoders.foreign import closed_libraries, image_to_text, refusal
from imprompt.encoders.memory import out_of_memory
from imprompt.encoders.torch_devices import choose_device, dtype_on
from imprompt.ensemble.blend_config import CAPTION_SOURCE, CaptionStyle
from imprompt.ensemble.caption_models import (
    MAX_ANSWER_TOKENS,
    caption_model,
    caption_of,
    first_sentence,
    question,
    tell_declined,
)

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_NEW_TOKENS = 40
"""Of a caption of a model that gets the image alone."""
_ASKED_AT_ONCE = 8
"""Images in one batch of a model that is asked, whose image may be thousands of tokens."""
_REMEDY = (
    "Name a folder or a hub repository with an image-to-text model of transformers in safetensors."
)


class ImageToText:
    """A captioner that uses the model's own generation settings, but never samples; see `load`."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        question: str = "",
        files: Sequence[Path] = (),
        announce: Announce = silent,
    ) -> None:
        self._model = model
        self._processor = processor
        self._announce = announce
        self._question = question
        self.files = tuple(files)

    @classmethod
    def load(
        cls,
        source: str,
        *,
        device: str,
        offline: bool,
        announce: Announce,
        style: CaptionStyle = "sentence",
    ) -> ImageToText:
        """Return the model of a folder, which goes first, or of OWNER/NAME on the hub.

        Raises:
            MemberUnavailable: transformers is not installed.
            WeightsMissing: a file is missing and cannot be fetched.
            WeightsRejected: a file is damaged, or belongs to a model that cannot caption.
            ConfigError: no such device, or the model does not write captions of this style.
        """
        torch_device = choose_device(device)
        folder = Path(source).expanduser()
        if not folder.is_dir():
            folder = transformers_files.fetch_folder(
                source,
                lambda: wanted_files(source, style=style),
                offline=offline,
                announce=announce,
            )
        transformers_files.weight_files(folder, hint=_REMEDY)
        kind = caption_model(folder / "config.json", style=style)
        dtype = transformers_files.float_type(folder / "config.json", dtype_on(torch_device))
        try:
            model, processor = image_to_text(folder, dtype=dtype, hint=_REMEDY)
        except ModuleNotFoundError as error:
            raise MemberUnavailable(
                "caption",
                f"the package {error.name} is not installed",
                hint=f"Install it: {install_extra('ofa')}",
            ) from error
        try:
            with closed_libraries():
                asked = question(processor, kind, style=style)
        except Exception as error:  # of a foreign template
            raise _cannot_caption(folder, error) from error
        if asked:
            processor.tokenizer.padding_side = "left"
        return cls(
            model.eval().to(torch_device),
            processor,
            question=asked,
            files=transformers_files.model_files(folder),
            announce=announce,
        )

    def captions(self, images: Sequence[Image]) -> list[str]:
        """Return one sentence, or one list of tags, for each upright RGB image, in order.

        It is "" where the model declines.

        Raises:
            WeightsRejected: the files of the model do not fit together.
        """
        at_once = _ASKED_AT_ONCE if self._question else len(images)
        captions: list[str] = []
        for start in range(0, len(images), at_once or 1):
            try:
                with closed_libraries():
                    captions += self._answers(images[start : start + at_once])
            except Exception as error:  # transformers and torch raise errors of many kinds
                if out_of_memory(error):
                    raise
                raise _cannot_caption(self.files[0].parent, error) from error
        tell_declined(captions, announce=self._announce)
        return captions

    def _answers(self, images: Sequence[Image]) -> list[str]:
        import torch

        inputs = self._inputs(images).to(self._model.device, dtype=self._model.dtype)
        with torch.inference_mode():
            answers = self._model.generate(
                **inputs,
                max_new_tokens=MAX_ANSWER_TOKENS if self._question else MAX_NEW_TOKENS,
                do_sample=False,
                num_return_sequences=1,
            )
        if self._question and not self._model.config.is_encoder_decoder:
            answers = answers[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(answers, skip_special_tokens=True)
        return [caption_of(text) if self._question else first_sentence(text) for text in texts]

    def _inputs(self, images: Sequence[Image]) -> Any:
        """Return what the model takes, as a BatchFeature of transformers."""
        if not self._question:
            return self._processor(images=list(images), return_tensors="pt")
        options = {}
        bos = self._processor.tokenizer.bos_token
        if bos and self._question.startswith(bos):  # of the chat template
            options["add_special_tokens"] = False
        inputs = self._processor(
            images=[[image] for image in images],
            text=[self._question] * len(images),
            padding=True,
            return_tensors="pt",
            **options,
        )
        inputs.pop("labels", None)  # for training only
        return inputs


def wanted_files(repo: str, *, style: CaptionStyle = "sentence") -> list[Wanted]:
    """Return the files to fetch; see `imprompt.encoders.transformers_files.wanted_files`.

    Raises:
        WeightsRejected: the model cannot caption, or the index of its shards is not one.
        ConfigError: the model does not write captions of this style.
    """
    return transformers_files.wanted_files(
        repo,
        check=partial(caption_model, style=style),
        hint=_REMEDY,
        trusted=repo == CAPTION_SOURCE,
    )


def _cannot_caption(folder: Path, error: Exception) -> WeightsRejected:
    return WeightsRejected(f"{folder} cannot caption: {refusal(error)}.", path=folder, hint=_REMEDY)
