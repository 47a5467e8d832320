"""``GET /v1/models``: the loaded models, compatible with OpenAI."""

from __future__ import annotations

from starlette.responses import Response

from service.models.model import Model
from service.routes.openapi import Api, error_responses
from service.routes.renderer import Renderer
from service.routes.schema import OpenAIModel, OpenAIModelList
from service.server import Server


def add_routes(api: Api, server: Server) -> None:
    """Add the routes under ``/v1/models``."""
    models, renderer = server.models, Renderer()

    async def render_list() -> bytes:
        models.refresh()
        listed = OpenAIModelList(data=[_describe(model) for model in models.catalog()])
        return listed.model_dump_json().encode()

    @api.get("/v1/models", tags=["models"], response_model=OpenAIModelList, responses=error_responses())
    async def list_openai_models() -> Response:
        """List the loaded models, compatible with OpenAI."""
        return await renderer.respond("models", render_list)

    @api.get("/v1/models/{name}", tags=["models"], responses=error_responses(404, 422))
    async def get_openai_model(name: str) -> OpenAIModel:
        """Describe a model, compatible with OpenAI."""
        return _describe(models.find(name))


def _describe(model: Model) -> OpenAIModel:
    return OpenAIModel(id=model.name, created=model.modified_at)
