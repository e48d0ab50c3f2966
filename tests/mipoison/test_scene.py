"""A prepared scene: trained once, the same from its store, and nothing of it known to who must not know."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mipoison import scene as scenes
from mipoison.models.inversion import SubstituteConfig
from mipoison.scene import Scene, SceneConfig, clean_vectors, prepare
from mipoison.storage.artifacts import ArtifactStore

CPU = torch.device("cpu")


def test_from_its_store_it_is_the_same_scene(
    tiny_scene: Scene, tiny_config: SceneConfig, tiny_store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "train", lambda *a, **k: pytest.fail("something was trained again"))
    told: list[str] = []
    again = prepare(tiny_config, tiny_store, device=CPU, progress=told.append)
    for name in ("victim", "evaluator", "open_evaluator"):
        one, other = getattr(again, name).state_dict(), getattr(tiny_scene, name).state_dict()
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert all(torch.equal(c, tiny_scene.clean[part]) for part, c in again.clean.items())
    assert [text.partition(": ")[2] for text in told] == ["reading data", "victim", "evaluators"]


def test_clean_vectors_are_softmax_of_the_victim(tiny_scene: Scene) -> None:
    x = tiny_scene.split.private_test.x_NCHW
    with torch.no_grad():
        expected = torch.softmax(tiny_scene.victim(x), 1)
    found = clean_vectors(tiny_scene.victim, x, tiny_scene.split.n_classes, CPU)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found, tiny_scene.clean["private_test"])


def test_the_evaluator_is_asked_about_real_images_once(tiny_scene: Scene) -> None:
    scene = dataclasses.replace(tiny_scene)
    x, y = scene.split.private_test.x_NCHW, scene.split.private_test.y_N
    with torch.no_grad():
        right = (scene.evaluator(x.to(scene.device)).cpu().argmax(1) == y).double().mean()
    asked: list[int] = []
    hook = scene.evaluator.register_forward_hook(lambda module, args, output: asked.append(len(output)))
    try:
        accuracies = [scene.evaluator_accuracy for _ in range(3)]
    finally:
        hook.remove()
    assert accuracies == pytest.approx([float(right)] * 3, abs=1e-12)
    assert sum(asked) == len(x)
    other = dataclasses.replace(scene, evaluator=scene.open_evaluator)
    assert other.evaluator_accuracy == scene.recognised(scene.open_evaluator, x, y)


def test_a_substitute_is_trained_on_the_share_that_it_names(tiny_scene: Scene) -> None:
    attack = tiny_scene.split.attack_train
    first, second = (tiny_scene.view().substitute_data(SubstituteConfig(data=d))[1] for d in ("D1", "D2"))
    everything = tiny_scene.view().substitute_data(SubstituteConfig(data="all"))[1]
    assert torch.equal(everything, attack.x_NCHW)
    images = [x.numpy().tobytes() for half in (first, second) for x in half]
    assert sorted(images) == sorted(x.numpy().tobytes() for x in everything)
    # It has learned from its own share, and is frozen.
    c, x = tiny_scene.view().substitute_data(SubstituteConfig(data="all"))
    net = tiny_scene.substitute(SubstituteConfig(data="all"))
    assert not any(p.requires_grad for p in net.parameters())
    untrained = SubstituteConfig(data="all").architecture(4).make((1, 16, 16), c.shape[1]).eval()
    trained, before = ((model(c) - x).square().mean() for model in (net, untrained))
    assert float(trained) < 0.7 * float(before)


def test_the_key_of_an_artifact_follows_content_not_paths(tiny_scene: Scene) -> None:
    spec = tiny_scene.spec(more=1)
    assert spec["split"] == tiny_scene.split.fingerprint
    assert spec["more"] == 1
    assert not set(scenes.PATHS) & set(spec["scene"])
    other = dataclasses.replace(tiny_scene, config=dataclasses.replace(tiny_scene.config, decoder_steps=61))
    assert other.spec() != tiny_scene.spec()


def test_the_defenders_view_is_of_private_training_images(tiny_scene: Scene) -> None:
    view = tiny_scene.view()
    assert view.x_private_NCHW is tiny_scene.split.private_train.x_NCHW
    assert torch.equal(view.c_private_NK, tiny_scene.clean["private_train"])
    assert view.n_classes == tiny_scene.split.n_classes
