"""Every command of the pages is run: here, if no other test runs it; what one machine cannot run is listed.

``mipoison`` calls, those of ``--help``'s examples too, run in this process, in a folder with small things
under the names that the pages use. Long or distant studies are asked for with ``--dry-run``, which checks
what a study checks before its first episode. A call or a program without an entry fails, and so does an entry
that no page has any more.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import importlib
import itertools
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mipoison.attacks import ATTACKS
from mipoison.data import datasets
from mipoison.defenses import DEFENSES
from study.runtime.command import COMMANDS
from study.runtime.command import main as command_line
from tests import test_readme
from tests.study.conftest import SMALL as SMALL_STUDY
from tests.study.examples.plugin.helpers import registries_restored
from tests.test_contributing import block
from tests.test_documented_commands import call_of, calls, calls_of, lines_of, pages, simple_commands

ROOT = Path(__file__).parents[2]

STEPS = ("--victim-steps", "20", "--decoder-steps", "10", "--decoder-width", "4", "--no-learning-curves")
SMALL = ("--limit", "100", *STEPS)
LEAST = ("--seeds", "1", "--limit", "60", "--victim-steps", "10", "--decoder-steps", "5")
FEW = ("--attackers", "passive", "label-only")
OWN_STUDY = "--dataset folder:images --victim net:make --victim-state weights.safetensors --name own"
OWN_STUDY += " --seeds 1 --trials 1 --attackers passive --image-size 16 --executor local " + " ".join(STEPS)
SOMEWHERE = {"s3://BUCKET/studies": "distant", "s3://bucket/studies": "distant", "/nfs/studies": "distant"}
SOMEWHERE |= {"/tmp/try": "try"}
"""Storage of the pages -> a folder here."""


@dataclass(frozen=True)
class Way:
    """How a command runs here: some of its words are others, and more follow (the last of an option counts).

    Attributes:
        more: words at the end.
        instead: word of the page -> word here. ``NUMBER`` and ``TRIAL`` are a setting of the small study.
    """

    more: tuple[str, ...] = ()
    instead: Mapping[str, str] = field(default_factory=dict)


DRY = Way(("--dry-run",))
HELP = Way(("--help",))
WAYS: dict[str, Way] = {
    # A sentence that names the sub-command alone, which needs words that the sentence does not have.
    "protect": HELP,
    "serve": HELP,
    "audit": HELP,
    "check": HELP,
    "pareto --dataset mnist*": DRY,
    "pareto --dataset lfw*": DRY,
    "pareto --dataset mnist*--resume": Way(
        (
            *SMALL_STUDY.replace("--name small", "").split(),
            "--dataset",
            "digits",
            "--scale",
            "quick",
            "--executor",
            "ray",
            "--dry-run",
        ),
        {"s3://BUCKET/studies": "earlier"},
    ),
    "pareto --dry-run --dataset lfw*": Way(("--scale", "quick")),  # full: it times the paper's networks here
    "pareto --dataset folder:images --victim net:make*--victim-transforms ResNet18*": Way(
        DRY.more, {"net:make": "net:large", "weights.safetensors": "large.safetensors"}
    ),
    "pareto --executor local*": Way((*SMALL, *FEW)),
    "pareto --executor local --attackers*": Way(SMALL),
    "pareto --trials 8*": Way((*SMALL, *FEW, "--trials", "1")),
    "pareto --resume --name first*": Way(("--storage", "earlier", "--executor", "local", "--trials", "4")),
    "board results/[*]": Way(),
    "render results/STUDY --compact*": Way(),
    "render study/results/STUDY": Way(),
    "evaluate --like results/STUDY --trial TRIAL": Way(),
    "evaluate --like results/digits-same --trial t0007-lpa": Way(instead={"t0007-lpa": "TRIAL"}),
    "protect --study results/digits-same --setting t0012*": Way(instead={"t0012": "NUMBER"}),
    "protect --study results/own*": Way(instead={"t0012": "label-only", "unit": "own-unit"}),
    "attacks": Way(),
    "defenses rounding": Way(),
    "check my_package:MyConfig": Way(),
    "check my_package": Way(),
    "benchmark": Way(("--quick", "--only", "latency", "--threads", "1")),
    "reproduce --all*": Way(("--dataset", "facescrub", "--faces", "digits", "--executor", "local", *LEAST)),
}
"""Pattern of a call (``*``: whatever follows; ``[*]``: a star) -> how it runs here."""

EXCLUDED: dict[str, str] = {
    "serve --unit *": "never returns: tests/study/serving/test_curl_lines.py, tests/study/test_serve.py, and "
    "tests/test_readme.py (test_the_serve_command_answers)",
    "audit http*": "asks a server: tests/study/test_audit.py (test_the_commands_of_the_page)",
}
"""Pattern of a call that runs nowhere here -> why, and the tests that cover it."""

PROGRAMS_ELSEWHERE: dict[str, str] = {
    "pip *": "installs: .ci/run does",
    "python3 -m venv *": "makes what .ci/run makes",
    ". .venv*": "makes what .ci/run makes",
    "pytest*": "this is pytest: .ci/run",
    "ruff *": ".ci/run",
    "mypy": ".ci/run",
    "mkdocs *": "tests/test_site.py",
    "tensorboard *": "never returns: tests/study/tracking/test_trackers.py reads the files",
    "optuna-dashboard *": "never returns: tests/study/tracking/test_trackers.py opens one",
    "curl *": "tests/study/serving/test_curl_lines.py",
    "openssl *": "draws a key: tests/study/serving/test_curl_lines.py",
    "export *": "of a shell: tests/study/serving/test_curl_lines.py, tests/clusters/test_bootstrap_aws.py",
    "chmod *": "no test: it is the system's",
    "ray *": "need a cluster: Ray's own parser takes them in tests/clusters/test_cluster_files.py",
    "ray up *": "machines: simulated ones in tests/clusters/test_bootstrap_aws.py",
    "ray down *": "machines: simulated ones in tests/clusters/test_bootstrap_aws.py",
    "aws *": "no test: they need an account",
    "aws cloudformation deploy *": "an account: a simulated one in tests/clusters/test_bootstrap_aws.py",
    "kubectl *": "no test: they need a cluster; tests/clusters/test_kuberay_file.py checks the file's fields",
    "docker *": "no test: they need a daemon; tests/clusters/test_cluster_files.py checks its image",
    "base64 *": "no test: decodes what kubectl says",
    "python -c *s3:*": "no test: needs a bucket and s3fs",
    "python study/examples/protect_torchvision.py *": "tests/study/examples/test_protect_torchvision.py",
    "python study/examples/protect_224.py *": "tests/study/examples/test_protect_224.py",
    "python study/examples/protect_huggingface.py *": "tests/study/examples/test_protect_huggingface.py",
    "python study/examples/read_the_scores.py": "tests/study/examples/test_read_the_scores.py",
    "python -m study.bench.audit_endpoints *": "hours; its parts: tests/study/bench/test_audit_endpoints.py",
    "python -m study.bench.endpoint_figure *": "tests/study/bench/test_endpoint_figure.py",
    "python -m study.bench.calibration *": "tests/study/bench/test_calibration.py",
    "python -m study.bench.extrapolation": "tests/study/bench/test_extrapolation.py",
    "python -m study.bench.prototypes*": "minutes: tests/study/bench/test_prototypes.py",
    "python -m study.bench.small_predicts_large *": "tests/study/bench/test_small_predicts_large.py",
    "python -m study.reports.extract_figure *": "tests/study/reports/test_extract_figure.py",
}
"""Pattern of a command that calls no sub-command -> why it is not run here, and what covers it."""
PROGRAMS = tuple({pattern.split()[0] for pattern in PROGRAMS_ELSEWHERE})


def text_of(name: str, words: Iterable[str]) -> str:
    return " ".join([name, *words])


def examples() -> list[tuple[str, list[str]]]:
    """The examples of ``--help``."""
    return [
        (name, shlex.split(example, comments=True))
        for name in COMMANDS
        for example in getattr(importlib.import_module(f"study.{name}"), "EXAMPLES", ())
    ]


def run_by_the_readme() -> set[str]:
    """What ``test_readme.py`` runs."""
    skipped = (*test_readme.CHECKED, *test_readme.ASKING)
    kept = [c for c in test_readme.commands() if c not in test_readme.ELSEWHERE and not c.startswith(skipped)]
    return {text_of(*call) for command in kept for call in calls_of(command)}


def documented() -> dict[str, tuple[str, list[str]]]:
    """The calls of pages and of ``--help`` that the README's test does not run, by their text."""
    found = [(param.values[0], param.values[1]) for param in calls()] + examples()
    run = run_by_the_readme()
    return {text: call for call in found if (text := text_of(*call)) not in run}


def programs() -> list[str]:
    """Commands of other programs in the pages' code: all of a ``bash`` block; elsewhere those of PROGRAMS."""
    found = []
    for page in pages():
        text = page.read_text()
        fenced = "".join(re.findall(r"^```bash\n([\s\S]*?)^```$", text, flags=re.MULTILINE))
        lines = [(line, True) for line in fenced.replace("\\\n", " ").splitlines()]
        lines += [(line, False) for line in lines_of(text)]
        for line, shell in lines:
            with contextlib.suppress(ValueError):  # prose; test_documented_commands.py sees what is none
                found += [
                    " ".join(words)
                    for all_words in simple_commands(line)
                    if (words := list(itertools.dropwhile(re.compile(r"\w+=").match, all_words)))
                    and call_of(all_words) is None
                    and (shell or words[0] in PROGRAMS)
                ]
    return list(dict.fromkeys(found))


def matching(text: str, patterns: Iterable[str]) -> str | None:
    """The longest pattern that a command's text matches."""
    return max((p for p in patterns if fnmatch.fnmatchcase(text, p)), key=len, default=None)


DOCUMENTED = documented()
RUN = [text for text in DOCUMENTED if matching(text, EXCLUDED) is None]


def test_every_command_is_run_or_listed() -> None:
    assert [t for t in RUN if matching(t, WAYS) is None] == [], "give each one an entry in WAYS or EXCLUDED"
    assert [t for t in programs() if matching(t, PROGRAMS_ELSEWHERE) is None] == []
    assert len(RUN) >= 28


def test_every_entry_is_of_a_command_that_is_documented() -> None:
    used = {matching(text, WAYS) for text in RUN}
    used |= {matching(text, EXCLUDED) for text in DOCUMENTED}
    used |= {matching(text, PROGRAMS_ELSEWHERE) for text in programs()}
    assert {*WAYS, *EXCLUDED, *PROGRAMS_ELSEWHERE} - used == set()


@pytest.mark.parametrize("reason", sorted({*EXCLUDED.values(), *PROGRAMS_ELSEWHERE.values()}))
def test_a_reason_names_what_covers_the_command(reason: str) -> None:
    named = re.findall(r"(?:tests|\.ci)/[\w/]+(?:\.py)?", reason)
    assert named or reason.startswith("no test: ")
    assert [path for path in named if not (ROOT / path).exists()] == []
    for path, test in re.findall(r"(tests/\S+\.py) \((\w+)\)", reason):
        assert f"def {test}(" in (ROOT / path).read_text()


@pytest.fixture(scope="module")
def folder(small_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read, under the names that the pages give it."""
    root = tmp_path_factory.mktemp("commands")
    for place in (
        "results/digits-same",
        "results/STUDY",
        "study/results/STUDY",
        "earlier/first",
        "earlier/mnist",
    ):
        shutil.copytree(small_study, root / place)
    shutil.copytree(small_study.parent / "artifacts", root / "results" / "artifacts", dirs_exist_ok=True)
    for k, name in enumerate(("a", "b", "c")):  # images of three classes that differ in brightness
        (root / "images" / name).mkdir(parents=True)
        for j in range(30):
            Image.new("L", (16, 16), 100 * k + j).save(root / "images" / name / f"{j}.png")
    (root / "net.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(256, 3))\n\n"
        "def large():  # of 3 channels and any size\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))\n"
    )
    mean = torch.tensor([-1.0, 0.0, 1.0])[:, None].expand(3, 3).contiguous() / 3
    save_file({"2.weight": mean, "2.bias": torch.tensor([0.0, 0.8, 0.0])}, root / "large.safetensors")
    brightness = torch.tensor([-1.0, 0.0, 1.0])[:, None].expand(3, 256).contiguous() / 16
    save_file(
        {"1.weight": brightness, "1.bias": torch.tensor([3.0, 2.0, -7.0])}, root / "weights.safetensors"
    )
    example = ROOT / "study/examples/plugin/mipoison_example.py"
    (root / "my_package.py").write_text(example.read_text() + "\n\nMyConfig = BlendConfig\n")
    rng = np.random.default_rng(0)
    (root / "FOLDER").mkdir()
    for part, n in (("train", 400), ("test", 200)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        np.savez(root / "FOLDER" / f"kmnist-{part}-imgs.npz", images)
        np.savez(root / "FOLDER" / f"kmnist-{part}-labels.npz", np.arange(n, dtype=np.uint8) % 10)
    return root


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That folder as the current one and on the path, with the examples of CONTRIBUTING.md where they say."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    for name in os.environ:
        if name.startswith(("RAY_", "MIPOISON_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for file in folder.glob("*.py"):  # another test of this process may have had a module of that name
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
    before = set(sys.modules)
    with registries_restored(), monkeypatch.context() as patch:
        patch.setitem(DEFENSES, "tempering", contributed('"""Tempering', folder).TemperingConfig)
        patch.setitem(ATTACKS, "random-ridge", contributed('"""Random ridge', folder).RandomRidgeConfig())
        names = {**vars(datasets), "load_kmnist": contributed('"""Kuzushiji', folder).load_kmnist}
        exec(compile(block("DATASETS: dict").replace("    ...\n", ""), "CONTRIBUTING.md", "exec"), names)
        patch.setitem(datasets.DATASETS, "kmnist", names["DATASETS"]["kmnist"])
        yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def contributed(start: str, folder: Path) -> ModuleType:
    """The module that a block of CONTRIBUTING.md is."""
    name = re.sub(r"\W+", "_", start.strip('"').lower())
    (folder / f"{name}.py").write_text(block(start))
    return importlib.import_module(name)


@pytest.fixture
def setting(small_study: Path) -> str:
    """A recorded trial of the small study that is no anchor, as t0001-lpa."""
    trials = pd.read_parquet(small_study / "frontier.parquet")["trial"]
    return next(str(trial) for trial in trials if re.match(r"t\d+-", str(trial)))


def code_of(words: list[str]) -> object:
    """The exit code of ``mipoison``; ``--help`` leaves by an exception."""
    try:
        return command_line(words)
    except SystemExit as left:
        return left.code


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("text", [pytest.param(text, id=text) for text in RUN])
def test_a_command_runs(text: str, here: Path, setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, words = DOCUMENTED[text]
    way = WAYS[matching(text, WAYS) or ""]
    own = {"TRIAL": setting, "NUMBER": setting.partition("-")[0]}
    words = [way.instead.get(word, word) for word in words]
    words = [own.get(word, SOMEWHERE.get(word, word)) for word in words]
    words = [part for word in words for part in (sorted(glob.glob(word)) if "*" in word else [word])]
    if "results/own" in words and not Path("results/own").exists():
        assert code_of(["pareto", *OWN_STUDY.split()]) == 0
    code = code_of([name, *words, *way.more])
    said = capsys.readouterr()
    assert code == 0, said.err[-3000:] + said.out[-1500:]
    assert "Traceback" not in said.err + said.out
    assert said.out or said.err
