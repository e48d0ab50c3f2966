"""How the entry scripts begin: help and mistakes load no large library, and a line comes before torch."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from study.runtime.command import COMMANDS

ROOT = Path(__file__).parents[2]
LARGE = ("torch", "torchvision", "ray", "optuna", "sklearn", "scipy", "matplotlib", "pandas")
"""Libraries that take from a tenth of a second to seconds to import."""
RUN = """
import json, runpy, sys
script, large, *words = sys.argv[1:]
sys.argv = [script, *words]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as stop:
    code = stop.code or 0
print(json.dumps([code, [name for name in json.loads(large) if name in sys.modules]]))
"""
"""Runs a script as ``python script`` does, then prints its exit code and which libraries were imported."""
NO_TORCH = """
import os, runpy, sys

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.write(1, b"<torch>")
            os._exit(7)

sys.meta_path.insert(0, Stop())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script until it imports torch; ends there with a mark and exit code 7."""


def result(name: str, *words: str) -> tuple[int, list[str], str]:
    """Exit code of an entry script, the large libraries that it imported, and its output."""
    script = str(ROOT / "study" / f"{name}.py")
    done = subprocess.run(
        [sys.executable, "-c", RUN, script, json.dumps(LARGE), *words],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    text, _, last = done.stdout.rstrip("\n").rpartition("\n")
    code, imported = json.loads(last)
    return code, imported, text + done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_no_large_library(name: str) -> None:
    code, imported, said = result(name, "--help")
    assert (code, imported) == (0, [])
    assert f"study/{name}.py" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_misspelt_option_loads_no_large_library(name: str) -> None:
    code, imported, said = result(name, "--trialz", "3")
    assert (code, imported) == (2, [])
    assert f"study/{name}.py --help" in said


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("pareto", "--attackers nosuch", "unknown attacker 'nosuch'"),
        ("pareto", "--attackers all,nosuch", "unknown attacker 'nosuch'"),
        ("pareto", "--defenses lpaa", "did you mean 'lpa'"),
        ("pareto", "--sampler grid", "unknown sampler 'grid'"),
        ("pareto", "--objectives distortion", "needs at least two"),
        ("pareto", "--dataset cifar11", "unknown dataset 'cifar11' (did you mean 'cifar10'?)"),
        ("pareto", "--dataset mnist --image-size 16", "only folder:PATH takes"),
        ("pareto", "--max-accuracy-drop 7", "max_accuracy_drop = 7.0"),
        ("pareto", "--name ../other", "study name '../other'"),
        ("pareto", "--mlflow http://user:word@host", "leave user and password out"),
        ("pareto", "--victim-outputs logits", "without --victim"),
        ("reproduce", "--table XIII", "unknown table 'XIII'"),
        ("reproduce", "", "nothing to do"),
        ("benchmark", "--only nosuch", "unknown benchmark 'nosuch'"),
        ("serve", "--unit u --victim net:make --port 0", "port = 0"),
    ],
)
def test_a_wrong_value_loads_no_large_library(name: str, words: str, said: str) -> None:
    code, imported, text = result(name, *words.split())
    assert said in text
    assert (code, imported) == (2, [])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pareto", "--trials 1 --seeds 1"),
        ("report", "no-study"),
        ("render", "no-study"),
        ("evaluate", "--like no-study"),
        ("reproduce", "--all --render"),
        ("benchmark", ""),
        ("costs", ""),
        ("serve", "--unit u --victim net:make --port {port}"),
    ],
)
def test_a_terminal_shows_a_line_before_torch_is_imported(name: str, words: str, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    script = str(ROOT / "study" / f"{name}.py")
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "MIPOISON_RAY_TMP": str(tmp_path)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        words = words.format(port=free.getsockname()[1])
    with subprocess.Popen(
        [sys.executable, "-c", NO_TORCH, script, *words.split()],
        stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path, env=environment,
    ) as process:  # fmt: skip
        os.close(slave)
        shown = b""
        while part := _read(master):
            shown += part
        assert process.wait(timeout=60) == 7, shown.decode()
    os.close(master)
    before, mark, _ = shown.decode().partition("<torch>")
    assert mark
    assert "loading PyTorch and the library" in before


def _read(master: int) -> bytes:
    """The next output of the other side of a terminal; empty once that is closed."""
    try:
        return os.read(master, 4096)
    except OSError:  # Linux raises EIO at the end
        return b""
