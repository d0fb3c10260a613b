"""The endpoints of AUTOMATIC1111 and SD.Next that their clients call, under /sdapi/v1."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
from imprompt.images.prompts.infotext import infotext, webui_settings
from imprompt.retriever import Question
from imprompt.server import schemas
from imprompt.server.answering import AnswerRequest
from imprompt.server.bodies import (
    check_images,
    decode_image,
    json_response,
    read_json,
    request_body,
    validated,
)
from imprompt.server.server_settings import Limits
from imprompt.server.service import Service

_MODELS = ["imprompt"]


class PngInfoBody(BaseModel):
    """A request to read the metadata of an image file."""

    image: str = Field(description="A base64 image file, with or without a `data:` prefix.")


class InterrogateBody(PngInfoBody):
    """A request to find the prompt of an image."""

    model: str = Field("clip", description="Ignored.", examples=["clip"])


class InterrogateResponse(BaseModel):
    """The prompt of an image."""

    caption: str = Field(description="The prompt in the file, else an estimate.")


class PngInfoResponse(BaseModel):
    """The prompt and the metadata of an image file."""

    info: str = Field(description="Prompt and settings as AUTOMATIC1111 writes them.")
    items: dict[str, str] = Field(description="All metadata texts of the file by keyword.")
    parameters: dict[str, str] = Field(
        description="`info`, parsed. `Carried` says why a prompt is not exact."
    )


def routes(service: Service) -> APIRouter:
    """Return all routes under /sdapi/v1."""
    router = APIRouter(prefix="/sdapi/v1", tags=["AUTOMATIC1111"], responses=schemas.PROBLEMS)
    limits = service.settings.limits

    @router.post(
        "/interrogate",
        summary="Find the prompt of an image",
        response_model=InterrogateResponse,
        openapi_extra=request_body(InterrogateBody),
    )
    async def interrogate(request: Request) -> Response:
        """Return the prompt in the file's metadata or, if there is none, an estimate."""
        image = await _read_image(request, InterrogateBody, limits)
        answer = await service.answer_one(AnswerRequest(Question(image), k=1))
        return json_response({"caption": answer.prompt})

    @router.get(
        "/interrogate", summary="List the models of `interrogate`", response_model=list[str]
    )
    async def models() -> Response:
        """Return the model names, as SD.Next does."""
        return json_response(_MODELS)

    @router.post(
        "/png-info",
        summary="Read the metadata of an image file",
        response_model=PngInfoResponse,
        openapi_extra=request_body(PngInfoBody),
    )
    async def png_info(request: Request) -> Response:
        """Return prompt and settings in AUTOMATIC1111's format, whichever tool wrote them."""
        prompt, texts = await service.png_info(await _read_image(request, PngInfoBody, limits))
        parameters = {} if prompt is None else _parameters(prompt)
        return json_response(
            {"info": _info(texts, prompt), "items": texts, "parameters": parameters}
        )

    @router.get(
        "/scripts", summary="List the installed scripts", response_model=dict[str, list[str]]
    )
    async def scripts() -> Response:
        """Return empty lists; the `webuiapi` package asks for them when it starts."""
        return json_response({"txt2img": [], "img2img": []})

    return router


async def _read_image(request: Request, model: type[PngInfoBody], limits: Limits) -> bytes:
    image = decode_image(validated(model, await read_json(request)).image, limits)
    check_images([image], limits)
    return image


def _info(texts: dict[str, str], prompt: EmbeddedPrompt | None) -> str:
    """Return the file's own AUTOMATIC1111 text if there is one, else make it from the prompt."""
    if prompt is None or texts.get("parameters", "").startswith(prompt.prompt):
        return texts.get("parameters", "")
    return infotext(prompt)


def _parameters(prompt: EmbeddedPrompt) -> dict[str, str]:
    parameters = {"Prompt": prompt.prompt, "Negative prompt": prompt.negative}
    parameters |= webui_settings(prompt.settings)
    if prompt.doubt:
        parameters["Carried"] = prompt.doubt
    return parameters
