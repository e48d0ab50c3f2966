"""Features and folds of attackers that choose settings on their own data: scikit-learn's, and by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from mipoison.attacks.feature_sets import FEATURE_SETS
from mipoison.attacks.selection import KINDS, Standardised, Together, feature_choices, folds, score_features
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator


def vectors(n: int = 30) -> torch.Tensor:
    return torch.softmax(torch.randn(n, 4, generator=generator(0, "c")), 1)


def test_features_by_hand() -> None:
    found = score_features(torch.tensor([[0.7, 0.3]]), "all")
    assert found.dtype == torch.float64
    assert found[0].tolist() == pytest.approx([50 + math.log(0.7), 50 + math.log(0.3), 0.7, 0.3, 1, 0])


@pytest.mark.parametrize("kind", ["log", "raw"])
def test_standardised_features_are_scikit_learns(kind: str) -> None:
    c = vectors()
    plain = score_features(c, kind).numpy()  # type: ignore[arg-type]
    expected = StandardScaler().fit_transform(plain)
    np.testing.assert_allclose(Standardised(c, kind)(c).numpy(), expected, atol=1e-9)  # type: ignore[arg-type]


def test_what_lies_beyond_is_clipped_and_what_does_not_vary_is_zero() -> None:
    c = torch.tensor([[0.5, 0.25, 0.25], [0.6, 0.15, 0.25]])
    standard = Standardised(c, "raw")
    found = standard(torch.tensor([[0.9, 0.0, 0.1], [0.0, 0.9, 0.1]]))
    torch.testing.assert_close(found[0], standard(c)[1])
    torch.testing.assert_close(found[1], standard(c)[0])
    assert found[:, 2].tolist() == [0, 0]


@pytest.mark.parametrize(("n", "count"), [(10, 3), (2, 5), (7, 7)])
def test_folds_are_as_equal_as_can_be(n: int, count: int) -> None:
    fold = folds(n, count, generator(0))
    sizes = torch.bincount(fold)
    assert len(sizes) == min(n, count)
    assert int(sizes.max() - sizes.min()) <= 1
    assert not torch.equal(folds(50, 5, generator(1)), folds(50, 5, generator(2)))


def test_a_feature_set_is_standardised_too() -> None:
    c = vectors()
    found = Standardised(c, FEATURE_SETS["ranks"])(c)
    expected = StandardScaler().fit_transform(FEATURE_SETS["ranks"](c).numpy())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_what_competes() -> None:
    known = ThreatModel("none", {}, (1, 1, 1))
    assert feature_choices("log", known) == ["log"]
    assert feature_choices("tuned", known) == list(KINDS)
    assert len(feature_choices("chosen", known)) == sum(s.floor is not None for s in FEATURE_SETS.values())


def test_features_side_by_side() -> None:
    c = vectors()
    parts = [Standardised(c, FEATURE_SETS[name]) for name in ("odds", "power")]
    found = Together(parts)(c[:3])
    assert found.shape == (3, 1 + 5 + 4)
    torch.testing.assert_close(found[:, 1:6], parts[1](c[:3]))
    assert (found[:, 6:] / 2).argmax(1).tolist() == c[:3].argmax(1).tolist()
