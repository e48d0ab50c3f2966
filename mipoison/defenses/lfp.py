"""LFP: label-flipping poisoning of a few vectors (Zhou et al., Section V-C).

The paper picks a share of a batch. A server answers single requests, and a small share of one query is no
query: an attacker who asks one image at a time would get clean vectors. So by default each query is picked by
itself, by a coin toss that the secret keys. The paper's choice is ``picks="request"``.

Shape suffixes: N queries, K classes, CHW image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.alignment import EngineName, target_gradient
from mipoison.certificates.observation import BENT
from mipoison.config import Knob, Plain
from mipoison.defenses.base import AlignedConfig, AlignedDefense, SubstituteDefense
from mipoison.defenses.descent import unit_rows
from mipoison.defenses.noise import random_direction
from mipoison.defenses.state import State
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import label_of, project_release, project_tangent


@dataclass(frozen=True, kw_only=True)
class LFPConfig(AlignedConfig):
    """Label-flipping poisoning: reverses the ranks of a few vectors, then aligns them.

    Attributes:
        ratio: share of the vectors that are poisoned, in (0, 1).
        threshold: candidates have a maximum below it, in (0, 1].
        picks: ``query``: each candidate is picked by its own keyed coin toss, with the probability that
            poisons the share ``ratio`` of the defender's public images (fewer if there are fewer candidates).
            Its answer depends on no other query. ``request``, as in the paper: the share ``ratio`` of each
            request is picked, balanced over classes and aligned together. A request of one image is answered
            with its clean vector.
        swap: exchange the two largest scores, keep the maximum there, and reverse the ranks of the rest. If
            false, all ranks are reversed.
        budget: l2 bound of the fine-tuning around the reversed vector, [0, 1.5].
        rounds: alignment rounds of the fine-tuning (0: none). step: length of a step relative to the budget.
        engine: see LPAConfig. randomness, substitute_...: see AlignedConfig.
    """

    SOURCE: ClassVar[str] = "Zhou et al., Section V-C"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "ratio": Knob(low=0.01, high=0.5, log=True, help="share of poisoned vectors"),
        "threshold": Knob(low=0.5, high=1.0, help="candidates have a maximum below it"),
        "budget": Knob(low=1e-3, high=0.5, log=True, help="l2 bound of the fine-tuning"),
        "swap": Knob(choices=(False, True), help="keep the maximum fixed after exchanging the top two"),
    }

    BEFORE: ClassVar[Mapping[str, Plain | None]] = {"picks": "request"}

    ratio: float = 0.05
    threshold: float = 0.9
    picks: Literal["query", "request"] = "query"
    swap: bool = False
    budget: float = 0.05
    rounds: int = 5
    engine: EngineName = "auto"

    def validate(self) -> None:
        super().validate()
        self.require("ratio", 0 < self.ratio < 1, "above 0 and below 1 (share of the vectors)")
        self.require("threshold", 0 < self.threshold <= 1, "above 0 and at most 1 (confidence)")

    def make(self) -> LFP:
        return LFP(self)


def pick_candidates(c_NK: Tensor, ratio: float, threshold: float) -> Tensor:
    """Bool (N,): ``round(ratio N)`` vectors below the threshold, class-balanced, least confident first.

    Each label's vectors are ranked from the least confident on. The first of every label are picked, then the
    second, and so on. Vectors above the threshold are picked only if there are too few below it.
    """
    n = len(c_NK)
    wanted = round(ratio * n)
    top_N, label_N = c_NK.max(1).values, label_of(c_NK)
    beyond_N = (top_N >= threshold).long()
    order_N = torch.argsort(top_N, stable=True)
    rank_N = torch.zeros(n, dtype=torch.int64, device=c_NK.device)
    for label in label_N.unique():
        for side in (0, 1):
            rows = order_N[(label_N[order_N] == label) & (beyond_N[order_N] == side)]
            rank_N[rows] = torch.arange(len(rows), device=c_NK.device)
    picked_N = torch.zeros(n, dtype=torch.bool, device=c_NK.device)
    keys = sorted(range(n), key=lambda i: (int(beyond_N[i]), int(rank_N[i]), float(top_N[i]), i))
    picked_N[torch.tensor(keys[:wanted], dtype=torch.int64, device=c_NK.device)] = True
    return picked_N


def reverse_ranks(c_NK: Tensor, swap: bool) -> Tensor:
    """The same scores with ranks reversed: the class with the least score gets the largest one, and so on.

    With ``swap`` the class with the second score gets the largest one, and the ranks of the others are
    reversed.
    """
    if c_NK.shape[1] < 2:
        return c_NK.clone()
    scores_NK, classes_NK = c_NK.sort(dim=1, descending=True, stable=True)
    if swap:
        first, second, rest = classes_NK[:, :1], classes_NK[:, 1:2], classes_NK[:, 2:]
        # After the exchange class `second` has the maximum. The ranks of the others, from `first` (now
        # second) on, are reversed.
        classes_NK = torch.cat([second, torch.cat([first, rest], 1).flip(1)], 1)
    else:
        classes_NK = classes_NK.flip(1)
    return torch.empty_like(c_NK).scatter_(1, classes_NK, scores_NK)


class LFP(AlignedDefense, SubstituteDefense):
    """Reverses the ranks of a few vectors, then aligns each by itself, or together with the clean rest."""

    uncertifiable = BENT

    keeps_label = False

    def __init__(self, config: LFPConfig) -> None:
        self.config = config
        self.fresh = config.randomness == "fresh"
        self.couples = config.picks == "request"
        self.draws = not self.couples or (config.budget > 0 and config.rounds > 0)
        self.scope = "batch" if self.couples else "sample"

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train or load the substitute, and compute the target gradient and the coin's probability."""
        cfg = self.config
        self.substitute = view.substitute(cfg.substitute())
        self.target = target_gradient(
            self.substitute, view.c_private_NK.to(view.device), view.x_private_NCHW.to(view.device)
        )
        if not self.couples:
            c_NK, _ = view.substitute_data(cfg.substitute())
            share = float((c_NK.max(1).values < cfg.threshold).double().mean())
            # If less than the share `ratio` of the public images are candidates, all are poisoned.
            self.coin = torch.tensor(cfg.ratio / max(share, cfg.ratio), dtype=torch.float64)

    def state(self) -> dict[str, Tensor]:
        return super().state() | ({} if self.couples else {"coin": self.coin})

    def load_state(self, state: State) -> None:
        super().load_state(state)
        if not self.couples:
            self.coin = state["coin"]

    def pick(self, c_NK: Tensor) -> Tensor:
        """The vectors of one request that are poisoned; with ``picks="query"``, the candidates."""
        cfg = self.config
        if self.couples:
            return pick_candidates(c_NK, cfg.ratio, cfg.threshold)
        return c_NK.max(1).values < cfg.threshold

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        cfg = self.config
        out_NK = c_NK.clone()
        if not self.couples:
            coin_N = rng.uniform(1, "lfp coin")[:, 0].to(c_NK.device)
            picked_N = picked_N & (coin_N < self.coin.to(c_NK.device))
        if not bool(picked_N.any()):
            return out_NK
        reversed_NK = reverse_ranks(c_NK[picked_N], cfg.swap)
        out_NK[picked_N] = reversed_NK
        if cfg.budget == 0 or cfg.rounds == 0:
            return out_NK
        start_NK = reversed_NK.double() + cfg.budget * random_direction(c_NK, rng, "lfp start")[picked_N]
        out_NK[picked_N] = project_release(start_NK, reversed_NK, cfg.budget)
        engine = self.engine_for(cfg.engine, self.scope)
        aligned_N = torch.ones_like(picked_N) if self.couples else picked_N
        for _ in range(cfg.rounds):
            gradient_NK = engine.gradient(out_NK[aligned_N], x_NCHW[aligned_N])[picked_N[aligned_N]]
            direction_NK = unit_rows(project_tangent(gradient_NK.double()))
            moved_NK = out_NK[picked_N].double() - cfg.step * cfg.budget * direction_NK
            out_NK[picked_N] = project_release(moved_NK, reversed_NK, cfg.budget)
        return out_NK

    def alignment(self, c_NK: Tensor, x_NCHW: Tensor) -> float | None:
        return self.mean_cosine(c_NK, x_NCHW, self.scope)
