"""A unit for the victim of a scene, fitted as an episode fits it; and that victim, kept beside the unit.

A victim that a scene trained has no file of the user's. It is kept in the unit's folder as numbers: its
settings in ``unit.json``, its weights in ``victim.safetensors``. Reading it runs no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import nn

from mipoison.config import Config, ConfigError, choose
from mipoison.defenses import DEFENSES, retraining
from mipoison.models.classifier import ClassifierConfig
from mipoison.process import own_context
from mipoison.protocols import Defense
from mipoison.randomness import generator
from mipoison.scene import Scene
from mipoison.serving.probe import Probe
from mipoison.serving.unit import Unit, UnitError, storage_of, versions, weights_digest
from mipoison.victims.ask import classifier_of
from mipoison.victims.identity import entry_digests, running_entries
from mipoison.victims.named_transforms import stated

VICTIM = "victim.safetensors"
CLASSIFIER = "classifier"
"""Key of ``Unit.about`` with the settings of a victim that is kept beside the unit."""


@own_context()
def unit_from_scene(scene: Scene, defense: str, config: Config, *, about: Mapping[str, Any]) -> Unit:
    """Fit a defense on what the defender of a scene has, with the scene's seed: the numbers of an episode.

    Args:
        scene: prepared. defense: a name of DEFENSES; not one that retrains the victim. config: its settings.
        about: plain values to keep with the unit.

    Raises:
        ConfigError: an unknown defense, or one that retrains the victim.
    """
    choose("defense", defense, DEFENSES)
    if defense in retraining():
        raise ConfigError(
            f"defense {defense!r} retrains the victim, and a unit protects one that is given: "
            "choose a setting of another defense"
        )
    asked = classifier_of(scene.victim, device=scene.device)
    before = entry_digests(asked.module)
    fitted: Defense = config.make()
    fitted.fit(scene.view(), rng=generator(scene.config.seed, "defense", defense))
    attack = scene.split.attack_train
    probe = Probe.of(asked, scene.split.image_shape)
    running = running_entries(asked.module, before)
    outputs = {} if scene.config.victim_outputs is None else {"outputs": scene.config.victim_outputs}
    stated_as = scene.config.victim_transforms
    transforms = {} if stated_as is None else {"transforms": stated(stated_as).plain()}
    own = scene.config.victim is not None
    kept = {} if own else {CLASSIFIER: scene.config.classifier("victim").flat()}
    return Unit(
        name=defense, config=config, defense=fitted, image_shape=scene.split.image_shape,
        n_classes=scene.split.n_classes, victim=weights_digest(scene.victim, without=running),
        running=running, device=scene.device, probe=probe, keyed=fitted.draws and not fitted.fresh,
        about={
            "private_images": len(scene.split.private_train),
            "public_images": len(attack),
            "seed": scene.config.seed,
            "scale": "a scene's",
            "versions": versions(),
            **outputs,
            **transforms,
            **kept,
            **about,
        },
    )  # fmt: skip


def save_victim(victim: nn.Module, folder: str | Path) -> None:
    """Write the weights of a scene's own victim into the folder of its unit."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in victim.state_dict().items()}
    storage_of(folder).write(VICTIM, tensors_to_bytes(state))


@own_context()
def load_kept_victim(folder: str | Path, unit: Unit) -> nn.Module:
    """The victim in a unit's folder, on the CPU, frozen.

    Raises:
        UnitError: the unit is of the user's own classifier, which is not kept with it; or the weights are
            missing, damaged or of another classifier.
    """
    settings = unit.about.get(CLASSIFIER)
    if settings is None:
        raise UnitError(
            f"{folder}: the classifier is not kept with this unit: give it with --victim module:factory "
            "(and --victim-state), or --victim file.pt2"
        )
    data = storage_of(folder).read(VICTIM)
    if data is None:
        raise UnitError(f"{folder}: {VICTIM} is missing; make the unit again")
    try:
        config = ClassifierConfig.from_flat(settings)
        with torch.device("meta"):
            victim = config.make(unit.image_shape, unit.n_classes)
        victim.load_state_dict(tensors_from_bytes(data), assign=True)
    except (SafetensorError, ValueError, RuntimeError, TypeError) as error:
        raise UnitError(
            f"{folder}: {VICTIM} is not this unit's classifier ({type(error).__name__})"
        ) from error
    return victim.requires_grad_(False).eval()
