"""A running server without Ray, for tests that send it ordinary requests."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from running_server import running


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    interval = sys.getswitchinterval()
    with running() as number:
        yield number
    sys.setswitchinterval(interval)
