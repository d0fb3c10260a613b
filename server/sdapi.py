"""What clients of AUTOMATIC1111 and SD.Next call, so that they work without a change."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from imprompt.core.errors import ImpromptError
from imprompt.ensemble.explanation import ExplainedAnswer
from imprompt.images.prompts.embedded_prompts import EmbeddedPrompt
from imprompt.retriever import Question
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
from imprompt.server.service import Service

_MODELS = ["imprompt"]
_NAMES = {"cfg_scale": "CFG scale", "model_hash": "Model hash", "vae": "VAE"}
"""How AUTOMATIC1111 writes the settings that a capital letter alone does not give."""


class InterrogateBody(BaseModel):
    """`model` may be any: there is one way to answer here."""

    image: str = Field(description="An image file in base64, with or without `data:…,`.")
    model: str = Field("clip", examples=["clip"])


class PngInfoBody(BaseModel):
    """An image file."""

    image: str = Field(description="An image file in base64, with or without `data:…,`.")


class Caption(BaseModel):
    """The prompt."""

    caption: str


class PngInfo(BaseModel):
    """`info` is the text as AUTOMATIC1111 writes it, `items` all texts of the file, `parameters` the parsed text.

    Where the prompt is not exact, "Carried" among the parameters says why.
    """

    info: str
    items: dict[str, str]
    parameters: dict[str, str]


def routes(service: Service) -> APIRouter:
    """All routes under /sdapi/v1."""
    router = APIRouter(prefix="/sdapi/v1", tags=["AUTOMATIC1111"], responses=schemas.PROBLEMS)
    limits = service.config.limits

    async def image_of(request: Request, model: type[InterrogateBody | PngInfoBody]) -> bytes:
        image = decode_image(checked(model, await read_json(request)).image, limits)
        check_images([image], limits)
        return image

    @router.post(
        "/interrogate",
        summary="Interrogate",
        response_model=Caption,
        openapi_extra=request_body(InterrogateBody),
    )
    async def interrogate(request: Request) -> Response:
        """The prompt behind an image: what the file carries, else an estimate."""
        image = await image_of(request, InterrogateBody)
        (answer,) = await service.ask([Ask(Question(image), k=1, members=service.has_members)])
        if isinstance(answer, ImpromptError):
            raise answer
        return as_json(
            {"caption": (answer.answer if isinstance(answer, ExplainedAnswer) else answer).prompt}
        )

    @router.get(
        "/interrogate", summary="The models that `interrogate` knows", response_model=list[str]
    )
    async def models() -> Response:
        """As SD.Next answers."""
        return as_json(_MODELS)

    @router.post(
        "/png-info",
        summary="The texts of an image file",
        response_model=PngInfo,
        openapi_extra=request_body(PngInfoBody),
    )
    async def png_info(request: Request) -> Response:
        """What the file carries, from whichever tool, in AUTOMATIC1111's form."""
        image = await image_of(request, PngInfoBody)
        found, texts = await service.png_info(image)
        return as_json(
            {
                "info": _info(texts, found),
                "items": texts,
                "parameters": {} if found is None else _parameters(found),
            }
        )

    @router.get("/scripts", summary="Installed scripts: none", response_model=dict[str, list[str]])
    async def scripts() -> Response:
        """The `webuiapi` package asks for these at its start."""
        return as_json({"txt2img": [], "img2img": []})

    return router


def _info(texts: dict[str, str], found: EmbeddedPrompt | None) -> str:
    if found is None or texts.get("parameters", "").startswith(found.prompt):
        return texts.get("parameters", "")
    settings = ", ".join(f"{name}: {value}" for name, value in _settings(found).items())
    negative = f"Negative prompt: {found.negative}" if found.negative else ""
    return "\n".join(filter(None, [found.prompt, negative, settings]))


def _parameters(found: EmbeddedPrompt) -> dict[str, str]:
    doubt = {"Carried": found.doubt} if found.doubt else {}
    return {"Prompt": found.prompt, "Negative prompt": found.negative, **_settings(found), **doubt}


def _settings(found: EmbeddedPrompt) -> dict[str, str]:
    return {
        _NAMES.get(name, name.replace("_", " ").capitalize()): value
        for name, value in found.settings.items()
    }
