"""Inversion attackers. ``ATTACKS`` maps the name of each to its configuration and is the only registry.

To add one, write a module with the attacker's class and a configuration whose ``make()`` builds it, and add
an entry here. The same attacker with other options is another entry.
"""

from __future__ import annotations

from collections.abc import Iterable

from mipoison.attacks.aligned import AlignedConfig
from mipoison.attacks.asked_trees import AskedTreesConfig
from mipoison.attacks.averaging import AveragingConfig
from mipoison.attacks.class_mean import ClassMeanConfig
from mipoison.attacks.decoder import DecoderConfig
from mipoison.attacks.diffusion import DiffusionConfig
from mipoison.attacks.distilled import DistilledConfig
from mipoison.attacks.ensemble import CheapStackConfig, StackConfig
from mipoison.attacks.kernel import KernelConfig
from mipoison.attacks.knn import KNNConfig
from mipoison.attacks.matched import MatchedConfig
from mipoison.attacks.mixtures import MixturesConfig
from mipoison.attacks.mlp import MLPConfig
from mipoison.attacks.one_by_one import OneByOneConfig
from mipoison.attacks.pca_mlp import PCAMLPConfig
from mipoison.attacks.requery import RequeryConfig
from mipoison.attacks.restorer import RestorerConfig
from mipoison.attacks.ridge import RidgeConfig
from mipoison.attacks.robust import RobustConfig
from mipoison.attacks.trees import TreesConfig
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
    "kernel": KernelConfig(),
    "mixtures": MixturesConfig(),
    "trees": TreesConfig(),
    "pca-mlp": PCAMLPConfig(),
    "one-by-one": OneByOneConfig(),
    "top-k": DecoderConfig(view="top-k"),
    "robust": RobustConfig(),
    "restorer": RestorerConfig(),
    "distilled": DistilledConfig(),
    "tuned": TunedConfig(),
    "stack-cheap": CheapStackConfig(),
    "stack": StackConfig(),
    "matched": MatchedConfig(),
    "aligned": AlignedConfig(),
    "asked-trees": AskedTreesConfig(),
    "requery": RequeryConfig(),
    "data-D1": DecoderConfig(data="D1"),
    "diffusion-0": DiffusionConfig(guidance=0.0),
    "diffusion-0.5": DiffusionConfig(guidance=0.5),
    "diffusion-2": DiffusionConfig(guidance=2.0),
}

PASSIVE = "passive"
"""The attacker of the paper: it trains a decoder on what the API answers and does not adapt to a defense."""

LABEL_ATTACKER = "class-mean"
"""The attacker of every suite: with it, no worst case is better than what the label alone gives away."""

REPLICATION = ("data-D1", "diffusion-0", "diffusion-0.5", "diffusion-2")
"""Attackers that only the paper's tables use, as they do not raise the worst case: D1 is half of the data
that ``passive`` has, and a diffusion model draws samples, which have a larger mean squared error than the
mean image that a decoder predicts, at the cost of ten decoders."""


def by_cost(names: Iterable[str]) -> tuple[str, ...]:
    """Attackers sorted by cost, cheapest first, which is the order in which a study runs them."""
    return tuple(sorted(names, key=lambda name: ATTACKS[name].COST))


SUITE = by_cost(name for name in ATTACKS if name not in REPLICATION)
"""All attackers over which the worst case of a defense is taken."""
