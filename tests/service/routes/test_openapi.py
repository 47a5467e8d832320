"""The OpenAPI document matches the server."""

import pytest


@pytest.fixture(scope="module")
def document(server):
    return dict(server.client.get("/openapi.json").json())


def test_example_requests_have_the_documented_response(server, document):
    operation = document["paths"]["/lookup"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert set(examples) == {"tokens", "bags", "ids"}
    for example in examples.values():
        assert server.lookup(example["value"]).status_code == 200
    documented = operation["responses"]["200"]["content"]["application/json"]["example"]
    response = server.lookup({"tokens": ["the"]}).json()
    assert response == documented


def test_the_example_of_embeddings_works(server, document):
    operation = document["paths"]["/v1/embeddings"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    assert server.client.post("/v1/embeddings", json=example).status_code == 200


def test_all_formats_are_documented(document):
    operation = document["paths"]["/lookup"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert set(operation["responses"]["200"]["content"]) == {
        "application/json",
        "application/octet-stream",
        "application/vnd.safetensors",
        "application/vnd.smallfry.packed",
    }


def test_every_error_has_the_same_schema(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorResponse"}, (path, method, status)


def test_examples_name_a_model_if_several_are_loaded(several):
    document = several.client.get("/openapi.json").json()
    content = document["paths"]["/lookup"]["post"]["requestBody"]["content"]
    for example in content["application/json"]["examples"].values():
        assert several.lookup(example["value"]).status_code == 200
