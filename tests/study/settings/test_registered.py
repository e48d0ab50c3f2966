"""The names that are read from the registries' source are those of the registries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mipoison import attacks, defenses
from mipoison.attacks import ATTACKS
from study.search.space import searchable
from study.settings import registered


def test_the_source_names_what_the_registries_hold() -> None:
    """In a new process, since here the registries are imported: they are asked once they are."""
    code = (
        "import json, sys; from study.settings.registered import attackers, families; "
        "print(json.dumps([attackers(), families(), 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [list(ATTACKS), searchable(), False]


def test_constants_are_the_library_s() -> None:
    assert registered.ANCHORS == defenses.ANCHORS
    assert registered.LABEL_ATTACKER == attacks.LABEL_ATTACKER
    assert registered.PASSIVE == attacks.PASSIVE


def test_an_entry_that_a_program_adds_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "of-my-own", ATTACKS["ridge"])
    assert registered.attackers()[-1] == "of-my-own"


@pytest.mark.parametrize(
    "source",
    [
        "T = {'a': 1, **dict(b=2)}",
        "T = {name: 1 for name in 'ab'}",
        "T: dict[str, int] = {'a': 1, chr(98): 2}",
        "if True:\n    T = {'a': 1, 'b': 2}",
    ],
)
def test_names_that_are_computed_are_found_by_an_import(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"computed_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert name not in sys.modules
    assert registered.registered(name, "T") == ("a", "b")
    assert name in sys.modules


def test_the_last_assignment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "assigned_twice.py").write_text("T = {'a': 1}\nS = {'c': 1}\nT = {'b': 2}")
    monkeypatch.syspath_prepend(tmp_path)
    assert registered.registered("assigned_twice", "T") == ("b",)
    assert "assigned_twice" not in sys.modules
