"""What is asked and what is answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from imprompt.retriever.filters import ALL, Filters


@dataclass(frozen=True, slots=True)
class Question:
    """An image (a file, or the bytes of one), a text, or both mixed half and half; a text of white space alone counts as none.

    With `ignore_metadata` the prompt that the image's file carries is not looked for.
    """

    image: Path | bytes | None = None
    text: str | None = None
    ignore_metadata: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A prompt of the index; `score` is its cosine to the question in the index's space, -1 to 1.

    `row_id` holds within the answer's version; `prompt_key` is the stable name. `source_key`
    finds it again in `source`. `n_like` further prompts of the corpora are near duplicates of it:
    the others of its group, and those that the build folded.
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
    """The prompt of a question, and what it rests on.

    `how` is "exact" where the image file carries its prompt, which is then `prompt`, with the
    `negative` prompt, the `tool` that wrote it and its `settings`. It is "carried" where the file
    has a text, but something that is not in the file was done with it: `doubt` says in one line
    what. Otherwise it is "estimated" and `prompt` is the first neighbour's. The neighbours are the
    index's nearest to the question either way, by falling score, one of each group of near
    duplicates; `filters` says which prompts could be among them (empty: all), and there are none
    where a prompt is exact and no other passes. `image` is the question's, where that was a file.

    `encoder`, `corpus` and `version` name what was searched, and are empty where nothing was;
    "(synthetic)" stands behind a corpus that a program wrote. `seconds` is this question's share of
    the batch that it was answered in. `note` says why a file's metadata was not read, and is empty
    otherwise.
    """

    image: Path | None
    text: str | None
    prompt: str
    how: Literal["exact", "carried", "estimated"]
    neighbours: tuple[Neighbour, ...]
    encoder: str
    corpus: str
    version: str
    seconds: float
    negative: str = ""
    tool: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    doubt: str = ""
    note: str = ""
    filters: Filters = ALL

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `text`, `doubt`, `note` and `filters` where there are any, the file's where it has some."""
        neighbours = [
            {
                "row_id": hit.row_id,
                "prompt_key": hit.prompt_key,
                "prompt": hit.prompt,
                "score": hit.score,
                "source": hit.source,
                "source_key": hit.source_key,
                "n_like": hit.n_like,
            }
            for hit in self.neighbours
        ]
        asked = {} if self.text is None else {"text": self.text}
        in_file = (
            {"negative": self.negative, "tool": self.tool, "settings": self.settings}
            if self.how != "estimated"
            else {}
        )
        return {
            "image": None if self.image is None else str(self.image),
            **asked,
            "prompt": self.prompt,
            "how": self.how,
            **in_file,
            **({"doubt": self.doubt} if self.doubt else {}),
            **({"note": self.note} if self.note else {}),
            **({"filters": self.filters.to_json()} if self.filters else {}),
            "neighbours": neighbours,
            "encoder": self.encoder or None,
            "corpus": self.corpus or None,
            "version": self.version or None,
            "seconds": self.seconds,
        }
