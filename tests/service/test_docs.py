"""docs/reference/http.md lists every flag, variable, route, metric and error; links in the docs resolve."""

import json
import re
from pathlib import Path

import httpx
import pytest

from service import config
from service.app import create_app
from service.observability import metrics
from service.server import Server as ServiceParts
from tests.helpers.errors import errors

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reference" / "http.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("option", config.options(), ids=lambda option: option.name)
def test_lists_each_flag_with_its_variable_and_default(option):
    flag = config.flag(option)
    shown = "" if option.default in (None, ()) else f"`{str(option.default).lower()}`"
    cells = [f"`{flag}`" if flag else "", f"`{config.variable(option)}`", shown, option.metadata["help"]]
    assert f"| {' | '.join(cells)} |" in TEXT


@pytest.mark.parametrize("family", metrics.FAMILIES, ids=lambda family: family.name)
def test_lists_each_metric_with_its_labels(family):
    labels = ", ".join(f"`{label}`" for label in family.labels)
    assert f"| `{family.name}` | {labels} |".replace("|  |", "| |") in TEXT


@pytest.mark.parametrize("reason", metrics.REASONS)
def test_lists_each_rejection_reason(reason):
    assert f"`{reason}`" in TEXT


def test_lists_each_openapi_route(server):
    paths = server.client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        assert path in metrics.ROUTES
        for method in methods:
            name = f"{method.upper()} {path}"
            assert name in TEXT or path == "/v1/lookup", name


@pytest.mark.parametrize("route", metrics.ROUTES[:-1])
def test_lists_each_route_label_of_metrics(route):
    assert f"`{route}`" in TEXT or f" {route}`" in TEXT


def test_metrics_have_a_label_for_each_route(files):
    app = create_app(ServiceParts.open(config.Config(embeddings=(str(files["small"]),))))
    assert {route.path for route in app._app.routes} == set(metrics.ROUTES) - {"other"}


@pytest.mark.parametrize("error", errors(), ids=lambda error: error.__name__)
def test_lists_each_error_with_its_status(error):
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| {error.status} |")]
    assert f"`{error.code}`" in row
    assert str(error.status) in metrics.STATUSES


def test_the_example_of_an_error_is_a_real_one(server):
    (example,) = re.findall(r'^(\{"error": .+\})$', TEXT, re.M)
    assert server.lookup({"tokens": ["the", "cat", "sat", 4]}).json() == json.loads(example)


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_paths_in_reliability_exist():
    page = ROOT / "docs" / "explanation" / "reliability.md"
    paths = re.findall(r"`(tests/[\w/.*]+)`", page.read_text(encoding="utf-8"))
    assert paths and all(list(ROOT.glob(path)) for path in paths)


def test_help_lists_each_flag_and_variable():
    text = config.parser("1").format_help()
    for option in config.options():
        flag = config.flag(option)
        assert flag is None or (flag in text and config.variable(option) in text)


def test_docs_page_and_its_files_are_served(server):
    page = server.client.get("/docs")
    assert isinstance(page, httpx.Response) and page.headers["content-type"] == "text/html; charset=utf-8"
    files = re.findall(r'(?:src|href)="(docs/[^"]+|openapi.json)"', page.text)
    assert {server.client.get(f"/{path}").status_code for path in files} == {200}
    assert server.client.get("/docs/index.html").status_code == 404
