"""Fitting a unit: what it cannot use is refused; the caller's context does not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.defenses.lpa import LPAConfig
from mipoison.defenses.rounding import RoundingConfig
from mipoison.scene import Scene
from mipoison.serving.protect import fit_unit
from mipoison.serving.unit import Unit, load_unit
from tests.mipoison.serving.helpers import SECRET, rounding, served


def test_fitting_refuses_what_it_cannot_use(tiny_scene: Scene) -> None:
    x, y, victim = (
        tiny_scene.split.private_train.x_NCHW,
        tiny_scene.split.private_train.y_N,
        tiny_scene.victim,
    )

    def refused(said: str, **changes: object) -> None:
        arguments = {"private": (x, y), "public": x, "defense": "rounding", "device": "cpu"} | changes
        with pytest.raises(ConfigError, match=said) as caught:
            fit_unit(victim, **arguments)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    refused("unknown defense 'mid'", defense="mid")
    refused("did you mean 'lpa'", defense="lpaa")
    refused("takes RoundingConfig", config=LPAConfig())
    refused("public: images", public=x[:, :, :8])
    refused("at least 4 images", public=x[:3])
    refused(r"in \[0, 1\]", public=x * 3)
    refused("private labels", private=(x, y + 1))
    refused("private labels", private=(x, y[:-1]))
    refused("no better than chance", private=(x, (y + 1) % 5))
    refused("unknown scale", defense="lpa", scale="huge")
    refused("has no setting 'decimal' .did you mean 'decimals'.{1,4} it takes decimals", decimal=1)
    refused("has no setting 'budgett' .did you mean 'budget'.{1,4} it takes budget = .*searched: ",
            defense="noise", config={"budgett": 0.1})  # fmt: skip
    refused(
        r"fit_unit takes no secret.*unit.wrap.model, secret=", defense="noise", secret=b"0123456789abcdef"
    )
    refused("must be", decimals=99)
    refused("config is a list: give a dictionary", config=[1])
    wide = torch.rand(8, 1, 16, 20)
    refused("fails on images", private=wide, public=wide)


def test_settings_by_name_as_a_dictionary_or_as_a_configuration(tiny_scene: Scene) -> None:
    x, victim = tiny_scene.split.private_train.x_NCHW, tiny_scene.victim
    made = [
        fit_unit(victim, private=x, public=x, defense="rounding", device="cpu", **how)  # type: ignore[arg-type]
        for how in (
            {"steps": 10},
            {"config": {"steps": 10}},
            {"config": RoundingConfig(steps=10)},
            {"config": RoundingConfig(steps=3), "steps": 10},
        )
    ]
    assert [unit.config for unit in made] == 4 * [RoundingConfig(steps=10)]


def test_images_of_any_size_where_no_substitute_is_needed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 4))
    x = torch.rand(30, 3, 28, 30)
    unit = fit_unit(model, private=x, public=x, defense="tail-noise", device="cpu")
    released = unit.wrap(model, secret=SECRET)(x)
    assert torch.equal(released.argmax(1), model(x).argmax(1))
    with pytest.raises(ConfigError, match=r"28x30.*16x16, 32x32, 64x64"):
        fit_unit(model, private=x, public=x, defense="lpa", device="cpu")


@pytest.mark.parametrize("name", ["lpa", "purifier", "memguard", "mad"])
def test_fitting_does_not_depend_on_the_callers_context(
    name: str, units: dict[str, Unit], saved: Path, tiny_scene: Scene, queries: Tensor
) -> None:
    split = tiny_scene.split
    with served():
        unit = fit_unit(
            tiny_scene.victim, defense=name, scale=tiny_scene.config, device="cpu",
            private=(split.private_train.x_NCHW.clone(), split.private_train.y_N),
            public=(split.attack_train.x_NCHW, split.attack_train.y_N),
        )  # fmt: skip
        loaded = load_unit(saved / name, device="cpu")
    meant = units[name].wrap(tiny_scene.victim, secret=SECRET)(queries)
    for one in (unit, loaded):
        released = one.wrap(tiny_scene.victim, secret=SECRET)(queries)
        assert torch.allclose(released, meant, atol=rounding(name))


def test_settings_by_name(tiny_scene: Scene) -> None:
    x = tiny_scene.split.private_train.x_NCHW
    unit = fit_unit(
        tiny_scene.victim, private=x, public=x, defense="rounding", config={"decimals": np.int32(1)},
        seed=np.int64(3), device="cpu",
    )  # fmt: skip
    assert unit.config == RoundingConfig(decimals=1)
    assert type(unit.config.decimals) is int  # type: ignore[attr-defined]
    assert unit.about["seed"] == 3
    assert type(unit.about["seed"]) is int


def test_folders_and_secrets_that_are_none(units: dict[str, Unit], tiny_scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (None, 5, "", tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError):
            units["rounding"].save(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError):
            load_unit(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="secret is a int"):
        units["lpa"].wrap(tiny_scene.victim, secret=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="def forward"):
        units["rounding"].wrap(tiny_scene.victim.forward)
    with pytest.raises(ConfigError, match="4 outputs, the data 5"):
        units["rounding"].wrap(nn.Sequential(tiny_scene.victim, nn.Linear(5, 4)), any_model=True)
