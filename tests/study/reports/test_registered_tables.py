"""The tables are made of the registries: texts, knobs and needs of every entry, and of a new one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mipoison.attacks import ATTACKS
from mipoison.defenses import DEFENSES
from study.reports.registered_tables import (
    attacker_detail,
    attackers_table,
    defense_detail,
    defenses_table,
    first_sentence,
    knob_texts,
)
from tests.study.examples.plugin.helpers import registries_restored


def text_of(renderable: object) -> str:
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_knobs_with_default_range_and_what_they_do() -> None:
    (steps,) = knob_texts(DEFENSES["rounding"])
    assert steps.startswith("steps = none (2 to 1000, whole numbers, log scale): ")
    assert knob_texts(DEFENSES["label-only"]) == []


def test_a_row_of_each_with_its_first_sentence() -> None:
    shown = text_of(defenses_table())
    for name, config in DEFENSES.items():
        row = next(line for line in shown.splitlines() if line.startswith((f"│ {name} ",)))
        assert first_sentence(config)[:60] in row
        assert (" yes " in row) or (" no " in row)
    shown = text_of(attackers_table())
    assert all(f"│ {name} " in shown for name in ATTACKS)


def test_what_needs_images_says_so() -> None:
    for name in ("rounding", "lpa"):
        reads = "yes" if DEFENSES[name]().make().reads_image else "no"
        assert f"reads the image: {reads}" in text_of(defense_detail(name))
    for name, config in ATTACKS.items():
        assert f"cost: {config.COST}: " in text_of(attacker_detail(name))


def test_installed_plug_ins_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"defense": {"blend", "rounding"}, "attacker": set()}
    monkeypatch.setattr("study.reports.registered_tables.installed", lambda: found)
    assert "with --plugin NAME: blend" in " ".join(text_of(defenses_table()).split())
    assert "--plugin" not in text_of(attackers_table())


def test_a_new_entry_has_a_row() -> None:
    with registries_restored():
        DEFENSES["another"] = DEFENSES["rounding"]
        assert "│ another " in text_of(defenses_table())
