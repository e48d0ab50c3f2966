"""The paper's numbers as rows of episodes: every number has one, and trials are shared."""

from __future__ import annotations

import csv

from mipoison.attacks import ATTACKS
from mipoison.defenses import DEFENSES
from mipoison.episode import EpisodeConfig
from mipoison.scene import scaled
from study import reproduce
from study.paper import experiments
from study.paper.experiments import FIGURES, NUMBERS, TABLES, planned, table_rows, trials_of


def test_table_v_has_sizes_of_its_own() -> None:
    small = reproduce.Arguments(limit=1000, decoder_steps=100).settings(experiments.DIFFUSION)
    assert (small.dataset, small.limit, small.decoder_steps, small.decoder_width) == ("mnist", 300, 100, 8)
    assert reproduce.Arguments(scale="full").settings(experiments.DIFFUSION).limit is None


def test_every_number_of_the_paper_has_a_row_and_every_row_an_episode() -> None:
    with NUMBERS.open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = [row for table in TABLES for row in table_rows(table)]
    assert sum(not row.ours for row in rows) == len(lines) == 69
    for row in rows:
        config = DEFENSES[row.defense](**dict(row.knobs))
        EpisodeConfig(
            scene=scaled("digits", "quick"),
            defense=row.defense,
            defense_config=config,
            attack=row.attack,
            attack_config=ATTACKS[row.attack],
        )
    told = [tuple(row.paper) for row in rows if not row.ours]
    for line, paper in zip(lines, told, strict=True):
        assert dict(paper).get("reconstruction_error") == (
            float(line["reconstruction_error"]) if line["reconstruction_error"] else None
        )


def test_rows_measure_what_the_paper_names() -> None:
    fourth = [
        (r.defense, r.attack, dict(r.knobs).get("substitute_extra_blocks")) for r in table_rows("IV")[:6]
    ]
    assert fourth == [
        ("none", "passive", None),
        ("lpa", "passive", 0),
        ("none", "mismatched-architecture", None),
        ("lpa", "mismatched-architecture", 0),
        ("lpa", "passive", 1),
        ("lpa", "mismatched-architecture", 1),
    ]
    assert [r.reference for r in table_rows("IV")[:6]] == [None, 0, None, 2, 0, 2]
    assert [r.reference for r in table_rows("VII")[:10]] == [2, 2, None, 2, 2, 7, 7, None, 7, 7]
    assert [dict(r.knobs).get("budget") for r in table_rows("VI")[:6]] == [None, 0.002, 0.02, 0.2, 0.5, 1.0]
    third = [(r.attack, dict(r.knobs).get("substitute_data")) for r in table_rows("III")]
    assert third[1] == ("data-D1", "D1")
    assert third[4] == ("mismatched-data", "D1")


def test_trials_are_shared_between_tables_and_attackers_gathered() -> None:
    trials = trials_of(planned(TABLES, FIGURES), "mnist")
    assert {"label-only", "none"} <= set(trials)
    assert set(trials["none"][2]) == {"passive", "noise", "softmax"}
    apart = trials_of(planned(TABLES, FIGURES), experiments.DIFFUSION)
    assert set(apart["none"][2]) == {"passive", "diffusion-0", "diffusion-0.5", "diffusion-2"}
    lpa = table_rows("I")[3].trial
    assert table_rows("VII")[2].trial == table_rows("IX")[1].trial == table_rows("X")[0].trial == lpa
    assert set(trials[lpa][2]) == {"passive", "noise", "softmax"}
