"""Learning curves of a setting: nested sizes, no other queries, and the episode at the last size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mipoison.attacks import ATTACKS
from mipoison.attacks.class_mean import ClassMean
from mipoison.defenses.label_only import LabelOnlyConfig
from mipoison.deployment import deploy
from mipoison.episode import evaluate
from mipoison.scene import Scene
from mipoison.simplex import label_of
from study.trial import curves
from study.trial.curves import errors_at, measure_curve, sizes_of
from study.trial.spec import TrialSpec
from tests.study.executors.helpers import SPEC


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (360, [45, 90, 180, 360]),
        (1599, [199, 399, 799, 1599]),
        (1600, [100, 200, 400, 800, 1600]),
        (10_000, [625, 1250, 2500, 5000, 10_000]),
        (100, [12, 25, 50, 100]),
        (8, [1, 2, 4, 8]),
        (5, [1, 2, 5]),
    ],
)
def test_sizes(n: int, sizes: list[int]) -> None:
    assert sizes_of(n) == sizes


def test_against_class_means_computed_by_hand(tiny_scene: Scene) -> None:
    """Of label-only, whose answers are the labels, the class-mean attacker is a loop over classes."""
    deployment = deploy(tiny_scene, "label-only", LabelOnlyConfig())
    sizes = [25, 100]
    asked: list[int] = []
    order_of = {}

    def fit(self: ClassMean, oracle: object, x_NCHW: torch.Tensor, **more: object) -> None:
        asked.append(len(x_NCHW))
        order_of[len(x_NCHW)] = x_NCHW
        original(self, oracle, x_NCHW, **more)

    original = ClassMean.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassMean, "fit", fit)
        found = errors_at(deployment, ATTACKS["class-mean"], sizes)
    assert asked == sizes
    assert torch.equal(order_of[25], order_of[100][:25])  # nested
    own = tiny_scene.split.attack_train.x_NCHW
    c_NK = tiny_scene.clean["attack_train"]
    rows = {image.numpy().tobytes(): int(label) for image, label in zip(own, label_of(c_NK), strict=True)}
    for face in ("train", "test"):
        private = getattr(tiny_scene.split, f"private_{face}").x_NCHW
        labels = label_of(tiny_scene.clean[f"private_{face}"])
        assert found[face].shape == (2, len(private))
        for i, size in enumerate(sizes):
            mine = order_of[size]
            of_label = [rows[image.numpy().tobytes()] for image in mine]
            for n in range(0, len(private), 7):
                same = [image for image, label in zip(mine, of_label, strict=True) if label == labels[n]]
                mean = torch.stack(same).double().mean(0)
                expected = float((mean - private[n].double()).square().mean())
                assert found[face][i, n] == pytest.approx(expected, rel=1e-4)


def test_seeds_stand_side_by_side_and_the_last_size_is_the_episode(
    tiny_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "scene_for", lambda *given: tiny_scene)
    flat = tiny_scene.config.flat()
    spec = dataclasses.replace(
        SPEC, defense="rounding", knobs={"decimals": 1}, attackers=("kernel",), scenes=(flat, flat)
    )
    found = measure_curve(spec)
    n = len(tiny_scene.split.attack_train)
    assert (found.attack, found.sizes) == ("kernel", tuple(sizes_of(n)))
    assert found.seeds == (tiny_scene.config.seed,) * 2
    record = evaluate(tiny_scene, "rounding", "kernel", knobs={"decimals": 1})
    for face, ending in (("train", ""), ("test", "_test")):
        first, second = np.hsplit(found.errors[face], 2)
        assert np.array_equal(first, second)
        # The same images in another order.
        assert first[-1].mean() == pytest.approx(record[f"reconstruction_error{ending}"], rel=0.02)


def test_an_attacker_has_no_more_images_than_it_uses(
    tiny_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "scene_for", lambda *given: tiny_scene)
    few = dataclasses.replace(ATTACKS["kernel"], most=48)  # type: ignore[type-var]
    monkeypatch.setitem(curves.ATTACKS, "kernel", few)  # type: ignore[attr-defined]
    spec: TrialSpec = dataclasses.replace(
        SPEC, defense="none", knobs={}, attackers=("kernel",), scenes=(tiny_scene.config.flat(),)
    )
    assert measure_curve(spec).sizes == (6, 12, 24, 48)
