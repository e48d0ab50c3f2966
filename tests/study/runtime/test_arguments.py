"""Parsing: groups, examples, defaults that say something, and a closed pipe."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from study.runtime.arguments import parse
from study.settings.study_settings import GROUPS, Arguments

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large."""

    steps: int | None = None
    """training steps; default: the scale's"""
    seeds: int = 3
    """how many"""


@dataclass(frozen=True, kw_only=True)
class Names:
    """Which."""

    only: Annotated[tuple[str, ...], tyro.conf.arg(help="these alone", metavar="NAME")] = ()
    outputs: Literal["a", "b"] | None = None
    """what it gives"""


@dataclass(frozen=True, kw_only=True)
class Both(Size, Names):
    """Do both."""


def help_of(capsys: pytest.CaptureFixture[str], **more: object) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(Both, ["--help"], "pareto", **more)  # type: ignore[arg-type]
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("groups", [None, {"size": (Size,), "names": (Names,)}])
def test_values_arrive_in_the_dataclass(groups: dict[str, tuple[type, ...]] | None) -> None:
    words = ["--steps", "7", "--only", "x", "y", "--outputs", "b"]
    found = parse(Both, words, "pareto", groups=groups)
    assert found == Both(steps=7, seeds=3, only=("x", "y"), outputs="b")
    assert type(found) is Both
    assert parse(Both, [], "pareto", groups=groups) == Both()
    with pytest.raises(SystemExit) as stop:
        parse(Both, ["--seeds", "three"], "pareto", groups=groups)
    assert stop.value.code == 2


def test_help_has_groups_examples_and_no_empty_default(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys, groups={"size": (Size,), "names": (Names,)}, examples=("--seeds 4",))
    for part in ("Do both.", "size options", "How large.", "names options", "pareto.py --seeds 4"):
        assert part in shown
    assert "(default: 3)" in shown
    assert "default: the scale's" in shown
    assert "default: None" not in shown
    assert "default: )" not in shown
    assert "{None}" not in shown
    assert "--steps INT" in shown
    assert "--outputs {a,b}" in shown
    assert "--only NAME" in shown
    assert "these alone" in shown


def test_the_groups_of_a_study_hold_every_setting_once(capsys: pytest.CaptureFixture[str]) -> None:
    import dataclasses

    names = [f.name for group in GROUPS.values() for cls in group for f in dataclasses.fields(cls)]
    assert sorted(names) == sorted(f.name for f in dataclasses.fields(Arguments))


@pytest.mark.parametrize("words", ["study/pareto.py --help", "-m study.runtime.command --help"])
def test_a_closed_pipe_leaves_no_trace(words: str) -> None:
    """Its reader goes before anything is written; without that care Python reports a BrokenPipeError."""
    process = subprocess.Popen(
        [sys.executable, *words.split()], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(60) == 141
    assert error == ""
