"""The interfaces between defender, attacker and the defended API.

Their signatures are the threat model: what is not an argument is not known. A defense is fitted on the
defender's data (:class:`DefenderView`) and sees each query. An attacker gets the query-counting
:class:`Oracle`, images of its own and what is public (:class:`ThreatModel`).

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
"""Queries per forward pass and per call of ``protect``, however long the request is. So results do not depend
on how the chunks of a request are divided among processes."""


class Trained(Protocol):
    """Trains a part, or loads it where it was trained before with the same settings."""

    def __call__(
        self,
        kind: str,
        settings: Mapping[str, Any],
        make: Callable[[], dict[str, Tensor]],
        like: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """A state dict.

        Args:
            kind: name of the part. settings: all that it depends on, beyond the scene.
            make: trains the part and returns its state dict.
            like: names, shapes and types that the state dict must have: a stored one with others is replaced.
                None: any.
        """
        ...


def train_anew(
    kind: str,
    settings: Mapping[str, Any],
    make: Callable[[], dict[str, Tensor]],
    like: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """A :class:`Trained` that stores nothing."""
    return make()


@dataclass(frozen=True)
class DefenderView:
    """What the defender has, and :meth:`Defense.fit` may use.

    Attributes:
        x_private_NCHW, c_private_NK: private training images (D_cla train) and their clean vectors.
        y_private_N: their labels, for defenses that retrain the victim.
        substitute: trains or loads a substitute inversion model, on clean (vector, image) pairs of the share
            of public images (D_inv) that its configuration names. It is in eval mode and its parameters
            require no gradients.
        substitute_data: clean vectors and images of that share.
        n_classes: K.
        device: where to compute.
        trained: trains or loads other parts. Their settings must name all that they depend on beyond the
            scene. A loaded part draws nothing from ``rng``, so ``fit`` must not use ``rng`` before this call.
        victim: architecture and training of the victim, for defenses that retrain it.
        ask: the victim's clean vectors (N, K), on the CPU, of any images in [0, 1], for defenses that ask it
            again when they protect (see :meth:`Defense.behind`); None where nobody is there to be asked.
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
    ask: Callable[[Tensor], Tensor] | None = None


class Defense(Protocol):
    """A post-processing unit: fitted once, then maps confidence vectors to released vectors.

    Attributes:
        keeps_label: whether the label (index of the first maximum) is kept for every query, by construction.
        draws: whether :meth:`protect` draws random numbers under these settings. If so, answers need a secret
            that keys them, or are ``fresh``. A defense that draws without saying so gets an error.
        fresh: whether a query that is asked again gets newly drawn random numbers.
        retrains: whether it replaces the victim by a retrained one: then it is not a post-processing unit.
        couples: whether an answer depends on the other queries of the same request.
        reads_image: whether :meth:`protect` reads the images, and may thus write parts of them into its
            answers. A defense that says no is given their shape and no pixels.
        asks_again: whether its answer is the classifier's, asked again about the images. What it tells of
            them is then the classifier's doing, not its own.
    """

    keeps_label: bool
    draws: bool
    fresh: bool
    retrains: bool
    couples: bool
    reads_image: bool
    asks_again: bool

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train or compute what :meth:`protect` needs; called once, before any query."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The tensors that :meth:`fit` left and :meth:`protect` needs, by name. Never a secret."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` returned, in place of :meth:`fit`."""
        ...

    def behind(self, ask: Callable[[Tensor], Tensor]) -> Defense:
        """This defense behind a classifier: itself, or a copy that asks this classifier when it protects.

        Args:
            ask: images in [0, 1] to clean vectors (N, K) on the CPU.
        """
        ...

    def pick(self, c_NK: Tensor) -> Tensor:
        """The picking strategy S of Eq. 3: bool (N,), which vectors of one request may be changed."""
        ...

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        """Released vectors of one chunk, on the simplex, of the same shape and dtype. No input changes.

        Args:
            c_NK: clean vectors.
            x_NCHW: the images; their shape alone unless ``reads_image``.
            picked_N: what :meth:`pick` returned for the vectors.
            rng: random numbers, keyed by the images.
        """
        ...

    def alignment(self, c_NK: Tensor, x_NCHW: Tensor) -> float | None:
        """Mean cosine of these vectors' gradients to the target gradient; None if there is no target."""
        ...

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation | Uncertifiable:
        """All that one release can tell of its image, for the certificate; or why there is none.

        Args:
            c_NK: clean vectors of a pool of images. released_NK: what the API answered to them.
        """
        ...


class Oracle(Protocol):
    """The defended API as an attacker sees it. It counts every query."""

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
        defense: name of the deployed defense; None for an attacker that does not know it.
        settings: the defense's settings, which are public, as flat keys. Secret, substitute and data are not.
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
        """Train on the oracle's answers to the attacker's own images."""
        ...

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] for released vectors of images that the attacker has not seen."""
        ...
