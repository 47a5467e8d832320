"""Metrics and alerts as Prometheus' own tool reads them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.helpers.servers import Server, write_sfq

DOCKER = Path(__file__).parents[2] / "docker"
pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def promtool(*arguments: str, text: str | None = None, folder: Path | None = None) -> str:
    """Run promtool; return its output if it succeeds without a remark."""
    ended = subprocess.run(
        ["promtool", *arguments], input=text, cwd=folder, text=True, capture_output=True, timeout=60
    )
    assert ended.returncode == 0 and not ended.stderr, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def server(start: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return start(write_sfq(tmp_path_factory.mktemp("models") / "small.sfq"))


def test_metrics_follow_the_conventions(server: Server) -> None:
    promtool("check", "metrics", text=server.client.get("/metrics").text)
    for body in ({"tokens": ["the"]}, {"tokens": 1}):
        server.lookup(body)
    server.client.get("/nowhere")
    promtool("check", "metrics", text=server.client.get("/metrics").text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The configuration as it lies in the container."""
    shutil.copy(DOCKER / "prometheus.yml", tmp_path)
    shutil.copy(DOCKER / "prometheus-rules.yml", tmp_path / "rules.yml")
    return tmp_path


def test_the_configuration_and_the_rules_are_valid(folder: Path) -> None:
    assert "SUCCESS: 4 rules found" in promtool("check", "config", "prometheus.yml", folder=folder)


@pytest.mark.parametrize(
    ("series", "alert"),
    [
        ({'up{job="smallfry", instance="a"}': "1 0x20"}, "SmallfryDown"),
        ({'up{job="smallfry", instance="a"}': "1x20"}, None),
        (
            {
                'smallfry_requests_total{instance="a", route="/lookup", code="500"}': "0x3 2x20",
                'smallfry_requests_total{instance="a", route="/lookup", code="200"}': "0+20x20",
            },
            "SmallfryErrors",
        ),
        (
            {
                'smallfry_requests_total{instance="a", route="/readyz", code="503"}': "0+20x20",
                'smallfry_requests_total{instance="a", route="/lookup", code="200"}': "0+20x20",
            },
            None,
        ),
        ({'smallfry_rejected_total{instance="a", reason="queue_full"}': "0x3 1x20"}, "SmallfryQueue"),
        ({'smallfry_rejected_total{instance="a", reason="auth"}': "0+1x20"}, None),
        ({'smallfry_failed_files{instance="a"}': "0 3x20"}, "SmallfryFailedFiles"),
        ({'smallfry_failed_files{instance="a"}': "0x20"}, None),
    ],
)
def test_rules_fire_at_the_first_error(folder: Path, series: dict[str, str], alert: str | None) -> None:
    firing = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": "6m",
        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else [],
    }
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [firing],
    }
    (folder / "tests.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [case]}))
    promtool("test", "rules", "tests.yml", folder=folder)
