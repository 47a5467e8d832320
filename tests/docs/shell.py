"""Run blocks of sh: servers in the background on free ports, commands without a network as stand-ins."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Timer
from types import TracebackType

SERVER = re.compile(r"(?:[A-Z_]+=\S* +)*(?:smallfry-serve|smallfry serve|make serve|docker run)\b")
ADDRESS = re.compile(r"(\b(?:localhost|127\.0\.0\.1|0\.0\.0\.0):|--port[ =])(8\d\d\d)\b")
# Folders of a machine, which the page's folder stands for.
FOLDER = re.compile(r"(?:(?<=://)|(?<![\w.:/~$}-]))(?=/(?:models|data|shared|run|secrets)\b)")
STAND_IN = Path(__file__).parent / "stand_in.py"
STAND_INS = (
    *("apt-get", "bash", "curl", "docker", "git", "helm", "hf", "kubectl", "make", "pip", "python", "serve"),
    *("smallfry", "smallfry-serve", "unzip", "wget"),
)


class Shell:
    """The shell of a page; a context manager, which stops the servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports: dict[str, int] = {}
        self._servers: dict[str, subprocess.Popen[str]] = {}
        commands = folder / ".commands"
        commands.mkdir()
        for name in STAND_INS:
            (commands / name).symlink_to(STAND_IN)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SMALLFRY_")}
        # Without a buffer, a line and its end are written separately; those of other processes come between.
        inherited.pop("PYTHONUNBUFFERED", None)
        path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environ = inherited | {
            "PATH": path,
            "HOME": str(folder),
            "SMALLFRY_PORT": str(self._port("8000")),
            "SMALLFRY_DRAIN_DELAY": "0",
            "DATA": "$DATA",  # a folder that stays a name: see stand_in.py
        }

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for port in list(self._servers):
            self._stop(port)

    def localized(self, code: str) -> str:
        """Replace ports by free ones, and folders of a machine by those in the page's folder."""
        code = ADDRESS.sub(lambda match: f"{match[1]}{self._port(match[2])}", code)
        return code if "docker " in code else FOLDER.sub(str(self.folder), code)

    def run(self, code: str) -> str:
        """Run a block; return what it prints."""
        printed, lines = "", []
        for line in code.replace("\\\n", " ").splitlines():
            lines.append(line)
            if SERVER.match(line):
                lines[-1] = re.sub(r"\s*&?\s*(#.*)?$", "", line)
                printed += self._serve("\n".join(lines))
                lines = []
        return printed + self._execute("\n".join(lines)) if lines else printed

    def _execute(self, code: str) -> str:
        return subprocess.run(**self._command(code), timeout=120, check=True).stdout

    def _serve(self, code: str) -> str:
        port = re.search(r"--port[ =](\d+)|$", code)[1] or ""
        self._stop(port)
        server = subprocess.Popen(**self._command(code), start_new_session=True)
        self._servers[port] = server
        # A server that does not start in time is killed, which ends its output.
        timer = Timer(60, os.killpg, (server.pid, signal.SIGKILL))
        timer.start()
        printed = ""
        try:
            for line in server.stdout:
                printed += line
                if line.startswith("try: "):
                    return printed
        finally:
            timer.cancel()
        raise subprocess.CalledProcessError(server.wait(), code, printed)

    def _command(self, code: str) -> dict[str, object]:
        return {
            "args": ["/bin/bash", "-euo", "pipefail", "-c", code],
            "cwd": self.folder,
            "env": self._environ,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "stdin": subprocess.DEVNULL,
            "text": True,
        }

    def _stop(self, port: str) -> None:
        if server := self._servers.pop(port, None):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.communicate()

    def _port(self, port: str) -> int:
        if port not in self._ports:
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                self._ports[port] = listener.getsockname()[1]
        return self._ports[port]
