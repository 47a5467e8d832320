"""The dashboard, over HTTP and in a real browser."""

import json
import re
import socket

import httpx
import numpy as np
import pytest

import smallfry
from service.routes.dashboard import PATHS, distribution
from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary
from tests.helpers.browser import browsing
from tests.helpers.servers import write_sfq

HOSTILE = "<img src=x onerror=\"document.title='markup'\">"

#: A headless Chromium.
browser = pytest.fixture(scope="module", name="browser")(browsing)


def test_browser_gets_html_and_curl_gets_text(server):
    page = server.client.get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for accept in ("*/*", "application/json", "text/plain", "text/html;q=0.5,text/plain"):
        answer = server.client.get("/", headers={"accept": accept})
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text.startswith("smallfry ")


def test_page_has_no_inline_or_external_resources(server):
    page = server.client.get("/", headers={"accept": "text/html"})
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\bon\w+=|https?:", page.text)
    for path in PATHS:
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", server.client.get(path).text), path


def test_static_files_are_revalidated_by_etag(server):
    first = server.client.get("/dashboard/page.css")
    again = server.client.get("/dashboard/page.css", headers={"if-none-match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert server.client.get("/dashboard/nothing.js").status_code == 404


def test_dashboard_can_be_disabled(start, files):
    plain = start(files["small"], "--no-dashboard")
    answer = plain.client.get("/", headers={"accept": "text/html"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert {plain.client.get(path).status_code for path in (*PATHS, "/dashboard/models")} == {404}


@pytest.fixture(scope="module")
def closed(start, files):
    return start(files["small"], SMALLFRY_API_KEYS="secret")


def test_metrics_need_the_key_and_static_files_do_not(closed):
    assert {closed.client.get(path).status_code for path in ("/", *PATHS)} == {200}
    assert closed.client.get("/dashboard/traffic").status_code == 401
    assert closed.client.get("/dashboard/models").status_code == 401


def test_changed_and_broken_files_are_reported(start, tmp_path):
    changed, broken = write_sfq(tmp_path / "changed.sfq"), write_sfq(tmp_path / "broken.sfq")
    server = start(tmp_path)
    write_sfq(changed, seed=1)
    write_sfq(tmp_path / "whole", seed=2)
    (tmp_path / "cut").write_bytes(broken.read_bytes()[:-1])
    (tmp_path / "cut").replace(broken)
    models = {each["name"]: each for each in server.client.get("/dashboard/models").json()["models"]}
    assert models["changed"]["file"]["state"] == "changed"
    assert models["broken"]["file"]["state"] == "broken"
    assert str(tmp_path) not in models["broken"]["file"]["message"]
    assert server.lookup({"tokens": ["the"], "model": "broken"}).status_code == 200


def test_few_values_are_counted_individually():
    matrix = np.random.default_rng(0).standard_normal((50, 8), np.float32)
    matrix[3] = 0
    counted = distribution(quantize(matrix, 2))
    assert (len(counted["values"]), counted["rows"]) == (4, 49)
    assert sum(counted["shares"]) == pytest.approx(1)


def test_many_values_are_counted_in_bins():
    counted = distribution(quantize(np.random.default_rng(0).standard_normal((9000, 4), np.float32), 8))
    assert (len(counted["values"]), counted["rows"]) == (64, 3000)
    assert sum(counted["shares"]) == pytest.approx(1)


def test_values_are_counted_as_they_are_clipped():
    matrix = np.random.default_rng(0).standard_normal((200, 8), np.float32) + 5
    table = quantize(matrix, 2, center=True, row_scale=True)
    counted = distribution(table)
    assert counted["values"] == pytest.approx(np.linspace(-table.clip, table.clip, 4))


@pytest.fixture
def page(browser):
    """A new page that records its errors and requests."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.wrong, page.asked = [], []
    page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    context.close()


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A table whose row 2 has a token that contains markup."""
    path = tmp_path_factory.mktemp("page") / "words.sfq"
    matrix = np.random.default_rng(0).standard_normal((40, 16), np.float32)
    names = ["north", "south", HOSTILE, *[f"word-{row}" for row in range(3, 40)]]
    matrix[2] = matrix[0] + 0.1
    sfq.write(path, quantize(matrix, 2), Vocabulary.build(names))
    return path


@pytest.fixture(scope="module")
def workers(start, vocabulary):
    return start(vocabulary, "--workers", "4")


def visit(page, server):
    page.goto(server.address)
    page.wait_for_selector("#state[data-state=live]")


def look_up(page, words):
    page.fill("#words", words)
    page.click("#lookup button[type=submit]")
    page.wait_for_selector("#found .chip")


def test_page_shows_the_stats(page, workers):
    visit(page, workers)
    stats = workers.client.get("/stats").json()
    total = stats["models"][0]["bytes"]["total"]
    assert page.get_attribute("#tables [data-model=words]", "data-total") == str(total)
    assert "4 workers" in page.inner_text("#process")
    assert page.inner_text("#model-list code") == workers.client.get("/models").json()["models"][0]["digest"]
    assert page.inner_text("#version") == stats["version"]
    assert page.wrong == []
    assert {httpx.URL(url).netloc.decode() for url in page.asked} == {
        httpx.URL(workers.address).netloc.decode()
    }


def test_traffic_covers_all_workers(page, workers):
    visit(page, workers)
    before = workers.client.get("/dashboard/traffic").json()["now"]["found"]
    for _ in range(20):  # one connection each, so that several workers take part
        httpx.post(f"{workers.address}/lookup", json={"tokens": ["north", "nowhere"]})
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(page.locator("#rate-tokens")).not_to_have_text(re.compile("^(–|0/s)$"))
    expect(page.locator("#rate-hit")).to_contain_text("%")
    assert workers.client.get("/dashboard/traffic").json()["now"]["found"] == before + 20
    assert page.wrong == []


def test_a_lookup_shows_vector_codes_and_neighbors(page, workers):
    visit(page, workers)
    look_up(page, "north no-such-word")
    page.wait_for_selector(".neighbors li")
    assert page.inner_text("#found p") == "1 of 2 found"
    assert page.locator("#found .mark").all_inner_texts() == ["found", "unknown"]
    expected = workers.client.post("/neighbors", json={"token": "north"}).json()["neighbors"]
    assert page.locator(".neighbors button").all_inner_texts() == [each["token"] for each in expected]
    page.click("#token summary")
    assert re.fullmatch("[0-3]{16}", page.inner_text("#token .digits"))
    assert '{"tokens":["north","no-such-word"]}' in page.inner_text("#snippet")
    page.click("#found .chip >> nth=1")
    page.wait_for_selector("#token p")
    assert "Not in the vocabulary" in page.inner_text("#token")
    assert page.wrong == []


def test_tokens_are_text_and_never_markup(page, workers):
    visit(page, workers)
    look_up(page, f"'{HOSTILE}' north")
    page.click("#found .chip >> nth=-1")
    page.click(f".neighbors button[data-row='{2}']")
    page.locator("#token h3", has_text="onerror").wait_for()
    assert page.inner_text("#token h3") == HOSTILE
    assert json.dumps([HOSTILE]) in page.inner_text("#snippet").replace("'\\''", "'")
    page.keyboard.press("Enter")
    page.locator("#found p", has_text="1 of 1 found").wait_for()
    assert page.locator("#found .word").all_inner_texts() == [HOSTILE]
    assert page.locator("main img").count() == 0
    assert page.title() == "smallfry"
    assert page.wrong == []


def test_docs_page_describes_and_sends_requests_without_other_hosts(page, workers):
    page.goto(f"{workers.address}/docs")
    page.wait_for_selector("#routes h2")
    described = workers.client.get("/openapi.json").json()["paths"]
    routes = [(method.upper(), path) for path, methods in described.items() for method in methods]
    shown = zip(
        *(page.locator(f".route .{part}").all_inner_texts() for part in ("method", "path")), strict=True
    )
    assert sorted(shown) == sorted(routes)
    page.click("#post-lookup summary >> nth=0")
    assert "tokens" in page.inner_text("#post-lookup table")
    page.fill("#post-lookup textarea", '{"tokens": ["north", "none"]}')
    page.click("#post-lookup button[type=submit]")
    page.locator("#post-lookup [role=status]", has_text="200 in").wait_for()
    expected = workers.client.post("/lookup", json={"tokens": ["north", "none"]}).text
    assert page.inner_text("#post-lookup .response") == expected
    page.fill("#post-lookup textarea", "{")
    page.click("#post-lookup button[type=submit]")
    page.locator("#post-lookup [role=status]", has_text="400 in").wait_for()
    assert all(url.startswith(workers.address) for url in page.asked)
    assert [text for text in page.wrong if "400" not in text] == []


def test_docs_page_sends_the_key(page, closed):
    page.goto(f"{closed.address}/docs#get-stats")
    page.wait_for_selector("#get-stats[open]")
    page.click("#get-stats button[type=submit]")
    page.locator("#get-stats [role=status]", has_text="401 in").wait_for()
    page.fill("#key", "secret")
    page.click("#get-stats button[type=submit]")
    page.locator("#get-stats [role=status]", has_text="200 in").wait_for()
    assert '"workers":1' in page.inner_text("#get-stats .response")


def test_docs_page_fits_a_phone(browser, workers):
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(f"{workers.address}/docs#post-lookup")
    page.wait_for_selector("#post-lookup[open]")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    context.close()


def test_page_fits_a_phone(browser, workers):
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    visit(page, workers)
    look_up(page, "north " + "x" * 300)
    page.wait_for_selector(".neighbors li")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    context.close()


def test_page_works_with_the_keyboard(page, workers):
    visit(page, workers)
    page.focus("#words")
    page.keyboard.type("south")
    page.keyboard.press("Enter")
    page.wait_for_selector(".neighbors li")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#found .chip[aria-pressed=true]")
    unnamed = (
        "[...document.querySelectorAll('svg')].filter((each) => !each.getAttribute('aria-label')).length"
    )
    assert page.evaluate(unnamed) == 0


def test_codes_are_shown_for_few_rows(page, start, tmp_path):
    matrix = np.random.default_rng(0).standard_normal((40, 16), np.float32)
    for name, codebook in (("plain", "uniform"), ("grouped", "grouped")):
        sfq.write(tmp_path / f"{name}.sfq", quantize(matrix, 2, codebook=codebook))
    visit(page, start(tmp_path))
    assert "All 2 models" in page.inner_text("#all-tables h3")
    page.select_option("#model", "grouped")
    look_up(page, "7")
    page.click("#token summary")
    with smallfry.open(tmp_path / "grouped.sfq") as store:
        packed = store.codes([7])[0]
    codes = [byte >> shift & 3 for byte in packed.tolist() for shift in (0, 2, 4, 6)]
    assert page.inner_text("#token .digits") == "".join(map(str, codes))
    look_up(page, "seven")
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(page.locator("#lookup-error")).to_contain_text("a row number is a whole number")


def test_broken_file_is_shown_at_the_top(page, start, tmp_path):
    path = write_sfq(tmp_path / "words.sfq")
    visit(page, start(path))
    (tmp_path / "cut").write_bytes(path.read_bytes()[:-1])
    (tmp_path / "cut").replace(path)
    page.wait_for_selector(".badge.broken")
    assert page.inner_text("#state") == "Live, but the file is broken of: words"


def test_page_notices_server_stop_and_restart(page, start, vocabulary):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = (vocabulary, "--port", port, "--drain-delay", "0")
    first = start(*options)
    visit(page, first)
    first.stop()
    page.wait_for_selector("#state[data-state=gone]")
    assert "does not respond" in page.inner_text("#state")
    start(*options)
    page.wait_for_selector("#state[data-state=live]")
    assert page.locator("#tables [data-model=words]").count() == 1


def test_key_is_requested_and_kept_in_memory_only(page, closed):
    page.goto(closed.address)
    page.wait_for_selector("#key:not([hidden])")
    page.fill("#key-text", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-wrong:not([hidden])")
    page.fill("#key-text", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#state[data-state=live]")
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    assert page.input_value("#key-text") == ""
    for language in ("curl", "Python", "JavaScript"):
        page.click(f"#languages label:has-text('{language}')")
        assert "SMALLFRY_API_KEY" in page.inner_text("#snippet")
        assert "secret" not in page.inner_text("#snippet")
    page.reload()
    page.wait_for_selector("#key:not([hidden])")
