"""One episode: an attacker is trained against a defended victim, and the results become one flat record.

Releasing vectors, attacking and recording are separate functions so that a study can distribute them over
processes; :func:`run_episode` calls all of them.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mipoison.attacks import ATTACKS
from mipoison.attacks.sizes import DEFAULT_SIZES, sized
from mipoison.attacks.trained_once import fit_once
from mipoison.config import Config, ConfigError, Plain, choose, digest
from mipoison.defenses import DEFENSES, retraining
from mipoison.deployment import SAMPLE, Deployment, Released, deploy, release
from mipoison.metrics import half_samples, leakage
from mipoison.metrics.identification import identification
from mipoison.metrics.machine import device_name, peak_memory_mb, versions
from mipoison.process import own_context
from mipoison.protocols import Attack, ThreatModel
from mipoison.randomness import generator
from mipoison.scene import PATHS, Scene, SceneConfig
from mipoison.service import MeteredOracle
from mipoison.simplex import label_of


@dataclass(frozen=True, kw_only=True)
class EpisodeConfig:
    """The settings of one episode.

    Attributes:
        scene: data, victim and evaluators.
        defense: a name of DEFENSES. defense_config: its configuration.
        attack: a name of ATTACKS. attack_config: its configuration; sizes left open (None) are filled in
            from the scene.

    Raises:
        ConfigError: an unknown name (the message lists the valid ones), a configuration of another class than
            the name's, or a defense that retrains the victim when the victim is the user's own.
    """

    scene: SceneConfig
    defense: str
    defense_config: Config
    attack: str
    attack_config: Config

    def __post_init__(self) -> None:
        choose("defense", self.defense, DEFENSES)
        choose("attacker", self.attack, ATTACKS)
        if type(self.defense_config) is not DEFENSES[self.defense]:
            raise ConfigError(
                f"defense {self.defense!r} takes {DEFENSES[self.defense].__name__}, "
                f"got {self.defense_config!r}"
            )
        if type(self.attack_config) is not type(ATTACKS[self.attack]):
            expected = type(ATTACKS[self.attack]).__name__
            raise ConfigError(f"attacker {self.attack!r} takes {expected}, got {self.attack_config!r}")
        if self.scene.victim is not None and self.defense in retraining():
            raise ConfigError(f"defense {self.defense!r} retrains the victim: not possible with your own one")
        object.__setattr__(self, "attack_config", at_scale(self.attack_config, self.scene))

    def flat(self) -> dict[str, Any]:
        """All settings under flat keys, e.g. ``defense.budget``."""
        return {
            **self.scene.flat("scene"),
            "defense": self.defense,
            **self.defense_config.flat("defense"),
            "attack": self.attack,
            **self.attack_config.flat("attack"),
        }

    @property
    def episode_id(self) -> str:
        """Sixteen hexadecimal digits that are equal for equal settings."""
        return digest(self.flat())[:16]


def at_scale(config: Config, scene: SceneConfig) -> Config:
    """The attacker's configuration with sizes left open (None) set to those of the scene's decoders."""
    return sized(config, {name: getattr(scene, f"decoder_{name}") for name in DEFAULT_SIZES})


@dataclass
class AttackInputs:
    """An untrained attacker and everything that it may use: the arguments of its ``fit``.

    Attributes:
        attack: the attacker.
        oracle: the defended API; counts the queries.
        x_NCHW: the attacker's own images.
        known: what is public about the defense.
        rng: source of all randomness of the attacker.
    """

    attack: Attack
    oracle: MeteredOracle
    x_NCHW: Tensor
    known: ThreatModel
    rng: torch.Generator


def open_attack(deployment: Deployment, config: Config) -> AttackInputs:
    """Build an attacker and its inputs; it has not sent a query or been trained yet.

    Args:
        deployment: the defended victim. config: the attacker's configuration.
    """
    scene = deployment.scene
    return AttackInputs(
        attack=config.make(),
        oracle=MeteredOracle(deployment.service.session(), scene.split.n_classes),
        x_NCHW=scene.data_halves[getattr(config, "data", "all")].x_NCHW,
        known=ThreatModel(deployment.name, deployment.config.flat(), scene.split.image_shape),
        rng=generator(scene.config.seed, "attack", config.digest()),
    )


@dataclass
class Fitted:
    """A trained attacker.

    Attributes:
        attack: the attacker.
        seconds: of preparation and training; its share if several were trained together.
        queries: number of queries that it sent.
        members: number of attackers that were trained together with it as one network, itself included.
    """

    attack: Attack
    seconds: float
    queries: int
    members: int = 1


@own_context()
def fit_attack(deployment: Deployment, config: Config) -> Fitted:
    """Train one attacker against the API, not together with others; see :func:`fit_once`."""
    inputs = open_attack(deployment, config)
    seconds = fit_once(
        inputs.attack, inputs.oracle, inputs.x_NCHW,
        known=inputs.known, rng=inputs.rng, trained=deployment.scene.trained,
    )  # fmt: skip
    return Fitted(inputs.attack, seconds, inputs.oracle.queries)


@dataclass
class Attacked:
    """An attacker that has reconstructed the private images.

    Attributes:
        fitted: the trained attacker.
        reconstructions: images (N, C, H, W) of the private training and test images from released vectors
            (``private_train``, ``private_test``), and from clean ones (``clean``, ``clean_test``).
    """

    fitted: Fitted
    reconstructions: dict[str, Tensor]


@own_context()
def attack_once(
    deployment: Deployment, released: Released, config: Config, fitted: Fitted | None = None
) -> Attacked:
    """Train one attacker against the API and let it reconstruct the private images.

    Args:
        deployment: the defended victim. released: the vectors that it released.
        config: the attacker's configuration. fitted: the attacker if it has been trained already.
    """
    fitted = fitted or fit_attack(deployment, config)
    attack = fitted.attack
    reconstructions = {
        "private_train": attack.reconstruct(released.vectors["private_train"]),
        "private_test": attack.reconstruct(released.vectors["private_test"]),
        "clean": attack.reconstruct(deployment.scene.clean["private_train"]),
        "clean_test": attack.reconstruct(deployment.scene.clean["private_test"]),
    }
    return Attacked(fitted, reconstructions)


def paths_of(config: EpisodeConfig) -> dict[str, Any]:
    """The record's columns that depend on where data and classifier were read from.

    Another study may have run the same episode with the same files in other folders; a record taken over
    from it gets these columns anew.
    """
    places = {f"scene.{name}": getattr(config.scene, name) for name in PATHS}
    return {"episode_id": config.episode_id, "dataset": config.scene.dataset, **places}


def base_record(config: EpisodeConfig, fingerprint: str | None) -> dict[str, Any]:
    """The part of a record that is known before the episode runs: identity, settings, device and versions.

    Args:
        fingerprint: the split's; None if it is not known.
    """
    scene = config.scene
    return {
        "episode_id": config.episode_id,
        "dataset": scene.dataset,
        "auxiliary": scene.auxiliary,
        "split": fingerprint,
        "seed": scene.seed,
        "victim": scene.victim_name,
        "defense": config.defense,
        "attack": config.attack,
        "status": "ok",
        "error": None,
        **scene.flat("scene"),
        **config.defense_config.flat("defense"),
        **config.attack_config.flat("attack"),
        "device": device_name(),
        "versions": versions(),
    }


@own_context()
def measure(deployment: Deployment, released: Released, reconstructions: dict[str, Tensor]) -> dict[str, Any]:
    """Measure the leakage: how close reconstructions are to the private images.

    Args:
        reconstructions: images (N, C, H, W), see :class:`Attacked`.

    Returns:
        Columns of the record. They are about the private training images, those ending in ``_test`` about the
        private test images. SSIM is computed on the first ``SAMPLE`` images.
    """
    scene, split = deployment.scene, deployment.scene.split
    x, y, x_test = split.private_train.x_NCHW, split.private_train.y_N, split.private_test.x_NCHW
    rec, rec_test, rec_clean = (reconstructions[k] for k in ("private_train", "private_test", "clean"))
    errors_N = leakage.reconstruction_errors(rec, x)
    test_errors_N = leakage.reconstruction_errors(rec_test, x_test)
    error = float(errors_N.mean())
    label_N, label_test_N = (label_of(scene.clean[part]) for part in ("private_train", "private_test"))
    return {
        "reconstruction_error": error,
        "reconstruction_error_test": float(test_errors_N.mean()),
        "reconstruction_error_paper_scale": None if split.pixel_scale is None else error * split.pixel_scale,
        "reconstruction_skill": leakage.reconstruction_skill(error, released.columns["mean_image_error"]),
        "attack_accuracy": scene.recognised(scene.evaluator, rec, y),
        "attack_accuracy_test": scene.recognised(scene.evaluator, rec_test, split.private_test.y_N),
        "cycle_accuracy": scene.recognised(scene.victim, rec, y),
        "open_accuracy": scene.recognised(scene.open_evaluator, rec, y),
        "evaluator_accuracy": scene.evaluator_accuracy,
        "ssim": float(leakage.ssim(rec[:SAMPLE], x[:SAMPLE]).mean()),
        "clean_reconstruction_error": float(leakage.reconstruction_errors(rec_clean, x).mean()),
        "clean_attack_accuracy": scene.recognised(scene.evaluator, rec_clean, y),
        **identification(rec, x, label_N).columns(),
        **identification(rec_test, x_test, label_test_N).columns("_test"),
        **identification(rec_clean, x, label_N).clean_columns(),
        **identification(reconstructions["clean_test"], x_test, label_test_N).clean_columns("_test"),
        "peak_memory_mb": peak_memory_mb(),
        **leakage.error_percentiles(errors_N),
        **half_samples.half_sample_errors(errors_N),
        **half_samples.half_sample_errors(test_errors_N, half_samples.TEST_COLUMNS),
    }


@own_context()
def attack_and_measure(
    config: EpisodeConfig, deployment: Deployment, released: Released, fitted: Fitted | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Run the attack and measure it.

    Args:
        fitted: the attacker if it has been trained already.

    Returns:
        The episode's flat record, and the reconstructions (see :class:`Attacked`).
    """
    attacked = attack_once(deployment, released, config.attack_config, fitted)
    start = time.perf_counter()
    record = base_record(config, deployment.scene.split.fingerprint) | released.columns
    record |= measure(deployment, released, attacked.reconstructions)
    record |= {
        "seconds_attack": attacked.fitted.seconds,
        "seconds_evaluate": time.perf_counter() - start,
        "queries": attacked.fitted.queries,
        "stacked_members": attacked.fitted.members,
    }
    return record, attacked.reconstructions


@own_context()
def run_episode(config: EpisodeConfig, scene: Scene) -> dict[str, Any]:
    """Run one episode in this process and return its flat record.

    Raises:
        ConfigError: the episode's scene differs from the prepared one, so that its record would carry wrong
            settings.
    """
    if config.scene != scene.config:
        mine, other = config.scene.flat(), scene.config.flat()
        differing = "; ".join(
            f"{name} {mine[name]!r}, prepared {other[name]!r}" for name in mine if mine[name] != other[name]
        )
        raise ConfigError(f"the episode is of another scene than the prepared one: {differing}")
    deployment = deploy(scene, config.defense, config.defense_config)
    return attack_and_measure(config, deployment, release(deployment))[0]


def evaluate(
    scene: Scene,
    defense: str = "none",
    attack: str = "passive",
    *,
    knobs: Mapping[str, Plain] | None = None,
    options: Mapping[str, Plain] | None = None,
) -> dict[str, Any]:
    """Measure one defense against one attacker, given by name.

    Args:
        scene: prepared data, victim and evaluators, from :func:`mipoison.prepare`.
        defense: a name of DEFENSES. knobs: the fields of its configuration that differ from the defaults.
        attack: a name of ATTACKS. options: the fields of its configuration that differ from those of the
            entry in ATTACKS.

    Returns:
        The episode's flat record, with e.g. ``confidence_distortion`` and ``reconstruction_error``.

    Raises:
        ConfigError: an unknown name or field (the message lists the valid ones), or a value out of bounds.
    """
    choose("defense", defense, DEFENSES)
    choose("attacker", attack, ATTACKS)
    entry = ATTACKS[attack]
    config = EpisodeConfig(
        scene=scene.config,
        defense=defense,
        defense_config=DEFENSES[defense].from_flat(dict(knobs or {})),
        attack=attack,
        attack_config=type(entry).from_flat({**entry.changed(), **(options or {})}),
    )
    return run_episode(config, scene)


def failed_record(config: EpisodeConfig, fingerprint: str | None, error: BaseException) -> dict[str, Any]:
    """The record of an episode that raised: it has the error's first line and no measurements."""
    text = f"{type(error).__name__}: {error}".splitlines()[0][:500]
    return base_record(config, fingerprint) | {"status": "failed", "error": text}
