"""Whether a small study predicts a large one: tau in closed form, intervals, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mipoison.config import ConfigError
from study.bench.small_predicts_large import HEAD, Errors, common, main, predicted, row
from tests.study.paper.claims.made_up import evidence
from tests.study.paper.claims.made_up import row as record

RESULTS = Path(__file__).parents[3] / "study" / "results"
FLOOR = 0.05


def errors(excess: list[float], seeds: int = 3, attackers: int = 2, noise: float = 0.0) -> Errors:
    """A study whose settings have such an excess by their best attacker, the others being worse."""
    rng = np.random.default_rng(0)
    worst = FLOOR * (1 - np.array(excess))[:, None, None]
    table = worst * (1 + 0.5 * np.arange(attackers)) * (1 + noise * rng.normal(size=(1, seeds, 1)))
    table = table * (1 + noise * rng.normal(size=(len(excess), seeds, attackers)))
    return Errors(table, np.full((seeds, 1), FLOOR))


def test_tau_in_closed_form() -> None:
    """n settings of which k neighbours are exchanged: k pairs of n (n - 1) / 2 disagree."""
    n, k = 8, 3
    large = [0.05 * i for i in range(n)]
    small = list(large)
    for i in range(k):
        small[2 * i], small[2 * i + 1] = small[2 * i + 1], small[2 * i]
    tau, _ = predicted(errors(small), errors(large), resamples=20, rng=np.random.default_rng(0))
    assert tau.value == pytest.approx(1 - 2 * k / (n * (n - 1) / 2))
    assert (tau.low, tau.high) == (tau.value, tau.value)  # every seed says the same
    turned, _ = predicted(errors(large[::-1]), errors(large), resamples=2, rng=np.random.default_rng(0))
    assert turned.value == pytest.approx(-1)


def test_how_far_errors_are_off() -> None:
    large = errors([0.0, 0.1, 0.2])
    small = Errors(large.error_TSA * np.array([1.1, 0.9, 1.0])[:, None, None], large.floor_SA)
    _, off = predicted(small, large, resamples=20, rng=np.random.default_rng(0))
    assert off.value == pytest.approx(0.2 / 3)


def test_intervals_are_wider_where_seeds_differ() -> None:
    excess = [0.02 * i for i in range(8)]

    def width(noise: float) -> float:
        both = (errors(excess, 5, noise=noise), errors(excess, 5, noise=noise))
        tau, _ = predicted(*both, resamples=200, rng=np.random.default_rng(0))
        assert tau.low <= tau.value <= tau.high
        return tau.high - tau.low

    assert width(0.05) > width(0.01)


def test_the_worst_attacker_is_of_the_mean_over_the_drawn_seeds() -> None:
    table = np.array([[[1.0, 3.0], [2.0, 1.0]]])
    one = Errors(table, np.array([[2.0], [2.0]]))
    assert one.worst(np.array([0, 1])).tolist() == [1.5]
    assert one.worst(np.array([1, 1])).tolist() == [1.0]
    assert one.excess(np.array([1, 1])).tolist() == [0.5]


def study(name: str, n: int, attackers: str, **more: object):
    rows = []
    for i, (defense, knob) in enumerate(
        [("label-only", {}), ("none", {}), *(("noise", {"defense.budget": 0.01 * (k + 1)}) for k in range(n))]
    ):
        for attack in attackers:
            for seed in range(3):
                x = 0.05 if defense == "label-only" else 0.03 + 0.001 * i + 0.00001 * seed
                values = {"reconstruction_error": x, "reconstruction_error_test": x}
                rows.append(record(f"t{i}", defense, attack, seed, **values, **knob, **more))
    return evidence(rows, name)


def test_only_what_both_have_is_compared() -> None:
    small, large = study("s", 3, "abc", **{"scene.limit": 100}), study("l", 5, "bcd")
    a, b, names, attackers = common(small, large, "")
    assert names == ["noise budget=0.01", "noise budget=0.02", "noise budget=0.03", "none"]
    assert attackers == ["b", "c"]
    assert a.error_TSA.shape == b.error_TSA.shape == (4, 3, 2)
    cells = row(small, large, resamples=10)
    assert len(cells) == len(HEAD)
    assert cells[:5] == ["digits", "100 to all", "4", "2", "3 and 3"]
    assert cells[5] == "1.00 [1.00, 1.00]"


@pytest.mark.parametrize(
    ("small", "large", "said"),
    [
        (study("s", 3, "ab"), study("l", 3, "ab", dataset="mnist"), "differ in their data"),
        (study("s", 3, "ab"), study("l", 3, "cd"), "no attackers"),
        (study("s", 1, "ab"), study("l", 3, "ab"), "2 settings in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(small, large, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        common(small, large, "")


def test_the_script_prints_a_markdown_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Two committed studies that share eight settings, which are the same episodes: tau is 1."""
    places = [str(RESULTS / name) for name in ("digits-search", "digits-lpa-search")]
    assert main([*places, "--resamples", "20"]) == 0
    head, rule, cells = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == cells.count("|") == len(HEAD) + 1
    assert cells.split(" | ")[5].startswith("1.00 [")
    assert main([str(RESULTS / "digits-search"), str(RESULTS / "mnist-suite")]) == 2
    assert "differ in their data" in capsys.readouterr().err
