"""The console command: sub-commands, help, version, mistakes, and the modules that it imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import study
from mipoison import __version__
from study.runtime.command import COMMANDS, main

ROOT = Path(study.__file__).parent


def test_every_entry_script_is_a_sub_command() -> None:
    entries = {p.stem for p in ROOT.glob("*.py") if "def main(" in p.read_text()}
    assert entries == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_sub_command_takes_arguments_and_returns_an_exit_code(name: str) -> None:
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    found = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main")
    assert [a.arg for a in found.args.args] == ["arguments"]
    assert isinstance(found.returns, ast.Name)
    assert found.returns.id == "int"


def test_help_lists_every_sub_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"mipoison {__version__}"


def test_nothing_is_a_mistake_that_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: mipoison COMMAND" in capsys.readouterr().out


def test_an_unknown_sub_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paretto", "--seeds", "1"]) == 2
    shown = capsys.readouterr().err
    assert "'paretto'" in shown
    assert "did you mean 'pareto'?" in shown
    assert "reproduce" in shown


def test_help_and_mistakes_load_nothing_heavy() -> None:
    program = (
        "import sys; from study.runtime.command import main\n"
        "main(['--help']); main(['nonsense']); print('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split("LOADED")[1].split()}
    assert loaded & {"torch", "ray", "matplotlib", "sklearn", "scipy", "pandas", "numpy", "tyro"} == set()
