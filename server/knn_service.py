"""The endpoints of clip-retrieval's back end, so that its `ClipClient` works unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from imprompt.core.errors import EmptyQuery, QueryError
from imprompt.core.splits import similarity_groups
from imprompt.core.values import unit_rows
from imprompt.retriever import Answer, Neighbour, Question
from imprompt.server import schemas
from imprompt.server.answering import AnswerRequest
from imprompt.server.bodies import (
    check_images,
    check_text,
    decode_image,
    json_response,
    read_json,
    request_body,
    validated,
)
from imprompt.server.http_errors import too_large
from imprompt.server.service import Service
from imprompt.server.urls import fetch_images

if TYPE_CHECKING:
    from imprompt.server.snapshots import Snapshot

INDEX_NAME = "imprompt"
DUPLICATE_COSINE = 0.94
"""Results with at least this cosine count as duplicates; clip-retrieval's own threshold."""


class KnnBody(BaseModel):
    """A search as `ClipClient` sends it: by text, image, image URL or vector.

    Other fields of clip-retrieval (`indice_name`, `modality`, safety and aesthetic settings) do not
    apply to an index of prompts and are ignored.
    """

    text: str | None = Field(None, description="Search by this text.")
    image: str | None = Field(None, description="Search by this base64 image file.")
    image_url: str | None = Field(
        None, description="Search by the image at this URL, if the server has --allow-urls."
    )
    embedding_input: list[float] | None = Field(
        None, description="Search by this vector of the index's space."
    )
    num_images: int = Field(40, ge=1, description="Number of results with a caption.")
    num_result_ids: int | None = Field(
        None, ge=1, description="Number of results, if larger than `num_images`."
    )
    deduplicate: bool = Field(False, description="Drop near duplicates from the results.")


class KnnResult(BaseModel):
    """A prompt of the index. Results beyond `num_images` have no caption, source and key."""

    id: int = Field(description="Row of the prompt; valid for this index version only.")
    similarity: float = Field(description="Cosine similarity to the query.")
    version: str = Field(description="Index version that was searched.")
    caption: str | None = Field(None, description="The prompt.")
    source: str | None = Field(None, description="Corpus that the prompt comes from.")
    prompt_key: str | None = Field(
        None, description="Stable key of the prompt, for /v1/prompts/{prompt_key}."
    )


class MetadataBody(BaseModel):
    """A request for prompts by their rows."""

    ids: list[int] = Field(description="Rows of the index version in service.")


class MetadataResult(BaseModel):
    """One row of the index."""

    id: int = Field(description="The row.")
    metadata: dict[str, Any] = Field(
        description="`caption` (the prompt), `source`, `source_key` and `prompt_key`."
    )


def routes(service: Service) -> APIRouter:
    """Return the routes /knn-service, /indices-list and /metadata."""
    router = APIRouter(tags=["clip-retrieval"], responses=schemas.PROBLEMS)
    limits = service.settings.limits

    @router.post(
        "/knn-service",
        summary="Find the nearest prompts",
        response_model=list[KnnResult],
        openapi_extra=request_body(KnnBody),
    )
    async def knn(request: Request) -> Response:
        """Search by a text, an image or a vector. The body is JSON, whatever its content type."""
        body = validated(KnnBody, await read_json(request))
        k = max(body.num_images, body.num_result_ids or 0)
        if k > limits.max_k:
            raise QueryError(f"{k} results were requested; the limit is {limits.max_k:,}.")
        return json_response(await _search(body, k, service))

    @router.get("/indices-list", summary="List the indexes", response_model=list[str])
    async def indices() -> Response:
        """Return the name of the only index."""
        return json_response([INDEX_NAME])

    @router.post(
        "/metadata",
        summary="Get prompts by row",
        response_model=list[MetadataResult],
        openapi_extra=request_body(MetadataBody),
    )
    async def metadata(request: Request) -> Response:
        """Return the prompts of the given rows, in the order of the request."""
        body = validated(MetadataBody, await read_json(request))
        if len(body.ids) > limits.max_k:
            raise too_large(f"{len(body.ids)} rows were requested; the limit is {limits.max_k:,}.")
        return json_response(await service.run(partial(_metadata, row_ids=body.ids)))

    return router


async def _search(body: KnnBody, k: int, service: Service) -> list[dict[str, Any]]:
    question = await _question(body, service)
    if question is None:
        return await service.run(partial(_search_vector, body=body, k=k))
    while True:
        answer = await service.answer_one(AnswerRequest(question, k))
        results = await service.run(partial(_answer_results, answer=answer, body=body))
        # A version change between search and deduplication makes the row ids invalid: try again.
        if results is not None:
            return results


async def _question(body: KnnBody, service: Service) -> Question | None:
    """Return the text or image to search for; None for a vector."""
    limits = service.settings.limits
    if body.text:
        return Question(text=check_text(body.text, limits))
    if body.image or body.image_url:
        if body.image:
            images = [decode_image(body.image, limits)]
        else:
            images = await fetch_images([str(body.image_url)], service.settings)
        check_images(images, limits)
        return Question(images[0], ignore_metadata=True)
    if body.embedding_input is None:
        raise EmptyQuery(
            "The query is empty.", hint="Send `text`, `image`, `image_url` or `embedding_input`."
        )
    return None


def _answer_results(
    snapshot: Snapshot, answer: Answer, body: KnnBody
) -> list[dict[str, Any]] | None:
    """Return the results; None if the answer is from another version than the snapshot."""
    if answer.version != snapshot.version.manifest.version:
        return None
    return _results(snapshot, answer.neighbours, body)


def _search_vector(snapshot: Snapshot, body: KnnBody, k: int) -> list[dict[str, Any]]:
    dim = snapshot.encoder.spec.dim
    row = np.asarray([body.embedding_input], dtype=np.float64)
    if row.shape != (1, dim) or not np.isfinite(row).all() or not row.any():
        raise QueryError(f"embedding_input must have {dim} finite numbers that are not all 0.")
    row /= np.abs(row).max()  # so that no square overflows float32
    return _results(snapshot, snapshot.retriever.near(unit_rows(row), k)[0], body)


def _results(
    snapshot: Snapshot, neighbours: Sequence[Neighbour], body: KnnBody
) -> list[dict[str, Any]]:
    if body.deduplicate and neighbours:
        row_ids = np.array([hit.row_id for hit in neighbours])
        rows = snapshot.version.vectors(snapshot.version.space).rows(row_ids)
        # A group's number is the position of its first row, here the nearest hit.
        groups = similarity_groups(rows, threshold=DUPLICATE_COSINE)
        neighbours = [hit for i, hit in enumerate(neighbours) if groups[i] == i]
    version = snapshot.version.manifest.version
    results: list[dict[str, Any]] = []
    for i, hit in enumerate(neighbours):
        result = {"id": hit.row_id, "similarity": hit.score, "version": version}
        if i < body.num_images:
            result |= {"caption": hit.prompt, "source": hit.source, "prompt_key": hit.prompt_key}
        results.append(result)
    return results


def _metadata(snapshot: Snapshot, row_ids: Sequence[int]) -> list[dict[str, Any]]:
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
        for prompt in snapshot.version.prompts.get_many(row_ids)
    ]
