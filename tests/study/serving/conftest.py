"""A running server without Ray, for whoever asks it nothing odd."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from front_door import running


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    interval = sys.getswitchinterval()
    with running() as number:
        yield number
    sys.setswitchinterval(interval)
