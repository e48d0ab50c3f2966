"""Scheduling measured: the arithmetic by hand, one small cluster for real."""

from __future__ import annotations

import pytest

from study.bench.sleeping_trials import measure, summary


def span(node: int, began: float, ended: float) -> dict[str, float]:
    return {"node": float(node), "began": began, "ended": ended}


def test_efficiency_by_hand() -> None:
    """Two nodes, 10 s trials: begun at 2 s and at 4 s, with pauses of 1 s and 3 s; 30 s in all."""
    spans = [span(1, 2, 12), span(1, 13, 23), span(2, 4, 14), span(2, 17, 27)]
    found = summary(spans, nodes=2, length_s=10, began=0.0, wall_s=30.0)
    assert found["efficiency"] == pytest.approx(4 * 10 / (2 * 30))
    assert found["start_s"] == 4
    assert (found["gap_s"], found["gap_95_s"]) == (3, 3)
    # From 4 s (both busy) to 23 s (the first has nothing left): 19 s, less the pauses of 1 s and 3 s.
    assert found["steady"] == pytest.approx((2 * 19 - 4) / (2 * 19))


def test_without_a_second_trial_there_is_no_pause() -> None:
    found = summary([span(1, 1, 3), span(2, 1, 3)], nodes=2, length_s=2, began=0.0, wall_s=4.0)
    assert (found["efficiency"], found["gap_s"], found["steady"]) == (0.5, None, None)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_two_nodes_for_real() -> None:
    """Trials run on both nodes at the same time, and each node reuses its worker."""
    found = measure(nodes=2, trials_per_node=3, length_s=1.0)
    assert (found.nodes, found.trials) == (2, 6)
    assert found.wall_s >= 3.0
    assert found.efficiency == pytest.approx(6 / (2 * found.wall_s))
    assert found.steady is not None
    assert 0 < found.steady <= 1
    assert found.gap_s is not None
    assert 0 <= found.gap_s < found.wall_s
    assert found.gcs_mb > 1
    assert found.nodes_mb > 1
