"""``mipoison defenses``: a row of every registered one, one in full, a mistake in one line."""

from __future__ import annotations

import pytest

from mipoison.defenses import DEFENSES
from study import defenses


def test_every_defense_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert defenses.main([]) == 0
    shown = capsys.readouterr().out
    assert f"{len(DEFENSES)} defenses" in shown
    for name in DEFENSES:
        assert f" {name} " in shown


def test_one_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert defenses.main(["lpa"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    knob = DEFENSES["lpa"].KNOBS["budget"]
    assert f"{knob.low:g} to" in shown
    assert "reads the image: yes" in shown
    assert f"source: {DEFENSES['lpa'].SOURCE}" in shown


def test_an_unknown_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert defenses.main(["lpaa"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'lpa'" in error
    assert error.strip().count("\n") == 0
