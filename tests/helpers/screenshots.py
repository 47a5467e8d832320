"""Write the pictures of the dashboard: ``python -m tests.helpers.screenshots``; takes three minutes.

Needs playwright, Chromium, and the real data in the folder ``SMALLFRY_DATA``.
"""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import numpy as np
from playwright.sync_api import sync_playwright

from benchmarks.common.dataset import data_folder
from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary
from tests.helpers.servers import Server

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SECONDS = 120
SOURCES = {"minilm": "minilm-words.300d.f16.npy", "news": "googlenews-8000.300d.npy"}
WORDS = {"minilm": "minilm-words.txt", "news": "googlenews-8000.txt"}


def write_models(folder: Path) -> None:
    """Write each source at several numbers of bits, and one table without a vocabulary."""
    for name, source in SOURCES.items():
        matrix = np.load(data_folder() / "embeddings" / source).astype(np.float32)
        words = (data_folder() / "embeddings" / WORDS[name]).read_text().splitlines()
        for nbit in (1, 2, 4, 8):
            table = quantize(matrix, nbit, center=nbit == 2, row_scale=nbit == 2)
            sfq.write(folder / f"{name}-{nbit}bit.sfq", table, Vocabulary.build(words))
    sfq.write(folder / "rows-only.sfq", quantize(matrix[:2000], 4))


def send_traffic(server: Server) -> None:
    """Send lookups at a rate that rises and falls; the charts cover five minutes."""
    rng = random.Random(0)
    words = "the of and king queen house water music city 2024 no-such-word".split()
    start = monotonic()
    while (passed := monotonic() - start) < SECONDS:
        tokens = rng.choices(words, k=rng.randint(1, 200))
        server.lookup({"tokens": tokens, "model": "minilm-2bit"}).raise_for_status()
        sleep(0.02 * (1.2 + math.sin(passed / 20)) * rng.random())


def main() -> None:
    """Start a server, send it traffic and save the pictures."""
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        write_models(Path(folder))
        server = Server(Path(folder), "--workers", "2")
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            send_traffic(server)
            page = browser.new_page(viewport={"width": 1280, "height": 980})
            page.goto(server.address)
            page.wait_for_selector("#state[data-state=live]")
            page.screenshot(path=IMAGES / "dashboard.png")
            page.set_viewport_size({"width": 1280, "height": 1600})
            page.click("#rows a >> text=minilm-2bit")
            page.fill("#words", "king queen no-such-word")
            page.click("#lookup button")
            page.wait_for_selector(".neighbors li")
            page.locator("#model").screenshot(path=IMAGES / "dashboard-model.png")
        finally:
            browser.close()
            server.stop()


if __name__ == "__main__":
    main()
