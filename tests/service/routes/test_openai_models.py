"""``GET /v1/models``."""

from tests.helpers.errors import error_of


def test_lists_the_models(several, files):
    listed = several.client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert {each["id"]: each["created"] for each in listed["data"]} == {
        name: int(path.stat().st_mtime) for name, path in files.items()
    }
    assert {(each["object"], each["owned_by"]) for each in listed["data"]} == {("model", "smallfry")}


def test_describes_a_model(several):
    listed = several.client.get("/v1/models").json()["data"]
    for model in listed:
        assert several.client.get(f"/v1/models/{model['id']}").json() == model
    assert several.client.head("/v1/models").status_code == 200
    assert several.client.head("/v1/models/large").status_code == 200


def test_unknown_model_is_an_error(server):
    error = error_of(server.client.get("/v1/models/gpt"), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
