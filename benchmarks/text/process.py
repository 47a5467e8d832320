"""A process that opens a text model and encodes; prints its private memory and the time to the first vector.

python -m benchmarks.text.process smallfry potion.sfq
"""

from __future__ import annotations

import json
import os
import sys
import time

from benchmarks.common.processes import private_bytes

TEXTS = [f"How many teams play in season {year} of the league?" for year in range(1024)]


def main() -> None:
    """Encode one text, then many."""
    role, model = sys.argv[1:]
    if role == "smallfry":
        from smallfry import open

        start = time.perf_counter()
        encode = open(model).encoder().encode
    else:
        from model2vec import StaticModel

        start = time.perf_counter()
        encode = StaticModel.from_pretrained(model).encode
    encode(TEXTS[:1])
    seconds = time.perf_counter() - start
    encode(TEXTS)
    print(json.dumps({"private": private_bytes(os.getpid()), "seconds": seconds}))


if __name__ == "__main__":
    main()
