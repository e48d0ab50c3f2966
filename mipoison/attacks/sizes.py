"""Sizes of trained attackers: the defaults for configurations that leave them open, and plain numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from mipoison.config import Config, Plain

C = TypeVar("C", bound=Config)

DEFAULT_SIZES: Mapping[str, Plain] = {"width": 16, "steps": 400, "batch": 32, "lr": 5e-3}
"""Channels before the decoder's last block, training steps, images a step, and learning rate: those of the
scale ``quick`` for images of 16x16 pixels."""


def sized(config: C, sizes: Mapping[str, Plain] = DEFAULT_SIZES) -> C:
    """Fill in the sizes that a configuration leaves open (None).

    Args:
        config: an attacker's configuration; one without sizes is returned unchanged.
        sizes: name -> value of the fields width, steps, batch and lr.
    """
    unset = {name: value for name, value in sizes.items() if getattr(config, name, 0) is None}
    return dataclasses.replace(config, **unset)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes that an attacker trains with, none of them open; a configuration's fields explain them."""

    width: int
    steps: int
    batch: int
    lr: float


def sizes_of(config: Config) -> Sizes:
    """The configuration's sizes; those of DEFAULT_SIZES where it leaves one open, or has no such field."""
    values = {name: getattr(config, name, None) for name in DEFAULT_SIZES}
    stated = {name: value for name, value in values.items() if value is not None}
    return Sizes(**{**DEFAULT_SIZES, **stated})
