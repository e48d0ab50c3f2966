"""Every command and every piece of Python in the README is run, in order, at the smallest sizes.

What cannot run on one machine is listed here by name, with the test that covers it. A new command without an
entry fails.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tyro

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROGRAMS = ("python", "pip", "pytest", "ray", "optuna-dashboard", "tensorboard", "mkdocs")
TINY = [
    "--seeds",
    "2",
    "--limit",
    "100",
    "--victim-steps",
    "20",
    "--decoder-steps",
    "10",
    "--decoder-width",
    "4",
    "--executor",
    "local",
]
FEW = ["--attackers", "passive", "label-only", "--defenses", "rounding"]

pytestmark = [pytest.mark.timeout(400)]


def blocks() -> list[str]:
    """The README's code: runs of lines indented by four."""
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", README, flags=re.MULTILINE)
    return [re.sub(r"^ {4}", "", text, flags=re.MULTILINE).strip() for text in found]


def commands() -> list[str]:
    """Shell commands, continued lines joined, comments and ``&&`` apart, in order."""
    out = []
    for block in blocks():
        if re.match(r"(from|import) ", block):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split(" #")[0].split("&&"):
                words = shlex.split(part)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                if words and words[0] in PROGRAMS:
                    out.append(" ".join(part.split()))
    return list(dict.fromkeys(out))


def pieces() -> list[str]:
    """Python, a piece a block or half of one."""
    return [
        b
        for block in blocks()
        for b in re.split(r"\n\n(?=import duckdb)", block)
        if re.match(r"(from|import) ", b)
    ]


ELSEWHERE = {
    "pip install -e .": ".ci/run installs with the extra test, which holds it",
    'pip install -e ".[test]"': ".ci/run",
    "pytest": ".ci/run",
    'pip install -e ".[docs]"': ".ci/run (the extra dev holds docs)",
    "mkdocs build -f .docs/mkdocs.yml": "tests/test_site.py",
    "ray up clusters/aws.yaml": "tests/clusters/test_bootstrap_aws.py",
    "python study/benchmark.py": "tests/study/test_benchmark.py; .ci/run runs it with --quick",
    "python study/reproduce.py --all --resume --data-root DATA": "tests/study/test_reproduce.py",
    "tensorboard --logdir results/logged/tensorboard": "tests/study/tracking/test_trackers.py reads them",
    "optuna-dashboard results/digits-same/optuna.log": "tests/study/tracking/test_trackers.py opens one",
}
CHECKED = (  # clusters, GPUs, S3: the settings are parsed and checked, as the command does before any work
    "python study/pareto.py --dataset lfw",
    "ray job submit -- python study/pareto.py",
)
MORE: dict[str, list[str]] = {
    "python study/pareto.py": [*TINY, *FEW, "--trials", "1"],
    "python study/pareto.py --dataset mnist": [*TINY[2:], *FEW],
    "python study/pareto.py --resume": [*TINY, *FEW, "--trials", "2"],
    "python study/pareto.py --dataset folder": [*TINY[2:], *FEW, "--seeds", "1", "--trials", "1"],
    "python study/pareto.py --name": [*TINY, *FEW, "--trials", "1"],
    "python study/reproduce.py --table I": (
        [
            "--executor",
            "local",
            "--seeds",
            "1",
            "--limit",
            "40",
            "--victim-steps",
            "5",
            "--decoder-steps",
            "3",
        ]
    ),
}
"""Options that make a command small, by the longest beginning that fits; given twice, the last counts."""


def small(command: str) -> list[str]:
    found = [start for start in MORE if command.startswith(start)]
    return MORE[max(found, key=len)] if found else []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the checkout, where commands may leave results; DATA in torchvision's layout."""
    root = tmp_path_factory.mktemp("readme")
    for name in ("mipoison", "clusters", "pyproject.toml"):
        (root / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "study", root / "study", ignore=shutil.ignore_patterns("__pycache__"))
    rng = np.random.default_rng(0)
    for name in ("MNIST", "FashionMNIST"):
        folder = root / "DATA" / name / "raw"
        folder.mkdir(parents=True)
        for part, n in (("train", 400), ("t10k", 200)):
            images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
            labels = (np.arange(n) % 10).astype(np.uint8)
            head = struct.pack(">IIII", 2051, n, 28, 28)
            (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
            head = struct.pack(">II", 2049, n)
            (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels.tobytes()))
    return root


def run(command: str, checkout: Path) -> str:
    words = [w for w in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=.*", w)]
    words = [sys.executable, *words[1:], *small(command)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MIPOISON_"))}
    environment |= {"PYTHONPATH": str(checkout), "HOME": str(checkout), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        words, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    return done.stdout


def test_the_readme_has_commands_and_python() -> None:
    assert len(commands()) >= 20
    assert len(pieces()) >= 4
    assert set(ELSEWHERE) <= set(commands()), "an entry for a command that the README no longer has"
    for where in ELSEWHERE.values():
        assert (ROOT / re.split(r"[ ;,]", where)[0]).exists()


def test_the_first_commands_are_those_of_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert 'pip install --quiet -e ".[test]"' in script
    assert re.search(r"^step .*\bpytest\b", script, flags=re.MULTILINE)
    assert "study/benchmark.py --quick" in script


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith(CHECKED)])
def test_a_command_for_a_cluster_has_valid_settings(command: str) -> None:
    from study.settings.study_settings import Arguments

    words = shlex.split(command.partition("study/pareto.py")[2])
    tyro.cli(Arguments, args=words).checked()


# In order: later commands read what earlier ones leave.
@pytest.mark.parametrize(
    "command",
    [c for c in commands() if c not in ELSEWHERE and not c.startswith((*CHECKED, "MIPOISON_SECRET"))],
)
def test_a_command_runs(command: str, checkout: Path) -> None:
    assert command.startswith("python study/"), f"no way to run {command!r}: say in ELSEWHERE what covers it"
    if "--mlflow" in command:
        pytest.importorskip("mlflow", reason="mlflow is not installed")
    run(command, checkout)


def test_the_commands_left_what_the_readme_says(checkout: Path) -> None:
    study = checkout / "results" / "digits-same"
    if not study.exists():
        pytest.skip("the commands above were not run")
    for name in ("frontier.parquet", "report.md", "report.html", "frontier.png", "study.json", "optuna.log"):
        assert (study / name).is_file(), name
    assert len(list((study / "episodes").glob("*.parquet"))) == 4  # two anchors, two trials
    assert (checkout / "results" / "logged" / "tensorboard").is_dir()


@pytest.mark.parametrize("piece", pieces(), ids=lambda p: p.splitlines()[0])
def test_a_piece_of_python_runs(piece: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if "results/digits-same/episodes" in piece and not (checkout / "results").exists():
        pytest.skip("the commands above were not run")
    if "duckdb" in piece:
        pytest.importorskip("duckdb", reason="duckdb is not installed")
    monkeypatch.chdir(checkout)
    monkeypatch.syspath_prepend(str(checkout))
    names: dict[str, object] = {}
    if "x_private" in piece:
        (checkout / "net.py").write_text(
            "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(256, 3))\n"
        )
        from safetensors.torch import save_file

        rng = torch.Generator().manual_seed(0)
        state = {"1.weight": torch.randn(3, 256, generator=rng), "1.bias": torch.zeros(3)}
        save_file(state, "weights.safetensors")
        names = {
            "x_private": torch.rand(40, 1, 16, 16, generator=rng),
            "y_private": torch.arange(40) % 3,
            "x_public": torch.rand(40, 1, 16, 16, generator=rng),
            "x_queries": torch.rand(5, 1, 16, 16, generator=rng),
            "secret": b"sixteen bytes or more",
        }
        with torch.no_grad():  # labels in the order of its outputs
            logits = names["x_private"].flatten(1) @ state["1.weight"].T  # type: ignore[attr-defined]
        names["y_private"] = logits.argmax(1)
    exec(compile(piece, "README.md", "exec"), names)
    if "released" in names:
        released = names["released"]
        assert isinstance(released, torch.Tensor)
        assert released.shape == (5, 3)
        assert torch.allclose(released.sum(1), torch.ones(5), atol=1e-5)


@pytest.mark.ray
def test_the_serve_command_answers(checkout: Path) -> None:
    pytest.importorskip("ray.serve", reason="ray[serve] is not installed")
    if not (checkout / "protected-digits" / "unit").exists():
        pytest.skip("the example above was not run")
    (command,) = [c for c in commands() if c.startswith("MIPOISON_SECRET")]
    words = shlex.split(command)
    secret, words = words[0].partition("=")[2], [sys.executable, *words[2:]]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MIPOISON_"))}
    scratch = Path("/tmp") / f"mipr{os.getpid()}"
    environment |= {
        "PYTHONPATH": str(checkout),
        "HOME": str(checkout),
        "MIPOISON_SECRET": secret,
        "MIPOISON_RAY_TMP": str(scratch),
    }
    log = checkout / "serve.log"
    with open(log, "w") as sink:
        process = subprocess.Popen(
            [*words, "--port", str(port)],
            cwd=checkout,
            env=environment,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        image = next((checkout / "protected-digits" / "images" / "attack").rglob("*.png")).read_bytes()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/release", data=image, headers={"Content-Type": "image/png"}
        )
        answer = wait_for(lambda: json.load(urllib.request.urlopen(request, timeout=30)), process, log)
        assert len(answer["released"][0]) == 10
        assert secret not in log.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(scratch, ignore_errors=True)


def wait_for(
    ask: Callable[[], dict[str, list[list[float]]]], process: subprocess.Popen[bytes], log: Path
) -> dict[str, list[list[float]]]:
    deadline = time.monotonic() + 240
    while True:
        try:
            return ask()
        except OSError:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(1)
