"""Helm, in a process of its own: its Go runtime has threads, next to which the tests could not fork."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "docker" / "helm" / "smallfry"

Manifest = dict[str, Any]


class Rendering:
    """The chart with some values: what ``helm lint --strict`` and ``helm template`` say."""

    def __init__(self, lint: list[str], error: str | None, files: dict[str, str]) -> None:
        self.lint = lint
        self.error = error
        self.notes = files.pop("smallfry/templates/NOTES.txt", "")
        documents = [document for text in files.values() for document in yaml.safe_load_all(text) if document]
        self.manifests: list[Manifest] = documents

    def kinds(self) -> list[str]:
        return sorted(manifest["kind"] for manifest in self.manifests)

    def manifest(self, kind: str) -> Manifest:
        (found,) = [manifest for manifest in self.manifests if manifest["kind"] == kind]
        return found

    @property
    def pod(self) -> Manifest:
        """The pod's specification in the Deployment."""
        spec: Manifest = self.manifest("Deployment")["spec"]["template"]["spec"]
        return spec


def render(values: list[dict[str, Any]]) -> list[Rendering]:
    """Lint and render the chart with each of some values."""
    command = [sys.executable, __file__]
    done = subprocess.run(command, input=json.dumps(values), stdout=subprocess.PIPE, text=True, check=True)
    return [Rendering(**report) for report in json.loads(done.stdout)]


def _report(values: dict[str, Any]) -> dict[str, Any]:
    from helm_python import HelmError
    from helm_python.chart import Chart, lint

    info = 1
    messages = lint(CHART, values, strict=True)["messages"]
    found = [f"{each['path']}: {each['error']}" for each in messages if each["severity"] > info]
    with Chart.load(CHART) as chart:
        try:
            chart.validate_schema(values)
            files = chart.render(values, name="smallfry", namespace="default")
        except HelmError as error:
            return {"lint": found, "error": str(error), "files": {}}
    return {"lint": found, "error": None, "files": files}


if __name__ == "__main__":
    json.dump([_report(values) for values in json.load(sys.stdin)], sys.stdout)
