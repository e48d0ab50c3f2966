"""What each defense states of its releases is true of them: laws by 10,000 draws, cells by asking again."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor

from mipoison.certificates import Gaussian, Observation, Uncertifiable
from mipoison.certificates.observation import COUPLED, RETRAINED, UNSTATED
from mipoison.certificates.pool import cells_of
from mipoison.defenses import DEFENSES
from mipoison.defenses.base import BaseDefense
from mipoison.protocols import Defense
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import Scene
from mipoison.simplex import label_of, project_labelled_simplex, project_tangent
from tests.mipoison.defenses.helpers import skip_without_library

DRAWS = 10_000
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in DEFENSES),
    ("rounding", {"decimals": 0}),
    ("rounding", {"decimals": 1}),
    ("rounding", {"decimals": 6}),
    ("rounding", {"steps": 3}),
    ("noise", {"law": "gaussian", "budget": 0.1}),
    ("noise-fresh", {"law": "gaussian"}),
    ("tail-noise", {"law": "gaussian", "label_steps": 5, "budget": 0.1}),
    ("tail-noise", {"law": "gaussian"}),
    ("tail-noise", {"label_steps": 5}),
    ("codebook", {"weight": 0.0, "steps": 0}),
    ("lpa", {"scope": "batch"}),
    ("lfp", {"picks": "query"}),
    ("robust-privacy", {"noise": "common"}),
    ("robust-privacy", {"noise": "common", "releases": "label"}),
    ("robust-privacy", {"noise": "common", "releases": "mean"}),
    ("stealthy-shield", {"label": "own"}),
]
"""Defaults of everything, and settings that state something else than the defaults do."""
CERTIFIED: dict[str, dict[str, Any]] = {
    "label-only": {},
    "rounding": {},
    "codebook": {},
    "noise": {"law": "gaussian"},
    "noise-fresh": {"law": "gaussian"},
    "tail-noise": {"law": "gaussian", "label_steps": 5},
    "robust-privacy": {"noise": "common"},
}
"""Defenses that have a certificate at some setting, and that; of all others the statement is that there is
none."""
VECTORS = torch.tensor([[0.7, 0.1, 0.1, 0.05, 0.05], [0.4, 0.35, 0.15, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
"""Inside, near a tie and in a corner of the simplex."""


def protect(defense: Defense, c_NK: Tensor, x_NCHW: Tensor, secret: bytes = b"secret") -> Tensor:
    keys = QueryRandomness(content_keys(x_NCHW, secret))
    return defense.protect(c_NK, x_NCHW, defense.pick(c_NK), rng=keys)


def assert_cells_are_told(defense: Defense, c_NK: Tensor, x_NCHW: Tensor) -> None:
    """Without noise the release is a function of the discrete part, which no key and no neighbour changes."""
    z = protect(defense, c_NK, x_NCHW)
    stated = defense.observation(c_NK, z)
    assert isinstance(stated, Observation)
    cell = cells_of(stated.rows_ND)
    told = cells_of(z)
    assert len({*zip(cell.tolist(), told.tolist(), strict=True)}) == int(cell.max()) + 1
    assert torch.equal(protect(defense, c_NK, x_NCHW, b"another secret"), z)
    order = torch.randperm(len(c_NK), generator=generator(0, "order"))
    assert torch.equal(protect(defense, c_NK[order], x_NCHW[order]), z[order])
    assert torch.equal(protect(defense, c_NK[:1], x_NCHW[:1]), z[:1])


def assert_law(defense: Defense, c_K: Tensor) -> None:
    """Answers for one vector under many keys follow the stated law, pushed through ``release``."""
    c_NK = c_K.expand(DRAWS, -1).contiguous()
    x_NCHW = torch.rand(DRAWS, 1, 4, 4, generator=generator(0, "keys"))
    z_NK = protect(defense, c_NK, x_NCHW)
    stated = defense.observation(c_NK, z_NK)
    assert isinstance(stated, Observation)
    assert isinstance(stated.gaussian, Gaussian)
    assert int(cells_of(stated.rows_ND).max()) == 0, "the discrete part varies with the draw"
    means = stated.gaussian.means_NM.double()
    assert torch.equal(means, means[:1].expand_as(means)), "the means vary with the draw"
    n_NM = torch.randn(means.shape, dtype=torch.float64, generator=generator(0, "the law"))
    law_NK = stated.gaussian.release(stated.rows_ND, means + stated.gaussian.sigma * n_NM)
    assert law_NK.shape == z_NK.shape
    mixed = torch.randn(len(c_K), 6, dtype=torch.float64, generator=generator(0, "axes"))
    axes = torch.cat([torch.eye(len(c_K), dtype=torch.float64), mixed], 1)
    for axis in axes.T:
        seen, expected = (z.double() @ axis for z in (z_NK, law_NK))
        p = scipy.stats.ks_2samp(seen.numpy(), expected.numpy()).pvalue
        assert p > 1e-4, (
            f"along {[round(float(a), 2) for a in axis]} the answers follow another law, p = {p:g}"
        )
    # Equal to the bit where the law has an atom, as at a corner: rounding apart would be told apart.
    values, times = torch.unique(law_NK.float(), dim=0, return_counts=True)
    if int(times.max()) > DRAWS // 20:
        atom = values[times.argmax()]
        share = float((z_NK == atom).all(1).double().mean())
        assert abs(share - float(times.max()) / DRAWS) < 4 * (0.25 * 2 / DRAWS) ** 0.5


@pytest.mark.parametrize(("name", "changes"), SETTINGS)
def test_what_is_stated_is_true(name: str, changes: dict[str, Any], tiny_scene: Scene) -> None:
    skip_without_library(name)
    defense: Defense = DEFENSES[name](**changes).make()  # type: ignore[attr-defined]
    defense.fit(tiny_scene.view(), rng=generator(0, "defense", name))
    c, x = tiny_scene.clean["attack_train"], tiny_scene.split.attack_train.x_NCHW
    stated = defense.observation(c, protect(defense, c, x))
    if isinstance(stated, Uncertifiable):
        assert stated.reason
        assert stated.reason != UNSTATED
        assert (stated.reason == RETRAINED) == defense.retrains
        assert (stated.reason == COUPLED) == defense.couples
        return
    assert name in CERTIFIED
    assert not defense.couples
    assert len(stated) == len(c)
    if stated.gaussian is None:
        assert not defense.fresh
        assert_cells_are_told(defense, c, x)
        return
    for c_K in VECTORS:
        assert_law(defense, c_K)


@pytest.mark.parametrize("name", sorted(CERTIFIED))
def test_what_can_be_certified_is(name: str) -> None:
    defense: Defense = DEFENSES[name](**CERTIFIED[name]).make()  # type: ignore[attr-defined]
    assert isinstance(defense.observation(VECTORS, VECTORS), Observation)


# ---------------------------------------------------------------- the contract sees a statement that is false


class Noisy(BaseDefense):
    """Gaussian noise on the tangent, projected onto the simplex where the label keeps its maximum."""

    def __init__(self, sigma: float = 0.05, states: float = 0.05, clips: float = torch.inf) -> None:
        self.sigma, self.states, self.clips = sigma, states, clips

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        n_NK = project_tangent(rng.normal(c_NK.shape[1], "noisy"))
        return self._release(
            label_of(c_NK)[:, None], c_NK + (self.sigma * n_NK).clamp(-self.clips, self.clips)
        )

    @staticmethod
    def _release(rows_ND: Tensor, y_NK: Tensor) -> Tensor:
        y_NK = y_NK - (y_NK.sum(1, keepdim=True) - 1) / y_NK.shape[1]
        return project_labelled_simplex(y_NK, rows_ND[:, 0]).float()

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation | Uncertifiable:
        return Observation(label_of(c_NK)[:, None], Gaussian(c_NK, self.states, self._release))


@pytest.mark.parametrize("c_K", VECTORS)
def test_a_true_law_passes(c_K: Tensor) -> None:
    assert_law(Noisy(), c_K)


@pytest.mark.parametrize(
    "lie", [Noisy(states=0.055), Noisy(clips=0.05)], ids=["more noise", "a shorter tail"]
)
def test_a_false_law_is_seen(lie: Noisy) -> None:
    with pytest.raises(AssertionError, match="another law"):
        assert_law(lie, VECTORS[0])


class Keyed(BaseDefense):
    """Two answers, of which the key chooses one: counting the answers that were drawn is no certificate."""

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return c_NK.round(decimals=1) + (rng.uniform(1, "coin") < 0.5)

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation | Uncertifiable:
        return Observation(released_NK)


def test_cells_of_a_keyed_draw_are_refused(tiny_scene: Scene) -> None:
    with pytest.raises(AssertionError):
        assert_cells_are_told(Keyed(), tiny_scene.clean["attack_train"], tiny_scene.split.attack_train.x_NCHW)
