"""Whether a small study predicts a large one: tau in closed form, intervals, and what is refused."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mipoison.config import ConfigError
from study.bench.small_predicts_large import HEAD, Errors, Estimate, common, main, off, off_each, row, tau
from study.paper.claims.evidence import Evidence
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
    found = tau(errors(small), errors(large), resamples=20, rng=np.random.default_rng(0))
    assert found.value == pytest.approx(1 - 2 * k / (n * (n - 1) / 2))
    assert (found.low, found.high) == (found.value, found.value)  # every seed says the same
    turned = tau(errors(large[::-1]), errors(large), resamples=2, rng=np.random.default_rng(0))
    assert turned.value == pytest.approx(-1)


def test_how_far_errors_are_off() -> None:
    large = errors([0.0, 0.1, 0.2])
    small = Errors(large.error_TSA * np.array([1.1, 0.9, 1.0])[:, None, None], large.floor_SA)
    assert off_each(small, large) == pytest.approx(0.2 / 3)
    assert off(small, large).value == pytest.approx((1.1 * 0.9) ** (1 / 3) - 1)


@pytest.mark.parametrize(("seeds", "noise"), [(3, 0.03), (5, 0.02)])
def test_the_interval_of_how_far_errors_are_off_covers_the_truth(seeds: int, noise: float) -> None:
    """Studies of one attacker whose true errors are 2 % apart: of 200 intervals nine in ten hold that."""
    rng = np.random.default_rng(0)
    level = np.linspace(0.03, 0.049, 8)[:, None, None]
    floor = np.full((seeds, 1), FLOOR)

    def drawn(by: float) -> Errors:
        own, shared = rng.normal(size=(8, seeds, 1)), rng.normal(size=(1, seeds, 1))
        return Errors(by * level * np.exp(noise * (own + shared)), floor)

    covered = outside = 0
    for _ in range(200):
        found = off(drawn(1.02), drawn(1.0))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.02 <= found.high
        outside += not found.low <= found.value <= found.high
    assert covered >= 0.9 * 200
    assert outside == 0


def test_the_interval_is_welchs_by_hand() -> None:
    """Of three and four seeds, with Satterthwaite's degrees of freedom; the ratio is of logarithms."""
    a, b = np.log([0.04, 0.041, 0.043]), np.log([0.05, 0.049, 0.052, 0.05])
    found = off(*(Errors(np.exp(x)[None, :, None], np.full((len(x), 1), FLOOR)) for x in (a, b)))
    u, v = a.var(ddof=1) / 3, b.var(ddof=1) / 4
    degrees = (u + v) ** 2 / (u**2 / 2 + v**2 / 3)
    half = scipy.stats.t.ppf(0.975, degrees) * math.sqrt(u + v)
    middle = a.mean() - b.mean()
    assert (found.value, found.low, found.high) == pytest.approx(
        (math.expm1(middle), math.expm1(middle - half), math.expm1(middle + half))
    )


def test_two_seeds_or_no_difference_have_no_interval() -> None:
    excess = [0.02 * i for i in range(8)]
    few, more = errors(excess, 2, noise=0.01), errors(excess, 3, noise=0.01)
    for pair in ((few, more), (more, few)):
        for found in (tau(*pair, resamples=20, rng=np.random.default_rng(0)), off(*pair)):
            assert (found.low, found.high) == (None, None)
            assert "[" not in str(found)
    assert "[" in str(off(more, more))
    equal = errors([0.1] * 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert str(tau(equal, equal, resamples=20, rng=np.random.default_rng(0))) == "-"
        assert str(off(equal, equal)) == "0.00"
    assert str(Estimate(-1e-9)) == "0.00"
    assert str(Estimate(0.5, 0.25, 0.75)) == "0.50 [0.25, 0.75]"


def test_intervals_are_wider_where_seeds_differ() -> None:
    excess = [0.02 * i for i in range(8)]

    def width(noise: float) -> float:
        both = (errors(excess, 5, noise=noise), errors(excess, 5, noise=noise))
        found = tau(*both, resamples=200, rng=np.random.default_rng(0))
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
        return found.high - found.low

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
    found = common(small, large, "")
    assert found.settings == ("noise budget=0.01", "noise budget=0.02", "noise budget=0.03", "none")
    assert found.attackers == ("b", "c")
    assert found.small.error_TSA.shape == found.large.error_TSA.shape == (4, 3, 2)
    cells = row(small, large, resamples=10)
    assert len(cells) == len(HEAD)
    assert cells[:6] == ["digits", "100 to all", "4 / 4", "2 / 2", "3 / 3", "3 / 3"]
    assert cells[6] == "1.00 [1.00, 1.00]"


def changed(of: Evidence, values: dict[str, object], **where: object) -> Evidence:
    """Other values in the records of a trial, an attacker or a seed."""
    records = of.records.copy()
    chosen = np.all([records[name] == value for name, value in where.items()], axis=0)
    for name, value in values.items():
        records.loc[chosen, name] = value
    return Evidence(of.name, records)


CUT = {"status": "cut", "reconstruction_error": None, "reconstruction_error_test": None}


def test_a_setting_with_a_gap_is_left_out_and_no_attacker() -> None:
    """One was screened, one failed on a seed: the other settings keep all attackers and seeds."""
    whole = study("s", 5, "abc")
    for gap in ({"attack": "c"}, {"seed": 1}, {"attack": "a", "seed": 2}):
        for pair in (
            (changed(whole, CUT, trial="t3", **gap), whole),
            (whole, changed(whole, CUT, trial="t3", **gap)),
        ):
            found = common(*pair, "")
            assert found.settings == (*(f"noise budget=0.0{b}" for b in (1, 3, 4, 5)), "none")
            assert found.attackers == ("a", "b", "c")
            assert found.small.error_TSA.shape == found.large.error_TSA.shape == (5, 3, 3)


def test_counts_are_those_of_each_pool() -> None:
    """One setting without test errors; test errors of two seeds alone; an attacker without test errors."""
    whole, gone = study("s", 4, "abc"), {"reconstruction_error_test": None}
    assert row(changed(whole, gone, trial="t2"), whole, resamples=5)[2:6] == [
        "5 / 4",
        "3 / 3",
        "3 / 3",
        "3 / 3",
    ]
    two = row(changed(whole, gone, seed=2), whole, resamples=5)
    assert two[2:6] == ["5 / 5", "3 / 3", "3 / 2", "3 / 3"]
    assert ["[" in cell for cell in two[6:]] == [True, False, True, False]
    assert row(changed(whole, gone, attack="c"), whole, resamples=5)[2:6] == [
        "5 / 5",
        "3 / 2",
        "3 / 3",
        "3 / 3",
    ]


def test_settings_with_equal_words_are_kept_apart() -> None:
    whole = study("s", 4, "ab")
    near = whole.records[whole.records["trial"] == "t3"].assign(
        trial="t9", reconstruction_error=0.01, **{"defense.budget": 0.02004}
    )
    more = Evidence("m", pd.concat([whole.records, near], ignore_index=True))
    assert common(more, whole, "").small.error_TSA.min() > 0.02
    assert len(common(more, more, "").settings) == 6


def test_studies_of_two_folders_are_refused() -> None:
    def of(path: str, content: str | None) -> Evidence:
        return Evidence("s", study("s", 3, "ab", dataset=f"folder{path}").records, content)

    assert len(common(of(":/a", None), of(":/a", None), "").settings) == 4
    assert len(common(of(":/a", "x"), of(":/b", "x"), "").settings) == 4
    for small, large in (
        (of(":/a", None), of(":/b", None)), (of(":/a", "x"), of(":/a", "y")), (of("", None), of("", None)),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="images of your own"):
            common(small, large, "")


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
    assert cells.split(" | ")[6].startswith("1.00 [")
    assert main([str(RESULTS / "digits-search"), str(RESULTS / "mnist-suite")]) == 2
    assert "differ in their data" in capsys.readouterr().err
