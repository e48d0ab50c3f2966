"""What the contract's checks are given: a configuration, a scene to try it on, and what is known of it.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from mipoison.attacks.sizes import DEFAULT_SIZES, sized
from mipoison.config import Config, one_line
from mipoison.defenses import DEFENSES
from mipoison.deployment import Deployment, deploy
from mipoison.protocols import Attack, DefenderView, Defense, Oracle, ThreatModel
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import Scene
from mipoison.scene_config import SceneConfig
from mipoison.service import MeteredOracle
from mipoison.simplex import label_of

SMALL_SCENE: Mapping[str, Any] = {
    "limit": 100, "victim_width": 8, "victim_hidden": 16, "victim_steps": 150, "victim_batch": 32,
    "decoder_width": 4, "decoder_steps": 60, "decoder_batch": 32, "decoder_lr": 1e-2,
}  # fmt: skip
"""Settings of a scene of digits that trains in seconds. A contract does not need a good victim."""
FEW = {"steps": 15, "folds": 2, "each": 3, "mixed": 30, "simulated": 2000}
"""Training steps and folds of an attacker that is checked: it need not be good."""


Made = TypeVar("Made")


class Broken(AssertionError):
    """A promise of the contract that is not kept; says which, and by what."""


def require(kept: bool, what: str) -> None:
    """Raise Broken unless something is so."""
    if not kept:
        raise Broken(what)


def small_scene_config() -> SceneConfig:
    """The settings of :data:`SMALL_SCENE`."""
    return SceneConfig(**SMALL_SCENE)


@dataclass
class DefenseCase:
    """A defense under test.

    Attributes:
        name: for messages and random streams. config: its configuration class. scene: a prepared scene.
        couples: whether answers depend on the other queries of a chunk, beside what it declares.
        reads_seldom: whether the image matters so rarely that other images may give the same answers.
        other_centre: whether its budget bounds the distance to another vector than the clean one.
        rows: most of the attacker's images that are asked. changes: settings in place of the defaults.
    """

    name: str
    config: type[Config]
    scene: Scene
    couples: bool = False
    reads_seldom: bool = False
    other_centre: bool = False
    rows: int = 50
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def make(self, **changes: Any) -> Defense:
        """A new defense that is not fitted."""
        defense: Defense = self.config(**{**self.changes, **changes}).make()
        return defense

    def fit(self, view: DefenderView | None = None, **changes: Any) -> Defense:
        """A new defense with changed settings, fitted on the scene, or on another view."""
        defense = self.make(**changes)
        defense.fit(view or self.scene.view(), rng=generator(0, "defense", self.name))
        return defense

    @functools.cached_property
    def defense(self) -> Defense:
        """The defense, fitted."""
        return self.fit()

    @property
    def c_NK(self) -> Tensor:
        """Clean vectors of the attacker's images."""
        return self.scene.clean["attack_train"][: self.rows].clone()

    @property
    def x_NCHW(self) -> Tensor:
        """These images."""
        return self.scene.split.attack_train.x_NCHW[: self.rows].clone()

    @functools.cached_property
    def released_NK(self) -> Tensor:
        """What the defense releases of them."""
        return protect(self.defense, self.c_NK, self.x_NCHW)

    @property
    def coupled(self) -> bool:
        """Whether an answer may depend on the other queries of its chunk or request."""
        return self.couples or self.defense.couples

    @property
    def budgeted(self) -> bool:
        """Whether it has a budget around the clean vector."""
        return "budget" in self.config.field_kinds() and not self.other_centre


@dataclass
class AttackerCase:
    """An attacker under test.

    Attributes:
        name: for messages. config: its configuration. scene: a prepared scene.
        draws_nothing: answers the same for every seed, from one image on.
        may_draw_nothing: its draws may not show on few images.
        made: what several checks look at, by name; made by the first of them.
    """

    name: str
    config: Config
    scene: Scene
    draws_nothing: bool = False
    may_draw_nothing: bool = False
    made: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def small(self) -> Config:
        """The configuration with the scene's sizes, and few steps and folds."""
        config = sized(self.config, {n: getattr(self.scene.config, f"decoder_{n}") for n in DEFAULT_SIZES})
        return dataclasses.replace(config, **{k: n for k, n in FEW.items() if k in config.field_kinds()})

    @functools.cached_property
    def deployment(self) -> Deployment:
        """Lightly noised answers of the scene's service."""
        return deploy(self.scene, "noise", DEFENSES["noise"]())

    @property
    def x_NCHW(self) -> Tensor:
        """A copy of the attacker's images."""
        return self.scene.split.attack_train.x_NCHW.clone()

    @property
    def known(self) -> ThreatModel:
        """What is public about that defense."""
        return ThreatModel("noise", self.deployment.config.flat(), self.scene.split.image_shape)

    def oracle(self) -> MeteredOracle:
        """A new client of the defended service."""
        return MeteredOracle(self.deployment.service.answer, self.scene.split.n_classes)

    def fit(self, x_NCHW: Tensor, oracle: Oracle, seed: int = 0) -> Attack:
        """A new attacker, trained on these images."""
        attack: Attack = self.small.make()
        attack.fit(oracle, x_NCHW, known=self.known, rng=generator(seed, "attack"))
        return attack

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, made once for all checks that ask for this name."""
        if name not in self.made:
            self.made[name] = make()
        made: Made = self.made[name]
        return made

    @functools.cached_property
    def fitted(self) -> tuple[Attack, MeteredOracle]:
        """The attacker, trained on all of the attacker's images, and the oracle that it asked."""
        oracle = self.oracle()
        return self.fit(self.x_NCHW, oracle), oracle


def protect(
    defense: Defense, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor | None = None, secret: bytes = b"secret"
) -> Tensor:
    """Released vectors of one request, under random numbers keyed by images and secret."""
    picked_N = defense.pick(c_NK) if picked_N is None else picked_N
    return defense.protect(c_NK, x_NCHW, picked_N, rng=QueryRandomness(content_keys(x_NCHW, secret)))


def require_released(z_NK: Tensor, c_NK: Tensor) -> None:
    """Raise Broken unless rows have shape and type of the clean ones and lie on the simplex."""
    require(z_NK.shape == c_NK.shape, f"released shape {tuple(z_NK.shape)}, clean {tuple(c_NK.shape)}")
    require(z_NK.dtype == c_NK.dtype, f"released {z_NK.dtype}, clean {c_NK.dtype}")
    require(z_NK.device == c_NK.device, f"released on {z_NK.device}, clean on {c_NK.device}")
    require(not z_NK.requires_grad, "released vectors require gradients: detach them")
    if len(z_NK):
        require(bool(z_NK.isfinite().all()), "released vectors are not finite")
        require(bool((z_NK >= 0).all()), f"a released score is {float(z_NK.min()):g}: must be at least 0")
        off = float((z_NK.double().sum(1) - 1).abs().max())
        require(off < 1e-5, f"a released vector sums to 1 +- {off:g}: must be within 1e-5")


def require_label(z_NK: Tensor, c_NK: Tensor, where: str = "") -> None:
    """Raise Broken unless every label is kept."""
    changed = int((label_of(z_NK) != label_of(c_NK)).sum())
    require(
        changed == 0,
        f"{changed} of {len(c_NK)} labels changed{where}: keep them, or set keeps_label = False",
    )


def require_equal(one: Tensor, other: Tensor, what: str) -> None:
    """Raise Broken unless two tensors are equal to the bit."""
    if one.shape != other.shape or not torch.equal(one, other):
        raise Broken(what)


def require_close(one: Tensor, other: Tensor, what: str, off: float = 1e-5) -> None:
    """Raise Broken unless two tensors differ by rounding alone."""
    far = float((one - other).abs().max()) if one.numel() else 0.0
    require(far <= off, f"{what} (by up to {far:.2g})")


@dataclass(frozen=True)
class Result:
    """What a check found: its name, what it is about, and what is broken; None if the promise is kept."""

    name: str
    promise: str
    broken: str | None


Case = TypeVar("Case")


def run_checks(case: Case, checks: Iterable[Callable[[Case], None]]) -> list[Result]:
    """Run all checks; one that raises anything is a broken promise."""
    out = []
    for check in checks:
        promise = " ".join((check.__doc__ or "").split("\n\n")[0].split()).rstrip(".")
        try:
            check(case)
        except Broken as error:
            out.append(Result(check.__name__, promise, str(error)))
        except Exception as error:
            out.append(Result(check.__name__, promise, f"raised {one_line(error)}"))
        else:
            out.append(Result(check.__name__, promise, None))
    return out
