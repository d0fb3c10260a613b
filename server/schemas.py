"""Request and response models of the API, as published in its OpenAPI description."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from imprompt.core.values import Role
from imprompt.retriever.closeness import Closeness

_KEY = "53aa5117c3a1b0b1c0a9c9d6f3a6a0f5b8a1c2d3e4f5061728394a5b6c7d8e9f"
_DOUBT = "CLIPTextEncode ← OllamaGenerate: written by a model"
_VERSION = "20261122T212204.123456Z-0a1b2c3d"

K = Annotated[
    int,
    Field(
        ge=1,
        description="Number of nearest prompts to return; `/v1/info` gives the maximum.",
        examples=[5],
    ),
]
Text = Annotated[
    str, Field(description="Text to search for. With an image, the two are weighted equally.")
]
Images = Annotated[list[str], Field(description="Image files in base64; `data:` URLs are allowed.")]
Shared = Annotated[
    bool,
    Field(description="Also return `shared` for a text; an estimate for an image always has it."),
]
Version = Annotated[str, Field(description="Version of the index.", examples=[_VERSION])]
How = Literal["exact", "carried", "estimated", "searched"]
_HOW = (
    "`exact`: the prompt in the file's metadata. `carried`: a prompt in the metadata that "
    "something outside of the file changed. `estimated`: composed from the prompts around the "
    "image. `searched`: no prompt of its own, only those nearest to the text."
)
_DOUBT_DESCRIPTION = "Why a carried prompt is not exact."
_SETTINGS = "The generation settings in the metadata, such as sampler and seed."


class RequestBody(BaseModel):
    """A request body; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid")


class FilterFields(RequestBody):
    """Conditions that every returned prompt must meet."""

    where: str | None = Field(
        default=None,
        max_length=2000,
        description="SQL condition on the columns, as in `imprompt query --where`.",
        examples=["n_submitted >= 2"],
    )
    contains: list[str] = Field(
        default=[], description="Texts the prompt must contain.", examples=[["fox"]]
    )
    exclude: list[str] = Field(default=[], description="Texts the prompt must not contain.")
    no_artists: bool = Field(default=False, description="Exclude prompts that name an artist.")


class QueryFields(RequestBody):
    """The options of a query."""

    text: Text | None = None
    k: K = 10
    explain: bool = Field(
        False,
        description="Also return what each member of the ensemble contributed. Only for images "
        "without a text.",
    )
    ignore_metadata: bool = Field(
        False, description="Ignore prompts in the files' metadata and always estimate."
    )
    shared: Shared = False
    filters: FilterFields = Field(
        default_factory=FilterFields,
        description="Conditions on the returned prompts and on those that an estimate is composed "
        "from; JSON if the body is a form.",
    )


class QueryBody(QueryFields):
    """One or more images, a text, or both."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "a lighthouse at dusk", "k": 3}]}
    )
    images: Images = []
    image_urls: list[str] = Field(
        default=[], description="URLs of images, on hosts that the server allows with --allow-urls."
    )


class ImageBody(RequestBody):
    """One image."""

    image: str = Field(description="Image file in base64.")


class SearchBody(RequestBody):
    """A text to search for."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "a bowl of ramen", "k": 3}]}
    )
    text: Text
    k: K = 10
    shared: Shared = False
    filters: FilterFields = Field(
        default_factory=FilterFields, description="Conditions on the returned prompts."
    )


class EmbedBody(RequestBody):
    """Texts and images to embed."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"texts": ["a bowl of ramen"], "space": "output"}]},
    )
    texts: list[str] = Field(default=[], description="Texts to embed.")
    images: Images = []
    space: Literal["output", "index"] = Field(
        "output",
        description="`output`: all-MiniLM-L6-v2, 384 dimensions. `index`: the index's own space.",
    )


class ProblemDetails(BaseModel):
    """An error, as defined by RFC 9457."""

    type: str = Field(description="URN of `kind`.", examples=["urn:imprompt:image-rejected"])
    title: str = Field(
        description="The HTTP status as a phrase.", examples=["Unprocessable Entity"]
    )
    status: int = Field(description="The HTTP status code.", examples=[422])
    detail: str = Field(
        description="What went wrong.",
        examples=["The image cannot be read: the JPEG is truncated."],
    )
    kind: str = Field(
        description="The kind of error, as in the JSON output of the command line.",
        examples=["image-rejected"],
    )
    hint: str = Field("", description="What to do about it.")


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "model": ProblemDetails,
        "content": {"application/problem+json": {}},
        "description": HTTPStatus(status).phrase,
    }
    for status in (400, 401, 403, 404, 408, 413, 415, 421, 422, 503)
}
"""The error responses that every route may give."""


class NeighbourSchema(BaseModel):
    """A prompt of the index near the query."""

    row_id: int = Field(description="Row; valid for this index version only.", examples=[1203])
    prompt_key: str = Field(description="Stable key of the prompt.", examples=[_KEY])
    prompt: str = Field(
        description="The prompt as typed.", examples=["(a bowl of ramen:1.2), steam, --ar 3:2"]
    )
    shown: str = Field(
        description="The prompt without weights, tags and flags.",
        examples=["a bowl of ramen, steam"],
    )
    score: float = Field(
        description="Cosine similarity to the query, from -1 to 1.", examples=[0.71]
    )
    source: str = Field(description="Corpus that the prompt comes from.", examples=["starter"])
    source_key: str = Field(description="Where in that corpus it is.", examples=["1203"])
    n_like: int = Field(
        description="Number of further prompts that are near duplicates of it.", examples=[14]
    )
    closeness: Closeness | None = Field(
        None,
        description="How near the prompt is, on one scale for every encoder: by MiniLM's cosine "
        "with the text, the prompt in the file, or the estimate. Null if the ensemble is "
        "unavailable.",
        examples=["related"],
    )


class TagSchema(BaseModel):
    """A word for what an image shows."""

    text: str = Field(description="The word.", examples=["pixel art"])
    probability: float = Field(
        description="How likely it is a word of the true prompt, 0.15 or more.", examples=[0.62]
    )


class PhraseSchema(BaseModel):
    """A part of a prompt."""

    text: str = Field(description="The phrase.", examples=["golden hour"])
    role: Role = Field(description="What it is about.", examples=["light"])
    support: int = Field(
        description="How many of the 100 prompts around the image hold it; 0 if only a model says "
        "it.",
        examples=[7],
    )
    row_ids: list[int] = Field(description="Those prompts, nearest first.", examples=[[1203, 88]])


class CommonNegativeSchema(BaseModel):
    """A negative prompt that several prompts around the image come with."""

    text: str = Field(description="The negative prompt.", examples=["blurry, low quality"])
    support: int = Field(description="How many of those prompts come with it.", examples=[12])


class CommonSettingSchema(BaseModel):
    """A generation setting that several prompts around the image come with."""

    name: str = Field(description="The setting.", examples=["steps"])
    value: str = Field(description="Its value.", examples=["30"])
    support: int = Field(description="How many of those prompts come with it.", examples=[9])


class SuggestionSchema(BaseModel):
    """What is commonest beside the prompts around the image."""

    n_prompts: int = Field(description="How many prompts were looked at.", examples=[100])
    negative: CommonNegativeSchema | None = Field(
        None, description="The commonest negative prompt; null if no two share one."
    )
    settings: list[CommonSettingSchema] = Field(
        description="The commonest value of each setting that two or more share."
    )


class ContributionSchema(BaseModel):
    """What one member of the ensemble contributed to the estimate."""

    member: str = Field(description="Name of the member.", examples=["knn"])
    share: float = Field(description="Its weight in the blend, from 0 to 1.", examples=[0.35])
    cosine: float = Field(
        description="Cosine similarity of its prediction to the blend.", examples=[0.93]
    )
    text: str | None = Field(None, description="The prompt it predicted, if it predicts texts.")


class LeftOutSchema(BaseModel):
    """A member of the blend config that was unavailable."""

    member: str = Field(description="Name of the member.")
    reason: str = Field(description="Why it was unavailable.")
    hint: str = Field("", description="What to do about it.")


class ExplanationSchema(BaseModel):
    """How the ensemble arrived at its estimate."""

    model_config = ConfigDict(extra="allow")
    blend: str = Field(description="Name of the blend config.")
    cosine: float = Field(description="Cosine similarity of the estimate to the blend.")
    contributions: list[ContributionSchema] = Field(description="One entry per member.")
    left_out: list[LeftOutSchema] = Field(description="Members that were unavailable.")
    vector: list[float] = Field(description="The blend in MiniLM's space, 384 dimensions.")


class QueryResult(BaseModel):
    """The answer for one image or text, or its error."""

    model_config = ConfigDict(extra="allow")
    image: int | None = Field(
        None, description="Position of the image in the request, from 0; null for a text alone."
    )
    text: str | None = Field(None, description="The text of the request.")
    prompt: str | None = Field(None, description="The prompt; none if a text was searched for.")
    how: How | None = Field(None, description=_HOW)
    negative: str | None = Field(None, description="The negative prompt in the metadata.")
    tool: str | None = Field(None, description="The tool that wrote the metadata.")
    settings: dict[str, str] | None = Field(None, description=_SETTINGS)
    infotext: str | None = Field(
        None,
        description="Prompt, negative prompt and settings of the metadata in AUTOMATIC1111's "
        "format.",
        examples=["a fox\nNegative prompt: blurry\nSteps: 20, Seed: 7"],
    )
    doubt: str | None = Field(None, description=_DOUBT_DESCRIPTION, examples=[_DOUBT])
    note: str | None = Field(
        None,
        description="Why the metadata was not read, or that the encoder does not know the text's "
        "language.",
    )
    filters: dict[str, Any] | None = Field(None, description="The filters that were applied.")
    phrases: list[PhraseSchema] | None = Field(
        None, description="The parts of an estimated prompt, in order."
    )
    shared: list[PhraseSchema] | None = Field(
        None,
        description="Phrases to choose from: of the 100 prompts around the image or text, up to "
        "eight of each role, the commonest first.",
    )
    tags: list[TagSchema] | None = Field(
        None, description="Words for what the encoder sees in the image, likeliest first."
    )
    suggested: SuggestionSchema | None = Field(
        None,
        description="With an estimate: the commonest negative prompt and settings of the prompts "
        "around the image, where the corpus has them. A suggestion, not what the image was made "
        "with.",
    )
    confidence: float | None = Field(
        None,
        description="Probability that the estimate is close to the true prompt; null if the blend "
        "config has no calibration for this index and these filters.",
    )
    close: bool | None = Field(
        None,
        description="False if the confidence is below 0.1: nothing in the corpus is close, and the "
        "estimate is a best guess. Null without a confidence.",
    )
    nearest: list[NeighbourSchema] = Field([], description="The nearest prompts, best first.")
    version: Version | None = None
    encoder: str | None = Field(None, description="Encoder of the index.")
    corpus: str | None = Field(None, description="Corpora of the index.")
    seconds: float | None = Field(None, description="Time spent on this result.")
    explanation: ExplanationSchema | None = Field(
        None, description="How the ensemble arrived at an estimate; only with `explain`."
    )
    error: ProblemDetails | None = Field(None, description="Why there is no answer.")


class QueryResponse(BaseModel):
    """One result per image in the order of the request, or one for a text alone."""

    results: list[QueryResult] = Field(description="The results.")
    failed: int = Field(description="Number of results with an error.")


class EmbedResponse(BaseModel):
    """The embeddings of the texts, followed by those of the images."""

    space: str = Field(description="Name of the vectors' space.")
    dim: int = Field(description="Dimensions of the vectors.")
    version: Version
    vectors: list[list[float]] = Field(description="One vector of length 1 per text and image.")


class ExtractResponse(BaseModel):
    """The prompt in an image file; its fields are null if there is none."""

    prompt: str | None = Field(description="The prompt.")
    how: Literal["exact", "carried"] | None = Field(
        description="`exact`, or `carried` if something outside of the file changed the prompt."
    )
    negative: str | None = Field(description="The negative prompt.")
    tool: str | None = Field(description="The tool that wrote the metadata.")
    settings: dict[str, str] = Field(description=_SETTINGS)
    doubt: str | None = Field(description=_DOUBT_DESCRIPTION, examples=[_DOUBT])


class PromptResponse(BaseModel):
    """A prompt of the index."""

    model_config = ConfigDict(extra="allow")
    version: Version
    row_id: int = Field(description="Row; valid for this index version only.")
    prompt_key: str = Field(description="Stable key of the prompt.")
    prompt: str = Field(description="The prompt.")
    source: str = Field(description="Corpus that the prompt comes from.")
    source_key: str = Field(description="Where in that corpus it is.")
    n_submitted: int = Field(description="How often users submitted the prompt.")


class InfoResponse(BaseModel):
    """The index, the models and the limits of the server."""

    imprompt_version: str = Field(description="Version of imprompt.")
    version: Version
    created: str = Field(description="When the index was built, in UTC.")
    prompts: int = Field(description="Number of prompts in the index.")
    corpus: str = Field(description="Corpora of the index.")
    sources: dict[str, int] = Field(
        description="Number of prompts from each corpus, by the name in the column `source`."
    )
    pictures: list[str] = Field(
        description="Sources whose pictures `/v1/pictures/{version}/{row_id}` returns."
    )
    artists: bool = Field(description="Whether `no_artists` can be used: its list is installed.")
    encoder: str = Field(description="Encoder of the index.")
    space: str = Field(description="Name of the encoder's space.")
    dim: int = Field(description="Dimensions of that space.")
    blend: str = Field(description="Name of the blend config.")
    members: dict[str, float] = Field(
        description="Weight of each member of the ensemble; empty if it is unavailable."
    )
    members_missing: str | None = Field(None, description="Why the ensemble is unavailable.")
    limits: dict[str, Any] = Field(description="Limits on requests, by name.")
    url_hosts: list[str] = Field(description="Hosts that images are fetched from.")
