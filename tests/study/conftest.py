"""A small finished study and a small run of the paper's rows, that several files look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from study import pareto, reproduce
from tests.once import Once
from tests.study.paper.helpers import TINY

SMALL = "--executor local --trials 3 --seeds 2 --victim-steps 40 --decoder-steps 20 --limit 100 --name small"
SMALL += " --attackers ridge passive label-only --defenses rounding tail-noise lpa"


@pytest.fixture(scope="session")
def small_study(once: Once) -> Path:
    """Its folder; tests must not change what is in it."""

    def make(root: Path) -> None:
        assert pareto.main([*SMALL.split(), "--storage", str(root)]) == 0

    return once("small", make) / "small"


@pytest.fixture(scope="session")
def reproduced(once: Once) -> Path:
    """Folder of a run of TINY for one table and one figure; tests must not change what is in it."""

    def make(root: Path) -> None:
        assert reproduce.main(f"{TINY} --table III --figure 3 --storage {root}".split()) == 0

    return once("reproduce", make)
