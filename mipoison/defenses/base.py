"""Base classes and settings that most defenses share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mipoison.alignment import Engine, make_engine
from mipoison.certificates.observation import COUPLED, RETRAINED, UNSTATED, Observation, Uncertifiable
from mipoison.config import Config
from mipoison.defenses.state import State, decoder_from, decoder_state, list_from, list_state
from mipoison.models.inversion import InversionNet, SubstituteConfig
from mipoison.protocols import DefenderView, Defense
from mipoison.randomness import QueryRandomness

Randomness = Literal["keyed", "fresh"]
"""``keyed``: the same image gets the same noise, keyed by a secret. ``fresh``: new noise each time."""

Law = Literal["sphere", "gaussian"]
"""How noise is drawn. ``sphere``: uniform directions, each as long as the budget. ``gaussian``: normal, its
root mean square length the budget; what is released depends on the noisy vector and the label alone, so that
a certificate can be computed (a fixed length has none: the length of a residual names the image)."""


@dataclass(frozen=True, kw_only=True)
class DescentConfig(Config):
    """Settings shared by the defenses that descend on an objective inside the budget.

    Attributes:
        budget: l2 bound of the perturbation, [0, 1.5].
        rounds: rounds R, 0 to 1000.
        step: length of a step relative to the budget, alpha in (0, 2].
        randomness: ``keyed`` or ``fresh`` start of the perturbation.
    """

    budget: float = 0.01
    rounds: int = 10
    step: float = 0.2
    randomness: Randomness = "keyed"

    def validate(self) -> None:
        self.require("budget", 0 <= self.budget <= 1.5, "between 0 and 1.5 (l2 norm)")
        self.require("rounds", 0 <= self.rounds <= 1000, "between 0 and 1000")
        self.require("step", 0 < self.step <= 2, "above 0 and at most 2 (times the budget)")


@dataclass(frozen=True, kw_only=True)
class AlignedConfig(DescentConfig):
    """Settings shared by the defenses that align with one substitute inversion model.

    Attributes:
        budget, rounds, step, randomness: see DescentConfig.
        substitute_features: input of the substitute inversion model, ``log`` or ``raw`` scores.
        substitute_extra_blocks: its TCNN blocks beyond the standard number, 0 to 3.
        substitute_data: what it is trained on: ``D1``, ``D2`` (halves) or ``all`` of D_inv.
    """

    substitute_features: Literal["log", "raw"] = "log"
    substitute_extra_blocks: int = 0
    substitute_data: Literal["D1", "D2", "all"] = "D1"

    def validate(self) -> None:
        super().validate()
        self.require("substitute_extra_blocks", 0 <= self.substitute_extra_blocks <= 3, "between 0 and 3")

    def substitute(self) -> SubstituteConfig:
        """The substitute's configuration."""
        return SubstituteConfig(
            features=self.substitute_features,
            extra_blocks=self.substitute_extra_blocks,
            data=self.substitute_data,
        )


class AlignedDefense:
    """A defense with a substitute, a target gradient, and an engine that aligns with it.

    The engine is kept for as long as substitute and target stay the same objects.
    """

    substitute: InversionNet
    target: list[Tensor]
    _engine: Engine | None = None

    def engine_for(self, name: str, scope: str = "sample", objective: str = "cosine") -> Engine:
        """The engine, made at first use. Its ``name`` says which one ``auto`` chose."""
        if self._engine is None or not self._engine.serves(self.substitute, self.target):
            self._engine = make_engine(name, self.substitute, self.target, scope=scope, objective=objective)
        return self._engine

    def mean_cosine(self, c_NK: Tensor, x_NCHW: Tensor, scope: str = "sample") -> float | None:
        """Mean cosine to the target, always computed by the reference engine; None for no vectors."""
        if len(c_NK) == 0:
            return None
        engine = make_engine("double-backward", self.substitute, self.target, scope=scope)
        return float(engine.align(c_NK, x_NCHW).cosine_N.mean())


class BaseDefense:
    """A defense that needs no fitting, may change every vector and draws nothing.

    Subclasses implement :meth:`protect`, and override what differs. The attributes are those of
    :class:`mipoison.protocols.Defense`.
    """

    keeps_label: bool = True
    draws: bool = False
    fresh: bool = False
    retrains: bool = False
    couples: bool = False
    reads_image: bool = False
    asks_again: bool = False
    uncertifiable: str = UNSTATED
    """Why there is no certificate, for defenses that do not state an observation of their own."""

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Does nothing."""

    def state(self) -> dict[str, Tensor]:
        """The tensors that :meth:`fit` left and :meth:`protect` needs, by name. Never a secret."""
        return {}

    def load_state(self, state: State) -> None:
        """Take over what :meth:`state` returned, in place of :meth:`fit`.

        Args:
            state: tensors on the device to compute on.

        Raises:
            KeyError, ValueError, RuntimeError: these are not this defense's tensors.
        """

    def behind(self, ask: Callable[[Tensor], Tensor]) -> Defense:
        """Itself: it protects without asking the classifier again."""
        return self

    def pick(self, c_NK: Tensor) -> Tensor:
        """All vectors (S(x) = 1 in Eq. 3)."""
        return torch.ones(len(c_NK), dtype=torch.bool, device=c_NK.device)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        """Released vectors (N, K) of one chunk."""
        raise NotImplementedError

    def alignment(self, c_NK: Tensor, x_NCHW: Tensor) -> float | None:
        """Mean cosine of these vectors' gradients to the target gradient; None if there is no target."""
        return None

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation | Uncertifiable:
        """All that one release can tell of its image; here: no certificate, and why."""
        if self.retrains or self.couples:
            return Uncertifiable(RETRAINED if self.retrains else COUPLED)
        return Uncertifiable(self.uncertifiable)


class SubstituteDefense(BaseDefense):
    """A defense that keeps one substitute, and possibly a target gradient (one tensor a parameter).

    It reads the image, which the substitute's gradients are of; a subclass that does not says so.
    """

    reads_image = True

    substitute: InversionNet
    target: list[Tensor]

    def state(self) -> dict[str, Tensor]:
        return decoder_state("substitute", self.substitute) | list_state(
            "target", getattr(self, "target", [])
        )

    def load_state(self, state: State) -> None:
        self.substitute = decoder_from(state, "substitute")
        self.target = list_from(state, "target")
