"""docs/service.md says what there is: every flag, variable, route, metric and error."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from service import config
from service.assembly import assemble
from service.errors import ServiceError
from service.observability import metrics
from tests.helpers.errors import errors
from tests.helpers.servers import Server

TEXT = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", config.options(), ids=lambda option: option.name)
def test_names_each_flag_its_variable_and_its_default(option: config.Option) -> None:
    flag = config.flag(option)
    shown = "" if option.default in (None, ()) else f"`{str(option.default).lower()}`"
    cells = [f"`{flag}`" if flag else "", f"`{config.variable(option)}`", shown, option.metadata["help"]]
    assert f"| {' | '.join(cells)} |" in TEXT


@pytest.mark.parametrize("family", metrics.FAMILIES, ids=lambda family: family.name)
def test_names_each_metric_with_its_labels(family: metrics.Family) -> None:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    assert f"| `{family.name}` | {labels} |".replace("|  |", "| |") in TEXT


@pytest.mark.parametrize("reason", metrics.REASONS)
def test_names_each_reason_of_a_refusal(reason: str) -> None:
    assert f"`{reason}`" in TEXT


def test_names_each_route(server: Server) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        assert path in metrics.ROUTES
        for method in methods:
            name = f"{method.upper()} {path}"
            assert name in TEXT or path == "/v1/lookup", name


@pytest.mark.parametrize("route", metrics.ROUTES[:-1])
def test_names_each_route_that_metrics_tell_apart(route: str) -> None:
    assert f"`{route}`" in TEXT or f" {route}`" in TEXT


def test_metrics_tell_each_route_apart(files: dict[str, Path]) -> None:
    gate = assemble(config.Config(embeddings=(str(files["small"]),))).app
    paths = {route.path for route in gate._app.routes}
    assert paths - {"/docs/{file}"} == set(metrics.ROUTES) - {"other"}


@pytest.mark.parametrize("error", errors(), ids=lambda error: error.__name__)
def test_names_each_error(error: type[ServiceError]) -> None:
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| {error.status} |")]
    assert f"`{error.code}`" in row
    assert str(error.status) in metrics.STATUSES


def test_each_address_in_the_contents_exists() -> None:
    headings = {line.lstrip("# ").lower() for line in TEXT.splitlines() if line.startswith("## ")}
    anchors = {heading.replace("'", "").replace(" ", "-") for heading in headings}
    named = {part.partition(")")[0] for part in TEXT.split("](#")[1:]}
    assert named <= anchors


def test_the_help_names_each_flag_and_variable() -> None:
    text = config.parser("1").format_help()
    for option in config.options():
        flag = config.flag(option)
        assert flag is None or (flag in text and config.variable(option) in text)


def test_the_documentation_page_is_served_and_all_that_it_asks_for(server: Server) -> None:
    page = server.client.get("/docs")
    assert isinstance(page, httpx.Response) and page.headers["content-type"] == "text/html; charset=utf-8"
    asked = re.findall(r'(?:src|href)="(docs/[^"]+|openapi.json)"', page.text)
    assert {server.client.get(f"/{path}").status_code for path in asked} == {200}
    assert server.client.get("/docs/index.html").status_code == 404
