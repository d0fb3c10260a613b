"""Questions, and the answers to them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from imprompt.retriever.filters import ALL, Filters


@dataclass(frozen=True, slots=True)
class Question:
    """An image, a text, or both, which are then weighted equally.

    Args:
        image: a path or the bytes of an image file.
        text: counts as missing if it is only white space.
        ignore_metadata: do not look for a prompt in the image file.
    """

    image: Path | bytes | None = None
    text: str | None = None
    ignore_metadata: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A prompt of the index near a question.

    `score` is their cosine similarity, -1 to 1. `row_id` is valid for the answer's index version
    only; `prompt_key` is stable. `source_key` locates the prompt in its corpus `source`. `n_like`
    further prompts of the corpora are near duplicates of it.
    """

    row_id: int
    prompt_key: str
    prompt: str
    score: float
    source: str
    source_key: str
    n_like: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The prompt of a question, and what it is based on.

    `how` the prompt was found:

    - "exact": it is in the image file's metadata, with the `negative` prompt, the `tool` that wrote
      it and the `settings`
    - "carried": likewise, but something outside of the file changed it; `doubt` says what
    - "estimated": it is that of the first neighbour

    In each case `neighbours` are the prompts of the index nearest to the question that pass
    `filters`, best first and one of each group of near duplicates. There may be none unless the
    prompt is estimated.

    `encoder`, `corpus` and `version` name what was searched; they are empty if nothing was.
    `seconds` is the question's share of its batch. `note` says why the metadata was not read.
    """

    image: Path | None
    text: str | None
    prompt: str
    how: Literal["exact", "carried", "estimated"]
    neighbours: tuple[Neighbour, ...]
    encoder: str = ""
    corpus: str = ""
    version: str = ""
    seconds: float = 0.0
    negative: str = ""
    tool: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    doubt: str = ""
    note: str = ""
    filters: Filters = ALL

    def nearest(self, k: int) -> Answer:
        """Return the answer with its k nearest neighbours only."""
        return dataclasses.replace(self, neighbours=self.neighbours[:k])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; optional fields are left out where they do not apply."""
        value: dict[str, Any] = {"image": None if self.image is None else str(self.image)}
        if self.text is not None:
            value["text"] = self.text
        value |= {"prompt": self.prompt, "how": self.how}
        if self.how != "estimated":
            value |= {"negative": self.negative, "tool": self.tool, "settings": self.settings}
        if self.doubt:
            value["doubt"] = self.doubt
        if self.note:
            value["note"] = self.note
        if self.filters:
            value["filters"] = self.filters.to_json()
        return value | {
            "neighbours": [dataclasses.asdict(hit) for hit in self.neighbours],
            "encoder": self.encoder or None,
            "corpus": self.corpus or None,
            "version": self.version or None,
            "seconds": self.seconds,
        }
