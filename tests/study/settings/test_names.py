"""Lists of names: groups, duplicates, unknown ones."""

from __future__ import annotations

import pytest

from mipoison.config import ConfigError
from study.settings.names import listed, split_names

VALID = ("one", "two", "three")


def test_names_are_separated_by_spaces_or_commas() -> None:
    assert split_names(["one,two", "", "three,"]) == ["one", "two", "three"]


def test_groups_are_expanded_and_each_name_is_kept_once() -> None:
    assert listed("thing", ["two", "all"], VALID) == ("two", "one", "three")
    assert listed("thing", ["few,one"], VALID, groups={"few": ("three", "one")}) == ("three", "one")
    assert listed("thing", ["zero", "one"], VALID, ignored={"zero"}) == ("one",)


def test_unknown_names_and_none_are_refused_with_the_list() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown thing 'oen' \(did you mean 'one'\?\); choose from: one, "
    ):
        listed("thing", ["oen"], VALID)
    for given in ([], ["zero"]):
        with pytest.raises(ConfigError, match="no thing chosen; choose from: one, two, three, all"):
            listed("thing", given, VALID, ignored={"zero"})
