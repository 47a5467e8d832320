"""Vocabularies fetched from another instance."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import Server

from service.errors import ConfigError
from service.fetched import local_embeddings


def test_a_url_becomes_a_file_that_many_share(server: Server, files: dict[str, Path], tmp_path: Path) -> None:
    url = f"{server.address}/models/small/file"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: local_embeddings([url, "other=/x.sfq"], tmp_path), range(8)))
    assert len(set(found)) == 1
    (item, other), path = found[0], Path(found[0][0].removeprefix("small="))
    assert other == "other=/x.sfq"
    assert item == f"small={path}"
    assert path.read_bytes() == files["small"].read_bytes()
    assert [each for each in tmp_path.iterdir() if each.suffix == ".sfq"] == [path]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_name_before_the_url_is_kept(server: Server, tmp_path: Path) -> None:
    (item,) = local_embeddings([f"words={server.address}/models/small/file"], tmp_path)
    assert item.startswith(f"words={tmp_path}")


@pytest.mark.parametrize("path", ["", "/models/small", "/models/small/file/more", "/models//file"])
def test_a_url_of_something_else_is_refused(server: Server, tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="is not the file of a model"):
        local_embeddings([f"{server.address}{path}"], tmp_path)


def test_a_model_that_is_not_served_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="404"):
        local_embeddings([f"{server.address}/models/none/file"], tmp_path)
    assert not list(tmp_path.iterdir())
