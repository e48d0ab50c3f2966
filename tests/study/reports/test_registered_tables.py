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


def test_a_sentence_does_not_end_with_an_abbreviation() -> None:
    class Made(type(ATTACKS["ridge"])):  # type: ignore[misc]
        """Reads scores (Yang et al. 2019, e.g. by ``ridge``). Another sentence."""

    assert first_sentence(Made) == "Reads scores (Yang et al. 2019, e.g. by ridge)"
    for configs in (DEFENSES.values(), map(type, ATTACKS.values())):
        for config in configs:
            text = first_sentence(config)
            assert text.count("(") == text.count(")"), text
            assert not text.endswith((" al", "e.g", "i.e"))
    assert "on the answers to its own images" in first_sentence(type(ATTACKS["passive"]))


def test_knobs_that_defenses_share_are_listed_once() -> None:
    shown = text_of(defenses_table())
    for knob in knob_texts(DEFENSES["lpa"]):
        assert shown.count(knob[:60]) <= 4  # lpa, and relatives with some of its knobs
    for name in ("lpa-flipped", "lpa-random", "lpa-shuffled", "lpa-blind"):
        row = next(line for line in shown.splitlines() if line.startswith(f"│ {name} "))
        assert " those of lpa " in row
    assert "those of label-only" not in shown
    assert "those of none" not in shown


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
