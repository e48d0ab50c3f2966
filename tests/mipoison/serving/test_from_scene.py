"""A unit of a scene: its kept victim answers as the scene's, and what is missing or altered is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.deployment import deploy
from mipoison.scene import Scene
from mipoison.serving.from_scene import VICTIM, load_kept_victim, save_victim, unit_from_scene
from mipoison.serving.unit import Unit, UnitError, load_unit
from tests.mipoison.serving.helpers import SECRET


@pytest.fixture(scope="module")
def kept(tiny_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "unit"
    unit_from_scene(tiny_scene, "lpa", DEFENSES["lpa"](budget=0.02), about={"setting": "t0001-lpa"}).save(
        folder
    )
    save_victim(tiny_scene.victim, folder)
    return folder


def test_the_kept_victim_and_its_unit_answer_as_the_deployed_defense(kept: Path, tiny_scene: Scene) -> None:
    unit = load_unit(kept, device="cpu")
    assert unit.about["setting"] == "t0001-lpa"
    victim = load_kept_victim(kept, unit)
    x = tiny_scene.split.private_test.x_NCHW
    with torch.no_grad():
        assert torch.equal(victim(x), tiny_scene.victim(x))
    study = deploy(tiny_scene, "lpa", DEFENSES["lpa"](budget=0.02))
    again = unit.wrap(victim, secret=SECRET)(x)
    expected = Unit(**(vars(unit) | {"defense": study.defense})).wrap(tiny_scene.victim, secret=SECRET)(x)
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-6)


def test_weights_that_are_missing_or_others_are_refused(
    kept: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    unit = load_unit(kept, device="cpu")
    with pytest.raises(UnitError, match="is missing"):
        load_kept_victim(tmp_path, unit)
    (tmp_path / VICTIM).write_bytes(b"damaged")
    with pytest.raises(UnitError, match="not this unit's classifier"):
        load_kept_victim(tmp_path, unit)
    state = load_file(kept / VICTIM)
    name = next(n for n, value in state.items() if value.is_floating_point())
    save_file(state | {name: state[name] + 0.5}, tmp_path / VICTIM)
    with pytest.raises(ConfigError, match="another classifier"):
        unit.wrap(load_kept_victim(tmp_path, unit), secret=SECRET)
    save_file({"other": torch.zeros(2)}, tmp_path / VICTIM)
    with pytest.raises(UnitError, match="not this unit's classifier"):
        load_kept_victim(tmp_path, unit)


def test_a_unit_of_the_users_own_classifier_keeps_none(units: dict[str, Unit], tmp_path: Path) -> None:
    with pytest.raises(UnitError, match="--victim module:factory"):
        load_kept_victim(tmp_path, units["rounding"])


def test_a_defense_that_retrains_makes_no_unit(tiny_scene: Scene) -> None:
    with pytest.raises(ConfigError, match="'mid' retrains the victim"):
        unit_from_scene(tiny_scene, "mid", DEFENSES["mid"](), about={})
