import sys
from pathlib import Path

# The benchmarks are scripts, run from their own folder: no package to import them from.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
