"""Questions, and the answers to them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from imprompt.core.errors import MemberUnavailable
from imprompt.core.values import Phrase, Vectors
from imprompt.encoders.class_words import SeenWord
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
from imprompt.images.prompts.infotext import infotext
from imprompt.retriever.closeness import Closeness
from imprompt.retriever.filters import ALL, Filters

How: TypeAlias = Literal["exact", "carried", "estimated", "searched"]


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
    only; `prompt_key` is stable. `shown` is the prompt without weights, tags and flags.
    `source_key` locates the prompt in its corpus `source`. `n_like` further prompts of the corpora
    are near duplicates of it. `closeness` says in a word how near it is, None where no ensemble was
    asked.
    """

    row_id: int
    prompt_key: str
    prompt: str
    shown: str
    score: float
    source: str
    source_key: str
    n_like: int = 0
    closeness: Closeness | None = None


@dataclass(frozen=True, slots=True)
class Contribution:
    """One member's part in an estimate.

    `share` is its part of the total weight, `cosine` that of its vector with the blend, `text` its
    text, if it writes any.
    """

    member: str
    share: float
    cosine: float
    text: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """How the ensemble arrived at an estimate.

    `vector` (384,) is the blend, in MiniLM space, and `cosine` that of the prompt with it.
    `left_out` lists members that were not available.
    """

    blend_config: str
    contributions: tuple[Contribution, ...]
    left_out: tuple[MemberUnavailable, ...]
    vector: Vectors
    cosine: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "blend": self.blend_config,
            "cosine": self.cosine,
            "contributions": [dataclasses.asdict(part) for part in self.contributions],
            "left_out": [
                {"member": error.name, "reason": error.reason, "hint": error.hint}
                for error in self.left_out
            ],
            "vector": self.vector.tolist(),
        }


@dataclass(frozen=True, slots=True)
class CommonNegative:
    """A negative prompt, and how many of the prompts around a picture come with it."""

    text: str
    support: int


@dataclass(frozen=True, slots=True)
class CommonSetting:
    """A generation setting, and how many of the prompts around a picture come with that value."""

    name: str
    value: str
    support: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What is commonest beside the `n_prompts` prompts around a picture, where a corpus has it.

    It is what others used for such pictures, not what this one was made with. `negative` is None
    where no two of them share one; a setting that no two share is left out.
    """

    n_prompts: int
    negative: CommonNegative | None
    settings: tuple[CommonSetting, ...]


@dataclass(frozen=True, slots=True)
class EstimatedPrompt:
    """What the ensemble says of the prompt that it composed for a picture.

    `phrases` make up the prompt, in this order. `shared` are phrases of the prompts around the
    picture to choose from, by role, `tags` words for what an encoder sees, likeliest first.
    `confidence` is the probability that the prompt is close to the true one, None where the blend
    config has no calibration for the index and the filters. `close` is False where it is so low
    that the prompt is only a best guess, None without a confidence. `suggestion` is None where the
    prompts around the picture come without negative prompts and settings.
    """

    phrases: tuple[Phrase, ...]
    shared: tuple[Phrase, ...]
    tags: tuple[SeenWord, ...]
    confidence: float | None
    close: bool | None
    explanation: Explanation
    suggestion: Suggestion | None = None

    def to_json(self, *, explain: bool) -> dict[str, Any]:
        """Return plain JSON values; "suggested" only if there is a suggestion."""
        value: dict[str, Any] = {
            "phrases": [dataclasses.asdict(phrase) for phrase in self.phrases],
            "shared": [dataclasses.asdict(phrase) for phrase in self.shared],
            "tags": [dataclasses.asdict(tag) for tag in self.tags],
            "confidence": self.confidence,
            "close": self.close,
        }
        if self.suggestion is not None:
            value["suggested"] = dataclasses.asdict(self.suggestion)
        return value | ({"explanation": self.explanation.to_json()} if explain else {})


@dataclass(frozen=True, slots=True)
class Answer:
    """The prompt of a question, and what it is based on.

    `how` the prompt was found:

    - "exact": it is in the image file's metadata, with the `negative` prompt, the `tool` that wrote
      it and the `settings`
    - "carried": likewise, but something outside of the file changed it; `doubt` says what
    - "estimated": the ensemble composed it; `estimate` has its parts
    - "searched": not at all: the question has a text, and only prompts near it were searched for;
      `prompt` is empty

    In each case `neighbours` are the prompts of the index nearest to the question that pass
    `filters`, best first and one of each group of near duplicates. There may be none if the prompt
    is in the file. `shared` are phrases of the prompts near a text, if they were asked for; those
    near a picture are in `estimate`.

    `encoder`, `corpus` and `version` name what was searched; they are empty if nothing was.
    `seconds` is the question's share of its batch. `note` says why the metadata was not
    read, or that the encoder does not know the text's language.
    """

    image: Path | None
    text: str | None
    prompt: str
    how: How
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
    estimate: EstimatedPrompt | None = None
    shared: tuple[Phrase, ...] = ()

    def nearest(self, k: int) -> Answer:
        """Return the answer with its k nearest neighbours only."""
        return dataclasses.replace(self, neighbours=self.neighbours[:k])

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """Return plain JSON values; optional fields are left out where they do not apply."""
        value: dict[str, Any] = {"image": None if self.image is None else str(self.image)}
        if self.text is not None:
            value["text"] = self.text
        if self.how != "searched":
            value["prompt"] = self.prompt
        value["how"] = self.how
        if self.how in ("exact", "carried"):
            value |= {"negative": self.negative, "tool": self.tool, "settings": self.settings}
            found = EmbeddedPrompt(self.prompt, self.negative, self.tool, self.settings)
            value["infotext"] = infotext(found)
        if self.shared:
            value["shared"] = [dataclasses.asdict(phrase) for phrase in self.shared]
        if self.estimate is not None:
            value |= self.estimate.to_json(explain=explain)
        if self.doubt:
            value["doubt"] = self.doubt
        if self.note:
            value["note"] = self.note
        if self.filters:
            value["filters"] = self.filters.to_json()
        return value | {
            "nearest": [dataclasses.asdict(hit) for hit in self.neighbours],
            "encoder": self.encoder or None,
            "corpus": self.corpus or None,
            "version": self.version or None,
            "seconds": self.seconds,
        }
