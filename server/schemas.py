"""What the API takes and gives, as OpenAPI shows it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_KEY = "53aa5117c3a1b0b1c0a9c9d6f3a6a0f5b8a1c2d3e4f5061728394a5b6c7d8e9f"
_DOUBT = "CLIPTextEncode ← OllamaGenerate: written by a model"
_VERSION = "20261122T212204.123456Z-0a1b2c3d"

K = Annotated[
    int,
    Field(ge=1, description="How many nearest prompts; `/v1/info` states the most.", examples=[5]),
]
Text = Annotated[
    str, Field(description="A text to search for, alone or mixed half and half with each image.")
]


class Taken(BaseModel):
    """A request body: a field that is not known is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class FilterFields(Taken):
    """Which prompts may be neighbours; all of it together."""

    where: str | None = Field(
        default=None,
        max_length=2000,
        description="A condition on the columns, as `query --where` takes it.",
        examples=["n_submitted >= 2"],
    )
    contains: list[str] = Field(
        default=[], description="Words that must be in the prompt.", examples=[["fox"]]
    )
    exclude: list[str] = Field(default=[], description="Words that must not be in it.")
    no_artists: bool = Field(default=False, description="Leave out prompts that name an artist.")


class QueryFields(Taken):
    """How images are asked about."""

    text: Text | None = None
    k: K = 10
    members: bool = Field(
        False,
        description="Let the ensemble answer, and show each member's vote. Images without a text only.",
    )
    ignore_metadata: bool = Field(False, description="Estimate, as if no file carried its prompt.")
    filters: FilterFields = Field(
        default_factory=FilterFields,
        description="In a form: as JSON. Not with `members`, who know of no filters.",
    )


class QueryBody(QueryFields):
    """One or several images as base64 (`data:` URLs are taken too), a text, or both."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "a lighthouse at dusk", "k": 3}]}
    )
    images: list[str] = Field(default=[], description="Image files in base64.")
    image_urls: list[str] = Field(
        default=[], description="Refused unless the server was started with --allow-urls."
    )


class ImageBody(Taken):
    """One image."""

    image: str = Field(description="An image file in base64.")


class SearchBody(Taken):
    """A text to search for."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "a bowl of ramen", "k": 3}]}
    )
    text: Text
    k: K = 10
    filters: FilterFields = Field(default_factory=FilterFields)


class EmbedBody(Taken):
    """Texts and images to embed; the rows of the texts come first."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"texts": ["a bowl of ramen"], "space": "output"}]},
    )
    texts: list[str] = []
    images: list[str] = Field(default=[], description="Image files in base64.")
    space: Literal["output", "index"] = Field(
        "output",
        description="`output`: all-MiniLM-L6-v2, 384-d; `index`: the space that is searched.",
    )


class ProblemDetails(BaseModel):
    """RFC 9457. `kind` is the same word as in the command line's errors."""

    type: str = Field(examples=["urn:imprompt:image-rejected"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The image cannot be read: the JPEG is truncated."])
    kind: str = Field(examples=["image-rejected"])
    hint: str = ""


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "model": ProblemDetails,
        "content": {"application/problem+json": {}},
        "description": HTTPStatus(status).phrase,
    }
    for status in (400, 401, 403, 404, 408, 413, 415, 421, 422, 503)
}
"""What every route may answer instead."""


class NeighbourModel(BaseModel):
    """A prompt of the index;

    `score` is its cosine to the question. `row_id` holds within the result's version only.
    """

    row_id: int = Field(examples=[1203])
    prompt_key: str = Field(examples=[_KEY])
    prompt: str = Field(examples=["a bowl of ramen, steam, studio light"])
    score: float = Field(examples=[0.71])
    source: str = Field(examples=["starter"])
    source_key: str = Field(examples=["1203"])
    n_like: int = Field(
        description="How many further prompts are near duplicates of it.", examples=[14]
    )


class ContributionModel(BaseModel):
    """What a member said: its share of the vote, the cosine of its vector to the blend, its words where it has any."""

    member: str = Field(examples=["knn"])
    share: float = Field(examples=[0.35])
    cosine: float = Field(examples=[0.93])
    text: str | None = None


class LeftOut(BaseModel):
    """A member of the blend config that could not vote."""

    member: str
    reason: str
    hint: str = ""


class ExplanationModel(BaseModel):
    """Why the answer is what it is;

    `confidence` is null where the blend config is not calibrated for the index.
    """

    model_config = ConfigDict(extra="allow")
    blend: str
    confidence: float | None
    calibration: str
    cosine: float
    contributions: list[ContributionModel]
    left_out: list[LeftOut]
    vector: list[float]


class Result(BaseModel):
    """The answer to one question, or the problem with it."""

    model_config = ConfigDict(extra="allow")
    image: int | None = Field(
        None, description="Which of the images of the request, from 0; null for a text alone."
    )
    text: str | None = None
    prompt: str | None = None
    how: Literal["exact", "carried", "estimated"] | None = None
    negative: str | None = None
    tool: str | None = None
    settings: dict[str, str] | None = None
    doubt: str | None = Field(
        None, description="What keeps a carried prompt from being exact.", examples=[_DOUBT]
    )
    note: str | None = None
    neighbours: list[NeighbourModel] = []
    version: str | None = Field(None, examples=[_VERSION])
    encoder: str | None = None
    corpus: str | None = None
    seconds: float | None = None
    explanation: ExplanationModel | None = None
    error: ProblemDetails | None = None


class QueryResults(BaseModel):
    """One result for each image in the order sent (or for the text alone);

    `failed` counts those with an error.
    """

    results: list[Result]
    failed: int


class Vectors(BaseModel):
    """(n, dim) unit rows."""

    space: str
    dim: int
    version: str
    vectors: list[list[float]]


class Extracted(BaseModel):
    """The prompt that an image file carries; all null where it carries none."""

    prompt: str | None
    how: Literal["exact", "carried"] | None
    negative: str | None
    tool: str | None
    settings: dict[str, str]
    doubt: str | None = Field(
        description="What keeps a carried prompt from being exact.", examples=[_DOUBT]
    )


class StoredPrompt(BaseModel):
    """A prompt of the index."""

    model_config = ConfigDict(extra="allow")
    version: str
    row_id: int
    prompt_key: str
    prompt: str
    source: str
    source_key: str
    n_submitted: int


class Info(BaseModel):
    """What is served, and the limits."""

    imprompt_version: str
    version: str = Field(description="Of the index.")
    created: str
    prompts: int
    corpus: str
    encoder: str
    space: str
    dim: int
    blend: str
    members: dict[str, float] = Field(
        description="Shares of the vote; empty where the members cannot vote."
    )
    members_missing: str | None = None
    limits: dict[str, Any]
    url_hosts: list[str]
