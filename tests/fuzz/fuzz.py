"""Build and run the coverage-guided fuzzers, and report the number of inputs that each tried.

Those in ``native`` test the C++ kernels, those in ``python`` the readers over the native module, all under
AddressSanitizer and UndefinedBehaviorSanitizer. Each starts from ``corpus/<name>_seed_corpus.zip`` (a name
of OSS-Fuzz) and collects new inputs under ``build``. ``--merge`` replaces the archive by the fewest inputs
that reach the same code.

    python tests/fuzz/fuzz.py --seconds 60
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NATIVE = ROOT / "native"
BUILD = ROOT / "build" / "fuzz"
ROWS = ("halves", "level_rows", "rows", "simd", "trellis_rows")
SOURCES = {
    "lines": (),
    "tokens": (),
    "json_tokens": (),
    "tokenizer": (),
    "rows": ROWS,
    "grid": ("grid", "simd"),
    "capi": ("capi", "packed_table", "pages", "sfq_file", "sfq_header", *ROWS),
}
PYTHON = ("sfq", "readers", "responses")
MAX_LENGTH = 1024
SANITIZE = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
#: Without "vptr" and "function", which need the C++ runtime that Python is not started with.
UNDEFINED = (
    "alignment,bool,bounds,builtin,enum,integer-divide-by-zero,nonnull-attribute,null,object-size,"
    "pointer-overflow,return,returns-nonnull-attribute,shift,signed-integer-overflow,unreachable,vla-bound"
)


@dataclass(frozen=True)
class Fuzzer:
    """A built fuzzer: its name, command and additional environment."""

    name: str
    command: tuple[str, ...]
    environ: dict[str, str]

    @property
    def archive(self) -> Path:
        """The seed corpus."""
        return HERE / "corpus" / f"{self.name}_seed_corpus.zip"

    @property
    def learned(self) -> Path:
        """Folder of the inputs found on this machine."""
        return BUILD / "learned" / self.name


def main() -> None:
    """Run the fuzzers; exit with 1 if any found an error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each fuzzer (60)")
    parser.add_argument(
        "--only", choices=[*SOURCES, *PYTHON], action="append", help="only this one; repeatable"
    )
    parser.add_argument("--merge", action="store_true", help="afterwards, update the seed corpus")
    options = parser.parse_args()
    chosen = options.only or [*SOURCES, *PYTHON]
    BUILD.mkdir(parents=True, exist_ok=True)
    compiler = shutil.which("clang++")
    if compiler is None:
        sys.exit("clang++ is missing: the fuzzers need it and its runtime (Debian: clang libclang-rt-dev)")
    fuzzers = build_native([name for name in SOURCES if name in chosen], compiler)
    if set(PYTHON) & set(chosen):
        fuzzers += [fuzzer for fuzzer in build_python(compiler) if fuzzer.name in chosen]
    failed, total = [], 0
    for fuzzer in fuzzers:
        executions, code = run(fuzzer, options.seconds)
        total += executions
        print(
            f"{fuzzer.name}: {executions:,} executions, {'nothing found' if not code else 'FOUND'}",
            flush=True,
        )
        failed += [fuzzer.name] if code else []
        if options.merge and not code:
            merge(fuzzer)
    print(f"all: {total:,} executions")
    sys.exit(int(bool(failed)))


def build_native(names: list[str], compiler: str) -> list[Fuzzer]:
    """Compile the sources of the kernels' fuzzers, each once, and link the fuzzers."""
    sources = {
        name: [HERE / "native" / f"{name}.cpp", *(NATIVE / f"{source}.cpp" for source in SOURCES[name])]
        for name in names
    }
    distinct = list({source: None for of_one in sources.values() for source in of_one})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = dict(zip(distinct, pool.map(partial(compile_object, compiler), distinct), strict=True))
    for name in names:
        linked = [str(objects[source]) for source in sources[name]]
        subprocess.run([compiler, *SANITIZE, *linked, "-o", str(BUILD / name)], check=True)
    return [Fuzzer(name, (str(BUILD / name),), {}) for name in names]


def compile_object(compiler: str, source: Path) -> Path:
    """Compile a source if it or a header has changed; return the object file."""
    import nanobind

    target = BUILD / "objects" / source.relative_to(ROOT).with_suffix(".o")
    newest = max(path.stat().st_mtime for path in [source, *NATIVE.glob("*.hpp"), *HERE.glob("native/*.hpp")])
    if not target.exists() or target.stat().st_mtime < newest:
        target.parent.mkdir(parents=True, exist_ok=True)
        includes = ["-I", str(NATIVE), "-I", str(ROOT / "include"), "-isystem", sysconfig.get_path("include")]
        includes += ["-isystem", nanobind.include_dir()]
        flags = ['-DSMALLFRY_VERSION=""', "-std=c++17", "-g1", "-O1", "-ffp-contract=off"]
        flags += ["-fno-omit-frame-pointer", "-Wno-psabi", *SANITIZE, "-c"]
        subprocess.run([compiler, *flags, *includes, str(source), "-o", str(target)], check=True)
    return target


def build_python(compiler: str) -> list[Fuzzer]:
    """Install the instrumented native module into a separate environment."""
    try:
        import atheris
    except ImportError:
        print("NOT FUZZED: the readers, because atheris is missing", flush=True)
        return []
    python = BUILD / "venv" / "bin" / "python"
    stamp = BUILD / "installed"
    newest = max(path.stat().st_mtime for path in NATIVE.iterdir())
    if not stamp.exists() or stamp.stat().st_mtime < newest:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", BUILD / "venv"], check=True)
        # The packages of this environment; smallfry itself comes first, from the new one.
        packages = Path(sysconfig.get_path("purelib"), "..", "..", "..").resolve()
        (site := next((BUILD / "venv" / "lib").glob("python*/site-packages"))).mkdir(exist_ok=True)
        paths = [path for path in sys.path if path.endswith("site-packages")] or [str(packages)]
        (site / "shared.pth").write_text("\n".join(paths) + "\n")
        environ = os.environ | {
            "CC": compiler.replace("clang++", "clang"),
            "CXX": compiler,
            "SKBUILD_BUILD_DIR": str(BUILD / "cmake"),
            "SKBUILD_CMAKE_DEFINE": f"SMALLFRY_SANITIZE=address,{UNDEFINED},fuzzer-no-link",
        }
        pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "--python", str(python)]
        options = ["--no-deps", "--no-build-isolation", "--force-reinstall"]
        subprocess.run([*pip, "install", *options, str(ROOT)], check=True, env=environ)
        if not list(site.glob("smallfry/_native*.so")):
            sys.exit("the native module was not built: see the messages of CMake above")
        stamp.touch()
    environ = {
        "LD_PRELOAD": str(Path(atheris.path()) / "asan_with_fuzzer.so"),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    }
    return [Fuzzer(name, (str(python), str(HERE / "python" / f"{name}.py")), environ) for name in PYTHON]


def run(fuzzer: Fuzzer, seconds: int) -> tuple[int, int]:
    """Run a fuzzer; return the number of inputs that it tried, and its exit code."""
    fuzzer.learned.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-max_len={MAX_LENGTH}", "-timeout=20", "-print_final_stats=1"]
    command = [
        *fuzzer.command,
        *limits,
        f"-artifact_prefix={BUILD / fuzzer.name}-",
        str(fuzzer.learned),
        str(unpack(fuzzer)),
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SMALLFRY_")}
    result = subprocess.run(
        command,
        env=environ | fuzzer.environ,
        cwd=BUILD,
        text=True,
        errors="replace",
        stderr=subprocess.PIPE,
        timeout=seconds + 120,
        check=False,
    )
    if result.returncode:
        sys.stderr.write(result.stderr[-6000:])
    counted = re.search(r"number_of_executed_units: (\d+)", result.stderr)
    return int(counted[1]) if counted else 0, result.returncode


def merge(fuzzer: Fuzzer) -> None:
    """Replace the archive by the fewest inputs, old and learned, that reach the same code."""
    merged = empty_folder(BUILD / "merged" / fuzzer.name)
    # Edges without hit counts: a tenth of the files.
    command = [*fuzzer.command, "-merge=1", "-use_counters=0", f"-max_len={MAX_LENGTH}"]
    folders = [str(merged), str(unpack(fuzzer)), str(fuzzer.learned)]
    subprocess.run([*command, *folders], env=os.environ | fuzzer.environ, cwd=BUILD, check=True)
    pack(merged, fuzzer.archive)


def unpack(fuzzer: Fuzzer) -> Path:
    """Return a folder with the seed corpus, empty without an archive."""
    folder = empty_folder(BUILD / "corpus" / fuzzer.name)
    if fuzzer.archive.exists():
        with zipfile.ZipFile(fuzzer.archive) as archive:
            archive.extractall(folder)
    return folder


def pack(folder: Path, path: Path) -> None:
    """Write the files of a folder as an archive whose bytes depend only on their names and content."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            # A fixed date, and no compression, whose output varies between versions of zlib.
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())


def empty_folder(path: Path) -> Path:
    """Create a folder, or empty it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


if __name__ == "__main__":
    main()
