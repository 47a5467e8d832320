"""Read ``/metrics`` of a running server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.servers import Server

Samples = dict[str, dict[tuple[str, ...], float]]


def samples(text: str) -> Samples:
    """Parse with Prometheus' own parser: the value of each sample by name and label values."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def gauge(server: Server, name: str) -> int:
    return int(samples(server.client.get("/metrics").text)[name][()])


def difference(server: Server, act: Callable[[], object]) -> Samples:
    """Return by how much each sample changes while `act` runs."""
    before = samples(server.client.get("/metrics").text)
    act()
    after = samples(server.client.get("/metrics").text)
    return {
        name: {labels: value - before.get(name, {}).get(labels, 0) for labels, value in series.items()}
        for name, series in after.items()
    }
