"""The command that checks a defense or an attacker: what is broken, by name, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mipoison.scene import Scene
from study import check
from tests.study.examples.plugin.helpers import EXAMPLE, registries_restored

BROKEN = """
from dataclasses import dataclass
from mipoison_example import Blend, BlendConfig

class Loud(Blend):
    def protect(self, c_NK, x_NCHW, picked_N, *, rng):
        return super().protect(c_NK, x_NCHW, picked_N, rng=rng) * 1.5

class LoudConfig(BlendConfig):
    '''Scores that sum to 1.5.'''
    def make(self):
        return Loud(self)

class NotAConfig:
    pass
"""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_scene: Scene) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [str(EXAMPLE), *sys.path])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mipoison.scene.prepare", lambda *_: tiny_scene)  # the same settings, trained once
    Path("mipoison_loud.py").write_text(BROKEN)
    with registries_restored():
        yield


def test_what_keeps_the_contract_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["mipoison_example:RawRidgeConfig"]) == 0
    assert "RawRidgeConfig: 12 of 12 promises kept" in capsys.readouterr().out
    assert check.main(["mipoison_example"]) == 0
    said = capsys.readouterr().out
    assert "blend: 20 of 20 promises kept" in said
    assert "raw-ridge: 12 of 12" in said


def test_what_breaks_it_is_1_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["mipoison_loud:LoudConfig"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "BROKEN Released rows are on the simplex" in said
    assert "a released vector sums to 1 +- 0.5" in said


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("mipoison_nowhere:C", "cannot be imported"),
        ("mipoison_loud:Missing", "has no 'Missing'"),
        ("mipoison_loud:NotAConfig", "is the class NotAConfig: expected a subclass"),
        ("mipoison_loud", "brings nothing"),
        ("mipoison.scene_config:SceneConfig", "cannot be made"),
    ],
)
def test_bad_input_is_one_line(source: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([source]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.strip().count("\n") == 0
