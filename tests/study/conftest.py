"""A small finished study and a small run of the paper's rows, that several files look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from study import pareto, reproduce
from tests.study.paper.helpers import TINY

SMALL = "--executor local --trials 3 --seeds 2 --victim-steps 40 --decoder-steps 20 --limit 100 --name small"
SMALL += " --attackers ridge passive label-only --defenses rounding tail-noise lpa"


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder; tests must not change what is in it."""
    root = tmp_path_factory.mktemp("small")
    assert pareto.main([*SMALL.split(), "--storage", str(root)]) == 0
    return root / "small"


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of TINY for one table and one figure; tests must not change what is in it."""
    root = tmp_path_factory.mktemp("reproduce")
    arguments = f"{TINY} --table III --figure 3 --storage {root}".split()
    assert reproduce.main(arguments) == 0
    return root
