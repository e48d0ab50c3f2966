"""x"""

from __future__ import annotations

from pathlib import Path

import pytest

from study import reproduce
from tests.study.test_reproduce import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reproduce")
    arguments = f"{TINY} --table III --figure 3 --storage {root}".split()
    assert reproduce.main(arguments) == 0
    return root
