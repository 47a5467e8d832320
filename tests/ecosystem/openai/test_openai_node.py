"""The npm package ``openai``, in Node.js and in a browser."""

import json
import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.helpers.browser import browsing

MODULES = Path(__file__).parents[3] / "build" / "node" / "node_modules"

pytestmark = pytest.mark.skipif(
    not (MODULES / "openai").is_dir(), reason="the npm package is not installed: make test-ecosystem"
)
browser = pytest.fixture(scope="module", name="browser")(browsing)

#: A function that uses the whole API and returns what it got.
USE = """
async (OpenAI, url, texts) => {
  const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0, dangerouslyAllowBrowser: true });
  const vectors = {};
  for (const encoding_format of ["float", "base64", undefined]) {
    const { data } = await client.embeddings.create({ model: "words", input: texts, encoding_format });
    vectors[encoding_format] = data.map((each) => each.embedding);
  }
  const models = [];
  for await (const model of client.models.list()) models.push(model);
  const failed = (error) => ({ name: error.constructor.name, message: error.message, id: error.requestID });
  return {
    vectors,
    models,
    retrieved: await client.models.retrieve("words"),
    unknown: await client.models.retrieve("gpt").catch(failed),
    empty: await client.embeddings.create({ model: "words", input: [] }).catch(failed),
    ids: await client.embeddings.create({ model: "words", input: [[1, 2]] }).catch(failed),
  };
}
"""


def check_used(used, check, texts):
    check(used["vectors"]["float"], texts)
    # Without a format it requests base64 and decodes it.
    check(used["vectors"]["undefined"], texts)
    assert used["models"] == [used["retrieved"]]
    assert used["retrieved"]["id"] == "words"
    errors = [used[name]["name"] for name in ("unknown", "empty", "ids")]
    assert errors == ["NotFoundError", "BadRequestError", "UnprocessableEntityError"]
    assert "there is no model 'gpt'" in used["unknown"]["message"]
    assert used["unknown"]["id"]


def test_node(url, check, texts):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = f"""
    import OpenAI from "{MODULES}/openai/index.mjs";
    console.log(JSON.stringify(await ({USE})(OpenAI, {json.dumps(url)}, {json.dumps(texts)})));
    """
    command = [node, "--input-type=module", "--eval", script]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    check_used(json.loads(output), check, texts)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    """The address of another origin, which has the npm packages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=MODULES)) as site:
        Thread(target=site.serve_forever).start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()


def test_browser(browser, site, start, words, check, texts):
    server = start(words, "--cors-origin", site)
    page = browser.new_page()
    page.goto(f"{site}/openai/package.json")
    script = f"""
    async ([url, texts]) => {{
      const {{ default: OpenAI }} = await import("/openai/index.mjs");
      return ({USE})(OpenAI, url, texts);
    }}
    """
    check_used(page.evaluate(script, [f"{server.address}/v1", texts]), check, texts)
    page.close()
