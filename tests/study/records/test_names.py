"""Names of studies and trials can be folders on every system."""

from __future__ import annotations

import pytest

from mipoison.config import ConfigError
from study.records.names import check_name


@pytest.mark.parametrize("name", ["digits-same", "t0001-lpa", "A.b_c-1", "x" * 100])
def test_a_valid_name_is_returned(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "..", ".hidden", "-x", "a/b", "a b", "a\n", "x" * 101, "\u00e9"])
def test_a_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="trial name"):
        check_name(name, "trial")
