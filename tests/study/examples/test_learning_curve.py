"""The learning curve of study/examples: more images help, the full size is the episode, and its command."""

from __future__ import annotations

import numpy as np
import pytest

from mipoison.attacks import ATTACKS
from mipoison.defenses.none import NoneConfig
from mipoison.deployment import deploy
from mipoison.episode import evaluate
from mipoison.scene import Scene
from study.examples import learning_curve as example


def test_more_images_help_and_all_of_them_are_the_episode(tiny_scene: Scene) -> None:
    sizes = [10, 30, len(tiny_scene.split.attack_train)]
    deployment = deploy(tiny_scene, "none", NoneConfig())
    errors = example.errors_at(deployment, ATTACKS["ridge"], sizes)["train"]
    assert errors.shape == (3, len(tiny_scene.split.private_train))
    few, some, all_of_them = errors.mean(axis=1)
    assert few > some > all_of_them
    # The same images in another order: other folds, nearly the same regression.
    whole = evaluate(tiny_scene, "none", "ridge")["reconstruction_error"]
    assert all_of_them == pytest.approx(whole, rel=0.03)
    again = example.errors_at(deploy(tiny_scene, "none", NoneConfig()), ATTACKS["ridge"], sizes)
    assert np.array_equal(errors, again["train"])


def test_the_command_prints_its_table(
    tiny_scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(example, "prepare", lambda *given, **named: tiny_scene)
    assert example.main(["--defense", "noise", "--knob", "budget=0.05", "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    for size in (6, 12, 25, 50, 100):
        assert f"│ {size} " in printed
    assert "limit with ever more images: 0.0" in printed
    assert "estimated limit, without an attacker: 0.0" in printed
