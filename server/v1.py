"""imprompt's own API, under /v1."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from imprompt.core.errors import (
    EmptyQuery,
    ImpromptError,
    MemberUnavailable,
    QueryError,
    UnknownRow,
)
from imprompt.images.prompts.embedded_prompts import prompt_json
from imprompt.indexer.provenance import imprompt_version
from imprompt.retriever import Answer, Question
from imprompt.retriever.artists import artists_listed
from imprompt.retriever.filters import Filters
from imprompt.server import schemas
from imprompt.server.answering import AnswerRequest
from imprompt.server.bodies import (
    Form,
    check_images,
    check_text,
    decode_image,
    is_form,
    json_response,
    parse_json,
    read_form,
    read_json,
    read_model,
    request_body,
    validated,
)
from imprompt.server.http_errors import invalid_request, problem, too_large
from imprompt.server.server_settings import Limits
from imprompt.server.service import Service
from imprompt.server.thumbnails import PICTURE_PX, THUMBNAIL_PX
from imprompt.server.urls import fetch_images

if TYPE_CHECKING:
    from imprompt.server.snapshots import Snapshot

_PROMPT_KEY = r"^[0-9a-f]{64}$"


def routes(service: Service) -> APIRouter:
    """Return all routes under /v1."""
    router = APIRouter(prefix="/v1", tags=["imprompt"], responses=schemas.PROBLEMS)
    _add_query_routes(router, service)
    _add_embed_and_extract(router, service)
    _add_lookup_routes(router, service)
    return router


def _add_query_routes(router: APIRouter, service: Service) -> None:
    limits = service.settings.limits

    @router.post(
        "/query",
        summary="Find the prompts of images",
        response_model=schemas.QueryResponse,
        openapi_extra=_query_body(),
    )
    async def query(request: Request) -> Response:
        """Find the prompt of one or more images, or search with a text.

        A prompt in the file's metadata is *exact*, or *carried* if something outside of the file
        changed it; any other prompt is *estimated*. A text, alone or mixed with images, is
        *searched* for: it has nearest prompts and no prompt of its own.

        Each image is answered separately: one that cannot be read gets an `error`, and the others
        are answered. If all fail, the response is the first error.
        """
        fields, images = await _read_query(request, service)
        answers = await service.answer(_answer_requests(fields, images, limits))
        return _query_response(answers, images, explain=fields.explain)

    @router.post(
        "/search",
        summary="Search by text",
        response_model=schemas.QueryResponse,
        openapi_extra=request_body(schemas.SearchBody),
    )
    async def search(request: Request) -> Response:
        """Return the prompts nearest to a text, in the format of `/v1/query`."""
        body = await read_model(schemas.SearchBody, request)
        question = Question(text=check_text(body.text, limits))
        k, filters = _checked_k(body.k, limits), _filters(body.filters)
        return _query_response(
            await service.answer([AnswerRequest(question, k, filters, body.shared)]), images=[]
        )


def _add_embed_and_extract(router: APIRouter, service: Service) -> None:
    limits = service.settings.limits

    @router.post(
        "/embed",
        summary="Embed texts and images",
        response_model=schemas.EmbedResponse,
        openapi_extra=request_body(schemas.EmbedBody),
    )
    async def embed(request: Request) -> Response:
        """Return a vector of length 1 for each text and image.

        In the output space, the vector of an image is the estimate of the `lite` encoder.
        """
        body = await read_model(schemas.EmbedBody, request)
        if len(body.texts) > limits.max_texts:
            raise too_large(f"{len(body.texts)} texts were sent; the limit is {limits.max_texts}.")
        images = [decode_image(image, limits) for image in body.images]
        check_images(images, limits)
        texts = [check_text(text, limits) for text in body.texts]
        if not texts and not images:
            raise EmptyQuery(
                "Neither a text nor an image was given.", hint="Send `texts`, `images`, or both."
            )
        embeddings = await service.embed(texts, images, output=body.space == "output")
        return json_response(
            {
                "space": embeddings.space,
                "dim": embeddings.vectors.shape[1],
                "version": embeddings.version,
                "vectors": embeddings.vectors.tolist(),
            }
        )

    @router.post(
        "/extract",
        summary="Extract the prompt in an image file",
        response_model=schemas.ExtractResponse,
        openapi_extra=_image_body(),
    )
    async def extract(request: Request) -> Response:
        """Return the prompt in the file's metadata or hidden in its pixels. Uses no model."""
        images = await _read_images(request, limits)
        if len(images) != 1:
            raise invalid_request(f"{len(images)} images were sent; exactly one is needed.")
        return json_response(prompt_json(await service.extract(images[0])))


def _add_lookup_routes(router: APIRouter, service: Service) -> None:
    @router.get(
        "/prompts/{prompt_key}",
        summary="Get a prompt by its key",
        response_model=schemas.PromptResponse,
    )
    async def prompts(
        prompt_key: str = Path(
            pattern=_PROMPT_KEY, description="The SHA-256 of the normalized prompt."
        ),
    ) -> Response:
        """Return the prompt with this key from the index version in service."""
        return await service.run(lambda snapshot: json_response(_prompt(snapshot, prompt_key)))

    @router.get(
        "/info", summary="Describe the index and the limits", response_model=schemas.InfoResponse
    )
    async def info() -> Response:
        """Return the index, the encoder, the members of the ensemble, and the limits."""
        return await service.run(lambda snapshot: json_response(_info(snapshot, service)))

    @router.get(
        "/pictures/{version}/{row_id}",
        summary="Get the picture that a prompt was read from",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}, "description": "A JPEG."}},
    )
    async def picture(
        version: str = Path(max_length=200, description="Version of the index."),
        row_id: int = Path(ge=0, lt=1 << 48, description="Row of that version."),
        large: bool = Query(
            False, description=f"Up to {PICTURE_PX} pixels a side instead of {THUMBNAIL_PX}."
        ),
    ) -> Response:
        """Return a small copy of an image of an `images:FOLDER` corpus, without its metadata.

        Only of folders that the server was started with (`serve --thumbnails FOLDER`).
        """
        content = await service.picture(version, row_id, PICTURE_PX if large else THUMBNAIL_PX)
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(content, media_type="image/jpeg", headers=headers)


async def _read_query(
    request: Request, service: Service
) -> tuple[schemas.QueryFields, list[bytes]]:
    limits = service.settings.limits
    fields: schemas.QueryFields
    if is_form(request):
        form = await read_form(request, limits)
        fields, images = validated(schemas.QueryFields, _form_fields(form)), form.files
    else:
        body = validated(schemas.QueryBody, await read_json(request))
        fields, images = body, [decode_image(image, limits) for image in body.images]
        images += await fetch_images(body.image_urls, service.settings)
    check_images(images, limits)
    return fields, images


def _form_fields(form: Form) -> dict[str, Any]:
    """Return the form's fields without the empty ones; each may be given once."""
    if repeated := [name for name, values in form.fields.items() if len(values) > 1]:
        raise invalid_request(f"{repeated[0][:40]} is given more than once.")
    fields: dict[str, Any] = {name: value for name, (value,) in form.fields.items() if value}
    if "filters" in fields:
        fields["filters"] = parse_json(fields["filters"].encode("utf-8", "replace"))
    return fields


async def _read_images(request: Request, limits: Limits) -> list[bytes]:
    """Return the images of a request that has no other fields."""
    if is_form(request):
        images = (await read_form(request, limits)).files
    else:
        body = validated(schemas.ImageBody, await read_json(request))
        images = [decode_image(body.image, limits)]
    check_images(images, limits)
    return images


def _answer_requests(
    fields: schemas.QueryFields, images: Sequence[bytes], limits: Limits
) -> list[AnswerRequest]:
    text = None if fields.text is None else check_text(fields.text, limits)
    shared = fields.shared and bool(text)
    if fields.explain and (text or not images):
        raise QueryError(
            "`explain` needs images, without a text.", hint="Leave out `text` or `explain`."
        )
    k, filters = _checked_k(fields.k, limits), _filters(fields.filters)
    if not images:
        return [AnswerRequest(Question(text=text), k, filters, shared)]
    questions = [Question(image, text, ignore_metadata=fields.ignore_metadata) for image in images]
    return [AnswerRequest(question, k, filters, shared) for question in questions]


def _filters(fields: schemas.FilterFields) -> Filters:
    where = (fields.where or "").strip() or None
    return Filters(where, tuple(fields.contains), tuple(fields.exclude), fields.no_artists)


def _checked_k(k: int, limits: Limits) -> int:
    if k > limits.max_k:
        raise QueryError(f"k is {k}; it must be a whole number from 1 to {limits.max_k:,}.")
    return k


def _query_response(
    answers: Sequence[Answer | ImpromptError], images: Sequence[bytes], *, explain: bool = False
) -> Response:
    """Return all answers and errors; raise the first error if there is no answer."""
    errors = [answer for answer in answers if isinstance(answer, ImpromptError)]
    if len(errors) == len(answers):
        raise errors[0]
    results = []
    for position, answer in enumerate(answers):
        if isinstance(answer, ImpromptError):
            result: dict[str, Any] = {"error": problem(answer)}
        else:
            result = answer.to_json(explain=explain)
        results.append({**result, "image": position if images else None})
    return json_response({"results": results, "failed": len(errors)})


def _prompt(snapshot: Snapshot, prompt_key: str) -> dict[str, Any]:
    prompt = snapshot.version.prompts.by_key(prompt_key)
    if prompt is None:
        raise UnknownRow(f"This version of the index has no prompt {prompt_key}.")
    value = dataclasses.asdict(prompt)
    value["prompt"] = value.pop("text")
    return {"version": snapshot.version.manifest.version, **value}


def _info(snapshot: Snapshot, service: Service) -> dict[str, Any]:
    manifest, ensemble = snapshot.version.manifest, snapshot.ensemble
    encoder = manifest.encoders[0]
    return {
        "imprompt_version": imprompt_version(),
        "version": manifest.version,
        "created": manifest.created,
        "prompts": manifest.rows,
        "corpus": snapshot.retriever.corpus,
        "sources": dict(snapshot.sources),
        "pictures": [name for name in snapshot.sources if name in service.picture_folders],
        "artists": artists_listed(),
        "encoder": encoder.name,
        "space": encoder.space,
        "dim": encoder.dim,
        "blend": service.settings.blend_config,
        "members": {} if isinstance(ensemble, MemberUnavailable) else dict(ensemble.shares),
        "members_missing": ensemble.message if isinstance(ensemble, MemberUnavailable) else None,
        "limits": dataclasses.asdict(service.settings.limits),
        "url_hosts": list(service.settings.url_hosts),
    }


def _query_body() -> dict[str, Any]:
    form_schema = schemas.QueryFields.model_json_schema()
    files = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "Image files.",
    }
    form_schema["properties"] = {"image": files, **form_schema["properties"]}
    return request_body(schemas.QueryBody, form=form_schema)


def _image_body() -> dict[str, Any]:
    image = {"type": "string", "format": "binary", "description": "An image file."}
    return request_body(
        schemas.ImageBody,
        form={"type": "object", "properties": {"image": image}, "required": ["image"]},
    )
