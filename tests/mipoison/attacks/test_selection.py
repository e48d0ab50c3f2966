"""Features and folds of attackers that choose settings on their own data: scikit-learn's, and by hand."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.preprocessing import StandardScaler

from mipoison.attacks.feature_sets import FEATURE_SETS
from mipoison.attacks.selection import (
    KINDS,
    RankedByLabel,
    Standardised,
    Together,
    feature_choices,
    folds,
    score_features,
)
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from mipoison.simplex import label_of


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


def test_ranks_within_a_label_are_scipys_normal_scores() -> None:
    """Against scipy's mean ranks, label by label; few answers are ranked among all."""
    rng = generator(8)
    c_NK = torch.softmax(2 * torch.randn(60, 4, generator=rng, dtype=torch.float64), 1)
    label_N = label_of(c_NK)
    few_N = torch.cat([(label_N != 3).nonzero()[:, 0], (label_N == 3).nonzero()[:3, 0]])
    c_NK, label_N = c_NK[few_N], label_N[few_N]
    z_NF = RankedByLabel(c_NK, FEATURE_SETS["log-6"])(c_NK)
    plain_NF = FEATURE_SETS["log-6"](c_NK).numpy()
    for label in range(4):
        of_N = (label_N == label).numpy()
        among_NF = plain_NF[of_N] if label < 3 else plain_NF
        score_NF = scipy.stats.norm.ppf(scipy.stats.rankdata(among_NF, axis=0) / (len(among_NF) + 1))
        wanted_NF = score_NF if label < 3 else score_NF[of_N]
        np.testing.assert_allclose(z_NF.numpy()[of_N], wanted_NF, atol=1e-12)


def test_ranks_survive_what_a_defense_does_to_a_label_s_scores() -> None:
    """Each label's scores are stretched by a factor of its own; nothing is left where a feature is constant,
    and new answers beyond all others have the scores of the extremes."""
    rng = generator(9)
    z_NK = torch.randn(80, 3, generator=rng, dtype=torch.float64)
    label_N = z_NK.argmax(1)
    stretched_NK = z_NK * (1.0 + label_N[:, None])
    plain, stretched = (RankedByLabel(t, "raw")(t) for t in (z_NK, stretched_NK))
    torch.testing.assert_close(plain, stretched)
    same = torch.softmax((z_NK.argmax(1, keepdim=True) == torch.arange(3)).double(), 1)
    assert not RankedByLabel(same, "raw")(same).any()
    beyond = RankedByLabel(z_NK, "raw")(z_NK * 100)
    assert bool(beyond.isfinite().all())
    assert float(beyond.abs().max()) < 3
