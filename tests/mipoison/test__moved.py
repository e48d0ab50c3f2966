"""Names are loaded when they are first used; module names from before version 0.1.0 still import."""

from __future__ import annotations

import sys
import warnings

import pytest

import mipoison
from mipoison import _moved, config


def test_a_name_is_loaded_when_it_is_used_and_kept() -> None:
    namespace = {"__name__": "mipoison", "__all__": ["digest"]}
    find, listed = _moved.lazily(namespace, {"digest": "mipoison.config"})
    assert "digest" not in namespace
    assert "digest" in listed()
    assert find("digest") is namespace["digest"] is config.digest
    assert find("config") is config  # the module behind a name
    for missing in ("process", "Config"):  # a module and a name that the package does not offer
        with pytest.raises(AttributeError, match=f"'mipoison' has no attribute '{missing}'"):
            find(missing)


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
