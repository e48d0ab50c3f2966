"""The front door: what ``import mipoison`` offers, and what it does not load."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

import mipoison
from mipoison import metrics


@pytest.mark.parametrize("package", [mipoison, metrics])
def test_every_name_is_there_and_typed(package: ModuleType) -> None:
    stub = ast.parse(Path(str(package.__file__)).with_suffix(".pyi").read_text())
    typed = {a.asname: n.module for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert typed == package._HOME
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))
    missing = "nothing_of_this_name"
    with pytest.raises(AttributeError, match=f"no attribute '{missing}'"):
        getattr(package, missing)


def test_the_example_runs_as_it_is_written() -> None:
    """Up to the training: it compiles, and calls what is there with arguments that are taken."""
    example = (mipoison.__doc__ or "").partition("\n\n")[2].partition("\n\nThe record")[0]
    tree = ast.parse(textwrap.dedent(example))
    calls = {ast.unparse(n.func): n for n in ast.walk(tree) if isinstance(n, ast.Call)}
    assert set(calls) >= {"mipoison.prepare", "mipoison.evaluate"}
    for name, call in calls.items():
        if name.startswith("mipoison."):
            named = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
            inspect.signature(getattr(mipoison, name.partition(".")[2])).bind(*call.args, **named)
    attack, defense = (
        next(ast.literal_eval(k.value) for k in calls["mipoison.evaluate"].keywords if k.arg == kind)
        for kind in ("attack", "defense")
    )
    assert attack in mipoison.ATTACKS
    assert defense in mipoison.DEFENSES


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
