import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of real embedding files; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("SMALLFRY_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data is not at {folder}: set SMALLFRY_DATA to its folder")
    return folder
