"""Module names from before version 0.1.0 still import."""

from __future__ import annotations

import sys
import warnings

import pytest

import mipoison
from mipoison import _moved


def test_a_moved_module_still_imports_and_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    _moved.redirect({"mipoison.settings_of_old": "mipoison.config"})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        from mipoison.settings_of_old import ConfigError  # type: ignore[import-not-found]
    assert ConfigError is mipoison.ConfigError
    assert [str(w.message) for w in said if w.category is DeprecationWarning] == [
        "mipoison.settings_of_old is now mipoison.config"
    ]


def test_a_renamed_class_is_found_by_its_old_name() -> None:
    with pytest.warns(DeprecationWarning, match=r"mipoison\.victim is now mipoison\.victims\.own"):
        from mipoison.victim import OwnVictim  # type: ignore[import-not-found]
    assert OwnVictim is mipoison.victims.own.LoadedVictim  # type: ignore[attr-defined]
