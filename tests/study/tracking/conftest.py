"""A study that was copied for every tool that needs nothing else installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.once import Once
from tests.study.tracking.helpers import run


@pytest.fixture(scope="session")
def studied(once: Once) -> Path:
    """Three trials, the third by a resumed run, with every tracker that needs nothing else installed."""

    def make(root: Path) -> None:
        run(root, "--trials", "2", "--tensorboard")
        run(root, "--trials", "3", "--tensorboard", "--resume")

    return once("tracked", make)
