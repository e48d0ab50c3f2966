"""The plan stays within the budget, and probes change one value by one and two grey levels."""

from __future__ import annotations

import numpy as np
import pytest

from mipoison.config import ConfigError
from study.auditing.images import AuditImages
from study.auditing.plan import REPEATS, STEPS, near_copies, planned


def images(public: int, train: int, test: int) -> AuditImages:
    private = {n: np.zeros((k, 4, 4, 1), np.uint8) for n, k in (("train", train), ("test", test)) if k}
    return AuditImages(np.zeros((public, 4, 4, 1), np.uint8), private)


@pytest.mark.parametrize("queries", [200, 500, 2000, 20_000])
@pytest.mark.parametrize(
    "counts", [(360, 361, 90), (10_000, 10_000, 2000), (20, 20, 20), (500, 0, 0), (300, 0, 50)]
)
def test_it_stays_within_the_budget(queries: int, counts: tuple[int, int, int]) -> None:
    plan = planned(images(*counts), queries, np.random.default_rng(0))
    asked = sum(map(len, plan.rows.values())) + plan.repeated * REPEATS + plan.near * len(STEPS)
    assert plan.left >= 0
    assert asked + plan.left <= queries
    assert len(plan.rows["public"]) >= min(counts[0], 20)
    for name, n in zip(("public", "train", "test"), counts, strict=True):
        if n:
            assert len(set(plan.rows[name].tolist())) == len(plan.rows[name]) <= n
    if sum(counts) < queries / 2:
        assert len(plan.rows["public"]) == counts[0]


def test_the_same_plan_each_time_and_a_least_budget() -> None:
    first, second = (planned(images(999, 999, 99), 500, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(first.rows[n], second.rows[n]) for n in first.rows)
    with pytest.raises(ConfigError, match="at least 200"):
        planned(images(99, 99, 99), 199, np.random.default_rng(0))


@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_near_copies(level: int) -> None:
    x = np.full((4, 4, 3), level, np.uint8)
    change = near_copies(x, np.random.default_rng(0)).astype(int) - x
    assert [np.abs(c).sum() for c in change] == [1, 2]
    assert np.array_equal(change[1], 2 * change[0])
