"""The project around the code: packaging, the README's tables, what is tracked, the CI script."""

import os
import re
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from setuptools import find_packages

from mipoison import __version__
from mipoison.attacks import ATTACKS
from mipoison.defenses import DEFENSES
from mipoison.metrics import checks_table

ROOT = Path(__file__).parents[1]
MAX_BYTES = 2**20
DEVELOPERS_PATH = re.compile(rb"(?<![\w.:~-])/(?:work|Users/\w+|home/(?!ubuntu\b|ray\b)\w+)/(?=[\w.])")
"""An absolute path that only one machine has; home folders of cloud images are not one person's."""


def git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no git")
    if run.returncode:
        pytest.skip(f"not a git checkout: {run.stderr.strip()}")
    return run.stdout


def tracked() -> list[Path]:
    """Tracked files that are there."""
    return [ROOT / name for name in git("ls-files", "-z").split("\0") if name and (ROOT / name).is_file()]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def table_names(text: str) -> list[set[str]]:
    """Of every Markdown table, the names in backticks in the first column."""
    tables = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
    return [set(re.findall(r"^\|\s*`([^`]+)`\s*\|", table, flags=re.MULTILINE)) for table in tables]


def assert_one_table_lists(valid: Iterable[str]) -> None:
    names = set(valid)
    best = max(table_names((ROOT / "README.md").read_text()), key=lambda t: len(t & names), default=set())
    assert sorted(names - best) == [], "without a row in README.md"
    assert sorted(best - names) == [], "a row in README.md without an entry"


def test_packages_are_the_folders_with_code() -> None:
    """Those that are found for a wheel: a folder with code and no ``__init__`` would be missing there."""
    folders = {
        p.parent.relative_to(ROOT) for top in ("mipoison", "study") for p in (ROOT / top).rglob("*.py")
    }
    found = project()["tool"]["setuptools"]["packages"]["find"]
    packages = find_packages(str(ROOT), include=found["include"])
    assert not found["namespaces"]
    assert sorted(packages) == sorted(".".join(f.parts) for f in folders)


def test_one_version() -> None:
    citation = re.search(r"^version: *(\S+)$", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)
    assert citation is not None
    assert project()["project"]["version"] == __version__ == citation[1].strip("\"'")
    assert __version__ in (ROOT / "CHANGELOG.md").read_text()


def test_every_defense_has_a_row_in_the_readme() -> None:
    assert_one_table_lists(DEFENSES)


def test_every_attacker_has_a_row_in_the_readme() -> None:
    assert_one_table_lists(ATTACKS)


def test_tables_are_read_row_by_row() -> None:
    text = "| name | what |\n|---|---|\n| `a` | like `b` |\n\ntext `c`\n\n| n |\n|---|\n| `d` |"
    assert table_names(text) == [{"a"}, {"d"}]


def test_nothing_large_is_tracked() -> None:
    sizes = {str(p.relative_to(ROOT)): p.stat().st_size for p in tracked()}
    assert {name: size for name, size in sizes.items() if size > MAX_BYTES} == {}


def test_no_developer_s_path_is_tracked() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if DEVELOPERS_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("root = '|work|main|x'", True),
        ("see |Users|jane|data", True),
        ("cd |home|jane|mipoison", True),
        ("|home|ubuntu|ray_bootstrap_config.yaml", False),
        ("s3:||bucket|home|ray|x, https:||host|work|x, ~|work|x", False),
        ("the network|work|load", False),
    ],
)
def test_what_a_developer_s_path_is(line: str, is_one: bool) -> None:
    """Written with bars, since this file is tracked, too."""
    assert bool(DEVELOPERS_PATH.search(line.replace("|", "/").encode())) is is_one


def test_the_ci_script_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    entry = git("ls-files", "-s", ".ci/run")
    assert not entry or entry.startswith("100755")
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_the_readme_explains_every_check() -> None:
    text = (ROOT / "README.md").read_text()
    for column, raised_if, means in checks_table():
        assert f"| `{column.removeprefix('check.')}` | {raised_if} | {means} |" in text
