"""``mipoison attacks``: a row of every registered one, one in full, a mistake in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mipoison.attacks import ATTACKS
from study import attacks
from tests.study.examples.plugin.helpers import EXAMPLE, registries_restored


def test_every_attacker_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert attacks.main([]) == 0
    shown = capsys.readouterr().out
    for name in ATTACKS:
        assert f" {name} " in shown
    assert "queries = 16" in shown
    assert "2: several trainings" in " ".join(shown.replace("│", " ").split())


def test_one_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert attacks.main(["averaging-16"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"cost: {ATTACKS['averaging-16'].COST}" in shown
    assert "in the suite: yes" in shown


def test_an_unknown_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert attacks.main(["kernle"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'kernel'" in error
    assert error.strip().count("\n") == 0


def test_a_plug_in_is_listed_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLE), *sys.path])
    monkeypatch.chdir(tmp_path)
    with registries_restored():
        assert attacks.main(["raw-ridge", "--plugin", "mipoison_example"]) == 0
    assert "penalty" in capsys.readouterr().out
