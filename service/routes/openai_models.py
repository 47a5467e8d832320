"""``GET /v1/models``: the loaded models, compatible with OpenAI."""

from __future__ import annotations

from service.models.model import Model
from service.routes.openapi import Api, error_responses
from service.routes.schema import OpenAIModel, OpenAIModelList
from service.server import Server


def add_routes(api: Api, server: Server) -> None:
    """Add the routes under ``/v1/models``."""
    models = server.models

    @api.get("/v1/models", tags=["models"], responses=error_responses())
    async def list_openai_models() -> OpenAIModelList:
        """List the loaded models, compatible with OpenAI."""
        models.refresh()
        return OpenAIModelList(data=[_describe(model) for model in models.catalog()])

    @api.get("/v1/models/{name}", tags=["models"], responses=error_responses(404, 422))
    async def get_openai_model(name: str) -> OpenAIModel:
        """Describe a model, compatible with OpenAI."""
        return _describe(models.find(name))


def _describe(model: Model) -> OpenAIModel:
    return OpenAIModel(id=model.name, created=model.modified_at)
