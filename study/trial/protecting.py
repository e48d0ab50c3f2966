"""Make a protection unit of a recorded setting: its scene once more, and the defense fitted on it.

The records hold what a scene needs. A classifier of the user's own is never loaded from records, see
:mod:`study.trial.rerun`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from mipoison.config import Config, ConfigError, choose
from mipoison.defenses import DEFENSES
from mipoison.deployment import PARTS
from mipoison.metrics.utility import utility_metrics
from mipoison.randomness import role_seed
from mipoison.scene import Scene, SceneConfig, prepare
from mipoison.service import DefendedService
from mipoison.serving.from_scene import unit_from_scene
from mipoison.serving.unit import Unit
from study.records.finished import StoredStudy
from study.records.flat import knobs_of
from study.trial.rerun import NO_VICTIM, GivenVictim, refuse_stand_ins, scenes_in, to_records, trial_rows

COMPARED = ("confidence_distortion", "model_accuracy", "protected_accuracy", "label_agreement", "kl")
"""Columns of the records that show whether a unit is of the recorded victim and setting, on the private test
images. Distortion alone does not: a defense that uses up its budget has the same one on every victim."""
CLOSE = 0.01
"""Relative difference of two values up to which they are the same: other hardware sums differently."""


@dataclass(frozen=True)
class Chosen:
    """A recorded setting, and the scene to fit it on.

    Attributes:
        trial: its name in the study. defense, config: the setting. scene: of one of the study's seeds.
        recorded: what its records say of that seed, of COMPARED; empty if no episode was measured.
    """

    trial: str
    defense: str
    config: Config
    scene: SceneConfig
    recorded: Mapping[str, float]


def trial_named(study: StoredStudy, setting: str) -> str:
    """The trial that a user means: its whole name, or its number alone (``t0012`` of ``t0012-lpa``).

    Raises:
        ConfigError: there is no such trial; the message lists all.
    """
    names = sorted(set(study.episodes["trial"]))
    numbered = [name for name in names if name.partition("-")[0] == setting and name.startswith("t")]
    return numbered[0] if len(numbered) == 1 else choose("setting", setting, names)


def chosen(
    study: StoredStudy, setting: str, *, seed: int | None = None, given: GivenVictim = NO_VICTIM
) -> Chosen:
    """The recorded setting to protect with.

    Args:
        setting: see :func:`trial_named`. seed: one of the study's; None: the first.
        given: the classifier, if the study is of the user's own.

    Raises:
        ConfigError: no such setting or seed, a setting that this version does not accept, or a classifier
            that is missing (VictimMissingError) or not the study's.
    """
    rows = trial_rows(study, trial_named(study, setting))
    scenes = {scene.seed: scene for scene in scenes_in(rows, given)}
    number = min(scenes) if seed is None else seed
    if number not in scenes:
        raise ConfigError(f"seed = {number}: this study has {', '.join(map(str, sorted(scenes)))}")
    row = to_records(rows[rows["seed"] == number])[0]
    defense = str(row["defense"])
    refuse_stand_ins("defense", [defense])
    measured = rows[rows["seed"] == number].reindex(columns=list(COMPARED)).dropna(how="all")
    values = {} if measured.empty else measured.iloc[0].dropna().to_dict()
    return Chosen(
        trial=str(row["trial"]),
        defense=defense,
        config=DEFENSES[defense].recorded(knobs_of(row)),
        scene=scenes[number],
        recorded={name: float(value) for name, value in values.items()},
    )


def protect(
    study: StoredStudy,
    setting: Chosen,
    root: str,
    data_root: str | None,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[Unit, Scene, dict[str, float]]:
    """Prepare the scene and fit the unit, with the numbers of the setting's episodes.

    Args:
        root: storage with the study's trained parts, or where they are trained anew.
        progress: called with a line of text before each step.

    Returns:
        The unit, its scene, and COMPARED of the vectors that the study released of the private test images,
        computed with this unit.

    Raises:
        ConfigError, DataError: data, classifier or defense that cannot be used.
    """
    scene = prepare(setting.scene, root, data_root=data_root, progress=progress)
    progress(f"fitting {setting.defense}")
    about = {"study": study.name, "setting": setting.trial}
    unit = unit_from_scene(scene, setting.defense, setting.config, about=about)
    released = released_as_measured(unit, scene)["private_test"]
    found = utility_metrics(scene.clean["private_test"], released, scene.split.private_test.y_N)
    return unit, scene, {name: float(found[name]) for name in COMPARED}


def released_as_measured(unit: Unit, scene: Scene) -> dict[str, torch.Tensor]:
    """Part of the split -> the vectors (N, K) that the study released, under the study's secret.

    That secret follows from the seed, which everybody knows: a unit in use gets one of its own.
    """
    service = DefendedService(
        scene.victim,
        unit.defense,
        secret=role_seed(scene.config.seed, "secret").to_bytes(8, "big"),
        n_classes=scene.split.n_classes,
        device=scene.device,
    )
    return {part: service.release(getattr(scene.split, part).x_NCHW) for part in PARTS}


def differing(measured: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """The columns of which the unit has another value than the records; those without a record count as
    equal."""
    return [
        name
        for name, value in recorded.items()
        if abs(measured[name] - value) > CLOSE * max(abs(value), 1e-6)
    ]
