"""Decoders that see the same training vectors are trained once.

Views that discard a part of the answers (``LOSSY``) often show an attacker the same vectors behind different
settings: whatever keeps the label, the label-only attacker trains on the same one-hot vectors. Its network is
then loaded from the scene's store, bit by bit as training would leave it, with the state of its random
generator. Other views show each setting's own vectors, so that storing their networks would save nothing.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any, TypeGuard

import torch
from torch import Tensor

from mipoison.attacks.decoder import Decoder, trains_in_one_job
from mipoison.attacks.views import LOSSY
from mipoison.protocols import Attack, Oracle, ThreatModel, Trained
from mipoison.training import Job

KIND = "attacker"
"""Kind of such a network in the scene's store."""
RANDOM, SECONDS = "random", "seconds"
"""What is stored beside the network: the state of the random generator after training, the time it took."""


def is_shared(attack: object) -> TypeGuard[Decoder]:
    """Whether the attacker is a decoder whose training vectors several settings may have in common.

    One of a plug-in is not: its code is no part of a stored network's name, as this package's is.
    """
    return (
        isinstance(attack, Decoder)
        and trains_in_one_job(attack)
        and attack.config.view in LOSSY
        and {_package(attack), _package(attack.config)} == {__name__.partition(".")[0]}
    )


def _package(thing: object) -> str:
    """The package of an object's class."""
    return type(thing).__module__.partition(".")[0]


def fit_once(
    attack: Attack,
    oracle: Oracle,
    x_NCHW: Tensor,
    *,
    known: ThreatModel,
    rng: torch.Generator,
    trained: Trained,
) -> float:
    """Do what ``attack.fit`` does; a network that was trained on the same vectors before is loaded.

    The attacker queries the oracle in any case.

    Args:
        trained: the scene's store of trained parts.

    Returns:
        The time in seconds that queries and training took; training counts as when it was done.
    """
    start = time.perf_counter()
    if not is_shared(attack):
        attack.fit(oracle, x_NCHW, known=known, rng=rng)
        return time.perf_counter() - start
    job = attack.prepare(oracle, x_NCHW, known=known, rng=rng)
    seconds = time.perf_counter() - start
    nothing = torch.zeros((), dtype=torch.float64)

    def make() -> dict[str, Tensor]:
        start = time.perf_counter()
        state = job.run().state_dict()
        return {**state, RANDOM: rng.get_state(), SECONDS: nothing + (time.perf_counter() - start)}

    like = {**job.model.state_dict(), RANDOM: rng.get_state(), SECONDS: nothing}
    state = dict(trained(KIND, {**attack.config.flat(), "seen": seen(job)}, make, like))
    seconds += float(state.pop(SECONDS))
    rng.set_state(state.pop(RANDOM))
    job.model.load_state_dict(state)
    job.model.eval()
    attack.finish()
    return seconds


def seen(job: Job) -> str:
    """SHA-256 of what a training depends on beside the attacker's settings: pairs, held-out pairs, the
    untrained network and the state of the random generator."""
    tensors: list[Any] = [job.inputs, job.targets, *job.model.state_dict().values(), job.rng.get_state()]
    if job.validation is not None:
        tensors += [job.validation.inputs, job.validation.targets]
    h = hashlib.sha256()
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        h.update(f"{values.dtype} {tuple(values.shape)}\n".encode())
        h.update(values.numpy().tobytes())
    return h.hexdigest()
