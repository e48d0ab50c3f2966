"""One-by-one attacker: sends one image per request, as a client of a web service does.

A defense that chooses which queries of a request it perturbs may choose none in a request of one, and then
answers with clean vectors. Against all other defenses this is the MLP attacker.

Shape suffixes: N samples, K classes, CHW image.
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
    """An oracle that sends every image to another oracle as a separate request; that oracle counts each."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle

    @property
    def n_classes(self) -> int:
        return self._oracle.n_classes

    @property
    def queries(self) -> int:
        return self._oracle.queries

    def query(self, x_NCHW: Tensor) -> Tensor:
        """Released vectors (N, K), one request for each image."""
        return torch.cat([self._oracle.query(x[None]) for x in x_NCHW])


class OneByOne(MLP):
    """Queries image by image, then trains as the MLP attacker."""

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        super().fit(SingleRequests(oracle), x_NCHW, known=known, rng=rng)
