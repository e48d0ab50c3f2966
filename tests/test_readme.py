"""Every command and piece of Python of the README and of the site's own pages is run, at the smallest sizes.

The order is that of the README and of the site's navigation; a command that appears twice runs once. What
cannot run on one machine is listed here by name, with the test that covers it. A new command without an entry
fails.
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

from study.runtime.command import main as command_line
from tests.conftest import WORKED_EXAMPLE
from tests.study.examples.plugin.helpers import registries_restored

ROOT = Path(__file__).parents[1]
PROGRAMS = ("mipoison", "python", "pip", "pytest", "ray", "optuna-dashboard", "tensorboard", "mkdocs", "curl")
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
    "--no-learning-curves",
]
FEW = ["--attackers", "passive", "label-only", "--defenses", "rounding"]

pytestmark = [pytest.mark.timeout(400)]


def documents() -> list[Path]:
    """The README and the site's own pages, in the order of the navigation, which must list them all."""
    folder = ROOT / ".docs" / "pages"
    listed = re.findall(r": ([\w-]+\.md)$", (ROOT / ".docs" / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    own = [folder / name for name in listed if not (ROOT / name).exists()]
    assert sorted(own) == sorted(folder.glob("*.md")), "the navigation lists every page once"
    return [ROOT / "README.md", *own]


def blocks_of(text: str) -> list[str]:
    """A page's code in order: fenced blocks but those of ``text``, and runs of lines indented by four."""
    fenced = r"^```(?P<language>\w*)\n(?P<fenced>[\s\S]*?)^```$"
    indented = r"(?P<indented>(?:^ {4}.*\n|^\n(?= {4}))+)"
    found = []
    for match in re.finditer(f"{fenced}|{indented}", text, flags=re.MULTILINE):
        if match["language"] == "text":  # what is printed, or another program's configuration
            continue
        block = match["fenced"] or re.sub(r"^ {4}", "", match["indented"] or "", flags=re.MULTILINE)
        found.append(block.strip())
    return found


def blocks() -> list[str]:
    """The code of all documents; code that appears twice counts once."""
    found = [block for path in documents() for block in blocks_of(path.read_text())]
    return list(dict.fromkeys(found))


def commands() -> list[str]:
    """Shell commands in order: continued lines joined, split at ``&&``, without comments."""
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
    """The documents' Python code, block by block."""
    return [block for block in blocks() if re.match(r"(from|import) ", block)]


ELSEWHERE = {
    "pip install -e .": ".ci/run installs with the extra test, which holds it",
    'pip install -e ".[test]"': ".ci/run",
    "pytest": ".ci/run",
    'pip install -e ".[docs]"': ".ci/run (the extra dev holds docs)",
    "mkdocs build -f .docs/mkdocs.yml": "tests/test_site.py",
    "ray up clusters/aws.yaml": "tests/clusters/test_bootstrap_aws.py",
    "mipoison benchmark": "tests/study/test_benchmark.py; .ci/run runs it with --quick",
    "mipoison reproduce --all --resume --data-root DATA": "tests/study/test_reproduce.py",
    "tensorboard --logdir results/logged/tensorboard": "tests/study/tracking/test_trackers.py reads them",
    "optuna-dashboard results/digits-same/optuna.log": "tests/study/tracking/test_trackers.py opens one",
    "mipoison serve --unit protection": "tests/study/test_protect.py answers with such a unit",
    'pip install -e ".[serve]"': ".ci/run (the extra test holds serve)",
    "mipoison serve --unit unit --victim net:make --victim-state w.safetensors --queries-per-key 1000": (
        "tests/study/serving/test_curl_lines.py"
    ),
    "mipoison pareto --dataset folder:images --victim net:make --victim-state weights.safetensors "
    "--victim-transforms ResNet18_Weights.DEFAULT --name own-224": "tests/study/session/test_own_victim.py",
    "python study/examples/protect_224.py --out protected-224": "tests/study/examples/test_protect_224.py",
    "python study/examples/protect_huggingface.py --out protected-huggingface": (
        "tests/study/examples/test_protect_huggingface.py"
    ),
}
CHECKED = (  # they need clusters, GPUs or S3: only their settings are parsed and validated
    "mipoison pareto --dataset lfw",
    "ray job submit -- python study/pareto.py",
)
ASKING = ("MIPOISON_SECRET", "curl", "mipoison audit")  # need a server: below, tests/study/test_audit.py
MORE: dict[str, list[str]] = {
    "mipoison pareto": [*TINY, *FEW, "--trials", "1"],
    "mipoison pareto --dataset mnist": [*TINY[2:], *FEW],
    "mipoison pareto --resume": [*TINY, *FEW, "--trials", "2"],
    "mipoison pareto --dataset folder": [*TINY[2:], *FEW, "--seeds", "1", "--trials", "1"],
    "mipoison pareto --dry-run": [],
    "mipoison pareto --name plugged": [*TINY, "--trials", "1"],
    "mipoison pareto --name": [*TINY, *FEW, "--trials", "1"],
    "mipoison reproduce --table I": (
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
"""Options that make a command small, chosen by the longest prefix; of repeated options the last counts."""
LONG = (
    WORKED_EXAMPLE,
    "mipoison reproduce --all --render --storage study/results",
    "mipoison reproduce --claims --studies study/results",
)
"""Commands that take tens of seconds and need no other; ``.ci/run`` runs them, and ``pytest -m long``."""

AFTER = ("mipoison pareto --dataset folder:protected-digits/images",)
"""Beginnings of commands that read what one of LONG leaves."""


def marked(command: str) -> object:
    long = command in LONG or command.startswith(tuple(AFTER))
    return pytest.param(command, id=command, marks=[pytest.mark.long] if long else [])


def small(command: str) -> list[str]:
    found = [start for start in MORE if command.startswith(start)]
    return MORE[max(found, key=len)] if found else []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the checkout, in which commands may write results, with DATA in torchvision's layout."""
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


def program(command: str) -> list[str]:
    """A command's words with this Python in front, as ``mipoison`` may not be on the path."""
    words = [w for w in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=.*", w)]
    start = ["-m", "study.runtime.command"] if words[0] == "mipoison" else []
    return [sys.executable, *start, *words[1:]]


def run(command: str, checkout: Path) -> str:
    words = [*program(command), *small(command)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MIPOISON_"))}
    environment |= {"PYTHONPATH": str(checkout), "HOME": str(checkout), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        words, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    return done.stdout


def run_here(command: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in this process, which has imported what takes seconds."""
    monkeypatch.chdir(checkout)
    monkeypatch.syspath_prepend(str(checkout))
    for name in os.environ:
        if name.startswith(("RAY_", "MIPOISON_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(checkout))
    with registries_restored():
        assert command_line([*shlex.split(command)[1:], *small(command)]) == 0


def test_the_readme_has_commands_and_python() -> None:
    assert len(commands()) >= 28
    assert len(pieces()) >= 5
    assert set(LONG) <= set(commands())
    assert set(ELSEWHERE) <= set(commands()), "an entry for a command that no document has any more"
    for where in ELSEWHERE.values():
        assert (ROOT / re.split(r"[ ;,]", where)[0]).exists()


def test_the_first_commands_are_those_of_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert 'pip install --quiet -e ".[test]"' in script
    assert re.search(r"^step .*\bpytest\b", script, flags=re.MULTILINE)
    assert 'pytest -m "not slow and not faults"' in script  # `pytest` and `pytest -m long`
    assert "pytest -n 0 -m faults" in script  # with these, all but the storms
    assert "study/benchmark.py --quick" in script


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    # A table's row cannot be wrapped.
    assert [line for line in lines if len(line) > (130 if line.startswith("| ") else 120)] == []


def test_code_is_found_fenced_and_indented() -> None:
    text = "a\n\n```bash\nb \\\n    c\n```\n\n    d\n\n    e\n\nf `g`\n\n```python\nimport h\n```\n"
    text += "\n```text\nthe label's\n```\n"
    assert blocks_of(text) == ["b \\\n    c", "d\n\ne", "import h"]


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith(CHECKED)])
def test_a_command_for_a_cluster_has_valid_settings(command: str) -> None:
    from study.settings.study_settings import Arguments

    words = shlex.split(re.split(r"study/pareto\.py|mipoison pareto", command)[1])
    tyro.cli(Arguments, args=words).checked()


# In order: later commands read what earlier ones leave.
@pytest.mark.parametrize(
    "command",
    [marked(c) for c in commands() if c not in ELSEWHERE and not c.startswith((*CHECKED, *ASKING))],
)
def test_a_command_runs(
    command: str, checkout: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    assert command.startswith(("mipoison ", "python study/")), (
        f"no way to run {command!r}: say in ELSEWHERE what covers it"
    )
    if "--mlflow" in command:
        pytest.importorskip("mlflow", reason="mlflow is not installed")
    if command == WORKED_EXAMPLE:
        made = request.getfixturevalue("worked_example") / "protected-digits"
        shutil.copytree(made, checkout / "protected-digits")
    elif command.startswith("mipoison ") and "--help" not in command and command != "mipoison pareto":
        run_here(command, checkout, monkeypatch)
    else:
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

    if "results/digits-same/episodes" in piece and not (checkout / "results/digits-same").exists():
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
    exec(compile(piece, "a page", "exec"), names)
    if "released" in names:
        released = names["released"]
        assert isinstance(released, torch.Tensor)
        assert released.shape == (5, 3)
        assert torch.allclose(released.sum(1), torch.ones(5), atol=1e-5)
    if "record" in names:
        record = names["record"]
        assert isinstance(record, dict)
        assert record["status"] == "ok"
        assert 0 < record["reconstruction_error"] < 1
        assert 0 <= record["confidence_distortion"] <= 2**0.5


@pytest.mark.ray
@pytest.mark.long
def test_the_serve_command_answers(checkout: Path) -> None:
    pytest.importorskip("ray.serve", reason="ray[serve] is not installed")
    if not (checkout / "protected-digits" / "unit").exists():
        pytest.skip("the example above was not run")
    (command,) = [c for c in commands() if c.startswith("MIPOISON_SECRET")]
    words = shlex.split(command)
    secret, words = words[0].partition("=")[2], program(command)
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
        request = asked_by(next(c for c in commands() if c.startswith("curl")), image, port)
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


def asked_by(command: str, image: bytes, port: int) -> urllib.request.Request:
    """The request of the pages' first curl command, at another port; test_curl_lines.py runs them all."""
    words = shlex.split(command)
    assert words[1:] == ["--data-binary", "@image.png", "http://127.0.0.1:8000/release"]
    headers = {"Content-Type": "application/x-www-form-urlencoded"}  # curl's
    return urllib.request.Request(words[3].replace(":8000", f":{port}"), data=image, headers=headers)


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
