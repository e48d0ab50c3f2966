"""How long a run will take: steps timed on this device, and sums by hand."""

import pytest
import torch

from mipoison.scene import SceneConfig
from study.session import estimate
from study.session.estimate import DIFFUSION, OVERHEAD, duration, expected_seconds, seconds_per_step

SCENE = SceneConfig(decoder_width=2, decoder_steps=100, decoder_batch=4)


def test_a_step_is_timed_and_nothing_is_left_changed() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert 0 < seconds_per_step(SCENE) < 5
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_steps_add_up_over_attackers_seeds_and_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "seconds_per_step", lambda scene: 0.5)
    one = OVERHEAD * 100 * 0.5
    assert expected_seconds(SCENE, ["passive"], 1, 1) == pytest.approx(one)
    assert expected_seconds(SCENE, ["passive", "diffusion-2"], 3, 2) == pytest.approx(
        one * (1 + DIFFUSION) * 3 / 2
    )
    assert expected_seconds(SCENE, ["passive"], 1, 0) == pytest.approx(one)


@pytest.mark.parametrize(
    ("seconds", "text"), [(40.2, "40 s"), (89.0, "89 s"), (720, "12 min"), (5400, "1.5 h"), (12600, "3.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
