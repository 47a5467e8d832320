import pytest


@pytest.fixture
def save(tmp_path):
    def save(text, name="words.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return save
