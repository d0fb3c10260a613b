"""imprompt's own API, under /v1."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Path, Request
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
from imprompt.retriever import Question
from imprompt.retriever.filters import Filters
from imprompt.server import schemas
from imprompt.server.answering import Answered, Ask
from imprompt.server.bodies import (
    Form,
    as_json,
    check_images,
    checked,
    decode_image,
    is_form,
    parse_json,
    read_form,
    read_json,
    read_model,
    request_body,
)
from imprompt.server.http_errors import problem, too_large, usage
from imprompt.server.server_settings import Limits
from imprompt.server.service import Service
from imprompt.server.urls import fetch_images

if TYPE_CHECKING:
    from imprompt.server.snapshots import Snapshot

_PROMPT_KEY = r"^[0-9a-f]{64}$"


def routes(service: Service) -> APIRouter:
    """All routes under /v1."""
    router = APIRouter(prefix="/v1", tags=["imprompt"], responses=schemas.PROBLEMS)
    limits = service.config.limits

    @router.post(
        "/query",
        summary="Find the prompt behind images",
        response_model=schemas.QueryResults,
        openapi_extra=_query_body(),
    )
    async def query(request: Request) -> Response:
        """One or several images, a text, or both. A prompt that a file carries is *exact*, or *carried*
        where something that is not in the file was done with it; any other answer is *estimated*.

        Several images are answered one by one: what cannot be read has an `error`, the rest is
        answered. Where nothing can be answered, the first problem is the response.
        """
        fields, images = await _query(request, service)
        return _results(await service.ask(_asks(fields, images, limits)), images)

    @router.post(
        "/search",
        summary="Search by a text",
        response_model=schemas.QueryResults,
        openapi_extra=request_body(schemas.SearchBody),
    )
    async def search(request: Request) -> Response:
        """The prompts nearest to a text, in the same form as `/v1/query`."""
        body = await read_model(schemas.SearchBody, request)
        asks = [
            Ask(
                Question(text=_text(body.text, limits)),
                _k(body.k, limits),
                filters=_filters(body.filters),
            )
        ]
        return _results(await service.ask(asks), [])

    @router.post(
        "/embed",
        summary="Vectors of texts and images",
        response_model=schemas.Vectors,
        openapi_extra=request_body(schemas.EmbedBody),
    )
    async def embed(request: Request) -> Response:
        """Unit rows. In the output space an image's vector is the estimate of the embedded `lite` encoder."""
        body = await read_model(schemas.EmbedBody, request)
        if len(body.texts) > limits.max_texts:
            raise too_large(f"{len(body.texts)} texts were sent, the limit is {limits.max_texts}.")
        images = [decode_image(image, limits) for image in body.images]
        check_images(images, limits)
        texts = [_text(text, limits) for text in body.texts]
        if not texts and not images:
            raise EmptyQuery(
                "Neither an image nor a text was given.", hint="Send `texts`, `images`, or both."
            )
        done = await service.embed(texts, images, output=body.space == "output")
        value = {
            "space": done.space,
            "dim": done.vectors.shape[1],
            "version": done.version,
            "vectors": done.vectors.tolist(),
        }
        return as_json(value)

    @router.post(
        "/extract",
        summary="The prompt that an image file carries",
        response_model=schemas.Extracted,
        openapi_extra=_image_body(),
    )
    async def extract(request: Request) -> Response:
        """Reads metadata and hidden texts; needs no model. A file without a prompt gives nulls."""
        images = await _images(request, limits)
        if len(images) != 1:
            raise usage(f"{len(images)} images were sent; this takes one.")
        found = await service.extract(images[0])
        return as_json(prompt_json(found))

    @router.get(
        "/prompts/{prompt_key}",
        summary="A prompt by its stable name",
        response_model=schemas.StoredPrompt,
    )
    async def prompts(
        prompt_key: str = Path(pattern=_PROMPT_KEY, description="sha256 of the folded text."),
    ) -> Response:
        """The prompt of that key in the version in service."""
        return await service.run(lambda snapshot: as_json(_stored(snapshot, prompt_key)))

    @router.get("/info", summary="What is served, and the limits", response_model=schemas.Info)
    async def info() -> Response:
        """Index, encoder, members and limits."""
        return await service.run(lambda snapshot: as_json(_info(snapshot, service)))

    return router


async def _query(request: Request, service: Service) -> tuple[schemas.QueryFields, list[bytes]]:
    limits = service.config.limits
    fields: schemas.QueryFields
    if is_form(request):
        form = await read_form(request, limits)
        fields, images = checked(schemas.QueryFields, _flat(form)), form.files
    else:
        body = checked(schemas.QueryBody, await read_json(request))
        fields, images = body, [decode_image(image, limits) for image in body.images]
        images += await fetch_images(body.image_urls, service.config)
    check_images(images, limits)
    return fields, images


def _flat(form: Form) -> dict[str, Any]:
    """The fields of a form, of which each may be given once; an empty one counts as not given."""
    if repeated := [name for name, values in form.fields.items() if len(values) > 1]:
        raise usage(f"{repeated[0][:40]} is given more than once.")
    flat: dict[str, Any] = {
        name: values[0] for name, values in form.fields.items() if values[0] != ""
    }
    return (
        flat | {"filters": parse_json(flat["filters"].encode("utf-8", "replace"))}
        if "filters" in flat
        else flat
    )


async def _images(request: Request, limits: Limits) -> list[bytes]:
    """The images of a request that takes nothing else."""
    if is_form(request):
        images = (await read_form(request, limits)).files
    else:
        images = [decode_image(checked(schemas.ImageBody, await read_json(request)).image, limits)]
    check_images(images, limits)
    return images


def _asks(fields: schemas.QueryFields, images: Sequence[bytes], limits: Limits) -> list[Ask]:
    text = None if fields.text is None else _text(fields.text, limits)
    if fields.members and (text or not images):
        raise QueryError(
            "Members look at images: they cannot be asked about a text.",
            hint="Leave out `text`, or `members`.",
        )
    k, filters = _k(fields.k, limits), _filters(fields.filters)
    if fields.members and filters:
        raise QueryError(
            "Members know of no filters.", hint="Ask for the filtered prompts without `members`."
        )
    if not images:
        return [Ask(Question(text=text), k, filters=filters)]
    ignore = fields.ignore_metadata
    return [
        Ask(Question(image, text, ignore_metadata=ignore), k, fields.members, filters)
        for image in images
    ]


def _filters(fields: schemas.FilterFields) -> Filters:
    where = (fields.where or "").strip() or None
    return Filters(where, tuple(fields.contains), tuple(fields.exclude), fields.no_artists)


def _text(text: str, limits: Limits) -> str:
    if len(text) > limits.max_text_characters:
        raise too_large(
            f"A text has {len(text):,} characters, the limit is {limits.max_text_characters:,}."
        )
    return text


def _k(k: int, limits: Limits) -> int:
    if k > limits.max_k:
        raise QueryError(f"k is {k}; it must be a whole number from 1 to {limits.max_k:,}.")
    return k


def _results(answers: Sequence[Answered | ImpromptError], images: Sequence[bytes]) -> Response:
    """All answers, or the first problem where there is no answer."""
    errors = [answer for answer in answers if isinstance(answer, ImpromptError)]
    if len(errors) == len(answers):
        raise errors[0]
    results = []
    for place, answer in enumerate(answers):
        value = (
            {"error": problem(answer)} if isinstance(answer, ImpromptError) else answer.to_json()
        )
        results.append({**value, "image": place if images else None})
    return as_json({"results": results, "failed": len(errors)})


def _stored(snapshot: Snapshot, prompt_key: str) -> dict[str, Any]:
    found = snapshot.version.prompts.by_key(prompt_key)
    if found is None:
        raise UnknownRow(f"The version has no prompt {prompt_key}.")
    value = dataclasses.asdict(found)
    value["prompt"] = value.pop("text")
    return {"version": snapshot.version.manifest.version, **value}


def _info(snapshot: Snapshot, service: Service) -> dict[str, Any]:
    manifest = snapshot.version.manifest
    encoder = manifest.encoders[0]
    missing = snapshot.ensemble if isinstance(snapshot.ensemble, MemberUnavailable) else None
    return {
        "imprompt_version": imprompt_version(),
        "version": manifest.version,
        "created": manifest.created,
        "prompts": manifest.rows,
        "corpus": ", ".join(
            part.name + (" (synthetic)" if part.synthetic else "") for part in manifest.corpus
        ),
        "encoder": encoder.name,
        "space": encoder.space,
        "dim": encoder.dim,
        "blend": service.config.blend_config,
        "members": {}
        if isinstance(snapshot.ensemble, MemberUnavailable)
        else dict(snapshot.ensemble.shares),
        "members_missing": None if missing is None else missing.message,
        "limits": dataclasses.asdict(service.config.limits),
        "url_hosts": list(service.config.url_hosts),
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
