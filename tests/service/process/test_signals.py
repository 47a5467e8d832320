"""Signals while the server starts, also as process 1 of a container."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.servers import eventually

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")
MOMENTS = [step / 5 for step in range(6)]


def as_process_1():
    """Say whether processes can be started in a PID namespace of their own."""
    return (
        shutil.which("unshare") and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0
    )


@pytest.fixture(params=[pytest.param(False, id="child"), pytest.param(True, id="process 1")])
def launch(request, files, tmp_path):
    """Start a server, as process 1 of a PID namespace or not; return its command and its PID."""
    if request.param and not as_process_1():
        pytest.skip("no permission to create a PID namespace")
    # Blocked as by the image, so that the start of the interpreter is covered too.
    command = [*(NAMESPACE if request.param else ()), "env", "--block-signal=TERM", sys.executable, "-m"]
    options = ["--embeddings", str(files["small"]), "--uds", str(tmp_path / "socket"), "--drain-delay", "0"]

    def starter(*module, workers="1"):
        process = subprocess.Popen([*command, *module, *options, "--workers", workers])
        return process, inner(process) if request.param else process.pid

    return starter


def inner(process):
    """Return the PID, outside, of process 1 of the namespace that a process has created."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    eventually(lambda: children.read_text())
    return int(children.read_text())


@pytest.mark.parametrize(
    ("module", "workers"), [(["service"], "1"), (["service"], "3"), (["smallfry", "serve"], "1")]
)
def test_sigterm_during_the_start_ends_the_server(launch, module, workers, tmp_path):
    for moment in MOMENTS:
        process, pid = launch(*module, workers=workers)
        eventually(lambda pid=pid: runs_python(pid))
        time.sleep(moment)
        os.kill(pid, signal.SIGTERM)
        assert process.wait(20) == 0, f"SIGTERM after {moment} s"
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sighup_during_the_start_reloads_afterwards(launch, workers, tmp_path):
    process, pid = launch("service", workers=workers)
    eventually(lambda: blocks(pid, signal.SIGHUP))
    os.kill(pid, signal.SIGHUP)
    eventually((tmp_path / "socket").exists)
    eventually(lambda: not blocks(pid, signal.SIGHUP))
    assert process.poll() is None
    os.kill(pid, signal.SIGTERM)
    assert process.wait(20) == 0


def blocks(pid, number):
    """Say whether a process blocks a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def runs_python(pid):
    """Say whether a process has become the interpreter, with SIGTERM blocked; before, signals may be lost."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(sys.executable.encode())


def test_repeated_signals_do_not_change_the_exit_code(launch, tmp_path):
    process, pid = launch("service")
    eventually((tmp_path / "socket").exists)
    while process.poll() is None:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    assert process.wait(20) == 0
    assert list(tmp_path.iterdir()) == []
