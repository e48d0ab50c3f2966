"""Measures what episode records lack: vectors for Figure 3, and Proposition 1's cosine along a training.

Both are measured on the first seed, without defense, under LPA and under matched noise. They diagnose a
defense and are no attack: they use private images, which no attacker of the suite has.
"""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from mipoison.alignment import norm_of, parameter_gradient
from mipoison.attacks.decoder import Decoder, DecoderConfig
from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.deployment import Deployment, deploy, release
from mipoison.episode import at_scale
from mipoison.models.inversion import InversionNet
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from mipoison.scene import scene_for
from mipoison.service import MeteredOracle
from study.paper.experiments import BUDGETS, DESCENT
from study.records.store import Records
from study.settings.study_settings import StudySettings

VECTORS, COSINE = "vectors.parquet", "cosine.parquet"
SHOWN = 200
"""Number of private images whose vectors are stored."""
JUDGED = 256
"""Number of pairs over which each of the two gradients is computed."""
POINTS = 16
"""Number of points along the training."""


class Traced(Decoder):
    """The passive attacker, which records the cosine between its gradient and the private loss's ascent.

    Args:
        private: clean vectors (N, K) and private images (N, C, H, W).
    """

    def __init__(self, config: DecoderConfig, private: tuple[Tensor, Tensor], device: torch.device) -> None:
        super().__init__(config, device)
        self.private, self.step = private, 0
        self.trace: list[dict[str, Any]] = []
        self.every = max(1, (config.steps or 1) // POINTS)

    def pairs(self, oracle: Any, x_NCHW: Tensor, known: ThreatModel) -> tuple[Tensor, Tensor]:
        """The attacker's pairs; the first ones are kept for the cosine."""
        c_NK, x_NCHW = super().pairs(oracle, x_NCHW, known)
        self.own = c_NK[:JUDGED], x_NCHW[:JUDGED]
        return c_NK, x_NCHW

    def augment(self, c_NK: Tensor, rng: torch.Generator) -> Tensor:
        """The trainer calls this before each step; record a point every few steps."""
        if self.step % self.every == 0:
            self.look_at(self.model)
        self.step += 1
        return c_NK

    def look_at(self, model: InversionNet) -> None:
        """Record one point, in eval mode, without changing the training's random numbers or state."""
        model.eval()
        private = [t.to(self.device) for t in self.private]
        own = [t.to(self.device) for t in self.own]
        ascent = [-g for g in parameter_gradient(model, *private)]
        step = parameter_gradient(model, *own)
        inner = sum(float((a.double() * b.double()).sum()) for a, b in zip(ascent, step, strict=True))
        with torch.no_grad():
            loss = float((model(private[0]) - private[1]).square().mean())
        lengths = float(norm_of(ascent)) * float(norm_of(step))
        self.trace.append({"step": self.step, "cosine": inner / max(lengths, 1e-300), "private_loss": loss})
        model.train()


def _settings_of(dataset: str) -> list[tuple[str, str, dict[str, Any]]]:
    budget = BUDGETS[dataset]
    return [
        ("none", "none", {}),
        (f"lpa, budget {budget:g}", "lpa", {"budget": budget, "substitute_data": "all", **DESCENT}),
        (f"noise, length {budget:g}", "noise", {"budget": budget}),
        ("lpa, budget 0.1", "lpa", {"budget": 0.1, "substitute_data": "all", **DESCENT}),
    ]


def _traced(deployment: Deployment) -> list[dict[str, Any]]:
    """Train one recording attacker against a deployment and return its points."""
    scene = deployment.scene
    config = at_scale(DecoderConfig(), scene.config)
    if not isinstance(config, DecoderConfig):
        raise ConfigError(f"the traced attacker is a decoder, got {config!r}")
    rng = generator(scene.config.seed, "attack", config.digest())
    private = scene.clean["private_train"][:JUDGED], scene.split.private_train.x_NCHW[:JUDGED]
    attack = Traced(config, private, scene.device)
    known = ThreatModel(deployment.name, deployment.config.flat(), scene.split.image_shape)
    oracle = MeteredOracle(deployment.service.session(), scene.split.n_classes)
    attack.fit(oracle, scene.split.attack_train.x_NCHW, known=known, rng=rng)
    return attack.trace


def diagnose(settings: StudySettings, dataset: str, records: Records) -> None:
    """Write ``vectors.parquet`` and ``cosine.parquet`` beside a dataset's records, unless they exist."""
    if records.storage.read(f"{records.study}/{COSINE}") is not None:
        return
    root = None if settings.data_root is None else str(settings.data_root.expanduser().resolve())
    scene = scene_for(settings.scenes()[0], records.storage.root, root)
    vectors, cosines = [], []
    for name, defense, knobs in _settings_of(dataset):
        deployment = deploy(scene, defense, DEFENSES[defense](**knobs))
        released = release(deployment).vectors["private_train"][:SHOWN]
        for c_K in released.tolist():
            vectors.append({"defense": name, **{f"c{k}": v for k, v in enumerate(c_K)}})
        cosines += [{"defense": name, "seed": scene.config.seed, **point} for point in _traced(deployment)]
    for file, rows in ((VECTORS, vectors), (COSINE, cosines)):
        sink = io.BytesIO()
        pd.DataFrame(rows).to_parquet(sink, index=False)
        records.storage.write(f"{records.study}/{file}", sink.getvalue())
