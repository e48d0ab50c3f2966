"""The project around the code: packaging, the site's tables, tracked files, the CI script."""

import importlib.util
import os
import re
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from setuptools import find_packages

from mipoison import __version__
from mipoison.attacks import ATTACKS, SUITE
from mipoison.attacks.views import VIEWS
from mipoison.defenses import DEFENSES
from mipoison.metrics import checks_table
from study.settings.study_settings import DEFAULT_ATTACKERS

ROOT = Path(__file__).parents[1]
MAX_BYTES = 3 * 2**19
DEVELOPERS_PATH = re.compile(rb"(?<![\w.:~-])/(?:work|Users/\w+|home/(?!ubuntu\b|ray\b)\w+)/(?=[\w.])")
"""An absolute path that exists on one person's machine only; home folders of cloud images are allowed."""


def git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no git")
    if run.returncode:
        pytest.skip(f"not a git checkout: {run.stderr.strip()}")
    return run.stdout


def tracked() -> list[Path]:
    """Tracked files that exist in the working tree."""
    return [ROOT / name for name in git("ls-files", "-z").split("\0") if name and (ROOT / name).is_file()]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def table_names(text: str) -> list[set[str]]:
    """The names in backticks in the first column of every Markdown table."""
    tables = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
    return [set(re.findall(r"^\|\s*`([^`]+)`\s*\|", table, flags=re.MULTILINE)) for table in tables]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The module that makes the tables of the site's reference pages."""
    spec = importlib.util.spec_from_file_location("reference_tables", ROOT / ".docs" / "reference_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(reference: ModuleType, name: str) -> str:
    """One of the site's own pages, with its tables in place."""
    text: str = reference.with_tables((ROOT / ".docs" / "pages" / name).read_text())
    return text


def assert_one_table_lists(valid: Iterable[str], text: str) -> None:
    names = set(valid)
    best = max(table_names(text), key=lambda t: len(t & names), default=set())
    assert sorted(names - best) == [], "without a row"
    assert sorted(best - names) == [], "a row without an entry"


def cells(text: str, name: str) -> list[str]:
    """The cells of the one row that begins with a name in backticks."""
    (row,) = re.findall(rf"^\| `{re.escape(name)}` \|.*$", text, flags=re.MULTILINE)
    return [cell.strip() for cell in row.strip("|").split(" | ")]


def assert_says_something(summary: str) -> None:
    """Assert a sentence of at least four words that says more than a name (not ``A decoder attacker.``)."""
    assert len(summary.split()) >= 4, summary
    assert summary.endswith("."), summary
    assert not re.fullmatch(r"(A|An|The) [\w-]+( [\w-]+)? (attacker|defense|view)\.", summary), summary


def test_packages_are_the_folders_with_code() -> None:
    """Package discovery finds every folder with code; without ``__init__`` a wheel would lack it.

    A folder with a ``pyproject.toml`` of its own is another project.
    """
    folders = {
        p.parent.relative_to(ROOT)
        for top in ("mipoison", "study")
        for p in (ROOT / top).rglob("*.py")
        if not (p.parent / "pyproject.toml").exists()
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


def test_every_defense_has_a_row_on_the_site(reference: ModuleType) -> None:
    text = page(reference, "defenses.md")
    assert_one_table_lists(DEFENSES, text)
    for name, config in DEFENSES.items():
        _, summary, knobs, reads, source = cells(text, name)
        assert_says_something(summary)
        assert summary == config.summary().replace("``", "`").replace("|", "\\|")
        assert re.findall(r"`(\w+)`: \w", knobs) == list(config.KNOBS)
        assert reads == ("yes" if config().make().reads_image else "no")
        assert source == config.SOURCE


def test_a_knob_s_range_is_on_the_site(reference: ModuleType) -> None:
    text = page(reference, "defenses.md")
    assert (
        "`steps`: steps of the grid between 0 and 1 (2 to 1000, whole numbers, log scale)"
        in cells(text, "rounding")[2]
    )
    assert "`rounds`: alignment rounds (1 to 20, whole numbers, log scale)" in cells(text, "lpa")[2]
    assert "input features of the substitute (log, raw)" in cells(text, "lpa")[2]


def test_every_attacker_has_a_row_on_the_site(reference: ModuleType) -> None:
    text, table = page(reference, "attackers.md"), reference.attackers()
    assert table in text
    assert_one_table_lists(ATTACKS, text)
    for name, config in ATTACKS.items():
        _, summary, options, cost, suite = cells(table, name)
        assert_says_something(summary)
        assert summary == config.summary().replace("``", "`")
        assert re.findall(r"`(\w+)=", options) == list(config.changed())
        for option in config.changed():
            assert re.search(rf"^- .*`{option}=", text, flags=re.MULTILINE), f"{option} is not explained"
        assert cost == reference.COSTS[config.COST]
        by_default = name in DEFAULT_ATTACKERS
        assert suite == ("by default" if by_default else "yes" if name in SUITE else "no")


def test_attackers_that_share_a_summary_differ_in_their_options(reference: ModuleType) -> None:
    rows = [tuple(cells(reference.attackers(), name)[1:3]) for name in ATTACKS]
    assert len(set(rows)) == len(rows)


def test_every_view_has_a_row_on_the_site(reference: ModuleType) -> None:
    table = reference.views()
    assert_one_table_lists(VIEWS, table)
    assert table in page(reference, "attackers.md")
    for name in VIEWS:
        assert_says_something(cells(table, name)[1])


def test_a_mark_that_names_no_table_is_an_error(reference: ModuleType) -> None:
    assert reference.with_tables("<!-- a comment -->\n") == "<!-- a comment -->\n"
    with pytest.raises(KeyError, match="defences"):
        reference.with_tables("text\n\n<!-- table: defences -->\n")


def test_tables_are_read_row_by_row() -> None:
    text = "| name | what |\n|---|---|\n| `a` | like `b` |\n\ntext `c`\n\n| n |\n|---|\n| `d` |"
    assert table_names(text) == [{"a"}, {"d"}]


def test_tests_that_pages_name_are_there() -> None:
    """SECURITY.md says which test holds each promise."""
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    pages = [p.read_text() for p in ROOT.glob("*.md") if p.name != "CHANGELOG.md"]  # that is history
    named = set(re.findall(r"\btest_\w+\.py\b", "".join(pages)))
    assert len(named) > 10
    assert named - there == set()


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


def test_the_site_explains_every_check(reference: ModuleType) -> None:
    text = page(reference, "checks.md")
    for column, raised_if, means in checks_table():
        assert f"| `{column.removeprefix('check.')}` | {raised_if} | {means} |" in text
