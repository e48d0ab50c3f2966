"""One fitted unit of every kind, saved once; queries to ask them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from mipoison.scene import Scene
from mipoison.serving.protect import fit_unit
from mipoison.serving.unit import Unit
from tests.mipoison.defenses.helpers import few_starts
from tests.mipoison.serving.helpers import UNITS


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        few_starts(patch)
        yield


@pytest.fixture(scope="session")
def units(tiny_scene: Scene) -> dict[str, Unit]:
    """Every defense at its defaults, fitted by way of the public function, as the scene's are."""
    with pytest.MonkeyPatch.context() as patch:
        few_starts(patch)
        return fitted_units(tiny_scene)


def fitted_units(tiny_scene: Scene) -> dict[str, Unit]:
    split = tiny_scene.split
    return {
        name: fit_unit(
            tiny_scene.victim,
            private=(split.private_train.x_NCHW, split.private_train.y_N),
            public=(split.attack_train.x_NCHW, split.attack_train.y_N),
            defense=name,
            scale=tiny_scene.config,
            device="cpu",
        )
        for name in UNITS
    }


@pytest.fixture(scope="session")
def queries(tiny_scene: Scene) -> Tensor:
    return tiny_scene.split.private_test.x_NCHW[:21]


@pytest.fixture(scope="session")
def saved(units: dict[str, Unit], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("units")
    for name, unit in units.items():
        unit.save(root / name)
    return root
