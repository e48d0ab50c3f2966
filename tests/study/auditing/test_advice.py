"""The least change: a coarse grid where scores leak, a fixed vector a label where no grid is enough."""

from __future__ import annotations

import numpy as np
import torch
from audited_pools import pool

from mipoison.defenses.rounding import apportion
from mipoison.simplex import keep_label
from study.auditing.advice import STEPS, least_change
from study.auditing.attacking import CHEAP, Pool, attacked
from study.auditing.intervals import excess_of


def test_the_change_is_within_the_bar_when_it_is_made() -> None:
    own, pools = pool(150, 0), {"train": pool(90, 1)}
    change = least_change(own, pools, bar=0.65, doublings=0.0, seed=0)
    assert change.defense == "rounding"
    steps = change.knobs["steps"]
    assert steps in STEPS
    assert change.high <= 0.65

    def rounded(p: Pool) -> Pool:
        return Pool(p.x_NCHW, keep_label(apportion(p.c_NK, steps).float(), p.c_NK))

    changed = {"train": rounded(pools["train"])}
    errors = attacked(rounded(own), changed, seed=0, attackers=CHEAP)
    found = excess_of(
        errors.scores["train"], errors.labels["train"], None, doublings=0.0, rng=np.random.default_rng(0)
    )
    assert change.high == found.high
    moved = (changed["train"].c_NK - pools["train"].c_NK).norm(dim=1).mean()
    assert change.distortion == float(moved)


def test_no_grid_for_answers_that_differ() -> None:
    own, pools = pool(60, 0), {"train": pool(40, 1)}
    assert least_change(own, pools, bar=0.99, doublings=0.0, seed=0).defense == "rounding"
    assert least_change(own, pools, bar=0.99, doublings=0.0, seed=0, grids=False).defense == "label-only"


def test_nothing_but_the_label_is_within_a_bar_of_zero() -> None:
    own, pools = pool(60, 0), {"train": pool(40, 1)}
    change = least_change(own, pools, bar=0.0, doublings=0.0, seed=0)
    assert (change.defense, change.high) == ("label-only", 0.0)
    label_N = own.c_NK.argmax(1)
    medians = torch.stack([own.c_NK[label_N == k].median(0).values for k in range(3)])
    c_NK = pools["train"].c_NK
    assert np.isclose(change.distortion, float((medians[c_NK.argmax(1)] - c_NK).norm(dim=1).mean()))
