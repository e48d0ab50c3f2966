"""Deploys a defense in a scene, and answers the three requests of an episode.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mipoison.certificates import (
    Certificate,
    Observation,
    Uncertifiable,
    certificate_columns,
    certify,
)
from mipoison.config import Config
from mipoison.metrics import (
    distinct,
    estimated_limit,
    hidden_channels,
    leakage,
    ranking,
    scoring,
    utility,
    written_image,
)
from mipoison.process import own_context
from mipoison.protocols import Defense
from mipoison.randomness import generator, role_seed
from mipoison.scene import Scene
from mipoison.service import DefendedService
from mipoison.simplex import label_of

PARTS = ("attack_train", "private_train", "private_test")
"""The three requests: the attacker's own images, and the private images whose answers it inverts."""
REPEATS = 16
"""Queries that are asked a second time, to measure how far the two answers differ."""
SAMPLE = 128
"""Vectors on which the alignment is measured, and images on which SSIM is: it costs as much as an attack."""


@dataclass
class Deployment:
    """A fitted defense and its service in a scene. ``seconds_prepare`` is the time that fitting took."""

    scene: Scene
    name: str
    config: Config
    defense: Defense
    service: DefendedService
    seconds_prepare: float


@own_context()
def deploy(scene: Scene, name: str, config: Config) -> Deployment:
    """Fit a defense on what the defender has, and put it behind the API."""
    start = time.perf_counter()
    defense: Defense = config.make()
    defense.fit(scene.view(), rng=generator(scene.config.seed, "defense", name))
    service = DefendedService(
        scene.victim,
        defense,
        secret=role_seed(scene.config.seed, "secret").to_bytes(8, "big"),
        n_classes=scene.split.n_classes,
        device=scene.device,
    )
    return Deployment(scene, name, config, defense, service, time.perf_counter() - start)


@dataclass
class Released:
    """Answers of the API to the episode's three requests.

    Attributes:
        vectors: part name -> released vectors (N, K).
        columns: columns of the record that do not depend on the attacker: utility, cost, alignment, distance
            of repeated answers.
    """

    vectors: dict[str, Tensor]
    columns: dict[str, Any]


@own_context()
def release(deployment: Deployment) -> Released:
    """Answer all three requests in this process. ``study.trial.worker`` divides them among several."""
    split, service = deployment.scene.split, deployment.service
    start, before = time.perf_counter(), service.seconds_clean
    vectors = {part: service.release(getattr(split, part).x_NCHW) for part in PARTS}
    seconds = time.perf_counter() - start
    return finish_release(deployment, vectors, seconds, service.seconds_clean - before)


@own_context()
def finish_release(
    deployment: Deployment, vectors: dict[str, Tensor], seconds: float, seconds_clean: float
) -> Released:
    """Let the API remember its answers, and measure the columns that all attackers share.

    Args:
        vectors: part name -> released vectors.
        seconds: time that computing them took, clean vectors included. seconds_clean: the part of it that
            clean vectors took.
    """
    for part in PARTS:
        deployment.service.remember(getattr(deployment.scene.split, part).x_NCHW, vectors[part])
    return Released(vectors, _shared_columns(deployment, vectors, seconds, seconds_clean))


def _shared_columns(
    deployment: Deployment, vectors: dict[str, Tensor], seconds_poison: float, seconds_inference: float
) -> dict[str, Any]:
    """Utility on the private test images; the error that seems possible from the vectors, and how many
    differ; cost; alignment; the distance between two answers to one query."""
    scene, split = deployment.scene, deployment.scene.split
    queries = max(1, sum(len(v) for v in vectors.values()))
    clean, released, y_N = scene.clean["private_test"], vectors["private_test"], split.private_test.y_N
    columns: dict[str, Any] = {
        **utility.utility_metrics(clean, released, y_N),
        **ranking.ranking_metrics(clean, released),
        **scoring.scoring_metrics(clean, released, y_N),
    }
    for part, suffix in (("private_train", ""), ("private_test", "_test")):
        rng = np.random.default_rng(role_seed(scene.config.seed, "estimated limit", part))
        images = getattr(split, part).x_NCHW
        columns |= estimated_limit.limit_columns(vectors[part], images, rng=rng, suffix=suffix)
        columns |= distinct.distinct_columns(vectors[part], scene.clean[part], suffix)
    n = min(REPEATS, len(vectors["private_train"]))
    again = deployment.service.release(split.private_train.x_NCHW[:n], asked_N=[1] * n)
    columns.update(
        n_classes=split.n_classes,
        test_may_be_seen=scene.test_may_be_seen,
        attack_set_distortion=utility.confidence_distortion(
            scene.clean["attack_train"], vectors["attack_train"]
        ),
        attack_set_label_agreement=utility.label_agreement(
            scene.clean["attack_train"], vectors["attack_train"]
        ),
        label_recovery=utility.label_recovery(
            scene.clean["attack_train"],
            vectors["attack_train"],
            scene.clean["private_test"],
            vectors["private_test"],
        ),
        repeat_query_distance=float((again - vectors["private_train"][:n]).norm(dim=1).max()) if n else 0.0,
        hidden_channel_p=hidden_channels.hidden_channel_p(
            vectors["private_train"],
            split.private_train.x_NCHW,
            rng=generator(scene.config.seed, "hidden channel"),
        ),
        poison_ms_per_sample=1e3 * max(seconds_poison - seconds_inference, 0.0) / queries,
        inference_ms_per_sample=1e3 * seconds_inference / queries,
        seconds_prepare=deployment.seconds_prepare,
        seconds_poison=seconds_poison,
        mean_image_error=leakage.mean_image_error(split.attack_train.x_NCHW, split.private_train.x_NCHW),
    )
    sample = slice(0, SAMPLE)
    images = split.attack_train.x_NCHW[sample].to(scene.device)
    for name, answers in (("alignment_before", scene.clean), ("alignment_after", vectors)):
        columns[name] = deployment.defense.alignment(answers["attack_train"][sample].to(scene.device), images)
    return columns | _certificates(deployment, vectors) | _written(deployment)


def _certificates(deployment: Deployment, vectors: dict[str, Tensor]) -> dict[str, Any]:
    """What nobody can beat on the private training images (``_test``: test images), from one answer to each.

    It holds for attackers who never asked the API for the very image: the answer that it remembers would name
    it, under keyed noise as well.
    """
    scene = deployment.scene

    def of(part: str) -> Certificate | Uncertifiable:
        observed = deployment.defense.observation(scene.clean[part], vectors[part])
        if deployment.defense.fresh and isinstance(observed, Observation):
            return Uncertifiable("fresh noise: the certificate depends on how often an image is asked for")
        return certify(
            observed,
            getattr(scene.split, part).x_NCHW,
            label_of(scene.clean[part]),
            rng=generator(scene.config.seed, "certificate", part),
        )

    return certificate_columns({"": of("private_train"), "_test": of("private_test")})


def _written(deployment: Deployment) -> dict[str, float | None]:
    """What the defense writes of images into its answers, on private train and (``_test``) test images.

    None where it does not read them, where it is a classifier that reads them (retrained, or asked again),
    and where the attacker has too few images.
    """
    scene, defense = deployment.scene, deployment.defense
    columns: dict[str, float | None] = dict.fromkeys(written_image.WRITTEN_COLUMNS)
    writes = defense.reads_image and not (defense.retrains or defense.asks_again)
    if not writes or len(scene.clean["attack_train"]) < written_image.LEAST:
        return columns
    c_NK = scene.clean["attack_train"]
    constant_KK = written_image.label_constants(c_NK, defense.pick(c_NK))

    def asked(part: str, most: int = written_image.MOST_OF_A_POOL) -> tuple[Tensor, Tensor, Tensor]:
        x_NCHW, label_N = getattr(scene.split, part).x_NCHW, label_of(scene.clean[part])
        rng = generator(scene.config.seed, "written image", part)
        at_N = torch.randperm(len(label_N), generator=rng)[:most]
        released_NK = deployment.service.release_as_if(constant_KK[label_N[at_N]], x_NCHW[at_N])
        return released_NK, x_NCHW[at_N].flatten(1), label_N[at_N]

    attacker = written_image.ResidualKernel(
        *asked("attack_train", written_image.MOST_OWN), scene.split.n_classes
    )
    for part, suffix in (("private_train", ""), ("private_test", "_test")):
        found = written_image.written_image(attacker, *asked(part))
        columns |= {f"written_excess{suffix}": found.excess, f"written_z{suffix}": found.z}
    return columns
