"""The contract of attackers. Each check raises :class:`mipoison.contract.cases.Broken`.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import gc
import json
import pickle
import re
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mipoison.contract.cases import AttackerCase, Broken, require, require_equal
from mipoison.contract.views import pictures
from mipoison.scene import Scene
from mipoison.service import DefendedService

SKIPPED = (
    type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, types.FrameType,
)  # fmt: skip
"""What :func:`reachable` does not walk through."""


class Spy:
    """An oracle that answers uniform vectors, and keeps what it was asked."""

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self.asked: list[Tensor] = []

    @property
    def queries(self) -> int:
        """Number of images asked so far."""
        return sum(len(x) for x in self.asked)

    def query(self, x_NCHW: Tensor) -> Tensor:
        """Vectors (N, K) that say nothing of the image but its brightness."""
        self.asked.append(x_NCHW.clone())
        b = x_NCHW.mean((1, 2, 3)).clamp(0.02, 0.98)
        rest = (1 - b)[:, None].expand(-1, self.n_classes - 1) / (self.n_classes - 1)
        return torch.cat([b[:, None], rest], 1)


def reachable(start: Any) -> list[Any]:
    """All objects that an object refers to, directly or not, except classes, modules and functions."""
    seen: set[int] = set()
    queue, found = [start], []
    while queue:
        item = queue.pop()
        if id(item) in seen or isinstance(item, SKIPPED):
            continue
        seen.add(id(item))
        found.append(item)
        queue += gc.get_referents(item)
        queue += list(getattr(item, "__dict__", {}).values())
    return found


def configuration(case: AttackerCase) -> None:
    """The configuration survives JSON, and has a docstring, which tables show."""
    flat = json.loads(json.dumps(case.config.flat("attack")))
    again = type(case.config).from_flat(flat, "attack")
    require(again == case.config, f"{case.config} is {again} after JSON")
    require(again.digest() == case.config.digest(), "its digest changes with a trip through JSON")
    require(bool(case.config.summary()), "the configuration has no docstring, which tables show")
    require(case.config.COST in (0, 1, 2), f"COST = {case.config.COST}: must be 0, 1 or 2")


def images(case: AttackerCase) -> None:
    """Reconstructions are float32 images on the CPU, in [0, 1], and the vectors stay as they are."""
    attack = case.fitted[0]
    for n in (0, 1, 7):
        c = case.scene.clean["private_train"][:n].clone()
        before = c.clone()
        _require_images(case, attack.reconstruct(c), n)
        require_equal(c, before, "reconstruct changed the vectors that it was given")


def corners(case: AttackerCase) -> None:
    """One-hot and uniform vectors are reconstructed, too."""
    k = case.scene.split.n_classes
    out = case.fitted[0].reconstruct(torch.cat([torch.eye(k), torch.full((1, k), 1 / k)]))
    _require_images(case, out, k + 1)


def _require_images(case: AttackerCase, out: Tensor, n: int) -> None:
    shape = (n, *case.scene.split.image_shape)
    require(out.shape == shape, f"reconstructions of shape {tuple(out.shape)}: must be {shape}")
    require(out.dtype == torch.float32, f"reconstructions are {out.dtype}: must be torch.float32")
    require(out.device.type == "cpu", f"reconstructions are on {out.device}: must be on the CPU")
    require(not out.requires_grad, "reconstructions require gradients: detach them")
    require(bool(((out >= 0) & (out <= 1)).all()), "pixels of reconstructions leave [0, 1]: clamp them")


def _watched(case: AttackerCase) -> tuple[Tensor, Tensor, Spy]:
    """The images before and after a training on 20 of them, and the oracle that it asked."""

    def make() -> tuple[Tensor, Tensor, Spy]:
        x, spy = case.x_NCHW[:20], Spy(case.scene.split.n_classes)
        before = x.clone()
        case.fit(x, spy)
        return before, x, spy

    return case.once("watched", make)


def leaves_images(case: AttackerCase) -> None:
    """Training leaves the attacker's images as they are."""
    before, after, _ = _watched(case)
    require_equal(after, before, "fit changed the images that it was given")


def _reconstructed(case: AttackerCase, seed: int, global_seed: int = 1) -> Tensor:
    """Nine reconstructions after a training on 30 images, under a seed and a global random state."""

    def make() -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            attack = case.fit(case.x_NCHW[:30], case.oracle(), seed)
            return attack.reconstruct(case.scene.clean["private_train"][:9])

    return case.once(f"reconstructed {seed} {global_seed}", make)


def deterministic(case: AttackerCase) -> None:
    """The same seed gives the same reconstructions, whatever the global random state; another seed others."""
    one, two = _reconstructed(case, 0), _reconstructed(case, 0, global_seed=2)
    require_equal(one, two, "under one seed it reconstructs differently: draw from rng alone")
    if case.draws_nothing and not torch.equal(one, _reconstructed(case, 1)):
        raise Broken("it draws, and is listed as one that draws nothing")


def draws(case: AttackerCase) -> None:
    """Another seed gives other reconstructions, unless it is known to draw nothing."""
    if case.draws_nothing or case.may_draw_nothing:
        return
    same = torch.equal(_reconstructed(case, 0), _reconstructed(case, 1))
    require(not same, "another seed gives the same reconstructions")


def _trained_on_twelve(case: AttackerCase) -> tuple[Tensor, Tensor]:
    """The global random state before and after a training on twelve pictures and three reconstructions."""

    def make() -> tuple[Tensor, Tensor]:
        before = torch.get_rng_state()
        x = pictures(12, case.scene.split.image_shape)
        case.fit(x, Spy(case.scene.split.n_classes)).reconstruct(case.scene.clean["private_train"][:3])
        return before, torch.get_rng_state()

    return case.once("trained on twelve", make)


def global_state(case: AttackerCase) -> None:
    """It leaves the global random state alone."""
    before, after = _trained_on_twelve(case)
    require_equal(after, before, "it draws from torch's global generator: use rng")


def pickles(case: AttackerCase) -> None:
    """After training it can be pickled, as it is sent between processes."""
    c = case.scene.clean["private_train"][:9]
    one, two = (pickle.loads(pickle.dumps(case.fitted[0])).reconstruct(c) for _ in range(2))
    require_equal(one, two, "two unpickled copies reconstruct differently")


def asks(case: AttackerCase) -> None:
    """It asks about its own images at least once, through the oracle that counts."""
    x = case.x_NCHW
    asked = case.fitted[1].queries
    require(asked >= len(x), f"it asked {asked} times about {len(x)} images of its own")


def too_few_images(case: AttackerCase) -> None:
    """Too few images are a ValueError that names the least number; twelve are enough."""
    shape, k = case.scene.split.image_shape, case.scene.split.n_classes
    for n in (0,) if case.draws_nothing else (0, 1, 3):
        try:
            case.fit(pictures(n, shape), Spy(k))
        except ValueError as error:
            told = re.search(rf"at least \d+ images?\b.*got {n}", str(error))
            require(
                told is not None, f"its error of {n} images is {error}: say 'at least ... images, got {n}'"
            )
        else:
            raise Broken(f"{n} images are accepted: raise a ValueError")
    _trained_on_twelve(case)


def own_images(case: AttackerCase) -> None:
    """It asks about images that it holds or derives from them, never about private ones."""
    spy = _watched(case)[2]
    private = {row.numpy().tobytes() for row in case.scene.split.private_train.x_NCHW}
    asked = {row.numpy().tobytes() for x in spy.asked for row in x}
    require(not private & asked, "it asked about a private image")


def nothing_of_the_defender(case: AttackerCase) -> None:
    """Nothing that it holds is the defender's: no service, model, private image or clean vector."""
    things = reachable(case.fitted[0])
    held = any(isinstance(thing, DefendedService | Scene) for thing in things)
    require(not held, "it holds the defended service or the scene")
    models = [case.scene.victim, case.scene.evaluator, case.scene.open_evaluator]
    require(not any(t is m for t in things for m in models), "it holds a classifier of the scene")
    kept = {t.detach().cpu().numpy().tobytes() for t in things if isinstance(t, Tensor) and t.numel() > 20}
    secrets = [p for m in models for p in m.state_dict().values() if p.numel() > 20]
    for part in (case.scene.split.private_train, case.scene.split.private_test):
        secrets += [part.x_NCHW, *part.x_NCHW]
    secrets += [case.scene.clean["private_train"], case.scene.clean["private_test"]]
    found = kept & {s.numpy().tobytes() for s in secrets}
    require(not found, "it holds weights, private images or clean vectors of the scene")


ATTACKER_CHECKS: tuple[Callable[[AttackerCase], None], ...] = (
    configuration,
    images,
    corners,
    leaves_images,
    deterministic,
    draws,
    global_state,
    pickles,
    asks,
    too_few_images,
    own_images,
    nothing_of_the_defender,
)
"""All checks of an attacker; the docstring of each is the promise."""
