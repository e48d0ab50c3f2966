"""mipoison measures what a classifier's confidence vectors reveal of its private images, and defends them.

    import mipoison

    # Data, victim and evaluators; trained once, then kept below results/.
    scene = mipoison.prepare("digits")
    record = mipoison.evaluate(scene, defense="rounding", knobs={"decimals": 1}, attack="ridge")
    print(record["confidence_distortion"], record["reconstruction_error"])

The record's fields are the Euclidean distance between released and clean vectors, which is what the defense
costs, and the attacker's mean squared pixel error in [0, 1], which is what it protects.
``fit_unit(model, private=..., public=..., defense="rounding")`` protects a classifier of your own.
Importing this package is fast, since each name below is loaded when it is first used.
"""

from __future__ import annotations

from mipoison._moved import lazily, redirect

__version__ = "0.1.0"

_HOME = {  # name -> the module that defines it; type checkers read __init__.pyi
    "ATTACKS": "mipoison.attacks",
    "ConfigError": "mipoison.config",
    "DataError": "mipoison.data.images",
    "DEFENSES": "mipoison.defenses",
    "EpisodeConfig": "mipoison.episode",
    "SceneConfig": "mipoison.scene",
    "Unit": "mipoison.serving.unit",
    "evaluate": "mipoison.episode",
    "fit_unit": "mipoison.serving.protect",
    "load_plugin": "mipoison.plugins",
    "load_unit": "mipoison.serving.protect",
    "load_victim": "mipoison.serving.protect",
    "prepare": "mipoison.scene",
    "run_episode": "mipoison.episode",
    "scaled": "mipoison.scene",
}

__all__ = ["__version__", *_HOME]

__getattr__, __dir__ = lazily(globals(), _HOME)

redirect(
    {
        "mipoison.alignment.own": "mipoison.alignment.gram",
        "mipoison.alignment.patches": "mipoison.alignment.unfold",
        "mipoison.artifacts": "mipoison.storage.artifacts",
        "mipoison.datasets": "mipoison.data.datasets",
        "mipoison.export": "mipoison.serving.export",
        "mipoison.imagefolder": "mipoison.data.imagefolder",
        "mipoison.images": "mipoison.data.images",
        "mipoison.memory": "mipoison.metrics.memory",
        "mipoison.protect": "mipoison.serving.protect",
        "mipoison.s3": "mipoison.storage.s3",
        "mipoison.splits": "mipoison.data.splits",
        "mipoison.stacked": "mipoison.attacks.stacked",
        "mipoison.unit": "mipoison.serving.unit",
        "mipoison.victim": "mipoison.victims.own",
        "mipoison.wrap": "mipoison.serving.wrap",
    },
    renamed={"mipoison.victim": {"OwnVictim": "LoadedVictim"}},
)
