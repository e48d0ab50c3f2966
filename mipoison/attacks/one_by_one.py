"""One by one: asks the API for one image per request, as a client of a web service does.

A defense that treats the queries of a request together may have nothing to treat in a request of one: what it
would have poisoned in a batch is then answered cleanly. Against any other defense this is the MLP attacker.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mipoison.attacks.mlp import MLP, MLPConfig
from mipoison.attacks.sizes import sized
from mipoison.protocols import Oracle, ThreatModel


@dataclass(frozen=True, kw_only=True)
class OneByOneConfig(MLPConfig):
    """Asks for one image per request, then learns as ``mlp`` does: bypasses a defense that treats the queries
    of a request together.

    Attributes: see MLPConfig.
    """

    def make(self) -> OneByOne:
        return OneByOne(sized(self))


class SingleRequests:
    """An oracle that passes every image on as a request of its own; the oracle behind it counts each."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle

    @property
    def n_classes(self) -> int:
        return self._oracle.n_classes

    @property
    def queries(self) -> int:
        return self._oracle.queries

    def query(self, x_NCHW: Tensor) -> Tensor:
        """Released vectors (N, K), each the answer to a request of one."""
        return torch.cat([self._oracle.query(x[None]) for x in x_NCHW])


class OneByOne(MLP):
    """Asks image by image, then learns as the MLP does."""

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        super().fit(SingleRequests(oracle), x_NCHW, known=known, rng=rng)
