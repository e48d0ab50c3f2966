"""Endpoints are drawn within the knobs' ranges, and the full study is the library's own numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mipoison.config import Knob
from mipoison.defenses import DEFENSES
from mipoison.episode import evaluate
from mipoison.metrics.leakage import excess_leakage
from study.auditing.family import FAMILIES
from study.bench.simulated_endpoint import FAMILY, KNOBS, Drawn, deployed, drawn, family, full_study, value_of

TINY = dict(limit=60, victim_steps=30, decoder_steps=5, decoder_width=4)
ONE = Drawn(
    number=0, dataset="digits", seed=5, width=8, hidden=16, steps=30, defense="rounding", knobs={"steps": 5}
)


def test_draws_are_valid_and_repeat() -> None:
    seen = set()
    for number in range(60):
        endpoint = drawn(number, 3)
        assert endpoint == drawn(number, 3)
        assert endpoint.dataset == "digits"
        config = DEFENSES[endpoint.defense].from_flat(endpoint.knobs)  # checks itself
        assert set(endpoint.knobs) == set(KNOBS.get(endpoint.defense, ()))
        assert config.make() is not None
        seen.add(endpoint.defense)
    assert seen == set(FAMILY)
    assert drawn(0, 3) != drawn(0, 4)
    both = {drawn(n, 3, ("digits", "fashion-mnist")).dataset for n in range(20)}
    assert both == {"digits", "fashion-mnist"}
    assert set(FAMILY.values()) <= set(FAMILIES)


def test_values_of_knobs() -> None:
    rng = np.random.default_rng(0)
    assert {value_of(Knob(choices=(True, False)), rng) for _ in range(20)} == {True, False}
    whole = [value_of(Knob(low=1, high=20, log=True, integer=True), rng) for _ in range(200)]
    assert {type(v) for v in whole} == {int}
    assert (min(whole), max(whole)) == (1, 20)  # type: ignore[type-var]
    even = np.array([value_of(Knob(low=0.5, high=1.0), rng) for _ in range(200)])
    assert 0.5 <= even.min() < 0.55 < 0.95 < even.max() <= 1


def test_a_defense_without_effect_is_none() -> None:
    top = replace(ONE, defense="top-k", knobs={"k": 4})
    assert (family(top, 10), family(top, 5)) == ("top-k", "smooth")
    assert family(ONE, 5) == "grid"


@pytest.mark.parametrize("knobs", [{"steps": 5}, {"steps": 1000}])
def test_the_full_study_is_the_librarys_excess(tmp_path: Path, knobs: dict[str, int]) -> None:
    deployment = deployed(replace(ONE, knobs=dict(knobs)), str(tmp_path), **TINY)
    found = full_study(deployment, ("class-mean", "ridge"), ("class-mean",))
    scene = deployment.scene
    errors = [
        evaluate(scene, "rounding", a, knobs=knobs)["reconstruction_error"] for a in ("class-mean", "ridge")
    ]
    floor = evaluate(scene, "label-only", "class-mean")["reconstruction_error"]
    assert found["full_train"] == pytest.approx(max(0.0, excess_leakage(min(errors), floor)), abs=1e-9)
    assert found["full_attacker_train"] == ("class-mean", "ridge")[int(np.argmin(errors))]
