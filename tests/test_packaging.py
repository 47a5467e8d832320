import fnmatch
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import smallfry
from smallfry import kernels

ROOT = Path(__file__).resolve().parent.parent
ROUND_TRIP = """
import hashlib, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from smallfry import kernels
    from smallfry.compress import quantize
    from smallfry.vocabulary import Vocabulary
    matrix = np.random.default_rng(0).standard_normal((40, 7), dtype=np.float32)
    matrix[3] = 0
    digest = hashlib.sha256()
    for nbit in (1, 2, 4, 8, 16, 32):
        table = quantize(matrix, nbit)
        digest.update(table.codes.tobytes())
        digest.update(table.decode().tobytes())
    vocabulary = Vocabulary.build([f"token {row}" for row in range(40)])
    digest.update(vocabulary.index.tobytes())
    digest.update(vocabulary.find(["token 5", "missing"]).tobytes())
print(kernels.native, digest.hexdigest(), sum("native" in str(w.message) for w in caught))
"""


def round_trip(*options, **environment):
    answer = subprocess.run(
        [sys.executable, *options, "-c", ROUND_TRIP],
        env={**os.environ, **environment},
        cwd=os.sep,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    native, digest, warned = answer.stdout.split()
    return native == "True", digest, int(warned)


@pytest.fixture(scope="module")
def installed_without_compiler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("install")
    programs = folder / "programs"
    programs.mkdir()
    for name in ("cmake", "ninja"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    hidden = {"PATH": str(programs), "CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"}
    options = "--quiet --no-build-isolation --no-deps --no-index".split()
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", ROOT],
        env={**os.environ, **hidden, "SKBUILD_BUILD_DIR": str(folder / "build")},
        check=True,
        timeout=120,
    )
    return folder / "site"


def test_install_succeeds_where_no_compiler_is_found(installed_without_compiler):
    package = installed_without_compiler / "smallfry"
    assert (package / "compress.py").is_file()
    assert not list(package.glob("_native*"))


def test_install_without_compiler_has_the_same_bytes_and_one_warning(installed_without_compiler):
    if not kernels.native:
        pytest.skip("no native module here to compare with")
    native, digest, warned = round_trip()
    assert (native, warned) == (True, 0)
    # -S: an editable install in this environment would come before any path
    path = os.pathsep.join(map(str, [installed_without_compiler, *sys.path]))
    assert round_trip("-S", PYTHONPATH=path) == (False, digest, 1)


def test_an_install_needs_only_numpy_and_tqdm(installed_without_compiler):
    (distribution,) = importlib.metadata.distributions(path=[str(installed_without_compiler)])
    requirements = map(Requirement, distribution.requires)
    assert {each.name for each in requirements if each.marker is None} == {"numpy", "tqdm"}


def test_the_sdist_has_the_sources_and_nothing_else(tmp_path, monkeypatch):
    build = pytest.importorskip("scikit_build_core.build")
    monkeypatch.chdir(ROOT)
    with tarfile.open(tmp_path / build.build_sdist(str(tmp_path))) as sdist:
        files = {name.partition("/")[2] for name in sdist.getnames()}
    assert {name.partition("/")[0] for name in files} == {
        *("CHANGELOG.md", "CMakeLists.txt", "LICENSE", "PKG-INFO", "README.md", "SECURITY.md"),
        *("include", "native", "pyproject.toml", "service", "smallfry"),
    }
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "native").iterdir()}
    assert files >= {"include/smallfry.h", "smallfry/py.typed", *sources}


def test_wheels_are_built_for_every_version_that_is_not_free_threaded(project):
    settings = project["tool"]["cibuildwheel"]
    for version, built in {"cp310": True, "cp312": True, "cp315": True, "cp314t": False}.items():
        for platform in ("manylinux_x86_64", "manylinux_aarch64", "musllinux_x86_64", "macosx_arm64"):
            skipped = fnmatch.fnmatch(f"{version}-{platform}", settings["skip"])
            assert skipped != built, f"{version}-{platform}"
    assert project["tool"]["scikit-build"]["wheel"]["py-api"] == "cp312"


def test_tests_of_wheels_exist(project):
    settings = project["tool"]["cibuildwheel"]
    files = [*settings["test-sources"], *re.findall(r"tests/\S+", " ".join(settings["test-command"]))]
    assert [name for name in files if not (ROOT / name).exists()] == []
    listed = project["project"]["optional-dependencies"]["test"]
    assert set(settings["test-requires"]) <= set(listed)


def test_installed_version_is_the_packages_own():
    assert importlib.metadata.version("smallfry") == smallfry.__version__


@pytest.fixture(scope="module")
def project():
    return pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())


def test_a_package_has_the_same_range_in_every_extra(project):
    extras = project["project"]["optional-dependencies"]
    ranges = {}
    for extra, requirements in extras.items():
        for requirement in map(Requirement, requirements):
            ranges.setdefault(requirement.name, {})[extra] = requirement.specifier
    assert {name: found for name, found in ranges.items() if len(set(found.values())) > 1} == {}


def locked(name):
    """Return the versions that a file of docker/requirements pins, all of them with hashes."""
    entries = re.split(r"\n(?=\S)", (ROOT / "docker" / "requirements" / name).read_text().strip())
    pins = [entry for entry in entries if not entry.startswith("#")]
    assert all(re.fullmatch(r"\S+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+", pin) for pin in pins)
    return dict(pin.split()[0].split("==") for pin in pins)


@pytest.mark.parametrize(
    ("name", "extras"), [("build.txt", ()), ("server.txt", ("server",)), ("cuda.txt", ("server", "torch"))]
)
def test_images_install_versions_that_the_project_allows(project, name, extras):
    versions = locked(name)
    if name == "build.txt":
        requirements = [*project["build-system"]["requires"], "cmake", "ninja"]
    else:
        requirements = project["project"]["dependencies"]
        for extra in extras:
            requirements = [*requirements, *project["project"]["optional-dependencies"][extra]]
    for requirement in map(Requirement, requirements):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), (
            f"docker/requirements/{name} does not satisfy {requirement}: make lock"
        )


def test_the_images_build_with_what_the_project_builds_with(project):
    listed = (ROOT / "docker" / "requirements" / "build.in").read_text().splitlines()[1:]
    assert listed == [*project["build-system"]["requires"], "cmake>=3.18", "ninja>=1.10"]


def test_the_gpu_image_has_the_packages_of_the_cpu_image():
    assert locked("server.txt").items() <= locked("cuda.txt").items()


def test_the_gpu_image_has_the_torch_that_is_tested():
    (torch,) = re.findall(r"^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert locked("cuda.txt")["torch"] == torch
