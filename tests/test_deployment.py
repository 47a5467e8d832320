import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from service import config

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = sorted((ROOT / "docker" / "kubernetes").glob("*.yaml"))
BUILD_CONTEXT = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.M)


def manifest(kind):
    documents = [yaml.safe_load(path.read_text()) for path in MANIFESTS]
    return next(document for document in documents if document["kind"] == kind)


@pytest.fixture
def pod():
    return manifest("Deployment")["spec"]["template"]["spec"]


@pytest.fixture
def dockerfile():
    return (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", ["1.30", "1.36"])
def test_manifests_satisfy_the_schemas_of_kubernetes(path, version):
    kubernetes_validate.validate(yaml.safe_load(path.read_text()), version, strict=True)


def test_every_selector_finds_the_pods():
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "smallfry"


def test_the_container_runs_without_privileges(pod, dockerfile):
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert f"USER {pod['securityContext']['runAsUser']}:" in dockerfile
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(mount["readOnly"] for mount in container["volumeMounts"])


def test_readiness_and_liveness_ask_different_routes(pod):
    (container,) = pod["containers"]
    assert container["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_pods_get_longer_to_end_than_the_server_takes(pod):
    assert pod["terminationGracePeriodSeconds"] > config.Config().shutdown_timeout


def test_only_variables_that_the_server_knows_are_set(pod, dockerfile):
    known = {config.variable(option) for option in config.options()}
    in_pod = {variable["name"] for variable in pod["containers"][0]["env"]}
    in_image = set(re.findall(r"\b(SMALLFRY_\w+)=", dockerfile))
    assert in_pod | in_image <= known
    assert in_image == {"SMALLFRY_HOST", "SMALLFRY_PORT"}


def test_the_build_context_holds_what_the_image_copies(dockerfile):
    copied = {source for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.M) for source in line.split()}
    context = {path.removesuffix("/**") for path in BUILD_CONTEXT}
    assert copied == context
    assert all((ROOT / source).exists() for source in copied)
