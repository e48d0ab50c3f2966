"""The front door: what ``import mipoison`` offers, and what it does not load."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import mipoison


def test_every_name_is_there_and_typed() -> None:
    stub = ast.parse(Path(mipoison.__file__).with_suffix(".pyi").read_text())
    typed = {a.asname: n.module for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert typed == mipoison._HOME
    for name in mipoison.__all__:
        assert getattr(mipoison, name) is not None
    assert set(mipoison.__all__) <= set(dir(mipoison))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fit_units'"):
        _ = mipoison.fit_units  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, mipoison; print(mipoison.__version__, *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & {"torch", "ray", "matplotlib", "sklearn", "scipy", "pandas", "numpy"} == set()


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("mipoison.alignment.own", "mipoison.alignment.gram", "BlockGradients"),
        ("mipoison.alignment.patches", "mipoison.alignment.unfold", "unfold_map"),
        ("mipoison.datasets", "mipoison.data.datasets", "load_dataset"),
    ],
)
def test_old_module_names_import(old: str, new: str, name: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{re.escape(old)} is now {re.escape(new)}"):
        found = importlib.import_module(old)
    assert getattr(found, name) is getattr(importlib.import_module(new), name)


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
