"""The Helm chart, rendered by Helm with several sets of values, those of its documentation included."""

import json
import re

import kubernetes_validate
import pytest
import yaml

from service import config
from service.middleware import PROBES
from service.observability import metrics
from smallfry import __version__, cli
from tests.helpers.helm import CHART, render

ROOT = CHART.parents[2]
PAGE = (ROOT / "docs" / "operations" / "kubernetes.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(# values.yaml\n.+?)^```", PAGE, re.M | re.S)
SOURCE = "https://source.example/models/glove"
CLAIM = {"models": {"create": {"enabled": True, "storageClass": "fast"}}, "keys": {"admin": "admin-keys"}}
FETCH = {"models": {"claim": "", "fetch": {"a_b": SOURCE, "glove": SOURCE}, "fetchKey": "fetch-key"}}
MONITORED = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "autoscaling": {"enabled": True},
    "networkPolicy": {"from": [{"podSelector": {}}]},
}
OPEN = {"keys": {"secret": ""}, "serviceMonitor": {"enabled": True}, "networkPolicy": {"enabled": False}}
OPTIONS = {
    "max-body": 4194304,
    "drain-delay": 2.5,
    "shutdown-timeout": 20.5,
    "cors-origin": ["*"],
    "verify": True,
}
SCHEDULED = {
    "options": OPTIONS,
    "env": [{"name": "OTEL_SERVICE_NAME", "value": "embeddings"}],
    "image": {"pullSecrets": ["registry"], "tag": "main"},
    "podAnnotations": {"example.org/team": "search"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "embeddings", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
}
SETS = {
    "default": {},
    "claim": CLAIM,
    "fetch": FETCH,
    "monitored": MONITORED,
    "open": OPEN,
    "scheduled": SCHEDULED,
    **{f"example {number}": yaml.safe_load(example) for number, example in enumerate(EXAMPLES)},
}
REJECTED = {
    "an unknown value": {"replica": 3},
    "an unknown option": {"options": {"max_queue": 1}},
    "an option of the chart's own": {"options": {"port": 80}},
    "a text for a number": {"options": {"workers": "two"}},
    "no models": {"models": {"claim": ""}},
    "a claim without a name": {"models": {**FETCH["models"], "create": {"enabled": True}}},
    "an address without a model": {"models": {"fetch": {"glove": "https://source.example"}}},
    "a name that no model can have": {"models": {"fetch": {"../glove": SOURCE}}},
    "nothing to scale by": {"autoscaling": {"enabled": True, "inFlightRequests": 0, "cpuUtilization": 0}},
    "a key without a Secret": {"keys": {"secret": "", "admin": "admin-keys"}},
}


@pytest.fixture(scope="module")
def renderings():
    pytest.importorskip("helm_python", reason="Helm has no wheel for this platform")
    return dict(zip([*SETS, *REJECTED], render([*SETS.values(), *REJECTED.values()]), strict=True))


@pytest.fixture
def default(renderings):
    return renderings["default"]


def environment(pod):
    return {each["name"]: each["value"] for each in pod["containers"][0]["env"] if "value" in each}


def command(container):
    return [*container["command"], *container["args"]]


@pytest.mark.parametrize("name", SETS)
def test_every_set_of_values_lints_and_renders(renderings, name):
    assert renderings[name].lint == []
    assert renderings[name].error is None


@pytest.mark.parametrize("version", ["1.30", "1.36"])
def test_manifests_satisfy_the_schemas_of_kubernetes(renderings, version):
    manifests = {json.dumps(each) for name in SETS for each in renderings[name].manifests}
    for manifest in map(json.loads, manifests):
        if manifest["kind"] != "ServiceMonitor":
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("name", REJECTED)
def test_the_schema_rejects(renderings, name):
    assert renderings[name].error is not None
    assert renderings[name].lint != []


def test_chart_and_image_have_the_version_of_the_package(default):
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__
    assert default.pod["containers"][0]["image"] == f"smallfry-serve:{__version__}"


def test_the_default_is_what_a_plain_cluster_can_run(default):
    assert default.kinds() == ["Deployment", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Service"]


@pytest.mark.parametrize("name", SETS)
def test_every_selector_finds_the_pods(renderings, name):
    rendering = renderings[name]
    template = rendering.manifest("Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert rendering.manifest("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert rendering.manifest("Service")["spec"]["selector"] == labels
    assert rendering.manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert labels.items() <= rendering.manifest("Service")["metadata"]["labels"].items()
    assert not labels.items() <= rendering.manifest("Pod")["metadata"]["labels"].items()
    ports = [port["name"] for port in template["spec"]["containers"][0]["ports"]]
    assert [port["targetPort"] for port in rendering.manifest("Service")["spec"]["ports"]] == ports
    assert template["spec"]["containers"][0]["ports"][0]["containerPort"] == config.Config().port


@pytest.mark.parametrize("name", SETS)
def test_every_container_runs_without_privileges(renderings, name):
    dockerfile = (ROOT / "Dockerfile").read_text()
    for pod in (renderings[name].pod, renderings[name].manifest("Pod")["spec"]):
        security = pod["securityContext"]
        assert security["runAsNonRoot"]
        assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in dockerfile
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_models_are_read_only_unless_a_key_may_change_them(renderings):
    for name, may_change in (("default", False), ("fetch", False), ("claim", True)):
        (container,) = renderings[name].pod["containers"]
        read_only = {mount["name"]: mount["readOnly"] for mount in container["volumeMounts"]}
        assert read_only == {"models": not may_change, "keys": True}


def test_probes_use_existing_routes_that_need_no_key(default):
    (container,) = default.pod["containers"]
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    assert set(paths.values()) <= PROBES


def test_probes_tolerate_a_busy_server(default):
    (container,) = default.pod["containers"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[name]["timeoutSeconds"] >= 3
        assert container[name]["failureThreshold"] >= 3
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


@pytest.mark.parametrize("name", SETS)
def test_the_server_accepts_its_variables(renderings, name):
    pod = renderings[name].pod
    options = config.load((), environment(pod), "")
    assert pod["terminationGracePeriodSeconds"] > options.shutdown_timeout + 1  # then workers are killed


def test_options_keep_their_values(renderings):
    options = config.load((), environment(renderings["scheduled"].pod), "")
    assert {name: getattr(options, name.replace("-", "_")) for name in OPTIONS} == {
        **OPTIONS,
        "cors-origin": ("*",),
    }


def test_the_schema_has_every_option_that_the_chart_does_not_set():
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = schema["properties"]["options"]["properties"]
    own = {"embeddings", "host", "port", "uds", "uds-mode", "api-keys-file", "admin-key-file"}
    own |= {"ssl-certfile", "ssl-keyfile", "ssl-ca-certs"}
    assert {f"--{name}" for name in own | known.keys()} == set(map(config.flag, config.options())) - {None}
    for option in config.options():
        if (name := option.name.replace("_", "-")) in known and "min" in option.metadata:
            assert known[name]["minimum"] == option.metadata["min"]


def test_service_links_do_not_override_the_port(default):
    # Kubernetes tells pods of a Service NAME by NAME_PORT=tcp://…, which wins over the image's variables.
    name = default.manifest("Service")["metadata"]["name"].upper()
    assert f"{name}_PORT" in {config.variable(option) for option in config.options()}
    assert default.pod["enableServiceLinks"] is False


def test_pods_read_their_keys_from_a_secret(renderings):
    for rendering in (renderings["default"], renderings["claim"]):
        options = config.load((), environment(rendering.pod), "")
        volumes = {each["name"]: each for each in rendering.pod["volumes"]}
        secret = volumes["keys"]["secret"]
        assert not secret.get("optional")
        files = [options.api_keys_file, options.admin_key_file]
        assert [f"/keys/{item['path']}" for item in secret["items"]] == [file for file in files if file]


def test_models_are_fetched_by_the_command_of_the_image(renderings):
    containers = renderings["fetch"].pod["initContainers"]
    assert [container["name"] for container in containers] == ["fetch-0", "fetch-1"]
    for container, name in zip(containers, ("a_b", "glove"), strict=True):
        program, *words = command(container)
        assert program == "smallfry"
        arguments = cli.parser().parse_args(words)
        assert (arguments.url, arguments.output) == (SOURCE, f"/models/{name}.sfq")
        assert arguments.api_key_file == "/keys/fetch-key"
    volumes = {each["name"]: each for each in renderings["fetch"].pod["volumes"]}
    assert volumes["models"] == {"name": "models", "emptyDir": {}}
    assert volumes["fetch-key"]["secret"]["items"] == [{"key": "fetch-key", "path": "fetch-key"}]


def test_the_claim_of_the_chart_is_mounted_and_outlives_it(renderings):
    claim = renderings["claim"].manifest("PersistentVolumeClaim")
    volume = next(each for each in renderings["claim"].pod["volumes"] if each["name"] == "models")
    assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"], "readOnly": False}
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert renderings["claim"].pod["securityContext"]["fsGroup"] == 10001


def test_the_autoscaler_follows_an_existing_gauge(renderings):
    autoscaler = renderings["monitored"].manifest("HorizontalPodAutoscaler")["spec"]
    deployment = renderings["monitored"].manifest("Deployment")
    assert autoscaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    pods, resource = autoscaler["metrics"]
    kinds = {family.name: (family.kind, family.labels) for family in metrics.FAMILIES}
    assert kinds[pods["pods"]["metric"]["name"]] == ("gauge", ())
    assert resource["resource"]["name"] == "cpu"


def test_prometheus_scrapes_the_service_with_its_own_key(renderings):
    monitor = renderings["monitored"].manifest("ServiceMonitor")
    credentials = {"name": "smallfry-keys", "key": "metrics-key"}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"] == {
        "selector": renderings["monitored"].manifest("Deployment")["spec"]["selector"],
        "endpoints": [
            {
                "port": renderings["monitored"].manifest("Service")["spec"]["ports"][0]["name"],
                "path": "/metrics",
                "interval": "15s",
                "authorization": {"type": "Bearer", "credentials": credentials},
            }
        ],
    }
    assert "/metrics" in metrics.ROUTES
    (container,) = renderings["monitored"].pod["containers"]
    assert {"name": "SMALLFRY_API_KEYS", "valueFrom": {"secretKeyRef": credentials}} in container["env"]
    assert "authorization" not in renderings["open"].manifest("ServiceMonitor")["spec"]["endpoints"][0]


def test_pods_connect_to_nothing_unless_they_fetch(renderings):
    policy = renderings["default"].manifest("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"ports": [{"port": "http"}]}]
    assert "egress" not in policy
    dns, source = renderings["fetch"].manifest("NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert source == {"ports": [{"protocol": "TCP"}]}


def test_the_test_pod_may_connect_where_few_peers_may(renderings):
    (rule,) = renderings["monitored"].manifest("NetworkPolicy")["spec"]["ingress"]
    peer, test = rule["from"]
    assert peer == {"podSelector": {}}
    labels = renderings["monitored"].manifest("Pod")["metadata"]["labels"]
    assert test["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_test_pod_asks_the_service(default):
    (container,) = default.manifest("Pod")["spec"]["containers"]
    options = config.load((), {each["name"]: each["value"] for each in container["env"]}, "")
    service = default.manifest("Service")
    assert (options.host, options.port) == (service["metadata"]["name"], service["spec"]["ports"][0]["port"])
    assert container["command"] == ["python", "-m", "service.process.healthcheck"]


def test_notes_warn_of_a_server_without_keys(renderings):
    assert "WARNING" not in renderings["default"].notes
    assert "keys.secret is empty" in renderings["open"].notes
    assert "changes the models of one pod" in renderings["claim"].notes


def leaves(values, prefix=""):
    for name, value in values.items():
        path = prefix + name
        if isinstance(value, dict) and value and path != "resources":
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def test_every_value_is_documented_with_its_default():
    rows = dict(re.findall(r"^\| `([\w.-]+)` \| `?(.*?)`? \| .+ \|$", PAGE.partition("## Values")[2], re.M))
    for path, default in leaves(yaml.safe_load((CHART / "values.yaml").read_text())):
        expected = "" if path == "resources" else default if isinstance(default, str) else json.dumps(default)
        assert rows.pop(path) == expected
    assert not rows


def test_the_rule_of_the_adapter_offers_the_gauge_that_the_autoscaler_reads():
    (rules,) = re.findall(r"^```yaml\n(# values of prometheus-adapter\n.+?)^```", PAGE, re.M | re.S)
    (rule,) = yaml.safe_load(rules)["rules"]["custom"]
    template = (CHART / "templates" / "autoscaler.yaml").read_text()
    assert re.search(r"name: (smallfry_\w+)", template)[1] == rule["seriesQuery"].partition("{")[0]
