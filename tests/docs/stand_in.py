#!/usr/bin/env python3
"""Commands of the documentation: those that need a network or a cluster only check their arguments."""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.executable).parent / "python"
LOCAL = re.compile(r"(https?://)?(localhost|127\.0\.0\.1)\b")


def fail(message: str) -> NoReturn:
    """Fail as the block's command."""
    sys.exit(f"{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}: {message}")


def execute(*command: str | Path) -> NoReturn:
    """Become a real command."""
    os.execvp(command[0], list(map(str, command)))


def existing(path: str) -> Path:
    """Return a path of the page's folder, or else of the project."""
    for base in (Path.cwd(), ROOT):
        if (base / path).exists():
            return base / path
    fail(f"{path} does not exist")


def options(arguments: list[str], *names: str) -> list[str]:
    """Return the values of an option."""
    found = []
    for argument, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, joined = argument.partition("=")
        if name in names:
            found.append(joined if equals else value)
    return found


def pip(arguments: list[str]) -> None:
    """Check that packages are those of pyproject.toml, and that the extras exist."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(re.findall(r"^([\w-]+) = \[", text.partition("[project.optional-dependencies]")[2], re.M))
    packages = {re.split(r"[\[<>=;~!]", name)[0] for name in re.findall(r'"([\w.-]+[^"]*)"', text)}
    for argument in arguments[1:]:
        name, _, rest = argument.partition("[")
        if argument.startswith("-"):
            continue
        if name in ("smallfry", ".") or name.endswith(".whl"):
            if unknown := set(filter(None, re.split(r"[\],]", rest))) - extras:
                fail(f"no extra {', '.join(sorted(unknown))}")
        elif re.split(r"[<>=~!]", name)[0] not in packages:
            fail(f"{name} is not a package of pyproject.toml")


def python(arguments: list[str]) -> None:
    """Check benchmarks and examples, whose runs take long; run everything else."""
    if arguments[:2] == ["-m", "pip"]:
        pip(arguments[2:])
        return
    if arguments[:2] == ["-m", "pytest"]:
        for path in arguments[2:]:
            if path.startswith("tests/"):
                existing(path.partition("::")[0])
        return
    name = arguments[1] if arguments[:1] == ["-m"] else (arguments or [""])[0]
    if not name.startswith(("benchmarks", "examples")):
        execute(PYTHON, *arguments)
    path = ROOT / name.removesuffix(".py").replace(".", "/")
    if not path.is_dir() and not path.with_suffix(".py").exists():
        fail(f"{path} does not exist")
    check_flags(
        arguments,
        *(path if path.is_dir() else path.parent).glob("*.py"),
        *ROOT.glob("benchmarks/common/*.py"),
    )


def smallfry(arguments: list[str]) -> None:
    """Check measurements of the folder of real data, which take long; run everything else."""
    if not any(word.startswith("$DATA/") for word in arguments):
        execute(PYTHON, "-m", "smallfry", *arguments)
    check_flags(arguments, *ROOT.glob("smallfry/cli/*.py"))


def check_flags(arguments: list[str], *sources: Path) -> None:
    """Check that the sources have each flag."""
    text = "".join(source.read_text(encoding="utf-8") for source in sources)
    for flag in arguments:
        if flag.startswith("--") and f'"{flag.partition("=")[0]}"' not in text:
            fail(f"no option {flag}")


def make(arguments: list[str]) -> None:
    """Check that targets and variables exist; serve the sample."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for argument in arguments:
        name, variable, _ = argument.partition("=")
        if not re.search(rf"\b{name}\b" if variable else rf"^{re.escape(name)}:", text, re.M):
            fail(f"no {'variable' if variable else 'target'} {name}")
    if "serve" in arguments:
        execute(PYTHON, "-m", "service", "--embeddings", "sample.sfq")


def docker(arguments: list[str]) -> None:
    """Check files; run the server with the paths of volumes mapped."""
    verb = arguments[0]
    for file in options(arguments, "-f", "--file"):
        existing(file)
    if verb == "build":
        stages = re.findall(r" AS (\w+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
        for target in options(arguments, "--target"):
            if target not in stages:
                fail(f"no stage {target}")
        existing(arguments[-1])
    elif verb == "run":
        run_container(arguments[1:])
    elif verb not in ("compose", "buildx", "push", "pull", "tag", "stop", "logs", "exec"):
        fail("unknown verb")


def run_container(arguments: list[str]) -> NoReturn:
    """Run the command of the image with the paths of its volumes."""
    images = [word for word in arguments if re.fullmatch(r"(\S+/)?smallfry-serve(-cuda)?(:\S+)?", word)]
    if not images:
        fail("not the image smallfry-serve")
    image = arguments.index(images[0])
    flags, command = arguments[:image], arguments[image + 1 :]
    variables = [word for word in options(flags, "-e", "--env") if "=" in word]
    for volume in options(flags, "-v", "--volume"):
        host, container, *_ = volume.split(":")
        existing(host)
        inside = re.compile(rf"(^|[=,]){re.escape(container)}\b")
        command = [inside.sub(rf"\g<1>{host}", word) for word in command]
        variables = [inside.sub(rf"\g<1>{host}", word) for word in variables]
    os.environ.update(variable.split("=", 1) for variable in variables)
    if command and not command[0].startswith("-"):
        execute(*command)
    execute(PYTHON, "-m", "service", *command)


def kubectl(arguments: list[str]) -> None:
    """Check the verb, and that files are YAML."""
    import yaml

    if arguments[0] not in ("apply", "create", "delete", "describe", "get", "logs", "rollout"):
        fail("unknown verb")
    for name in {*options(arguments, "-f", "--filename", "-k")} - {"-"}:
        path = existing(name)
        for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
            if not list(yaml.safe_load_all(file.read_text(encoding="utf-8"))):
                fail(f"{file} is empty")
    for value in options(arguments, "--from-file"):
        existing(value.rpartition("=")[2])


def helm(arguments: list[str]) -> None:
    """Check the chart, files of values, and that values that are set exist."""
    import yaml

    charts = [existing(word) for word in arguments if "/" in word and (ROOT / word / "Chart.yaml").is_file()]
    if arguments[0] not in ("install", "upgrade", "template", "lint", "show", "test"):
        fail("unknown verb")
    if arguments[0] != "test" and not charts:
        fail("no chart")
    for file in options(arguments, "-f", "--values"):
        existing(file)
    for setting in options(arguments, "--set", "--set-string", "--set-file"):
        values = yaml.safe_load((charts[0] / "values.yaml").read_text(encoding="utf-8"))
        for name in re.split(r"(?<!\\)\.|\[", setting.partition("=")[0]):
            if isinstance(values, dict) and name not in values and values:
                fail(f"no value {name} of {setting}")
            values = values.get(name) if isinstance(values, dict) else None


def serve(arguments: list[str]) -> None:
    """Check the configuration or the application of Ray Serve."""
    if arguments[0] not in ("run", "deploy", "build", "status", "shutdown", "config"):
        fail("unknown verb")
    for word in arguments[1:]:
        if word.endswith(".yaml"):
            existing(word)
        elif ":" in word and "=" not in word and "//" not in word:
            existing(word.partition(":")[0].replace(".", "/") + ".py")


def curl(arguments: list[str]) -> None:
    """Request from servers of this machine, and fail with an error's status; other files are inputs."""
    urls = [word for word in arguments if "://" in word and not word.startswith("@")]
    for url in urls:
        if not LOCAL.match(url) and "--unix-socket" not in arguments:
            name = url.rpartition("/")[2]
            copy(name, *(options(arguments, "-o", "--output", "-O") or [name]))
            return
    real = shutil.which("curl", path=os.environ["PATH"].partition(os.pathsep)[2])
    execute(real, "-sS", "--fail-with-body", *arguments)


def wget(arguments: list[str]) -> None:
    """Copy an input of the page."""
    for url in arguments:
        if "://" in url:
            copy(url.rpartition("/")[2], *(options(arguments, "-O") or [url.rpartition("/")[2]]))


def hf(arguments: list[str]) -> None:
    """Copy an input of the page as a model of the hub."""
    if arguments[0] != "download":
        fail("unknown verb")
    copy(arguments[1].rpartition("/")[2], *options(arguments, "--local-dir"))


def copy(name: str, target: str = "") -> None:
    """Check that an input exists; copy it if it is to have another name."""
    source = existing(name)
    if target and not os.path.exists(target):
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def unzip(arguments: list[str]) -> None:
    """Extract an archive."""
    archive, *members = (word for word in arguments if not word.startswith("-"))
    with zipfile.ZipFile(archive) as file:
        file.extractall(members=members or None)


def git(arguments: list[str]) -> None:
    """Check the verb."""
    if arguments[0] not in ("clone", "commit", "push", "pull", "add", "switch", "checkout"):
        fail("unknown verb")


def bash(arguments: list[str]) -> None:
    """Check that a script of the examples and its options exist."""
    check_flags(arguments, *existing(arguments[0]).parent.glob("*.*"))


def smallfry_serve(arguments: list[str]) -> None:
    """Serve."""
    execute(PYTHON, "-m", "service", *arguments)


def apt_get(arguments: list[str]) -> None:
    """Accept any packages."""


def main() -> None:
    """Run the command that this file is called as."""
    globals()[Path(sys.argv[0]).name.replace("-", "_")](sys.argv[1:])


if __name__ == "__main__":
    main()
