import re
import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
CHANGELOG = """# Changelog

## [Unreleased]

## [1.10.0] - 2026-02-03

### Added

- Ten.

## [1.1.0] - 2026-01-02

### Fixed

- One.

[1.1.0]: https://example.org
"""

release_notes = runpy.run_path(str(GITHUB / "release_notes.py"))["release_notes"]
pypi_readme = runpy.run_path(str(GITHUB / "pypi_readme.py"))["pypi_readme"]


@pytest.fixture
def project(tmp_path):
    """Return a function that writes a project of a version and a release date."""
    (tmp_path / "smallfry").mkdir()

    def write(version, date):
        (tmp_path / "smallfry" / "__init__.py").write_text(f'"""Doc."""\n\n__version__ = "{version}"\n')
        (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
        (tmp_path / "CITATION.cff").write_text(f"title: x\nversion: {version}\ndate-released: {date}\n")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
        ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        ("vendor.github-issue-forms", FORMS),
        ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_files_satisfy_their_schema(schema, files):
    from check_jsonschema import main as check_jsonschema  # slow: not when tests are collected

    result = CliRunner().invoke(check_jsonschema, ["--builtin-schema", schema, *map(str, files)])
    assert result.exit_code == 0, result.output


def test_one_action_has_one_version_in_all_workflows():
    used = re.findall(r"uses: ([^@\s]+)@(\S+ # v\S+)", "".join(path.read_text() for path in WORKFLOWS))
    assert len(dict(used)) == len(set(used))


def test_notes_of_a_release_are_its_section_of_the_changelog(project):
    assert release_notes("v1.10.0", project("1.10.0", "2026-02-03")) == "### Added\n\n- Ten."
    assert release_notes("v1.1.0", project("1.1.0", "2026-01-02")) == "### Fixed\n\n- One."


@pytest.mark.parametrize(
    ("tag", "version", "date", "message"),
    [
        ("v1.1.0", "1.10.0", "2026-02-03", "tag v1.1.0 does not match smallfry.__version__, 1.10.0"),
        ("1.10.0", "1.10.0", "2026-02-03", "tag 1.10.0 does not match"),
        ("v1.2.0", "1.2.0", "2026-02-03", "CHANGELOG.md lacks changes under '## [1.2.0] - YYYY-MM-DD'"),
        ("v1x1.0", "1x1.0", "2026-02-03", "CHANGELOG.md lacks changes"),
        ("v1.1.0", "1.1.0", "2026-02-03", "CITATION.cff lacks 'date-released: 2026-01-02'"),
    ],
)
def test_a_release_fails_where_versions_differ(project, tag, version, date, message):
    with pytest.raises(SystemExit, match=re.escape(message)):
        release_notes(tag, project(version, date))


def test_pypi_gets_absolute_links_and_pictures():
    readme = (ROOT / "README.md").read_text()
    made = pypi_readme(readme, "https://host/a/b", "v1.2.3")
    assert re.findall(r"\]\((?!https://|#).*", made) == []
    assert "](https://host/a/b/raw/v1.2.3/docs/images/memory.svg)" in made
    files = re.findall(r"https://host/a/b/blob/v1\.2\.3/([^)#]+)", made)
    assert len(files) > 20
    assert [path for path in files if not (ROOT / path).exists()] == []
    assert re.sub(r"https://host/a/b/\w+/v1\.2\.3/", "", made) == readme


def test_pypi_gets_code_anchors_and_absolute_links_unchanged():
    text = "[a](#a) [b](https://b.org/c.md) `[c](c.md)`\n\n```python\nd[0](d)\n![e](e.png)\n```\n"
    assert pypi_readme(text, "https://host/a/b", "main") == text
    assert pypi_readme("[the `x`\ny](x.md#y)", "u", "main") == "[the `x`\ny](u/blob/main/x.md#y)"
