import sys
from pathlib import Path

# The examples are scripts, run from their own folder: no package to import them from.
for example in ("drqa", "fidelity", "sentence_classification"):
    sys.path.append(str(Path(__file__).resolve().parents[2] / "examples" / example))
