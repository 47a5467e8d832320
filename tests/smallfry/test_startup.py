"""Commands as processes: interrupted while they start, and with closed or full standard streams."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from smallfry import quantize, save, startup

SMALLFRY = f"{sys.executable} -m smallfry"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    matrix = np.random.default_rng(0).standard_normal((3, 4), np.float32)
    save(tmp_path / "w.sfq", quantize(matrix, 4), ["a", "b", "c"])
    (tmp_path / "v.txt").write_text("a 1 2\nb 3 4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return tmp_path


def shell(command):
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("verb", ["info w.sfq", "verify w.sfq", "lookup w.sfq a", "--version", "info --help"])
@pytest.mark.parametrize(
    ("redirection", "reason"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")]
)
def test_output_that_cannot_be_written_fails_in_one_line(folder, verb, redirection, reason):
    code, _, err = shell(f"{SMALLFRY} {verb} {redirection}")
    assert (code, err) == (1, f"smallfry: error: standard output: {reason}\n")


def test_closed_standard_input_is_named(folder):
    code, out, err = shell(f"{SMALLFRY} compress - -o q.sfq <&-")
    assert (code, out) == (1, "")
    assert err == ("smallfry: error: standard input is closed. Please give a file, or pipe data in.\n")


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", "2>/dev/full", "2>/dev/full >&-"])
def test_closed_standard_error_keeps_the_exit_code(folder, closed):
    assert shell(f"{SMALLFRY} info missing.sfq {closed}") == (1, "", "")
    assert shell(f"{SMALLFRY} shrink {closed}") == (2, "", "")


def test_files_do_not_get_the_descriptors_of_closed_streams(folder):
    assert shell(f"{SMALLFRY} compress v.txt -o q.sfq <&- >&- 2>&-")[0] == 1
    assert shell(f"{SMALLFRY} verify q.sfq")[0] == 0


def test_names_that_are_not_utf8_are_escaped(folder):
    os.rename(b"w.sfq", b"w\xff.sfq")
    code, out, err = shell(f"{SMALLFRY} info 'w'*.sfq")
    assert (code, err) == (0, "") and r"w\udcff.sfq" in out
    code, out, err = shell(f"{SMALLFRY} lookup 'w'*.sfq \"$(printf 'caf\\351')\"")
    assert (code, err) == (1, "smallfry: not in the vocabulary: 'caf\\udce9'\n")
    assert out.startswith(r"caf\udce9 0.0")


@pytest.mark.parametrize("name", ["smallfry", "smallfry-serve"])
def test_ctrl_c_during_imports_exits_130_in_one_line(name):
    program = f"import os, signal; from smallfry import startup\nwith startup.importing({name!r}):\n"
    program += " os.kill(os.getpid(), signal.SIGINT)\n print('alive')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{name}: interrupted\n")


@pytest.mark.parametrize("module", ["smallfry", "service"])
def test_ctrl_c_during_a_command_exits_130_in_one_line(folder, module):
    pytest.importorskip("fastapi", reason="the server is not installed")
    program = (
        "import os, signal, smallfry.cli, service.cli\n"
        "def interrupt(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        "smallfry.cli.main = service.cli.main = interrupt\n"
        f"from {module}.__main__ import main\n"
        "raise SystemExit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.endswith(": interrupted\n") and done.stderr.count("\n") == 1


def test_importing_leaves_an_ignored_ctrl_c_ignored(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with startup.importing("smallfry"):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
