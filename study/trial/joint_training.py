"""Attackers of a trial trained together, over its seeds and views, where that is faster.

Each attacker first asks its own metered oracle and builds its own pairs, as alone; what is shared is the
kernels of the training, see :mod:`mipoison.attacks.stacked`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

import torch

from mipoison.attacks.decoder import Decoder, trains_in_one_job
from mipoison.attacks.stacked import train_many
from mipoison.deployment import Deployment
from mipoison.episode import AttackInputs, EpisodeConfig, Fitted, open_attack
from mipoison.training import Job

log = logging.getLogger(__name__)

STACKED = ("auto", "on", "off")
"""``auto``: on a GPU, where small networks leave it idle between kernels. On a CPU training is bound by
arithmetic, and grouped convolutions are the slower ones but for the smallest networks (see
``study/PERFORMANCE.md``)."""


def stacks(setting: str) -> bool:
    """Whether attackers are trained together in this process."""
    return setting == "on" or (setting == "auto" and torch.cuda.is_available())


def fit_together(
    indices: Sequence[int], episodes: Sequence[EpisodeConfig], deployments: Mapping[int, Deployment]
) -> dict[int, Fitted | Exception]:
    """Fit those of some episodes' attackers that can be trained together: index -> it, or what it raised.

    An attacker whose training is not one job (closed forms, MLP, ``tuned``, diffusion) is left out: it is
    fitted by itself. An attacker that raises does so alone.
    """
    out: dict[int, Fitted | Exception] = {}
    begun: dict[int, tuple[AttackInputs, Job, float]] = {}
    for i in indices:
        start = time.perf_counter()
        try:
            inputs = open_attack(deployments[episodes[i].scene.seed], episodes[i].attack_config)
            if isinstance(inputs.attack, Decoder) and trains_in_one_job(inputs.attack):
                job = inputs.attack.prepare(inputs.oracle, inputs.x_NCHW, known=inputs.known, rng=inputs.rng)
                begun[i] = (inputs, job, time.perf_counter() - start)
        except Exception as error:
            out[i] = error
    for i, ran in zip(begun, train_many([job for _, job, _ in begun.values()]), strict=True):
        inputs, _, seconds = begun[i]
        assert isinstance(inputs.attack, Decoder)
        if ran.error is None:
            inputs.attack.finish()
            out[i] = Fitted(inputs.attack, seconds + ran.seconds, inputs.oracle.queries, ran.members)
        else:
            out[i] = ran.error
    return out
