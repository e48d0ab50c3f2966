"""Train the attackers of a trial jointly, over its seeds and views, where that is faster.

Each attacker still queries its own metered oracle and builds its own pairs. Only the GPU kernels of the
training are shared, see :mod:`mipoison.attacks.stacked`.
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
"""Values of the setting. ``auto`` trains jointly on a GPU, which small networks leave idle between kernels.
On a CPU grouped convolutions are slower, except for the smallest networks (see ``study/PERFORMANCE.md``)."""


def trains_jointly(setting: str) -> bool:
    """Whether this process trains attackers jointly, given one of :data:`STACKED`."""
    return setting == "on" or (setting == "auto" and torch.cuda.is_available())


def fit_jointly(
    indices: Sequence[int], episodes: Sequence[EpisodeConfig], deployments: Mapping[int, Deployment]
) -> dict[int, Fitted | Exception]:
    """Fit the attackers that can be trained jointly: index of the episode -> fitted attacker or exception.

    Attackers whose training is not a single job (closed forms, MLP, ``tuned``, diffusion) are left out; the
    caller fits them one by one. An exception of one attacker does not affect the others.
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
