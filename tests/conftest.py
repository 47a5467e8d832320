import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("smallfry", deadline=None)
settings.load_profile("smallfry")


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of real embedding files; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("SMALLFRY_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data is not at {folder}: set SMALLFRY_DATA to its folder")
    return folder
