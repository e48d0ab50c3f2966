"""The dependency audit distinguishes clean, vulnerable, service unreachable, no data, and failed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
REFUSED = """Traceback (most recent call last):
urllib3.exceptions.MaxRetryError: HTTPSConnectionPool(host='advisories'): Max retries exceeded
requests.exceptions.ConnectionError: Failed to establish a new connection: [Errno 111] Connection refused"""


def package(name: str, *vulnerabilities: str, skipped: bool = False) -> dict[str, Any]:
    if skipped:
        return {"name": name, "skip_reason": "Dependency not found"}
    found = [{"id": v, "fix_versions": ["2.0"], "aliases": [f"{v}-alias"]} for v in vulnerabilities]
    return {"name": name, "version": "1.0", "vulns": found}


def audit(folder: Path, stdout: str, stderr: str, code: int, ignore: str = "") -> tuple[int, str]:
    """Run the audit script with a file of exceptions and a fake pip-audit with this output and exit code."""
    shutil.copy(ROOT / ".ci/audit", folder / "audit")
    (folder / "audit-ignore").write_text(ignore)
    module = f"import sys\nprint({stdout!r})\nprint({stderr!r}, file=sys.stderr)\nsys.exit({code})\n"
    (folder / "pip_audit.py").write_text(module)
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, str(folder / "audit")], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def listing(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(packages), "fixes": []})


def test_nothing_found(tmp_path: Path) -> None:
    code, text = audit(tmp_path, listing(package("a"), package("b"), package("c", skipped=True)), "", 0)
    assert code == 0
    assert text == "audit: 2 packages checked, 0 vulnerabilities; 1 not known to it: c\n"


def test_vulnerable_fails_and_names_it(tmp_path: Path) -> None:
    code, text = audit(tmp_path, listing(package("a"), package("b", "V-1", "V-2")), "Found 2", 1)
    assert code == 1
    assert "audit: b 1.0: V-1, V-1-alias (fixed in: 2.0)" in text
    assert "2 vulnerabilities" in text


@pytest.mark.parametrize(
    ("ignore", "expected"), [("V-1 not used here", 0), ("V-1-alias why not", 0), ("V-3 x", 1)]
)
def test_only_what_is_listed_is_ignored(tmp_path: Path, ignore: str, expected: int) -> None:
    code, text = audit(tmp_path, listing(package("b", "V-1")), "Found 1", 1, f"# exceptions\n\n{ignore}\n")
    assert code == expected
    assert ("ignored: b 1.0" in text) == (expected == 0)


def test_an_exception_needs_a_reason(tmp_path: Path) -> None:
    code, text = audit(tmp_path, listing(package("a")), "", 0, "V-1\n")
    assert code == 2
    assert "line 1: V-1: no reason given" in text


def test_not_reachable_is_said_and_does_not_fail(tmp_path: Path) -> None:
    code, text = audit(tmp_path, "", REFUSED, 1)
    assert code == 0
    assert text == "audit: NOT CHECKED: the advisory service cannot be reached (Max retries exceeded)\n"


def test_a_service_without_advisories_is_no_success(tmp_path: Path) -> None:
    code, text = audit(tmp_path, listing(package("a", skipped=True)), "No known vulnerabilities found", 0)
    assert code == 0
    assert "NOT CHECKED" in text


def test_another_failure_fails(tmp_path: Path) -> None:
    code, text = audit(tmp_path, "", "usage: pip-audit\nerror: unrecognized arguments", 2)
    assert code == 2
    assert "pip-audit failed: error: unrecognized arguments" in text


def test_not_installed_is_said(tmp_path: Path) -> None:
    code, text = audit(tmp_path, "", "python: No module named pip_audit", 1)
    assert code == 0
    assert "NOT CHECKED: pip-audit is not installed" in text


def test_the_committed_exceptions_are_accepted(tmp_path: Path) -> None:
    code, text = audit(tmp_path, listing(package("a")), "", 0, (ROOT / ".ci/audit-ignore").read_text())
    assert code == 0, text
