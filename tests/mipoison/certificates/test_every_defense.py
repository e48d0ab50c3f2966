"""Every certifiable defense of the registry against an adversary who knows everything but the key.

Nothing here reads the law that a defense states: the adversary works on what the defense releases. It knows
the images of the pool, their vectors and the defense, runs the defense under as many keys of its own as it
likes, and answers the mean of the images that a released vector may stem from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor
from torch import Tensor

from mipoison.certificates import Certificate, Observation, Uncertifiable, certify
from mipoison.defenses import DEFENSES
from mipoison.defenses.base import BaseDefense
from mipoison.protocols import DefenderView, Defense
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import pictures, vectors
from tests.mipoison.defenses.test_observations import SETTINGS, Noisy

N = 24
KEYS, HELD_OUT = 400, 100
NEIGHBOURS = 40


@pytest.fixture(scope="module")
def pool() -> tuple[Tensor, Tensor]:
    """Vectors in pairs that are close, and images that have nothing to do with them: whatever tells two
    images of a label apart leaks."""
    c_NK = vectors(N // 2, 3, sharpness=1.5)
    c_NK = torch.cat([c_NK, 0.97 * c_NK + 0.03 / 3])
    return c_NK / c_NK.sum(1, keepdim=True), pictures(N)


@pytest.fixture(scope="module")
def view(pool: tuple[Tensor, Tensor]) -> DefenderView:
    c_NK, x_NCHW = pool
    return DefenderView(
        x_private_NCHW=x_NCHW,
        c_private_NK=c_NK,
        y_private_N=label_of(c_NK),
        ask=lambda x_NCHW: torch.softmax(5 * x_NCHW.flatten(1)[:, :3], 1),
        substitute=lambda config: pytest.fail("a certifiable defense of the registry has no substitute"),
        substitute_data=lambda config: (c_NK, x_NCHW),
        n_classes=3,
        device=torch.device("cpu"),
    )


def released(defense: Defense, pool: tuple[Tensor, Tensor], key: int) -> Tensor:
    """What the defense answers under one key."""
    c_NK, x_NCHW = pool
    rng = QueryRandomness(content_keys(x_NCHW, key.to_bytes(8, "big")))
    return defense.protect(c_NK, x_NCHW, defense.pick(c_NK), rng=rng)


def by_cells(z_NK: Tensor, x_NCHW: Tensor) -> tuple[float, float]:
    """Error and hits of who answers the mean of all images with this released vector, by enumeration."""
    rows, x_ND = z_NK.numpy(), x_NCHW.flatten(1).double().numpy()
    errors, hits = [], []
    for i in range(N):
        like = [j for j in range(N) if rows[j].tobytes() == rows[i].tobytes()]
        errors.append(((x_ND[like].mean(0) - x_ND[i]) ** 2).mean())
        hits.append(1 / len(like))
    return float(np.mean(errors)), float(np.mean(hits))


def by_simulation(defense: Defense, pool: tuple[Tensor, Tensor]) -> tuple[float, float, float]:
    """Mean error, its standard error, and hits, of an adversary who ran the defense under many keys.

    Posteriors are shares among the nearest of the vectors that it saw; it is judged under other keys.
    """
    x_ND = pool[1].flatten(1).double().numpy()
    z_NK = [released(defense, pool, key).double().numpy() for key in range(KEYS + HELD_OUT)]
    seen, new = np.concatenate(z_NK[:KEYS]), np.concatenate(z_NK[KEYS:])
    posterior = KNeighborsRegressor(NEIGHBOURS).fit(seen, np.tile(np.eye(N), (KEYS, 1))).predict(new)
    own = np.tile(np.arange(N), HELD_OUT)
    errors = ((posterior @ x_ND - x_ND[own]) ** 2).mean(1)
    spread = errors.reshape(HELD_OUT, N).mean(1).std(ddof=1) / HELD_OUT**0.5
    return float(errors.mean()), float(spread), float((posterior.argmax(1) == own).mean())


def assert_nobody_beats(defense: Defense, pool: tuple[Tensor, Tensor]) -> Certificate | None:
    """The certificate, which nobody may beat, or None where none is stated."""
    c_NK, x_NCHW = pool
    z_NK = released(defense, pool, 0)
    stated = defense.observation(c_NK, z_NK)
    if isinstance(stated, Uncertifiable):
        return None
    found = certify(stated, x_NCHW, label_of(c_NK), rng=generator(0, "certificate"))
    assert isinstance(found, Certificate)
    if stated.gaussian is None:
        for key in range(3):
            error, hits = by_cells(released(defense, pool, key), x_NCHW)
            assert found.bound.error <= error * (1 + 1e-12)
            assert found.bound.identification >= hits * (1 - 1e-12)
        return found
    error, spread, hits = by_simulation(defense, pool)
    assert found.bound.error <= error + 4 * spread
    assert found.bound.identification >= hits - 4 * 0.5 / (N * HELD_OUT) ** 0.5
    return found


@pytest.mark.parametrize(("name", "changes"), SETTINGS)
def test_nobody_beats_the_certificate(
    name: str, changes: dict[str, Any], pool: tuple[Tensor, Tensor], view: DefenderView
) -> None:
    defense: Defense = DEFENSES[name](**changes).make()  # type: ignore[attr-defined]
    if isinstance(defense.observation(pool[0], pool[0]), Uncertifiable):
        return  # test_observations.py holds it to a reason
    defense.fit(view, rng=generator(0, "defense", name))
    assert assert_nobody_beats(defense, pool) is not None


class Understating(Noisy):
    """States more noise than it adds."""

    def __init__(self) -> None:
        super().__init__(sigma=0.02, states=0.1)


class Telling(BaseDefense):
    """Releases the vectors, and states that they tell the label alone."""

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return c_NK.clone()

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation | Uncertifiable:
        return Observation(label_of(c_NK)[:, None])


class Writing(Noisy):
    """Adds the noise that it states, and moves the vector by the image's first pixel before."""

    reads_image = True

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        moved_NK = c_NK.clone()
        moved_NK[:, :2] += 0.2 * (x_NCHW[:, 0, 0, :1] - 0.5) * torch.tensor([1.0, -1.0])
        return super().protect(moved_NK, x_NCHW, picked_N, rng=rng)


@pytest.mark.parametrize(
    "lie", [Understating(), Telling(), Writing()], ids=["less noise", "all is told", "image written"]
)
def test_a_false_statement_is_beaten(lie: BaseDefense, pool: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(AssertionError):
        assert_nobody_beats(lie, pool)


def test_the_adversary_is_nearly_the_best_there_is(pool: tuple[Tensor, Tensor]) -> None:
    """A weak one would find no false statement."""
    defense = Noisy()
    found = assert_nobody_beats(defense, pool)
    assert found is not None
    assert 0.2 < found.excess < 0.8
    assert by_simulation(defense, pool)[0] < 1.1 * found.bound.error
