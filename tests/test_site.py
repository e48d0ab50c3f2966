"""The documentation site builds without a warning, from the repository's own pages and docstrings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.long
@pytest.mark.timeout(280)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed (extra docs)")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed (extra docs)")
    command = ["mkdocs", "build", "--strict", "-f", ".docs/mkdocs.yml", "-d", str(tmp_path / "site")]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert "WARNING" not in output
    page = (tmp_path / "site" / "api" / "mipoison.defenses.lpa.html").read_text()
    assert "l2 bound on" in page  # text of a docstring
    home = (tmp_path / "site" / "index.html").read_text()
    assert 'href="study/FINDINGS.html"' in home
    # The README links to .docs/pages/measurements.md, and own-classifier.md to ../../README.md.
    assert 'href="measurements.html#what-the-certificate-says"' in home
    how_to = (tmp_path / "site" / "own-classifier.html").read_text()
    assert 'href="index.html#your-own-classifier"' in how_to
    defenses = (tmp_path / "site" / "defenses.html").read_text()
    assert "<!-- table:" not in defenses
    assert "<code>steps</code>: steps of the grid" in defenses  # a row of the registry
    board = (tmp_path / "site" / "board.html").read_text()
    assert "<!-- table:" not in board
    assert "--like study/results/digits-search --trial" in board
    # Opened from a folder, the search reads its index from a script, by a worker that is part of the site.
    assert (tmp_path / "site" / "search" / "search_index.js").stat().st_size > 100_000
    assert (tmp_path / "site" / "vendor" / "iframe-worker.js").is_file()
    assert '<script src="vendor/iframe-worker.js">' in home
    elsewhere = re.findall(r'<(?:script[^>]* src|link rel="stylesheet"[^>]* href)="(?:https?:)?//', home)
    assert elsewhere == []  # no page loads anything from other hosts
