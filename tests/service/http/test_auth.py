"""API keys, the admin key, TLS and the access log."""

import ssl

import httpx
import pytest

from service.config import Config
from service.errors import ConfigError, NotAllowed, NotAuthenticated
from service.http.auth import Keys
from tests.helpers.certificates import make_certificate
from tests.helpers.errors import error_of

SECRETS = ("the-first-key", "the-second-key", "the-admin-key")


@pytest.fixture(scope="module")
def guarded(files, start, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("# for lookups\nthe-first-key\n\n")
    return start(
        files["small"],
        *("--api-keys-file", str(keys)),
        SMALLFRY_API_KEYS="the-second-key, another",
        SMALLFRY_ADMIN_KEY="the-admin-key",
    )


@pytest.mark.parametrize("path", ["/models", "/stats", "/metrics", "/models/small/file", "/nowhere"])
def test_routes_need_a_key(guarded, path):
    response = guarded.client.get(path)
    assert error_of(response, 401)["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/lookup", "/v1/lookup", "/v1/embeddings"])
def test_lookup_needs_a_key(guarded, path):
    error_of(guarded.client.post(path, json={"tokens": ["the"]}), 401)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/", "/docs", "/openapi.json"])
def test_health_and_pages_need_no_key(guarded, path):
    assert guarded.client.get(path).status_code == 200


@pytest.mark.parametrize("key", SECRETS)
def test_each_key_is_accepted_in_either_header(guarded, key):
    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
        assert guarded.lookup({"tokens": ["the"]}, **headers).status_code == 200


@pytest.mark.parametrize(
    "given",
    ["Bearer the-first-ke", "Bearer the-first-key2", "Basic the-first-key", "the-first-key", "Bearer"],
)
def test_invalid_keys_are_rejected(guarded, given):
    error_of(guarded.lookup({"tokens": ["the"]}, authorization=given), 401)


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Bearer wrong"), ("x-api-key", "the-first-key")],
        [("authorization", "Bearer the-first-key"), ("x-api-key", "wrong")],
        [("authorization", "Basic dXNlcjpwYXNz"), ("x-api-key", "the-first-key")],
        [("authorization", "Basic dXNlcjpwYXNz"), ("authorization", "Bearer the-first-key")],
        [("x-api-key", "wrong"), ("x-api-key", "the-first-key"), ("x-api-key", "")],
        [("x-api-key", "wrong, the-first-key")],
        [("authorization", "Bearer wrong, Bearer the-first-key")],
        [("authorization", "bearer  the-first-key")],
    ],
)
def test_one_accepted_key_among_several_suffices(guarded, headers):
    assert guarded.client.get("/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong-1", "x-api-key": "wrong-2"},
        {"authorization": "Bearer wrong-1, Basic the-first-key"},
        {"authorization": "the-first-key"},
        {"x-api-key": ",,"},
        {"x-api-key": "," * 30_000 + "the-first-key"},
    ],
)
def test_a_rejected_key_is_not_repeated(guarded, headers):
    response = guarded.client.get("/models", headers=headers)
    assert error_of(response, 401)["param"] == "Authorization"
    assert "wrong-" not in response.text and "first" not in response.text


def test_a_key_may_hold_a_comma():
    keys = Keys(api=["a,b"])
    for header in ((b"x-api-key", b"a,b"), (b"authorization", b"Bearer a,b")):
        keys.check([header])


def test_api_key_does_not_allow_changes(guarded):
    headers = {"authorization": "Bearer the-first-key"}
    assert "admin key" in error_of(guarded.client.delete("/models/small", headers=headers), 403)["message"]
    error_of(guarded.client.post("/models/small/reload", headers=headers), 403)


def test_repr_of_the_configuration_hides_keys():
    assert "secret" not in repr(Config(api_keys="secret", admin_key="secret", ssl_keyfile_password="secret"))


def test_serves_tls(files, start, tmp_path):
    certificate, key = make_certificate(tmp_path)
    server = start(files["small"], "--ssl-certfile", certificate, "--ssl-keyfile", key)
    assert server.address.startswith("https://")
    context = ssl.create_default_context(cafile=certificate)
    response = httpx.post(f"{server.address}/lookup", json={"tokens": ["the"]}, verify=context)
    assert response.json()["found"] == [True]


def accepts(keys, key):
    return keys.required and keys.accept([(b"x-api-key", key.encode())])


@pytest.fixture
def read(tmp_path):
    """Read the keys of a file of some bytes."""

    def reader(content):
        path = tmp_path / "keys"
        path.write_bytes(content)
        return Keys.read(Config(api_keys_file=str(path)))

    return reader


@pytest.mark.parametrize("option", ["api_keys", "admin_key"])
@pytest.mark.parametrize("value", ["", ",", " , "])
def test_a_variable_without_a_key_is_an_error(option, value):
    with pytest.raises(ConfigError, match=f"SMALLFRY_{option.upper()} holds no key"):
        Keys.read(Config(**{option: value}))


@pytest.mark.parametrize("option", ["api_keys_file", "admin_key_file"])
@pytest.mark.parametrize("content", ["", "\n \n", "# none\n  # at all", "\ufeff\n"])
def test_a_file_without_a_key_is_an_error(tmp_path, option, content):
    path = tmp_path / "keys"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{path} holds no key"):
        Keys.read(Config(**{option: str(path)}))


@pytest.mark.parametrize(
    "content", [b"first\nsecond", b"first\r\n\tsecond \r\n", b"\xef\xbb\xbffirst\nsecond\n"]
)
def test_a_file_has_one_key_per_line(read, content):
    keys = read(content)
    assert accepts(keys, "first") and accepts(keys, "second")


def test_a_variable_may_end_with_the_newline_of_a_file():
    assert accepts(Keys.read(Config(api_keys="first, second\n")), "second")


def test_a_comment_after_a_byte_order_mark_is_not_a_key(read):
    keys = read("\ufeff# clé\nfirst".encode())
    assert accepts(keys, "first") and not accepts(keys, "\ufeff# clé") and not accepts(keys, "# clé")


@pytest.mark.parametrize(
    "key", ["a\fb", "a\u2028b", "a\x85b", "a\rb", "a b", "clé", "a\0", "a\ufeff", "\v", "\x7f"]
)
def test_a_key_is_visible_ascii(read, key):
    with pytest.raises(ConfigError, match=r"line 3 of .*keys is not a key; it has to be visible ASCII"):
        read(f"first\n# comment\n{key}\n".encode())
    with pytest.raises(ConfigError, match="key 2 of SMALLFRY_API_KEYS is not a key"):
        Keys.read(Config(api_keys=f"first,{key}"))


def test_a_key_file_in_another_encoding_is_an_error(read):
    with pytest.raises(ConfigError, match="cannot be read: not UTF-8"):
        read("first\n".encode("utf-16"))


def test_an_error_does_not_show_the_key(read):
    with pytest.raises(ConfigError) as error:
        read(b"secret key")
    assert "secret" not in str(error.value)


def test_admin_key_alone_does_not_protect_lookups():
    keys = Keys(admin=["a"])
    assert not keys.required and keys.has_admin
    keys.check_admin([(b"x-api-key", b"a")])
    with pytest.raises(NotAuthenticated):
        keys.check_admin([])


def test_api_key_is_not_an_admin_key():
    keys = Keys(api=["a"], admin=["b"])
    keys.check([(b"x-api-key", b"b")])
    with pytest.raises(NotAllowed):
        keys.check_admin([(b"x-api-key", b"a")])
