"""One setting's learning curve: each private image's error at several numbers of the attacker's own images.

The images are shuffled once a seed, and the first n are what the attacker has at size n, so that sizes are
nested. Its queries at size n are these n images alone.

Shape suffixes: S sizes, N private images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipoison.attacks import ATTACKS
from mipoison.config import Config
from mipoison.defenses import DEFENSES
from mipoison.deployment import PARTS, Deployment, deploy
from mipoison.episode import at_scale, open_attack
from mipoison.metrics.leakage import reconstruction_errors
from mipoison.process import own_context
from mipoison.randomness import generator
from mipoison.scene import SceneConfig, scene_for
from study.records.curves import FACES
from study.trial.spec import TrialSpec

PART = {face: f"private_{face}" for face in FACES}
"""Face -> part of the split."""
DIVISORS = (16, 8, 4, 2, 1)
"""Sizes, as fractions of the attacker's images."""
LEAST_SIZE, ALWAYS = 100, 4
"""A size below the least is left out, except of the largest four: with few images of each class the error
falls faster than later, and there is no law."""


def sizes_of(n: int) -> list[int]:
    """The sizes, ascending, of an attacker with n images: all, a half, a quarter, an eighth; a sixteenth
    where that is 100 images or more. Fewer than four different ones if n is below 8."""
    sizes = sorted({n // divisor for divisor in DIVISORS} - {0})
    return [s for i, s in enumerate(sizes) if s >= LEAST_SIZE or i >= len(sizes) - ALWAYS]


def answers(deployment: Deployment) -> dict[str, Tensor]:
    """Released vectors (N, K) of the attacker's and the private images, which the API remembers.

    Nothing else is measured, unlike :func:`mipoison.deployment.release`.
    """
    images = {part: getattr(deployment.scene.split, part).x_NCHW for part in PARTS}
    vectors = {part: deployment.service.release(x_NCHW) for part, x_NCHW in images.items()}
    for part, x_NCHW in images.items():
        deployment.service.remember(x_NCHW, vectors[part])
    return {part: vectors[part] for part in PART.values()}


@own_context()
def errors_at(deployment: Deployment, config: Config, sizes: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Face -> each private image's error at every size of the attacker (S, N); a row a size.

    Args:
        deployment: the defended victim. config: the attacker's configuration.
    """
    scene, rows = deployment.scene, []
    c_NK = answers(deployment)
    for size in sizes:
        given = open_attack(deployment, at_scale(config, scene.config))
        order = torch.randperm(len(given.x_NCHW), generator=generator(scene.config.seed, "learning curve"))
        given.attack.fit(given.oracle, given.x_NCHW[order[:size]], known=given.known, rng=given.rng)
        rows.append({part: given.attack.reconstruct(c_NK[part]) for part in PART.values()})
    return {
        face: np.stack(
            [
                reconstruction_errors(row[part], getattr(scene.split, part).x_NCHW).cpu().numpy()
                for row in rows
            ]
        )
        for face, part in PART.items()
    }


@dataclass(frozen=True)
class CurveErrors:
    """What is measured of a setting.

    Attributes:
        attack: the attacker. seeds: of the scenes. sizes: (S,), the same for all seeds.
        errors: face -> errors (S, N) of the private images of all seeds side by side.
        images: face -> how many of them are of each seed.
    """

    attack: str
    seeds: tuple[int, ...]
    sizes: tuple[int, ...]
    errors: dict[str, NDArray[np.float64]]
    images: dict[str, tuple[int, ...]]

    def seed_of(self, face: str) -> NDArray[np.int64]:
        """The seed of each of a face's images (N,)."""
        return np.repeat(np.array(self.seeds, dtype=np.int64), self.images[face])


def measure_curve(spec: TrialSpec) -> CurveErrors:
    """Deploy the setting in each of its scenes, and train its first attacker at every size.

    Scenes and the defense's trained parts are read from the artifact store. The seed with the fewest images
    of the attacker decides on the sizes; an attacker that uses so many images at ``most`` has no more.

    Raises:
        ValueError: the attacker cannot be trained with so few images.
        StorageError: the store cannot be read or written.
    """
    attack, config = spec.attackers[0], DEFENSES[spec.defense](**spec.knobs)
    scenes = [scene_for(SceneConfig(**scene), spec.root, spec.data_root) for scene in spec.scenes]
    own = min(len(scene.split.attack_train) for scene in scenes)
    sizes = sizes_of(min(own, getattr(ATTACKS[attack], "most", own)))
    measured = [errors_at(deploy(scene, spec.defense, config), ATTACKS[attack], sizes) for scene in scenes]
    return CurveErrors(
        attack,
        tuple(scene.config.seed for scene in scenes),
        tuple(sizes),
        {face: np.concatenate([errors[face] for errors in measured], axis=1) for face in FACES},
        {face: tuple(errors[face].shape[1] for errors in measured) for face in FACES},
    )
