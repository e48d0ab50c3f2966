"""How the entry scripts begin: help and mistakes load no large library, and a line comes before torch.

A process that holds the small libraries is forked for each case: a new one would import them again.
"""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from study.runtime.command import COMMANDS

ROOT = Path(__file__).parents[2]
LARGE = ("torch", "torchvision", "ray", "optuna", "sklearn", "scipy", "matplotlib", "pandas")
"""Libraries that take from a tenth of a second to seconds to import."""
FORKS = """
import json, os, runpy, sys

import numpy, pyarrow.fs, rich.console, tyro

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.write(1, b"<torch>")
            os._exit(7)

def run(words, large, output, stops, folder, environment):
    place = os.open(output, os.O_RDWR | os.O_CREAT)
    for number in range(3):
        os.dup2(place, number)
    os.chdir(folder)
    os.environ.update(environment)
    if stops:
        sys.meta_path.insert(0, Stop())
    sys.argv = words
    code = 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code or 0
    print()
    print(json.dumps([code, [name for name in large if name in sys.modules]]), flush=True)

for line in sys.stdin:
    order = json.loads(line)
    assert not [name for name in order["large"] if name in sys.modules]
    if (child := os.fork()) == 0:
        try:
            run(**order)
        finally:
            os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs scripts as ``python script`` does, each in a fork of its own, and prints their processes' exit codes.

At the end of its output a script's own exit code is written and which libraries it imported. Where that is
asked for, it ends when it imports torch, with a mark and exit code 7.
"""


class Forks:
    """The process of :data:`FORKS`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def run(
        self, output: str, *words: str, folder: Path = ROOT, stops: bool = False, **environment: str
    ) -> int:
        """Exit code of the process that ran a script with its standard streams at ``output``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {
            "words": words, "large": LARGE, "output": output, "stops": stops, "folder": str(folder),
            "environment": environment,
        }  # fmt: skip
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.process.communicate(timeout=60)


Result = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def result(forks: Forks, tmp_path: Path) -> Result:
    """Exit code of an entry script, the large libraries that it imported, and its output."""

    def run(name: str, *words: str) -> tuple[int, list[str], str]:
        output = tmp_path / "output"
        assert forks.run(str(output), str(ROOT / "study" / f"{name}.py"), *words) == 0
        text, _, last = output.read_text().rstrip("\n").rpartition("\n")
        code, imported = json.loads(last)
        return code, imported, text

    return run


def test_a_process_of_its_own_loads_no_large_library() -> None:
    """As a person starts it, without the forks below."""
    begun = "import atexit, json, runpy, sys; large, *sys.argv = sys.argv[1:]; "
    begun += "atexit.register(lambda: print([n for n in json.loads(large) if n in sys.modules])); "
    begun += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", begun, json.dumps(LARGE), str(ROOT / "study" / "pareto.py"), "--help"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]")
    assert "study/pareto.py" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_no_large_library(name: str, result: Result) -> None:
    code, imported, said = result(name, "--help")
    assert (code, imported) == (0, [])
    assert f"study/{name}.py" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_misspelt_option_loads_no_large_library(name: str, result: Result) -> None:
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
def test_a_wrong_value_loads_no_large_library(name: str, words: str, said: str, result: Result) -> None:
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
def test_a_terminal_shows_a_line_before_torch_is_imported(
    name: str, words: str, tmp_path: Path, forks: Forks
) -> None:
    master, slave = pty.openpty()
    script = str(ROOT / "study" / f"{name}.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        words = words.format(port=free.getsockname()[1])
    terminal = {"TERM": "xterm", "COLUMNS": "100", "MIPOISON_RAY_TMP": str(tmp_path)}
    code = forks.run(os.ttyname(slave), script, *words.split(), folder=tmp_path, stops=True, **terminal)
    os.close(slave)
    shown = b""
    while part := _read(master):
        shown += part
    os.close(master)
    assert code == 7, shown.decode()
    before, mark, _ = shown.decode().partition("<torch>")
    assert mark
    assert "loading PyTorch and the library" in before


def _read(master: int) -> bytes:
    """The next output of the other side of a terminal; empty once that is closed."""
    try:
        return os.read(master, 4096)
    except OSError:  # Linux raises EIO at the end
        return b""
