"""Web pages of other origins and a server without keys; also in a real browser."""

import pytest

from tests.helpers.errors import error_of

QUERY = {"tokens": ["the"]}
CROSS = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}


@pytest.fixture(scope="module")
def allowing(files, start):
    return start(files["small"], "--cors-origin", "https://app.example")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/lookup"), ("POST", "/neighbors"), ("GET", "/metrics"), ("GET", "/models"), ("GET", "/x")],
)
def test_requests_from_pages_of_other_origins_are_rejected(server, method, path, site):
    headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    error = error_of(server.client.request(method, path, headers=headers), 403)
    assert "--cors-origin" in error["message"]


def test_forms_of_other_origins_are_rejected_and_links_are_followed(server):
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert server.client.get("/models", headers=link).status_code == 200
    error_of(server.client.post("/lookup", content=b"{}", headers=link), 403)


@pytest.mark.parametrize("path", ["/", "/docs", "/livez", "/openapi.json"])
def test_paths_without_data_are_open_to_all_pages(server, path):
    assert server.client.get(path, headers=CROSS).status_code == 200


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_own_pages_and_the_user_are_served(server, site):
    origin = {"origin": server.address, "sec-fetch-site": site}
    assert server.lookup(QUERY, **origin).status_code == 200


def test_origin_decides_without_sec_fetch_site(server):
    assert server.lookup(QUERY, origin=server.address).status_code == 200
    for origin in ("https://evil.example", "null", server.address + "0"):
        error_of(server.lookup(QUERY, origin=origin), 403)


def test_allowed_origins_are_served(allowing):
    for site in ({}, CROSS):
        assert allowing.lookup(QUERY, origin="https://app.example", **site).status_code == 200
        error_of(allowing.lookup(QUERY, origin="https://evil.example", **site), 403)
    error_of(allowing.lookup(QUERY, **CROSS), 403)


def test_every_origin_is_served_if_allowed(files, start):
    assert start(files["small"], "--cors-origin", "*").lookup(QUERY, **CROSS).status_code == 200


def test_keys_decide_if_there_are_any(files, start):
    server = start(files["small"], SMALLFRY_API_KEYS="key")
    assert server.lookup(QUERY, host="evil.example", **CROSS, x_api_key="key").status_code == 401
    response = server.client.post("/lookup", json=QUERY, headers=CROSS | {"x-api-key": "key"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            (host, 200)
            for host in ("127.0.0.1:80", "localhost", "LOCALHOST:8000", "[::1]:80", "box", "box:1")
        ),
        *((host, 200) for host in ("app.localhost:1", "10.1.2.3")),
        *((host, 403) for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "box.")),
        *((host, 403) for host in ("127.0.0.1.evil.example", "1.2.3.4:x", "a" * 300 + ".example")),
    ],
)
def test_a_local_server_has_only_local_names(server, host, status):
    response = server.lookup(QUERY, host=host)
    assert response.status_code == status
    if status == 403:
        assert "--forwarded-allow-ips" in error_of(response, 403)["message"]


def test_a_server_behind_a_proxy_has_any_name(files, start):
    server = start(files["small"], "--forwarded-allow-ips", "127.0.0.1")
    assert server.lookup(QUERY, host="embeddings.example").status_code == 200


SEND = """
async ([address, mode]) => {
  try {
    const body = new Blob(['{"tokens": ["the"]}']); // without a type
    const options = {method: "POST", body, mode};
    return (await fetch(address + "/lookup", options)).status;
  } catch (error) { return String(error); }
}
"""


def test_pages_in_a_browser(browser, server, files, start):
    other = start(files["small"], "--access-log")
    page = browser.new_page()
    page.goto(f"{other.address}/docs")
    assert page.evaluate(SEND, [other.address, "cors"]) == 200
    page.goto(f"{server.address}/livez")  # has no policy
    assert page.evaluate(SEND, [other.address, "no-cors"]) == 0
    page.close()
    _, log = other.stop()
    assert log.count('"POST /lookup" 200') == 1 and log.count('"POST /lookup" 403') == 1
