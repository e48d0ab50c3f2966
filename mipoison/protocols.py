"""Who knows what: the interfaces between defender, attacker and the defended API.

The signatures are the threat model. A defense sees the defender's side (:class:`DefenderView`) and each
query; an attacker gets the metered :class:`Oracle`, images of its own and what is public
(:class:`ThreatModel`), nothing else.

Shape suffixes: N samples, K classes, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from mipoison.certificates.observation import Observation, Uncertifiable
from mipoison.models.classifier import ClassifierConfig
from mipoison.models.inversion import InversionNet, SubstituteConfig
from mipoison.randomness import QueryRandomness

CHUNK = 128
"""Queries per forward pass and per ``protect`` call, whatever the request's size: so results do not depend on
how a request is sharded."""

Trained = Callable[[str, Mapping[str, Any], Callable[[], dict[str, Tensor]]], dict[str, Tensor]]
"""(kind, settings, make) -> a state dict: made once per scene and settings, or read from the store."""


def train_anew(
    kind: str, settings: Mapping[str, Any], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """A :data:`Trained` without a store."""
    return make()


@dataclass(frozen=True)
class DefenderView:
    """The defender's side, handed to :meth:`Defense.fit`.

    Attributes:
        x_private_NCHW, c_private_NK: private training images (D_cla train), their clean vectors.
        y_private_N: their labels, for defenses that retrain the victim.
        substitute: builds (or loads) a substitute trained on clean pairs of the share of D_inv that its
            configuration names; in eval mode, parameters not requiring gradients.
        substitute_data: reads the public share that a substitute was trained on: images and clean vectors.
        n_classes: K.
        device: where to compute.
        trained: makes or loads parts that :meth:`Defense.fit` trains. Everything that the part depends on
            beyond the scene belongs into its settings; ``rng`` must not be used before it.
        victim: architecture and training of the victim, for defenses that retrain it.
    """

    x_private_NCHW: Tensor
    c_private_NK: Tensor
    y_private_N: Tensor
    substitute: Callable[[SubstituteConfig], InversionNet]
    substitute_data: Callable[[SubstituteConfig], tuple[Tensor, Tensor]]
    n_classes: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    trained: Trained = train_anew
    victim: ClassifierConfig = field(default_factory=ClassifierConfig)


class Defense(Protocol):
    """A post-processing unit: fitted once, then maps confidence vectors to released vectors.

    Attributes:
        keeps_label: whether the label (index of the first maximum) is kept for every query, by construction.
        fresh: whether the same query draws new randomness each time it is asked.
        retrains: whether it answers with another victim: then it is no post-processing unit.
        couples: whether an answer depends on the other queries of the same request.
    """

    keeps_label: bool
    fresh: bool
    retrains: bool
    couples: bool

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Prepare with the defender's data; called once, before any query."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What :meth:`protect` needs of what :meth:`fit` left, by name."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave, in place of :meth:`fit`."""
        ...

    def pick(self, c_NK: Tensor) -> Tensor:
        """The picking strategy S of Eq. 3: bool (N,), which vectors of one request may be touched."""
        ...

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        """Released vectors of one chunk: rows on the simplex, same shape and dtype; inputs untouched."""
        ...

    def alignment(self, c_NK: Tensor, x_NCHW: Tensor) -> float | None:
        """Mean cosine to the defense's target gradient here; None for defenses that align nothing."""
        ...

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation | Uncertifiable:
        """All that one release can tell of its image, for the certificate; or why there is none.

        Args:
            c_NK: clean vectors of a pool of images. released_NK: what the API answered to them.
        """
        ...


class Oracle(Protocol):
    """The defended API as an attacker sees it: images in, released vectors out, every query counted."""

    @property
    def n_classes(self) -> int: ...

    @property
    def queries(self) -> int: ...

    def query(self, x_NCHW: Tensor) -> Tensor:
        """Released vectors (N, K) of images in [0, 1]."""
        ...


@dataclass(frozen=True)
class ThreatModel:
    """What an adaptive attacker knows besides its own queries.

    Attributes:
        defense: name of the deployed defense, or None for an attacker that does not know it.
        settings: the defense's public settings as flat keys; never its secret, substitute or data.
        image_shape: (C, H, W) of the images.
    """

    defense: str | None
    settings: dict[str, Any]
    image_shape: tuple[int, int, int]

    def __str__(self) -> str:
        known = (
            "nothing of the defense"
            if self.defense is None
            else f"defense {self.defense} with {self.settings}"
        )
        return f"black-box oracle, own images of shape {self.image_shape}, knows {known}"


class Attack(Protocol):
    """An inversion attacker."""

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Train on answers of the oracle to the attacker's own images."""
        ...

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] for released vectors of images that the attacker has not seen."""
        ...
