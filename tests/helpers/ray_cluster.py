"""Deploy replicas on a Ray cluster, and read their reports."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.schema import ServeDeploySchema

from service.config import Config
from service.observability.stats import Stats
from service.ray.serve import Replica
from tests.helpers.servers import eventually

NAME = "smallfry"
CONFIG = Path(__file__).parents[2] / "docker" / "ray" / "serve.yaml"


def deploy(
    embeddings: Sequence[str],
    *,
    name: str = NAME,
    prefix: str = "/",
    models_per_replica: int = 0,
    **deployment: Any,
) -> None:
    """Run the server in two new replicas; return once they are ready."""
    settings = {"num_replicas": 2, "autoscaling_config": None} | deployment
    replicas = Replica.options(user_config={"embeddings": list(embeddings)}, **settings)
    application = replicas.bind(Config(dashboard=False), None, models_per_replica)
    serve.run(application, name=name, route_prefix=prefix)


def deploy_config(user_config: dict[str, Any], **arguments: object) -> None:
    """Deploy docker/ray/serve.yaml in two replicas; return once they are ready."""
    config = yaml.safe_load(CONFIG.read_text())
    del config["http_options"], config["proxy_location"]
    (application,) = config["applications"]
    (deployment,) = application["deployments"]
    application["args"] |= arguments
    deployment["user_config"] = user_config
    deployment |= {"autoscaling_config": None, "num_replicas": 2}
    _get_global_client().deploy_apps(ServeDeploySchema.model_validate(config))
    eventually(is_ready, 60)


def is_ready() -> bool:
    """Return whether both replicas run and receive requests."""
    application = serve.status().applications[NAME]
    assert application.status != "DEPLOY_FAILED", application.message
    with suppress(DeploymentUnavailableError):
        return application.status == "RUNNING" and len(reports()) == 2
    return False


def reports(name: str = NAME) -> list[Stats]:
    """Return the stats of each replica."""
    handle = serve.get_deployment_handle("Replica", name)
    return [report.stats for report in handle.broadcast("report").results(timeout_s=30)]
