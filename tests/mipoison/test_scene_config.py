"""Settings of a scene: what they refuse, what records call the victim, and the two scales."""

from __future__ import annotations

from typing import Any

import pytest

from mipoison.config import ConfigError, digest
from mipoison.data.datasets import DataError
from mipoison.models.classifier import ClassifierConfig
from mipoison.scene_config import SCALES, SceneConfig, scaled

BEFORE_AUGMENTATION = (
    ("digits", "quick", "59520f5de91b1785", "victim-59520f5de91b"),
    ("digits", "full", "abd8fcc809feed60", "victim-abd8fcc809fe"),
    ("mnist", "quick", "93307ac5cee1f406", "victim-93307ac5cee1"),
    ("mnist", "full", "854cbc1e05357119", "victim-854cbc1e0535"),
    ("fashion-mnist", "quick", "abb48c1c2683e278", "victim-abb48c1c2683"),
    ("fashion-mnist", "full", "3cea13ccba8153c9", "victim-3cea13ccba81"),
)
"""Data set, scale, the digest of all settings, and the name of the victim."""
OWN = dict(victim="somewhere:make", victim_digest="0123456789abcdef")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "mars"}, "mars"),
        ({"auxiliary": "other"}, "auxiliary"),
        ({"seed": -1}, "seed"),
        ({"limit": 9}, "limit.*at least 10 images"),
        ({"victim_width": 0}, "victim_width"),
        ({"victim_lr": 0.0}, "victim_lr"),
        ({"victim_augment": "digits"}, "victim_augment.*none, faces"),
        ({"victim_average": 0.51}, "victim_average"),
        ({"decoder_lr": 0.0}, "decoder_lr"),
        ({"threads": 0}, "threads"),
        ({"victim_digest": "x"}, "left out where there is no own victim"),
        ({"victim": "somewhere:make"}, "victim_digest"),
        (OWN | {"victim_outputs": "scores"}, "victim_outputs"),
        (OWN | {"dataset": "olivetti", "auxiliary": "disjoint"}, "which identities .* depends on the seed"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        SceneConfig(**changes)


def test_a_trained_victim_is_named_by_all_settings_and_an_own_one_by_itself() -> None:
    names = {SceneConfig(**c).victim_name for c in ({}, {"seed": 1}, {"decoder_steps": 7}, {})}
    assert len(names) == 3
    assert SceneConfig(**OWN).victim_name.endswith("make@0123456789abcdef")
    assert SceneConfig(**OWN, seed=5).victim_name == SceneConfig(**OWN).victim_name
    stated = SceneConfig(**OWN, victim_outputs="probabilities").victim_name
    assert stated == SceneConfig(**OWN).victim_name + ":probabilities"


def test_older_records_keep_their_identity() -> None:
    assert "victim_outputs" not in SceneConfig().flat()
    assert SceneConfig(**OWN, victim_outputs="logits").flat("scene")["scene.victim_outputs"] == "logits"
    for config in (SceneConfig(), SceneConfig(**OWN, victim_outputs="logits")):
        assert SceneConfig(**config.flat()) == config


def test_settings_of_other_images_are_bitwise_those_of_before() -> None:
    """Digits and MNIST have the names and keys of stored parts of the version before augmentation."""
    for dataset, scale, before, named in BEFORE_AUGMENTATION:
        config = scaled(dataset, scale)
        assert digest(config.flat())[:16] == before
        assert config.victim_name == named
        new = {*SceneConfig.BEFORE, *ClassifierConfig.BEFORE}
        assert not new & {*config.flat(), *config.classifier("evaluator").flat()}


def test_faces_are_augmented_unless_the_settings_say_otherwise() -> None:
    for scale in SCALES:
        for dataset in ("olivetti", "lfw", "lfw-30"):
            config = scaled(dataset, scale)
            assert config.victim_augment == "faces"
            assert 0 < config.victim_average < 1
            for architecture in ("victim", "evaluator"):
                made = config.classifier(architecture)  # type: ignore[arg-type]
                assert (made.augment, made.average, made.lr, made.steps) == (
                    config.victim_augment, config.victim_average, config.victim_lr, config.victim_steps,
                )  # fmt: skip
            assert SceneConfig.from_flat(config.flat()) == config
            assert config.classifier("evaluator").architecture == "place-evaluator"
            earlier = scaled(dataset, scale, victim_augment="none")
            assert earlier == SceneConfig(dataset=dataset, **SCALES[scale][64])
            record = {k: v for k, v in earlier.flat().items() if k not in SceneConfig.BEFORE}
            assert SceneConfig.recorded(record) == earlier
            assert scaled(dataset, scale, victim_steps=7).victim_steps == 7


def test_a_scale_is_replaced_by_what_is_asked_for() -> None:
    for scale, sizes in SCALES.items():
        assert set(sizes) == {16, 32, 64}
        for values in sizes.values():
            assert SceneConfig(**values).flat() | values == SceneConfig(**values).flat()
        assert scaled("digits", scale).victim_steps == sizes[16]["victim_steps"]
        assert scaled("mnist", scale, victim_steps=7, limit=None).victim_steps == 7
    assert scaled("mnist", "quick").limit == 2000
    with pytest.raises(ConfigError, match="quick"):
        scaled("digits", "quickly")
