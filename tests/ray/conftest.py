"""A real cluster of three nodes on this machine, and the server on it."""

import os
import socket

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
# Each job takes the workers of the last one instead of starting its own.
os.environ["RAY_idle_worker_killing_time_threshold_ms"] = "60000"
os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "service.ray.proxy:middlewares"

import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster

from tests.helpers.ray_cluster import deploy
from tests.helpers.servers import starting, write_sfq

OBJECT_STORE = 100 << 20
start = pytest.fixture(scope="session", name="start")(starting)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_sfq(tmp_path_factory.mktemp("models") / "words.sfq", 2000, 50, 2)


@pytest.fixture(scope="session")
def cluster():
    """A head that runs no replicas, and two nodes for one replica each."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": OBJECT_STORE,
            "include_dashboard": False,
            "include_log_monitor": False,  # nothing reads the logs of workers from it
        },
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
    ray.init(address=cluster.address, log_to_driver=False, include_dashboard=False)
    yield cluster
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="session")
def proxy(cluster):
    """Return the address of Serve's proxy."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port, "location": "HeadOnly"})
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def address(proxy, model):
    """Return the address of two replicas."""
    deploy([str(model)])
    yield proxy
    serve.delete("smallfry")


@pytest.fixture(scope="session")
def single(model, start):
    """The same model, served without Ray."""
    return start(model)
