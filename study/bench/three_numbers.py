"""Measures what the numbers beside the measured error cost: certificate, estimated limit, identification."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mipoison.attacks import ATTACKS
from mipoison.certificates import Observation, Uncertifiable, certify
from mipoison.defenses import DEFENSES
from mipoison.deployment import Deployment, Released, deploy, release
from mipoison.episode import EpisodeConfig, attack_and_measure
from mipoison.metrics.estimated_limit import limit_columns
from mipoison.metrics.identification import identification
from mipoison.randomness import generator
from mipoison.scene import SceneConfig, prepare, scaled
from mipoison.simplex import label_of
from study.bench.measurement import Measurement, at_most
from study.bench.subject import Size, pairs
from study.settings.study_settings import DEFAULT_ATTACKERS

PARTS = {"private_train": "clean", "private_test": "clean_test"}
"""Images that everything is measured on, and the name of their reconstructions from clean vectors."""
BAR_PERCENT = 2.0
"""What certificates may add to the CPU time of a trial."""
DRAWN: Mapping[str, Any] = {"law": "gaussian", "budget": 0.1}
"""A setting of ``noise`` whose certificate is drawn: the kind that costs most."""
CERTIFICATE = "certificate"


def cpu_seconds(case: Callable[[], Any]) -> float:
    """CPU seconds of one call, all threads."""
    start = time.process_time()
    case()
    return time.process_time() - start


def share(*, quick: bool = False) -> Iterator[Measurement]:
    """The share of each number in the CPU time of a default trial of one seed, preparation not counted."""
    small = dict(limit=100, victim_steps=30, decoder_steps=20, decoder_width=4) if quick else {}
    config = scaled("digits", "quick", seed=0, **small)
    with tempfile.TemporaryDirectory() as folder:
        scene = prepare(config, folder)
        for name, knobs in (("noise", DRAWN), ("rounding", {"decimals": 1})):
            start = time.process_time()
            deployment = deploy(scene, name, DEFENSES[name].from_flat(knobs))
            released = release(deployment)
            attacked = [_attack(config, deployment, released, attack) for attack in DEFAULT_ATTACKERS]
            total = time.process_time() - start
            for number, seconds in _spent(deployment, released, attacked).items():
                row = Measurement(
                    benchmark="share of the three numbers in a trial",
                    case=f"{number}, {name}",
                    value=100 * seconds / total,
                    unit="%",
                    conditions=f"CPU time; digits, one seed, {len(attacked)} attackers, prepared before",
                    note=f"{name}: {total:.1f} s of CPU in all.",
                )
                yield at_most(row, BAR_PERCENT) if number == CERTIFICATE else row


def _attack(
    config: SceneConfig, deployment: Deployment, released: Released, attack: str
) -> dict[str, Tensor]:
    """The reconstructions of one attacker, after everything has been measured on them."""
    episode = EpisodeConfig(
        scene=config,
        defense=deployment.name,
        defense_config=deployment.config,
        attack=attack,
        attack_config=ATTACKS[attack],
    )
    return attack_and_measure(episode, deployment, released)[1]


def _spent(deployment: Deployment, released: Released, attacked: list[dict[str, Tensor]]) -> dict[str, float]:
    """CPU seconds of each number, computed once more as often as the trial did."""
    spent: dict[str, float] = {}
    for part, clean in PARTS.items():
        c_NK, z_NK = deployment.scene.clean[part], released.vectors[part]
        x_NCHW = getattr(deployment.scene.split, part).x_NCHW
        cases = _of_a_pool(deployment.defense.observation(c_NK, z_NK), c_NK, z_NK, x_NCHW)
        reconstructions = [one[name] for one in attacked for name in (part, clean)]
        taken = {name: cpu_seconds(case) for name, case in cases.items()}
        taken["identification"] = sum(
            cpu_seconds(lambda: identification(rec, x_NCHW, label_of(c_NK)))  # noqa: B023 (called at once)
            for rec in reconstructions
        )
        spent = {name: spent.get(name, 0.0) + seconds for name, seconds in taken.items()}
    return spent


def _of_a_pool(
    observed: Observation | Uncertifiable, c_NK: Tensor, z_NK: Tensor, x_NCHW: Tensor
) -> dict[str, Callable[[], Any]]:
    """What is computed once for a pool of images, whatever the number of attackers."""
    return {
        CERTIFICATE: lambda: certify(observed, x_NCHW, label_of(c_NK), rng=generator(0, "benchmark")),
        "estimated limit": lambda: limit_columns(z_NK, x_NCHW, rng=np.random.default_rng(0)),
    }


def growth(*, quick: bool = False) -> Iterator[Measurement]:
    """CPU time of one drawn certificate and one estimated limit as the pool grows."""
    size, defense = Size(classes=10), DEFENSES["noise"].from_flat(DRAWN).make()
    for n in (50, 100) if quick else (361, 2000, 10_000):
        c_NK, x_NCHW = (t.cpu() for t in pairs(size, n))
        for name, case in _of_a_pool(defense.observation(c_NK, c_NK), c_NK, c_NK, x_NCHW).items():
            yield Measurement(
                benchmark="the three numbers, CPU time of a pool",
                case=f"{name}, {n} vectors",
                value=cpu_seconds(case),
                unit="s",
                conditions=f"{size}; noise of a Gaussian law; {torch.get_num_threads()} threads",
            )
