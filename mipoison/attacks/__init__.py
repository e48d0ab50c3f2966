"""Inversion attackers. ``ATTACKS`` maps a name to a configuration; there is no other table.

To add one: write a file with a configuration (a ``make()``) and a class, and add a line here. An entry is a
named member of the suite: the same attacker with other options is another line.
"""

from __future__ import annotations

from collections.abc import Iterable

from mipoison.attacks.averaging import AveragingConfig
from mipoison.attacks.class_mean import ClassMeanConfig
from mipoison.attacks.decoder import DecoderConfig
from mipoison.attacks.diffusion import DiffusionConfig
from mipoison.attacks.distilled import DistilledConfig
from mipoison.attacks.knn import KNNConfig
from mipoison.attacks.mlp import MLPConfig
from mipoison.attacks.one_by_one import OneByOneConfig
from mipoison.attacks.restorer import RestorerConfig
from mipoison.attacks.ridge import RidgeConfig
from mipoison.attacks.robust import RobustConfig
from mipoison.attacks.tuned import TunedConfig
from mipoison.config import Config

ATTACKS: dict[str, Config] = {
    "passive": DecoderConfig(),
    "raw": DecoderConfig(features="raw"),
    "mismatched-loss": DecoderConfig(loss="psnr"),
    "mismatched-data": DecoderConfig(data="D2"),
    "mismatched-architecture": DecoderConfig(extra_blocks=1),
    "early-stopping": DecoderConfig(validation=0.1),
    "noise": DecoderConfig(view="noise"),
    "softmax": DecoderConfig(view="softmax"),
    "rounding": DecoderConfig(view="rounding"),
    "label-only": DecoderConfig(view="label-only", features="raw"),
    "averaging-4": AveragingConfig(queries=4),
    "averaging-16": AveragingConfig(queries=16),
    "averaging-64": AveragingConfig(queries=64),
    "repeats-16": AveragingConfig(queries=16, pool="each"),
    "class-mean": ClassMeanConfig(),
    "ridge": RidgeConfig(),
    "knn": KNNConfig(),
    "mlp": MLPConfig(),
    "one-by-one": OneByOneConfig(),
    "top-k": DecoderConfig(view="top-k"),
    "robust": RobustConfig(),
    "restorer": RestorerConfig(),
    "distilled": DistilledConfig(),
    "tuned": TunedConfig(),
    "data-D1": DecoderConfig(data="D1"),
    "diffusion-0": DiffusionConfig(guidance=0.0),
    "diffusion-0.5": DiffusionConfig(guidance=0.5),
    "diffusion-2": DiffusionConfig(guidance=2.0),
}

PASSIVE = "passive"
"""The attacker of the paper: trains on what the API answers, knows of no defense."""

FLOOR = "class-mean"
"""The attacker of every suite: with it, no worst case is better than what the label alone gives away."""

REPLICATION = ("data-D1", "diffusion-0", "diffusion-0.5", "diffusion-2")
"""Only for the paper's tables. D1 is half of what ``passive`` has; a diffusion model draws a sample where the
error is least for the mean, and costs ten decoders."""


def by_cost(names: Iterable[str]) -> tuple[str, ...]:
    """Attackers in the order in which a candidate faces them: cheap ones first."""
    return tuple(sorted(names, key=lambda name: ATTACKS[name].COST))


SUITE = by_cost(name for name in ATTACKS if name not in REPLICATION)
"""Every attacker that a claim has to survive."""
