"""Endpoints drawn at random, and what a full study finds of each: the truth that an audit is compared with.

Data set, victim and defense are drawn, and the defense's knobs within the ranges that a search explores. The
full study is this project's usual one: it holds all of the attacker's images and all private images, knows
the defense and its settings, and takes the worst of several attackers against the best on label-only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mipoison.attacks import ATTACKS
from mipoison.config import Knob, Plain
from mipoison.defenses import DEFENSES, LABEL_ONLY
from mipoison.deployment import Deployment, deploy
from mipoison.episode import at_scale, fit_attack
from mipoison.metrics.leakage import excess_leakage, reconstruction_errors
from mipoison.randomness import role_seed
from mipoison.scene import prepare, scaled
from study.settings.study_settings import DEFAULT_ATTACKERS

FAMILY: Mapping[str, str] = {
    "none": "smooth",
    "temperature": "smooth",
    "label-only": "label-only",
    "rounding": "grid",
    "codebook": "codebook",
    "top-k": "top-k",
    "noise": "noise",
    "tail-noise": "noise",
    "noise-fresh": "noise",
    "lpa": "poisoning",
    "lfp": "label-flipping",
}
"""Defense that may be drawn -> the family that an audit should name."""
KNOBS: Mapping[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "rounding": ("steps",),
    "codebook": ("weight", "steps", "crowding"),
    "top-k": ("k",),
    "noise": ("budget", "law"),
    "tail-noise": ("budget", "law"),
    "noise-fresh": ("budget",),
    "lpa": ("budget",),
    "lfp": ("ratio", "threshold", "swap"),
}
"""Knobs that are drawn; the others keep their defaults."""
LIMIT = 800
"""At most so many images of the attacker's, and private ones, where a data set is large."""
FULL = (*DEFAULT_ATTACKERS, "knn")
"""Attackers of the full study: its default ones, and another that takes a second."""
FLOOR = ("class-mean", "ridge", "kernel")
"""Attackers on label-only."""
POOLS = {"train": "private_train", "test": "private_test"}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An endpoint as it was drawn.

    Attributes:
        number: of the endpoint. dataset, seed: of the scene. width, hidden, steps: of the victim.
        defense, knobs: of the deployed defense.
    """

    number: int
    dataset: str
    seed: int
    width: int
    hidden: int
    steps: int
    defense: str
    knobs: dict[str, Plain]

    def flat(self) -> dict[str, Any]:
        """Columns of a row of results."""
        row = asdict(self)
        row["knobs"] = " ".join(f"{name}={value}" for name, value in sorted(self.knobs.items()))
        return row


def drawn(number: int, master: int, datasets: Sequence[str] = ("digits",)) -> Drawn:
    """The endpoint of a number, under a master seed; each data set is as likely."""
    rng = np.random.default_rng(role_seed(master, "simulated endpoint", str(number)))
    defense = str(rng.choice(list(FAMILY)))
    ranges: Mapping[str, Knob] = getattr(DEFENSES[defense], "KNOBS", {})
    return Drawn(
        number=number,
        dataset=datasets[int(rng.random() * len(datasets))],
        seed=int(rng.integers(100, 10**6)),
        width=int(rng.choice([8, 16, 32])),
        hidden=int(rng.choice([32, 64, 128])),
        steps=int(rng.integers(100, 400)),
        defense=defense,
        knobs={name: value_of(ranges[name], rng) for name in KNOBS.get(defense, ())},
    )


def family(endpoint: Drawn, n_classes: int) -> str:
    """The family that an audit should name; a defense that changes no vector is none."""
    if endpoint.defense == "top-k" and int(endpoint.knobs["k"] or 0) >= n_classes - 1:
        return FAMILY["none"]  # the one score that is not released is what is missing to one
    return FAMILY[endpoint.defense]


def value_of(knob: Knob, rng: np.random.Generator) -> Plain:
    """A value of the knob: one of its choices, or uniform in its range, on a log scale where it says so."""
    if knob.choices:
        return knob.choices[int(rng.integers(len(knob.choices)))]
    assert knob.low is not None
    assert knob.high is not None
    if knob.log:
        value = math.exp(rng.uniform(math.log(knob.low), math.log(knob.high)))
    else:
        value = rng.uniform(knob.low, knob.high)
    return round(value) if knob.integer else float(f"{value:.4g}")


def deployed(endpoint: Drawn, store: str, data_root: str | None = None, **changes: Any) -> Deployment:
    """The endpoint's victim behind its defense; trained parts are kept in the store.

    Args:
        store: a folder. data_root: of the data sets. changes: fields of the scene's configuration, for tests.
    """
    fields = {
        "seed": endpoint.seed,
        "limit": None if endpoint.dataset == "digits" else LIMIT,
        "victim_width": endpoint.width,
        "victim_hidden": endpoint.hidden,
        "victim_steps": endpoint.steps,
        **changes,
    }
    scene = prepare(scaled(endpoint.dataset, "quick", **fields), store, data_root=data_root)
    return deploy(scene, endpoint.defense, DEFENSES[endpoint.defense].from_flat(endpoint.knobs))


def errors_of(deployment: Deployment, attackers: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Pool -> attacker -> mean error on all of the pool's images."""
    scene, service = deployment.scene, deployment.service
    images = {pool: getattr(scene.split, part).x_NCHW for pool, part in POOLS.items()}
    released = {pool: service.session()(x_NCHW) for pool, x_NCHW in images.items()}
    found: dict[str, dict[str, float]] = {pool: {} for pool in POOLS}
    for name in attackers:
        attack = fit_attack(deployment, at_scale(ATTACKS[name], scene.config)).attack
        for pool, x_NCHW in images.items():
            rec_NCHW = attack.reconstruct(released[pool])
            found[pool][name] = float(reconstruction_errors(rec_NCHW, x_NCHW).mean())
    return found


def full_study(
    deployment: Deployment, attackers: tuple[str, ...] = FULL, floor: tuple[str, ...] = FLOOR
) -> dict[str, Any]:
    """Excess leakage by pool, at least 0, and the worst attacker, as columns ``full_...``."""
    worst = errors_of(deployment, attackers)
    only = deploy(deployment.scene, LABEL_ONLY, DEFENSES[LABEL_ONLY]())
    least = errors_of(only, floor)
    row: dict[str, Any] = {}
    for pool in POOLS:
        name = min(worst[pool], key=worst[pool].__getitem__)
        row[f"full_{pool}"] = max(0.0, excess_leakage(worst[pool][name], min(least[pool].values())))
        row[f"full_attacker_{pool}"] = name
    return row
