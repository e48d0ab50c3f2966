"""Feature sets by hand, in float32's blind spots, and that each of them shows the label's score."""

import math
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from mipoison.attacks.feature_sets import (
    FEATURE_SETS,
    FeatureSet,
    centred_logs,
    gaps,
    known_sets,
    log_odds,
    logs,
    per_label,
    powers,
    ranks,
    shares,
)
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator


def vectors(n: int = 20, k: int = 6) -> torch.Tensor:
    return torch.softmax(3 * torch.randn(n, k, generator=generator(0, "c")), 1)


def test_columns_by_hand() -> None:
    c = torch.tensor([[0.7, 0.0, 0.3]], dtype=torch.float64)
    assert log_odds(c, 1e-6).tolist() == pytest.approx([math.log(0.7 / 0.3)])
    assert logs(c, 0.01)[0].tolist() == pytest.approx([math.log(0.7), math.log(0.01), math.log(0.3)])
    mean = (math.log(0.7) + math.log(0.01) + math.log(0.3)) / 3
    assert centred_logs(c, 0.01)[0, 1].item() == pytest.approx(math.log(0.01) - mean)
    assert powers(c, 0.01)[0].tolist() == pytest.approx([0.7 ** (1 / 11), 0, 0.3 ** (1 / 11)])
    c4 = torch.tensor([[0.96, 0.03, 0.01, 0.0], [0.84, 0.12, 0.04, 0.0]], dtype=torch.float64)
    for row in shares(c4, 0.001).tolist():  # the same of both
        assert row == pytest.approx([0, math.log(0.75), math.log(0.25), math.log(0.001)])
    assert shares(torch.eye(3, dtype=torch.float64), 0.1).isfinite().all()
    assert gaps(c, 0.01)[0].tolist() == pytest.approx([math.log(7 / 3), math.log(30)])


def test_ranks_are_scipy_s() -> None:
    c = (vectors().double() * 20).round() / 20  # with ties
    expected = rankdata(-c.numpy(), axis=1) - 1
    np.testing.assert_allclose(ranks(c, 0).numpy(), expected)


def test_log_odds_see_what_float32_rounds_away() -> None:
    """1 - c_top is 0 in float32 for both rows."""
    c = torch.tensor([[1.0, 1e-9, 2e-9], [1.0, 3e-9, 6e-9]])
    found = log_odds(c.double(), 1e-12)
    assert float(found[0] - found[1]) == pytest.approx(math.log(3), rel=1e-6)


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_no_set_is_blind_to_the_label_s_score(name: str) -> None:
    """Two vectors that differ in the top score and in the scale of the others alone."""
    s = known_sets(ThreatModel("noise", {"budget": 0.01}, (1, 1, 1)))[name]
    c = torch.tensor([[0.6, 0.3, 0.1], [0.8, 0.15, 0.05]])
    z = s(c)
    assert z.dtype == torch.float64
    assert float((z[0] - z[1]).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("settings", "floor"),
    [({"budget": 0.01}, 0.01), ({"budget": 1e-9}, 1e-6), ({"budget": 1}, 0.1), ({"decimals": 2}, None)],
)
def test_the_budget_is_a_floor_where_it_is_public(settings: dict[str, float], floor: float | None) -> None:
    sets = known_sets(ThreatModel("noise", settings, (1, 1, 1)))
    assert ("log-budget" in sets) == (floor is not None)
    assert all(s.floor is not None for s in sets.values())
    if floor is not None:
        assert sets["log-budget"].floor == floor


def test_a_set_without_its_floor_is_refused() -> None:
    with pytest.raises(ValueError, match="known_sets"):
        FEATURE_SETS["log-budget"](vectors())


def test_each_label_gets_a_line_of_its_own() -> None:
    c, z = vectors(), torch.randn(20, 3, generator=generator(1), dtype=torch.float64)
    found = per_label(z, c)
    assert found.shape == (20, 3 + 12)
    for i, label in enumerate(c.argmax(1).tolist()):
        expected = torch.zeros(12, dtype=torch.float64)
        expected[label], expected[6 + label] = 1, z[i, 0]
        assert torch.equal(found[i, 3:], expected)


def test_sets_survive_pickling() -> None:
    for s in FEATURE_SETS.values():
        again: FeatureSet = pickle.loads(pickle.dumps(s))
        assert again == s
