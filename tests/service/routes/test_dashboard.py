"""The dashboard, over HTTP and in a real browser."""

import json
import re
import socket
import tracemalloc
from itertools import combinations

import httpx
import numpy as np
import pytest

import smallfry
from service.routes.dashboard import PATHS, distribution
from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.table import Table
from smallfry.vocabulary import Vocabulary
from tests.helpers.servers import write_sfq
from tests.helpers.tables import random_table
from tests.helpers.text_models import write_text_model

HOSTILE = "<img src=x onerror=\"document.title='markup'\">"


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
    paths = (*PATHS, "/dashboard/models", "/dashboard/models/small")
    assert {plain.client.get(path).status_code for path in paths} == {404}


@pytest.fixture(scope="module")
def closed(start, files):
    return start(files["small"], SMALLFRY_API_KEYS="secret")


def test_metrics_need_the_key_and_static_files_do_not(closed):
    assert {closed.client.get(path).status_code for path in ("/", *PATHS)} == {200}
    for path in ("/dashboard/traffic", "/dashboard/models", "/dashboard/models/small"):
        assert closed.client.get(path).status_code == 401


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


def test_details_are_computed_for_one_model(server):
    (listed,) = server.client.get("/dashboard/models").json()["models"]
    details = server.client.get("/dashboard/models/small").json()
    assert "distribution" not in listed
    assert details["bytes"]["total"] == listed["bytes"]
    assert (details["device"], details["distribution"]["rows"]) == ("cpu", 11)
    assert server.client.get("/dashboard/models/other").status_code == 404


def test_values_that_are_not_finite_are_left_out():
    codes = np.array([[np.nan, np.inf, *range(30)], [-3e38, 3e38, *range(30)]], np.float32)
    counted = distribution(Table(codes, 32, 32, "float", None, 1.0))
    assert len(counted.values) == 64 and sum(counted.shares) == pytest.approx(1)
    assert counted.rows == 2 and np.isfinite(counted.values).all()


def test_few_values_are_counted_individually():
    matrix = np.random.default_rng(0).standard_normal((50, 8), np.float32)
    matrix[3] = 0
    counted = distribution(quantize(matrix, 2))
    assert (len(counted.values), counted.rows) == (4, 49)
    assert sum(counted.shares) == pytest.approx(1)


@pytest.mark.parametrize(("kind", "nbit"), [("uniform", 8), ("trellis", 2)])
def test_many_values_are_counted_in_bins(kind, nbit):
    counted = distribution(random_table(9000, 4, nbit, kind, parts=("column_scale", "row_scale")))
    assert (len(counted.values), counted.rows) == (64, 1000)
    assert sum(counted.shares) == pytest.approx(1)


def test_few_values_of_wide_rows_are_counted():
    codes = np.zeros((20_000, 1024), np.uint8)
    table = Table(codes, 4096, 2, "uniform", np.array([-3, -1, 1, 3], np.float32), 3.0)
    tracemalloc.start()
    counted = distribution(table)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (counted.values, counted.shares, counted.rows) == ([-3.0], [1.0], 64)
    assert peak < 8 << 20


def test_values_are_counted_as_they_are_clipped():
    matrix = np.random.default_rng(0).standard_normal((200, 8), np.float32) + 5
    table = quantize(matrix, 2, center=True, row_scale=True)
    counted = distribution(table)
    assert counted.values == pytest.approx(np.linspace(-table.clip, table.clip, 4))


@pytest.fixture
def page(browser):
    """A new page that records its errors and requests, and polls ten times as often."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.add_init_script("const wait = setTimeout; setTimeout = (call, time) => wait(call, time / 10);")
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
    return start(vocabulary, "--workers", "2")


def visit(page, server):
    page.goto(server.address)
    page.wait_for_selector("#state[data-state=live]")


def look_up(page, words):
    page.wait_for_selector("#model-body")
    page.fill("#words", words)
    page.click("#lookup button[type=submit]")
    page.wait_for_selector("#found .chip")


def test_page_shows_the_stats(page, workers):
    visit(page, workers)
    stats = workers.client.get("/stats").json()
    (model,) = stats["models"]
    factor = (model["float32_bytes"] + model["dict_bytes"]) / model["bytes"]["total"]
    assert page.inner_text("#total-models") == "1"
    assert page.inner_text("#total-size .factor") == f"{factor:.3g}× smaller"
    assert "2 workers" in page.inner_text("#memory-parts")
    assert page.inner_text("#version") == stats["version"]
    page.wait_for_selector("#model-facts code")
    assert page.inner_text("#model-facts code") == workers.client.get("/models").json()["models"][0]["digest"]
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
    page.locator("#token h4", has_text="onerror").wait_for()
    assert page.inner_text("#token h4") == HOSTILE
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
    page.wait_for_selector("#model-body")
    page.focus("#words")
    page.keyboard.press("Control+A")
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
    for kind, nbit in (("uniform", 2), ("trellis", 3)):
        write_sfq(tmp_path / f"{kind}.sfq", 40, 15, nbit, kind, tokens=False)
    visit(page, start(tmp_path))
    with smallfry.open(tmp_path / "trellis.sfq") as store:
        row = int(np.setdiff1d(np.arange(40), store.table.zero_rows)[0])
        bits = int.from_bytes(store.codes([row])[0].tobytes(), "little")
    page.click("#rows a >> text=trellis")
    look_up(page, str(row))
    page.click("#token summary")
    assert page.inner_text("#token .digits") == "".join(str(bits >> 3 * j & 7) for j in range(15))
    assert "each value depends on 8 bits, its own and those of the next" in page.inner_text("#token")
    look_up(page, "seven")
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(page.locator("#lookup-error")).to_contain_text("a row number is a whole number")


def test_text_model_takes_texts(page, start, tmp_path):
    visit(page, start(write_text_model(tmp_path / "text.sfq", rows=30, nbit=4)))
    page.wait_for_selector("#model-body")
    assert page.inner_text("#words-label") == "Texts"
    look_up(page, '"the cat" dogs ""')
    assert page.locator("#found .chip").all_inner_texts() == ["the cat\nfound", "dogs\nfound", '""\nunknown']
    page.wait_for_selector("#token .neighbors li")
    assert "encode" not in page.inner_text("#snippet") and '"texts"' in page.inner_text("#snippet")
    page.check("input[value=Python]")
    assert 'client.encode(["the cat","dogs",""])' in page.inner_text("#snippet")
    page.click("#found .chip >> nth=2")
    assert "no tokens" in page.inner_text("#token")
    assert page.wrong == []


def test_files_that_cannot_be_served_are_shown_at_the_top(page, start, tmp_path):
    path = write_sfq(tmp_path / "words.sfq")
    cut = path.read_bytes()[:-1]
    (tmp_path / "cut.sfq").write_bytes(cut)
    visit(page, start(tmp_path))
    assert page.inner_text("#files-title") == "1 file cannot be served"
    assert page.inner_text("#files li").startswith("cut.sfq: ")
    (tmp_path / "new").write_bytes(cut)
    (tmp_path / "new").replace(path)
    page.locator("#files-title", has_text="2 files cannot be served").wait_for()
    assert "still served as words" in page.inner_text("#files li >> nth=1")
    assert "broken" in page.inner_text("#rows")


def test_removed_model_is_reported(page, start, files):
    server = start(files["small"], files["ids"], SMALLFRY_ADMIN_KEY="admin")
    page.goto(f"{server.address}/#model=ids")
    page.wait_for_selector("#model-body")
    assert page.input_value("#words") == "0 1 2"
    server.client.delete("/models/ids", headers={"authorization": "Bearer admin"})
    page.locator("#model-notice", has_text="No model of this name is loaded").wait_for()
    assert page.is_hidden("#model-body")
    server.client.delete("/models/small", headers={"authorization": "Bearer admin"})
    page.locator("#state", has_text="no model is loaded").wait_for()
    page.locator("#total-models", has_text="0").wait_for()


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
    assert page.locator("#rows a").all_inner_texts() == ["words"]


def test_key_is_requested_and_kept_in_memory_only(page, closed):
    page.goto(closed.address)
    page.wait_for_selector("#key:not([hidden])")
    assert page.is_hidden("#traffic")
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
        assert "API_KEY" in page.inner_text("#snippet")
        assert "secret" not in page.inner_text("#snippet")
    page.reload()
    page.wait_for_selector("#key:not([hidden])")


@pytest.fixture(scope="module")
def many(start, tmp_path_factory):
    """A server of 500 models, model-0 to model-499; the last two have 13 and 14 rows, the others 12."""
    folder = tmp_path_factory.mktemp("many")
    write_sfq(folder / "model-499.sfq", 14)
    write_sfq(folder / "model-498.sfq", 13)
    first = write_sfq(folder / "model-0.sfq")
    for number in range(1, 498):
        (folder / f"model-{number}.sfq").hardlink_to(first)
    return start(folder)


def shown(page):
    return page.locator("#rows a").all_inner_texts()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_500_models_fit_a_screen(browser, many, width, height):
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.goto(f"{many.address}/#model=model-7")
    page.wait_for_selector("#state[data-state=live]")
    page.wait_for_selector("#model-body")
    assert page.inner_text("#total-models") == "500"
    assert page.locator("#rows tr").count() == 20
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.documentElement.scrollHeight") < 5 * height
    box = page.locator("#rates").bounding_box()
    top = box["y"] + page.evaluate("scrollY")
    assert top + (box["height"] if width > 390 else 0) < height
    context.close()


def test_table_is_sorted_and_filtered(page, many):
    visit(page, many)
    assert page.inner_text("#count") == "500 models, 1 to 20 shown"
    assert shown(page) == [f"model-{number}" for number in range(20)]
    page.click("#forward")
    assert shown(page)[0] == "model-20"
    page.click("#heads button >> text=Rows")
    assert page.get_attribute("#heads [data-column=rows]", "aria-sort") == "descending"
    assert shown(page)[:2] == ["model-499", "model-498"]
    page.keyboard.press("Enter")
    assert page.locator("[aria-sort]").evaluate_all("all => all.map((each) => each.ariaSort)") == [
        "ascending"
    ]
    page.fill("#filter", "MODEL-12 4-bit")
    assert page.inner_text("#count") == "11 of 500 models"
    assert shown(page) == ["model-12", *[f"model-12{digit}" for digit in range(10)]]
    page.fill("#filter", "nothing")
    assert page.inner_text("#count") == "0 of 500 models"
    assert page.wrong == []


def test_selection_is_in_the_url(page, many):
    visit(page, many)
    assert page.is_hidden("#model")
    page.click("#rows a >> text=model-3")
    page.locator("#model-body").wait_for()
    assert page.evaluate("[location.hash, document.activeElement.id]") == ["#model=model-3", "model-title"]
    assert page.inner_text("[aria-current=true]") == "model-3"
    page.reload()
    page.locator("#model-body").wait_for()
    assert page.inner_text("#model-title") == "model-3"
    page.click("#lookup button[type=submit]")
    page.locator("#found p", has_text="3 of 3 found").wait_for()
    page.click("#close")
    page.wait_for_selector("#model", state="hidden")
    page.go_back()
    page.wait_for_selector("#model")
    assert page.wrong == []


def test_refreshing_requests_little_and_moves_nothing(page, many):
    visit(page, many)
    page.evaluate(
        "moved = 0; new PerformanceObserver((list) => list.getEntries().forEach(({value}) => moved += value))"
        ".observe({type: 'layout-shift'})"
    )
    for _ in range(11):
        with page.expect_response("**/dashboard/traffic*"):
            pass
    refreshes = [url for url in page.asked if "/dashboard/traffic" in url]
    data = [url for url in page.asked if not url.endswith((".js", ".css", ".svg"))]
    assert len(data) <= 1 + 2 * len(refreshes) + 2 * (1 + len(refreshes) // 5)
    assert not [url for url in page.asked if "/dashboard/models/" in url]
    assert page.evaluate("moved") < 0.01


#: Linear RGB as seen with protanopia and deuteranopia (Machado et al. 2009), and RGB to XYZ relative to D65.
PROTAN = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
DEUTAN = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
XYZ = np.array([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1094, 0.8729]])


def linear(color):
    values = np.array([int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(values):
    x, y, z = np.cbrt(XYZ @ np.clip(values, 0, 1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.fixture(scope="module", params=[0, 1], ids=["light", "dark"])
def palette(request, server):
    """The colors of a scheme by name, and the names of those of parts in charts."""
    css = server.client.get("/dashboard/page.css").text
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[request.param]
    colors = {name: linear(color) for name, color in re.findall(r"--([\w-]+): (#\w{6});", block)}
    return colors, re.findall(r"\.legend \S+::before \{ background: var\(--([\w-]+)\)", css)


def test_colors_have_enough_contrast(palette):
    colors, parts = palette

    def contrast(one, other):
        low, high = sorted(XYZ[1] @ colors[name] for name in (one, other))
        return (high + 0.05) / (low + 0.05)

    for text in ("ink", "quiet", "accent", "good", "bad", "warn"):
        assert min(contrast(text, "card"), contrast(text, "back")) >= 4.5, text
    assert contrast("accent", "accent-ink") >= 4.5
    for part in (*parts, "edge"):
        assert contrast(part, "card") >= 3, part


def test_colors_of_parts_differ_for_the_color_blind(palette):
    colors, parts = palette
    assert len(parts) == 14  # two, which no table has both, share a color
    for sight in (np.eye(3), PROTAN, DEUTAN):
        for one, other in combinations(set(parts) - {"float32", "dict"}, 2):
            assert np.linalg.norm(lab(sight @ colors[one]) - lab(sight @ colors[other])) > 20, (one, other)
