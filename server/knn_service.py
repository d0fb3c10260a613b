"""What clients of clip-retrieval's back end call, its own `ClipClient` among them, so that they work without a change."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from imprompt.core.errors import EmptyQuery, ImpromptError, QueryError
from imprompt.core.splits import similarity_groups
from imprompt.core.values import unit_rows
from imprompt.ensemble.explanation import ExplainedAnswer
from imprompt.retriever import Answer, Question
from imprompt.retriever.answers import Neighbour
from imprompt.server import schemas
from imprompt.server.answering import Ask
from imprompt.server.bodies import (
    as_json,
    check_images,
    checked,
    decode_image,
    read_json,
    request_body,
)
from imprompt.server.http_errors import too_large
from imprompt.server.service import Service
from imprompt.server.urls import fetch_images

if TYPE_CHECKING:
    from imprompt.server.snapshots import Snapshot

INDEX_NAME = "imprompt"
DUPLICATE_COSINE = 0.94
"""From this cosine on clip-retrieval counts two results as one."""


class KnnBody(BaseModel):
    """As `ClipClient` sends it. Exactly one of the four questions; what is not listed here (safety models, aesthetic weights,
    `modality`) has no meaning for an index of prompts and is ignored, and so is `indice_name`: there is one index."""

    text: str | None = None
    image: str | None = Field(None, description="An image file in base64.")
    image_url: str | None = Field(
        None, description="Refused unless the server was started with --allow-urls."
    )
    embedding_input: list[float] | None = Field(
        None, description="A vector of the space that is searched."
    )
    num_images: int = Field(40, ge=1)
    num_result_ids: int | None = Field(None, ge=1)
    deduplicate: bool = False


class KnnResult(BaseModel):
    """A prompt: `id` is its row, which holds within `version`; those beyond `num_images` have no `caption`."""

    id: int
    similarity: float
    version: str
    caption: str | None = None
    source: str | None = None
    prompt_key: str | None = None


class MetadataBody(BaseModel):
    """The rows that are asked for."""

    ids: list[int]


class MetadataResult(BaseModel):
    """A row's prompt as `caption`, and where it comes from."""

    id: int
    metadata: dict[str, Any]


def routes(service: Service) -> APIRouter:
    """/knn-service, /indices-list and /metadata."""
    router = APIRouter(tags=["clip-retrieval"], responses=schemas.PROBLEMS)
    limits = service.config.limits

    @router.post(
        "/knn-service",
        summary="Nearest prompts",
        response_model=list[KnnResult],
        openapi_extra=request_body(KnnBody),
    )
    async def knn(request: Request) -> Response:
        """JSON whatever the content type, as the client sends it."""
        body = checked(KnnBody, await read_json(request))
        k = max(body.num_images, body.num_result_ids or 0)
        if k > limits.max_k:
            raise QueryError(f"{k} results were asked for; the limit is {limits.max_k:,}.")
        return as_json(await _answer(body, k, service))

    @router.get("/indices-list", summary="The names of the indexes", response_model=list[str])
    async def indices() -> Response:
        """One."""
        return as_json([INDEX_NAME])

    @router.post(
        "/metadata",
        summary="Prompts by row",
        response_model=list[MetadataResult],
        openapi_extra=request_body(MetadataBody),
    )
    async def metadata(request: Request) -> Response:
        """In the order asked for."""
        body = checked(MetadataBody, await read_json(request))
        if len(body.ids) > limits.max_k:
            raise too_large(f"{len(body.ids)} rows were asked for, the limit is {limits.max_k:,}.")
        return as_json(await service.run(lambda snapshot: _metadata(snapshot, body.ids)))

    return router


async def _answer(body: KnnBody, k: int, service: Service) -> list[dict[str, Any]]:
    """The results, all of one version: where a new one came between search and deduplication, both are done again."""
    question = await _question(body, service)
    while True:
        if question is None:
            return await service.run(partial(_of_vector, body=body, k=k))
        (answer,) = await service.ask([Ask(question, k)])
        if isinstance(answer, ImpromptError):
            raise answer
        found = answer.answer if isinstance(answer, ExplainedAnswer) else answer
        results = await service.run(partial(_of_answer, found=found, body=body))
        if results is not None:
            return results


async def _question(body: KnnBody, service: Service) -> Question | None:
    """What is asked; None where it is a vector."""
    limits = service.config.limits
    if body.text:
        if len(body.text) > limits.max_text_characters:
            raise too_large(
                f"A text has {len(body.text):,} characters, the limit is {limits.max_text_characters:,}."
            )
        return Question(text=body.text)
    if body.image or body.image_url:
        images = (
            [decode_image(body.image, limits)]
            if body.image
            else await fetch_images([str(body.image_url)], service.config)
        )
        check_images(images, limits)
        return Question(images[0], ignore_metadata=True)
    if body.embedding_input is None:
        raise EmptyQuery(
            "Nothing was asked.", hint="Send `text`, `image`, `image_url` or `embedding_input`."
        )
    return None


def _of_answer(snapshot: Snapshot, found: Answer, body: KnnBody) -> list[dict[str, Any]] | None:
    if found.version != snapshot.version.manifest.version:
        return None
    return _results(snapshot, found.neighbours, body)


def _of_vector(snapshot: Snapshot, body: KnnBody, k: int) -> list[dict[str, Any]]:
    dim = snapshot.pair.spec.dim
    row = np.asarray([body.embedding_input], dtype=np.float64)
    if row.shape != (1, dim) or not np.isfinite(row).all() or not row.any():
        raise QueryError(f"embedding_input must be {dim} finite numbers, not all of them 0.")
    row /= np.abs(row).max()  # so that no square of an entry is beyond float32
    return _results(snapshot, snapshot.retriever.near(unit_rows(row), k)[0], body)


def _results(
    snapshot: Snapshot, neighbours: Sequence[Neighbour], body: KnnBody
) -> list[dict[str, Any]]:
    if body.deduplicate and neighbours:
        rows = snapshot.version.vectors(snapshot.version.space).rows(
            np.array([hit.row_id for hit in neighbours])
        )
        groups = similarity_groups(rows, threshold=DUPLICATE_COSINE)
        neighbours = [hit for place, hit in enumerate(neighbours) if groups[place] == place]
    version = snapshot.version.manifest.version
    results: list[dict[str, Any]] = []
    for place, hit in enumerate(neighbours):
        result = {"id": hit.row_id, "similarity": hit.score, "version": version}
        if place < body.num_images:
            result |= {"caption": hit.prompt, "source": hit.source, "prompt_key": hit.prompt_key}
        results.append(result)
    return results


def _metadata(snapshot: Snapshot, row_ids: Sequence[int]) -> list[dict[str, Any]]:
    found = snapshot.version.prompts.get_many(row_ids)
    return [
        {
            "id": prompt.row_id,
            "metadata": {
                "caption": prompt.text,
                "source": prompt.source,
                "source_key": prompt.source_key,
                "prompt_key": prompt.prompt_key,
            },
        }
        for prompt in found
    ]
