"""The front door: what ``import mipoison`` offers, and what it does not load."""

from __future__ import annotations

import ast
import subprocess
import sys
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
