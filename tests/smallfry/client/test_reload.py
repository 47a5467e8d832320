"""A model that is replaced while clients read it."""

import os
import signal

import smallfry
from tests.helpers.servers import Server, write_sfq


def test_no_result_mixes_two_digests(connect, tmp_path):
    contents = {}
    for seed in (1, 2):
        path = write_sfq(tmp_path / f"content-{seed}", 600, 20, 2, seed=seed)
        with smallfry.open(path) as store:
            contents[store.digest] = (path, store.rows(range(600)).tobytes())
    first, second = contents
    served = tmp_path / "words.sfq"
    os.link(contents[first][0], served)
    server = Server(served, forked=True)
    client = connect(server.address, batch_size=100)
    tokens = [f"token-{row}" for row in range(12, 600)]
    try:
        for digest in (second, first) * 5:
            os.link(contents[digest][0], tmp_path / "new")
            os.replace(tmp_path / "new", served)
            server.process.send_signal(signal.SIGHUP)
            result = client.lookup(tokens)
            while result.digest != digest:
                assert result.vectors.tobytes() == contents[result.digest][1][12 * 80 :]
                result = client.lookup(tokens)
            assert result.vectors.tobytes() == contents[digest][1][12 * 80 :]
    finally:
        server.stop()
