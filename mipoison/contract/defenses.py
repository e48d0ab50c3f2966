"""The contract of defenses. Each check raises :class:`mipoison.contract.cases.Broken`.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mipoison.certificates.observation import UNSTATED, Uncertifiable
from mipoison.config import Config, ConfigError, Plain
from mipoison.contract.cases import (
    Broken,
    DefenseCase,
    protect,
    require,
    require_close,
    require_equal,
    require_label,
    require_released,
)
from mipoison.contract.views import pictures, vectors, view_of
from mipoison.defenses.pipeline import no_images
from mipoison.protocols import Defense
from mipoison.randomness import QueryRandomness, content_keys, generator

ULP = 2.4e-7
"""What the projections promise in float32: c itself may miss the simplex by a few ulp."""
BUDGETS = (1e-4, 0.01, 0.3, 1.5)
HARD = (
    (0, 0, 1, 0, 0),
    (0.2, 0.2, 0.2, 0.2, 0.2),
    (0.5, 0.5, 0, 0, 0),
    (0.1, 0.4, 0.1, 0.4, 0),
    (1 - 3e-20, 1e-20, 1e-20, 1e-20, 0),
    (1e-38, 1, 1e-38, 1e-40, 0),
    (0.3333333, 0.3333333, 0.3333334, 0, 0),
)
"""One-hot, uniform, tied, tiny tails, and a row that float32 left off the simplex by a few ulp."""


class Watched(QueryRandomness):
    """Keyed random numbers that note whether any were drawn."""

    drawn = False

    def uniform(self, width: int, stream: str) -> Tensor:
        self.drawn = True
        return super().uniform(width, stream)


def draws(defense: Defense, c_NK: Tensor, x_NCHW: Tensor) -> bool:
    """Whether it draws while it protects vectors that are all picked."""
    rng = Watched(content_keys(x_NCHW, b"secret"))
    defense.protect(c_NK, x_NCHW, torch.ones(len(c_NK), dtype=torch.bool), rng=rng)
    return rng.drawn


def configuration(case: DefenseCase) -> None:
    """The configuration survives JSON, and its knobs are fields with bounds that it accepts."""
    config = case.config()
    flat = config.flat("defense")
    again = case.config.from_flat(json.loads(json.dumps(flat)), "defense")
    require(again == config, f"{config} is {again} after JSON")
    require(again.digest() == config.digest(), "its digest changes with a trip through JSON")
    for name, knob in case.config.KNOBS.items():
        require(name in case.config.field_kinds(), f"knob {name!r} is no field")
        for value in knob.choices if knob.choices is not None else (knob.low, knob.high):
            require(value is not None, f"knob {name!r} has neither choices nor both bounds")
            _accepts(case.config, name, int(value) if knob.integer else value)  # type: ignore[arg-type]
    require(bool(case.config.summary()), "the configuration has no docstring, which tables show")


def _accepts(config: type[Config], name: str, value: Plain) -> None:
    try:
        config.from_flat({name: value})
    except ConfigError as error:
        raise Broken(f"knob {name!r} may be {value!r}, which the configuration refuses: {error}") from error


def simplex(case: DefenseCase) -> None:
    """Released rows are on the simplex, and what was handed over is unchanged."""
    c, x = case.c_NK, case.x_NCHW
    before = (c.clone(), x.clone())
    picked = case.defense.pick(c)
    kept = picked.clone()
    z = protect(case.defense, c, x, picked)
    require_released(z, c)
    require_equal(c, before[0], "protect changed the clean vectors that it was given")
    require_equal(x, before[1], "protect changed the images that it was given")
    require_equal(picked, kept, "protect changed the mask that it was given")
    require(z.data_ptr() != c.data_ptr(), "protect returned the clean vectors' memory: return a copy")


def hard_vectors(case: DefenseCase) -> None:
    """Corners, ties and tiny tails are released on the simplex."""
    c = torch.tensor(HARD)
    z = protect(case.defense, c, pictures(len(c), case.scene.split.image_shape))
    require_released(z, c)
    if case.defense.keeps_label:
        require_label(z, c, " among corners, ties and tiny tails")


def label(case: DefenseCase) -> None:
    """The label is kept where that is promised."""
    require(isinstance(case.defense.keeps_label, bool), "keeps_label is no bool")
    if case.defense.keeps_label:
        require_label(case.released_NK, case.c_NK)


def largest_settings(case: DefenseCase) -> None:
    """At the largest value of every knob rows are on the simplex, and labels kept where promised."""
    knobs = case.config.KNOBS.items()
    high = {name: knob.high for name, knob in knobs if knob.high is not None}
    changes: dict[str, Any] = {
        name: int(v) if case.config.KNOBS[name].integer else v for name, v in high.items()
    }
    defense = case.fit(**changes)
    z = protect(defense, case.c_NK, case.x_NCHW)
    require_released(z, case.c_NK)
    if defense.keeps_label:
        require_label(z, case.c_NK, " at the largest settings")


def deterministic(case: DefenseCase) -> None:
    """Under the same keys the answers are the same, to the bit."""
    again = protect(case.defense, case.c_NK, case.x_NCHW)
    require_equal(
        again, case.released_NK, "two calls under the same keys differ: draw from the rng that is handed over"
    )


def deterministic_fit(case: DefenseCase) -> None:
    """Fitted again under the same generator it answers the same, to the bit."""
    again = protect(case.fit(), case.c_NK, case.x_NCHW)
    require_equal(again, case.released_NK, "fitted twice under one generator it answers differently")


def declares_draws(case: DefenseCase) -> None:
    """It draws random numbers if and only if it declares so."""
    drawn = draws(case.defense, case.c_NK, case.x_NCHW)
    require(
        drawn is case.defense.draws,
        f"it {'drew' if drawn else 'drew no'} random numbers, and declares draws = {case.defense.draws}",
    )


def declares_images(case: DefenseCase) -> None:
    """Other images change the answers of those alone that declare to read them."""
    c, x = case.c_NK, case.x_NCHW
    picked, rng = case.defense.pick(c), QueryRandomness(content_keys(x, b"secret"))
    own, other = (case.defense.protect(c, images, picked, rng=rng) for images in (x, x.roll(1, 0)))
    changed = bool((own != other).any())
    if changed and not case.defense.reads_image:
        raise Broken("other images give other answers, and it declares reads_image = False")
    if not changed and case.defense.reads_image and not case.reads_seldom:
        raise Broken("other images give the same answers, and it declares reads_image = True")


def shape_alone(case: DefenseCase) -> None:
    """One that does not read images needs nothing of them but their shape."""
    if case.defense.reads_image:
        return
    rng = QueryRandomness(content_keys(case.x_NCHW, b"secret"))
    z = case.defense.protect(case.c_NK, no_images(case.x_NCHW), case.defense.pick(case.c_NK), rng=rng)
    require_equal(z, case.released_NK, "without images it answers differently")


def batch_independence(case: DefenseCase) -> None:
    """An answer does not depend on the other queries of the batch, unless it declares to couple them."""
    if case.coupled:
        return
    c, x, whole = case.c_NK, case.x_NCHW, case.released_NK
    order = torch.randperm(len(c), generator=generator(0, "order"))
    said = "an answer depends on the other queries of its batch: set couples = True where that is meant"
    require_close(protect(case.defense, c[order], x[order]), whole[order], said)
    require_close(protect(case.defense, c[7:20], x[7:20]), whole[7:20], said)
    require_close(protect(case.defense, c[3:4], x[3:4]), whole[3:4], said)


def pickles(case: DefenseCase) -> None:
    """After fitting it can be pickled, as it is sent between processes."""
    again = pickle.loads(pickle.dumps(case.defense))
    require_equal(
        protect(again, case.c_NK, case.x_NCHW),
        case.released_NK,
        "pickled and unpickled it answers differently",
    )


def keeps_state(case: DefenseCase) -> None:
    """``load_state`` of a new object gives the answers of the one whose ``state`` it was."""
    if case.defense.retrains:
        return
    state = {name: value.clone() for name, value in case.defense.state().items()}
    again = case.make()
    again.load_state(state)
    require(set(again.state()) == set(state), "state() has other names after load_state()")
    ask = case.scene.view().ask
    again = again if ask is None else again.behind(ask)
    require_close(
        protect(again, case.c_NK, case.x_NCHW),
        case.released_NK,
        "from its saved state it answers differently: state() lacks something that fit() leaves",
        1e-4,
    )


def small_batches(case: DefenseCase) -> None:
    """It answers an empty batch and a batch of one."""
    c, x = case.c_NK, case.x_NCHW
    require(case.defense.pick(c[:0]).shape == (0,), "pick of no vector is no empty mask")
    require_released(protect(case.defense, c[:0], x[:0]), c[:0])
    require_released(protect(case.defense, c[:1], x[:1]), c[:1])


def mask(case: DefenseCase) -> None:
    """``pick`` is a mask, the same each time, and what it leaves out stays as it is."""
    c = case.c_NK
    picked = case.defense.pick(c)
    require(picked.dtype == torch.bool and picked.shape == (len(c),), "pick returns no mask (N,) of bool")
    require_equal(picked, case.defense.pick(c), "pick differs from call to call")
    if not bool(picked.all()):
        require_equal(case.released_NK[~picked], c[~picked], "vectors that were not picked changed")


def without_gradients(case: DefenseCase) -> None:
    """It answers the same where gradients are off."""
    expected = case.released_NK
    with torch.no_grad():
        got = protect(case.defense, case.c_NK, case.x_NCHW)
    require_equal(got, expected, "inside torch.no_grad() it answers differently")


def numbers_of_classes(case: DefenseCase) -> None:
    """It protects vectors over 2, 3 and 40 classes."""
    for k in (2, 3, 40):
        defense = case.fit(view_of(k, case.scene.split.image_shape))
        c, x = vectors(25, k), pictures(25, case.scene.split.image_shape)
        z = protect(defense, c, x)
        require_released(z, c)
        if defense.keeps_label:
            require_label(z, c, f" over {k} classes")


def alignment(case: DefenseCase) -> None:
    """``alignment`` is a cosine, or None; None for no vectors."""
    value = case.defense.alignment(case.c_NK, case.x_NCHW)
    require(value is None or -1 <= value <= 1, f"alignment = {value}: must be a cosine or None")
    nothing = case.defense.alignment(case.c_NK[:0], case.x_NCHW[:0])
    require(nothing is None, f"alignment of no vectors is {nothing}: must be None")


def budget(case: DefenseCase) -> None:
    """A budget bounds the l2 distance to the clean vector, and 0 releases that vector to the bit."""
    if not case.budgeted:
        return
    shape = case.scene.split.image_shape
    for bound in BUDGETS:
        fitted = case.fit(budget=bound)
        for c, x in ((case.c_NK, case.x_NCHW), (vectors(60, sharpness=6.0), pictures(60, shape))):
            z = protect(fitted, c, x)
            far = float((z.double() - c.double()).norm(dim=1).max())
            require(far <= bound + 2 * ULP, f"budget {bound:g}, and a vector moved by {far:g}")
    defense = case.fit(budget=0.0)
    for c, x in ((case.c_NK, case.x_NCHW), (vectors(60, sharpness=40.0), pictures(60, shape))):
        require_equal(protect(defense, c, x), c, "with budget 0 it does not release the clean vectors")


def observation(case: DefenseCase) -> None:
    """It states what one answer can tell of its image, or why there is no certificate."""
    stated = case.defense.observation(case.c_NK, case.released_NK)
    if isinstance(stated, Uncertifiable):
        require(
            bool(stated.reason) and stated.reason != UNSTATED,
            "no certificate and no reason: set uncertifiable, or override observation",
        )
    else:
        require(len(stated) == len(case.c_NK), "the observation has another number of rows than the vectors")


DEFENSE_CHECKS: tuple[Callable[[DefenseCase], None], ...] = (
    configuration,
    simplex,
    hard_vectors,
    label,
    largest_settings,
    deterministic,
    deterministic_fit,
    declares_draws,
    declares_images,
    shape_alone,
    batch_independence,
    pickles,
    keeps_state,
    small_batches,
    mask,
    without_gradients,
    numbers_of_classes,
    alignment,
    budget,
    observation,
)
"""All checks of a defense; the docstring of each is the promise."""
