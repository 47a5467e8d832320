import json
import re
from pathlib import Path

import pytest
import yaml

from service import config
from service.observability import metrics

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
BUILD_CONTEXT = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.M)


@pytest.fixture
def dockerfile():
    return (ROOT / "Dockerfile").read_text()


def test_the_image_sets_only_existing_variables(dockerfile):
    in_image = set(re.findall(r"\b(SMALLFRY_\w+)=", dockerfile))
    assert in_image == {"SMALLFRY_HOST", "SMALLFRY_PORT"}
    assert in_image <= {config.variable(option) for option in config.options()}


@pytest.mark.parametrize("image", ["Dockerfile", "docker/Dockerfile.cuda"])
def test_the_build_context_contains_what_the_image_copies(image):
    dockerfile = (ROOT / image).read_text()
    copied = {source for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.M) for source in line.split()}
    context = {path.removesuffix("/**") for path in BUILD_CONTEXT}
    assert copied == context
    assert all((ROOT / source).exists() for source in copied)


def test_the_gpu_image_differs_only_in_gpu_settings(dockerfile):
    for_gpu = (ROOT / "docker" / "Dockerfile.cuda").read_text()
    assert set(re.findall(r"\b(SMALLFRY_\w+=\w+)", for_gpu)) == {
        "SMALLFRY_HOST=0",
        "SMALLFRY_PORT=8000",
        "SMALLFRY_DEVICE=auto",
    }
    entrypoint = 'ENTRYPOINT ["env", "--block-signal=TERM", "smallfry-serve"]'
    for same in ("USER 10001:10001", entrypoint, 'CMD ["python", "-m", "service.process.healthcheck"]'):
        assert same in for_gpu
        assert same in dockerfile
    # Any user may write there, and Triton has to.
    assert "TRITON_CACHE_DIR=/tmp/triton" in for_gpu


@pytest.mark.parametrize("image", ["Dockerfile", "docker/Dockerfile.cuda"])
def test_images_are_built_from_what_was_locked(image, dockerfile):
    text = (ROOT / image).read_text().replace("\\\n", " ")
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    assert set(bases) == set(re.findall(r"^FROM (\S+)", dockerfile, re.M))
    assert all(re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", base) for base in bases)
    # Any other wheel has a hash, or was built here.
    installs = re.findall(r"pip (?:install|wheel) .+", text)
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes --only-binary=:all:" in install or "--no-deps" in install


@pytest.fixture
def compose():
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())


def test_compose_mounts_existing_files_read_only(compose):
    mounts = [mount for service in compose["services"].values() for mount in service["volumes"]]
    files = [mount.split(":") for mount in mounts if mount.startswith("./")]
    assert len(files) == 5
    for source, _, mode in files:
        assert (ROOT / "docker" / source).is_file()
        assert mode == "ro"


def test_compose_pins_the_images_of_others(compose):
    images = [service["image"] for name, service in compose["services"].items() if "build" not in service]
    assert len(images) == 2
    assert all(re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", image) for image in images)


def test_compose_publishes_ports_on_localhost_only(compose):
    ports = [port for service in compose["services"].values() for port in service["ports"]]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("path", [*TEXTS, "Dockerfile", "docker/Dockerfile.cuda"])
def test_examples_publish_ports_on_localhost_only(path):
    ports = re.findall(r"(?:-p|--publish)[ =](\S*\d:\d\S*)", (ROOT / path).read_text(encoding="utf-8"))
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert ports or path.endswith(".md")


@pytest.mark.parametrize("path", TEXTS)
def test_examples_pass_no_key_as_an_argument(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert not re.search(r"curl.* -H [\"'](authorization|x-api-key)", text, re.IGNORECASE)


def test_ray_listens_on_localhost():
    options = yaml.safe_load((ROOT / "docker" / "ray" / "serve.yaml").read_text())["http_options"]
    assert options["host"] == "127.0.0.1"


def test_compose_runs_the_service_without_privileges(compose):
    service = compose["services"]["smallfry"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert set(service["environment"]) <= {config.variable(option) for option in config.options()}


def test_the_grace_period_of_docker_exceeds_the_shutdown_timeout(compose):
    assert "stop_grace_period" not in compose["services"]["smallfry"]
    assert config.Config().shutdown_timeout + 1 < 10  # the default; workers are killed after one more second


def test_prometheus_scrapes_the_compose_service(compose):
    (job,) = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())["scrape_configs"]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert host in compose["services"]
    assert int(port) == config.Config().port


def test_dashboard_and_alerts_use_existing_metrics_and_labels():
    dashboard = json.loads((ROOT / "docker" / "grafana" / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [variable["query"] for variable in dashboard["templating"]["list"]]
    (group,) = yaml.safe_load((ROOT / "docker" / "prometheus-rules.yml").read_text())["groups"]
    expressions += [rule["expr"] for rule in group["rules"] if "up{" not in rule["expr"]]
    labels = {family.name: {*family.labels, "le", "instance"} for family in metrics.FAMILIES}
    for expression in expressions:
        names = {name.removesuffix("_bucket") for name in re.findall(r"smallfry_\w+", expression)}
        assert names
        assert names <= labels.keys()
        used = set(re.findall(r"(\w+)!?=", expression))
        used |= {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
        assert used <= set.union(*(labels[name] for name in names))


def test_grafana_dashboard_uses_the_provisioned_source():
    dashboard = (ROOT / "docker" / "grafana" / "dashboard.json").read_text()
    (source,) = yaml.safe_load((ROOT / "docker" / "grafana" / "datasource.yaml").read_text())["datasources"]
    assert set(re.findall(r'"type": "prometheus",\s+"uid": "(\w+)"', dashboard)) == {source["uid"]}
