"""Module names of version 0.1 still import."""

from __future__ import annotations

import warnings

import mipoison


def test_a_moved_module_still_imports_and_says_where_it_is() -> None:
    from mipoison import _moved

    _moved.redirect({"mipoison.settings_of_old": "mipoison.config"})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        from mipoison.settings_of_old import ConfigError  # type: ignore[import-not-found]
    assert ConfigError is mipoison.ConfigError
    assert [str(w.message) for w in said if w.category is DeprecationWarning] == [
        "mipoison.settings_of_old is now mipoison.config"
    ]
