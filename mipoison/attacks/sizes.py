"""Default sizes of trained attackers, for configurations that leave them open outside a scene."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
