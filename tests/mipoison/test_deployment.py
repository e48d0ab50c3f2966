"""A deployed defense: three requests are answered, remembered and asked again, and measured."""

from __future__ import annotations

import pytest
import torch

from mipoison.defenses.label_only import LabelOnlyConfig
from mipoison.defenses.lpa import LPAConfig
from mipoison.defenses.mid import MIDConfig
from mipoison.defenses.noise import NoiseConfig
from mipoison.defenses.none import NoneConfig
from mipoison.deployment import PARTS, REPEATS, Deployment, Released, deploy, finish_release, release
from mipoison.metrics import written_image
from mipoison.randomness import generator
from mipoison.scene import Scene
from mipoison.simplex import label_of


@pytest.fixture(scope="module")
def noisy(tiny_scene: Scene) -> tuple[Deployment, Released]:
    deployment = deploy(tiny_scene, "noise", NoiseConfig(budget=0.05, randomness="fresh"))
    return deployment, release(deployment)


def test_undefended_it_releases_the_clean_vectors(tiny_scene: Scene) -> None:
    released = release(deploy(tiny_scene, "none", NoneConfig()))
    assert set(released.vectors) == set(PARTS)
    for part, z in released.vectors.items():
        assert torch.equal(z, tiny_scene.clean[part])
    assert released.columns["confidence_distortion"] == released.columns["attack_set_distortion"] == 0
    assert released.columns["repeat_query_distance"] == 0
    assert released.columns["alignment_before"] is None


def test_columns_are_those_of_the_vectors(noisy: tuple[Deployment, Released], tiny_scene: Scene) -> None:
    _, released = noisy
    z, c = released.vectors["private_test"], tiny_scene.clean["private_test"]
    y = tiny_scene.split.private_test.y_N
    found = released.columns
    assert found["confidence_distortion"] == pytest.approx(float((z - c).norm(dim=1).mean()), rel=1e-5)
    assert found["protected_accuracy"] == pytest.approx(float((z.argmax(1) == y).double().mean()))
    x, attack = tiny_scene.split.private_train.x_NCHW, tiny_scene.split.attack_train.x_NCHW
    assert found["mean_image_error"] == pytest.approx(float((x - attack.mean(0)).square().mean()), rel=1e-4)
    assert 0 < found["repeat_query_distance"] <= 2 * 0.05 + 1e-6  # drawn anew, each within the budget


def test_different_answers_are_counted(tiny_scene: Scene, noisy: tuple[Deployment, Released]) -> None:
    by_label = release(deploy(tiny_scene, "label-only", LabelOnlyConfig())).columns
    for suffix, part in (("", "private_train"), ("_test", "private_test")):
        labels = len(set(label_of(tiny_scene.clean[part]).tolist()))
        assert by_label[f"distinct_releases{suffix}"] == by_label[f"distinct_labels{suffix}"] == labels
        assert noisy[1].columns[f"distinct_releases{suffix}"] == len(tiny_scene.clean[part])


def test_what_was_released_is_remembered(tiny_scene: Scene) -> None:
    """The study's sharded form: vectors that ranks computed are what the API answers afterwards."""
    deployment = deploy(tiny_scene, "none", NoneConfig())
    uniform = {p: torch.full_like(tiny_scene.clean[p], 1 / tiny_scene.split.n_classes) for p in PARTS}
    released = finish_release(deployment, uniform, seconds=0.0, seconds_clean=0.0)
    assert released.columns["poison_ms_per_sample"] == 0
    x = tiny_scene.split.attack_train.x_NCHW[:5]
    assert torch.equal(deployment.service.answer(x), uniform["attack_train"][:5])


def test_the_classifier_is_asked_about_each_image_once(tiny_scene: Scene) -> None:
    """And about the repeated ones; not once more to see how long it takes."""
    deployment = deploy(tiny_scene, "none", NoneConfig())
    asked: list[int] = []
    hook = tiny_scene.victim.register_forward_hook(lambda module, args, output: asked.append(len(output)))
    try:
        released = release(deployment)
    finally:
        hook.remove()
    queries = sum(len(c) for c in tiny_scene.clean.values())
    assert sum(asked) == queries + min(REPEATS, len(tiny_scene.clean["private_train"]))
    found = released.columns
    clean = found["inference_ms_per_sample"] * queries / 1e3
    assert 0 < clean < found["seconds_poison"]
    assert found["poison_ms_per_sample"] * queries / 1e3 == pytest.approx(found["seconds_poison"] - clean)
    assert clean < deployment.service.seconds_clean  # the repeated ones came later


def test_the_image_is_sought_in_answers_to_one_constant_per_label(tiny_scene: Scene) -> None:
    """By hand: the defense gets the constants and the true images, and none of the classifier's vectors."""
    deployment = deploy(tiny_scene, "lpa", LPAConfig(budget=0.05, rounds=2))
    columns = release(deployment).columns
    constants = written_image.label_constants(
        tiny_scene.clean["attack_train"], torch.ones(100, dtype=torch.bool)
    )
    asked = {}
    for part in PARTS:
        x, label = getattr(tiny_scene.split, part).x_NCHW, label_of(tiny_scene.clean[part])
        order = torch.randperm(len(x), generator=generator(tiny_scene.config.seed, "written image", part))
        answers = deployment.service.release_as_if(constants[label[order]], x[order])
        assert not torch.equal(answers, deployment.service.release(x[order]))
        asked[part] = answers, x[order].flatten(1), label[order]
    attacker = written_image.ResidualKernel(*asked["attack_train"], tiny_scene.split.n_classes)
    for part, suffix in (("private_train", ""), ("private_test", "_test")):
        found = written_image.written_image(attacker, *asked[part])
        assert columns[f"written_excess{suffix}"] == found.excess
        assert columns[f"written_z{suffix}"] == found.z


def test_a_retrained_classifier_is_not_asked_about_constants(tiny_scene: Scene) -> None:
    columns = release(deploy(tiny_scene, "mid", MIDConfig())).columns
    assert {columns[name] for name in written_image.WRITTEN_COLUMNS} == {None}
