"""With API keys, nothing about the data is visible without one."""

import json
from itertools import product

import pytest

import smallfry
from tests.helpers.servers import write_sfq

#: Routes that need no key.
PUBLIC = (
    *("/", "/openapi.json", "/livez", "/readyz", "/health"),
    *("/docs", "/docs/reference.js", "/dashboard/index.html"),
)
ROUTES = (
    *PUBLIC,
    *("/lookup", "/v1/lookup", "/v1/embeddings", "/v1/models", "/v1/models/velvet", "/v1/models/none"),
    *("/neighbors", "/models", "/models/velvet", "/models/velvet/file", "/models/velvet/reload"),
    *("/models/none", "/models/none/file", "/models/none/reload", "/stats", "/metrics"),
    *("/dashboard/models", "/dashboard/traffic", "/dashboard/none"),
    *("/docs/none", "/none", "/models/", "/livez/", "/%2e/models"),
    *("/readyz/../models", "/LOOKUP", "/openapi.json/", "/docs/../models"),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")
BODIES = (
    b"x",
    b'{"tokens": ["the"], "model": "none"}',
    b'{"ids": [99]}',
    b'{"token": "the"}',
    b'{"input": "the"}',
    b'{"path": "velvet.sfq"}',
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secret-folder")
    write_sfq(folder / "velvet.sfq")
    (folder / "burlap.sfq").touch()
    return folder


@pytest.fixture(scope="module")
def guarded(folder, start):
    keys = {"SMALLFRY_API_KEYS": "the-api-key", "SMALLFRY_ADMIN_KEY": "admin-key"}
    return start(folder, "--cors-origin", "*", **keys)


@pytest.fixture(scope="module")
def secrets(folder):
    """Return what only clients with a key may see."""
    store = smallfry.open(folder / "velvet.sfq")
    values = [str(value)[:8] for value in store.rows(range(12)).ravel() if value]
    tokens = ["Ünïcode", "<pad>", "🎉", json.dumps("🎉").strip('"')]
    return ["velvet", "burlap", folder.name, store.digest, *tokens, *values]


def visible(response, secrets):
    text = f"{response.text} {dict(response.headers)}"
    return [secret for secret in secrets if secret in text]


@pytest.mark.parametrize("key", [{}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}])
@pytest.mark.parametrize("path", ROUTES)
def test_nothing_is_visible_without_a_key(guarded, secrets, path, key):
    # The path of the request may come back in an error message, so no path of a public route has a secret.
    for method, body in (*((method, b"") for method in METHODS), *product(("POST", "PUT"), BODIES)):
        for accept in ("text/html", "*/*"):
            headers = {"content-type": "application/json", "accept": accept, "origin": "https://a.example"}
            response = guarded.client.request(method, path, content=body, headers=headers | key)
            expected = {200, 405} if path in PUBLIC else {401}
            assert response.status_code in expected, (method, response.text)
            assert visible(response, secrets) == [], method


@pytest.mark.parametrize("key", ["the-api-key", "admin-key"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/models",
        "/models/velvet",
        "/models/none",
        "/v1/models",
        "/stats",
        "/metrics",
        "/dashboard/models",
    ],
)
def test_models_are_visible_with_a_key(guarded, path, key):
    response = guarded.client.get(path, headers={"x-api-key": key})
    assert "velvet" in response.text


@pytest.mark.parametrize(
    ("key", "status"), [("", 401), ("wrong", 401), ("the-api-key", 403), ("admin-key", 422)]
)
def test_only_the_admin_key_changes_models(guarded, key, status):
    for method, path in (
        ("PUT", "/models/velvet"),
        ("DELETE", "/models/%20"),
        ("POST", "/models/%20/reload"),
    ):
        response = guarded.client.request(
            method,
            path,
            json={"path": "/none"},
            headers={"authorization": f"Bearer x{key}", "x-api-key": key},
        )
        assert response.status_code == (404 if status == 422 and "%20" in path else status)


def test_examples_are_generic_if_a_key_is_required(guarded):
    paths = guarded.client.get("/openapi.json").json()["paths"]
    content = paths["/lookup"]["post"]["requestBody"]["content"]["application/json"]
    assert content["examples"]["tokens"]["value"] == {"tokens": ["the", "cat"]}
    assert "example" not in paths["/lookup"]["post"]["responses"]["200"]["content"]["application/json"]


def test_the_description_declares_the_keys_of_each_route(guarded):
    document = guarded.client.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["api_key"]["name"]) == ("bearer", "X-API-Key")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path in PUBLIC:
                assert operation["security"] == []
                continue
            roles = ["admin"] if method in ("put", "delete") or path.endswith("/reload") else []
            assert operation["security"] == [{"bearer": roles}, {"api_key": roles}]


def test_the_description_declares_no_keys_if_there_are_none(server):
    document = server.client.get("/openapi.json").json()
    assert "securitySchemes" not in document["components"]
    assert "security" not in document["paths"]["/lookup"]["post"]
