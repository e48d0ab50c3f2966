"""The choice of feature sets finds the planted one, and the penalty of least leave-one-out error."""

import torch

import mipoison.attacks.kernel_choice as module
from mipoison.attacks.feature_sets import FEATURE_SETS, FeatureSet
from mipoison.attacks.kernel_choice import FIRST, best_together, candidate, compared, path_of
from mipoison.attacks.kernel_ridge import PENALTIES
from mipoison.attacks.residuals import Residuals
from mipoison.attacks.selection import Standardised
from mipoison.randomness import generator
from mipoison.simplex import label_of


def planted(name: str, n: int = 120) -> tuple[torch.Tensor, torch.Tensor, Residuals]:
    """Vectors whose small scores span twelve powers of ten, and images that follow one feature set."""
    rng = generator(0, "planted")
    logits = torch.randn(n, 4, generator=rng) * torch.tensor([6.0, 6.0, 6.0, 6.0])
    c = torch.softmax(logits, 1)
    z = Standardised(c, FEATURE_SETS[name])(c)
    x = 0.5 + 0.1 * torch.sin(z @ torch.randn(z.shape[1], 5, generator=rng, dtype=torch.float64))
    return c, x, Residuals(label_of(c), x, 4, 9, generator(0))


def test_the_planted_set_is_found() -> None:
    for name in ("log-3", "scores"):
        c, _, parts = planted(name)
        found = compared((Standardised(c, s) for s in FEATURE_SETS.values() if s.floor is not None), c, parts)
        kind = found[0].standardise.kind
        assert isinstance(kind, FeatureSet)
        assert kind == FEATURE_SETS[name]
        assert [f.loss for f in found] == sorted(f.loss for f in found)


def test_the_penalty_is_that_of_least_error() -> None:
    c, _, parts = planted("log-3")
    features = Standardised(c, FEATURE_SETS["log-6"])
    found = candidate(features, FIRST, c, parts)
    errors = path_of(FIRST, features(c), label_of(c), 500).left_out(parts, label_of(c))
    losses = [float(e.square().sum()) for e in errors]
    assert found.loss == min(losses)
    assert found.penalty == PENALTIES[losses.index(min(losses))]


def test_a_network_reads_the_best_sets(monkeypatch) -> None:
    c, x, _ = planted("log-3")
    sets = [s for s in FEATURE_SETS.values() if s.floor is not None]
    monkeypatch.setattr(module, "TOGETHER", 1)
    assert best_together(sets, c, x, generator(0)).parts[0].kind == FEATURE_SETS["log-3"]
