"""Settings of a scene: what they refuse, what records call the victim, and the two scales."""

from __future__ import annotations

from typing import Any

import pytest

from mipoison.config import ConfigError
from mipoison.data.datasets import DataError
from mipoison.scene_config import SCALES, SceneConfig, scaled

OWN = dict(victim="somewhere:make", victim_digest="0123456789abcdef")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "mars"}, "mars"),
        ({"auxiliary": "other"}, "auxiliary"),
        ({"seed": -1}, "seed"),
        ({"limit": 9}, "limit.*at least 10 images"),
        ({"victim_width": 0}, "victim_width"),
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
