"""Stack of attackers: one attacker that weights the reconstructions of all others, fixed beforehand.

A worst case chosen among many attackers on the private images is biased towards leakage, and one attacker
chosen beforehand may be the wrong one. The stack asks the API about each of its images once and lets every
member reconstruct images that the member did not learn from (cross-validation on the attacker's own images).
The weights are those of least squared error on these reconstructions, none below zero. No private image takes
part in any choice, and what the class mean does not explain is all that is weighted: where the members fail,
the stack answers with the class mean (:mod:`mipoison.attacks.weighting`).

The answer to a private vector is the weighted sum of each member's mean over the folds' fits. No member is
fitted once more to all images, which would cost another fit. The weights were computed for single fits, whose
errors are larger than those of their mean: they are on the side of the class mean.

Shape suffixes: J members, N samples, K classes, D pixels, CHW image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipoison.attacks.class_mean import ClassMeanConfig
from mipoison.attacks.decoder import DecoderConfig
from mipoison.attacks.kernel import KernelConfig
from mipoison.attacks.knn import KNNConfig
from mipoison.attacks.mixtures import MixturesConfig
from mipoison.attacks.mlp import MLPConfig
from mipoison.attacks.pca_mlp import PCAMLPConfig
from mipoison.attacks.ridge import RidgeConfig
from mipoison.attacks.selection import folds
from mipoison.attacks.sizes import sized
from mipoison.attacks.trees import TreesConfig
from mipoison.attacks.tuned import RecordedAnswers
from mipoison.attacks.weighting import Products, combine, leading_components
from mipoison.config import Config, Plain
from mipoison.protocols import Attack, Oracle, ThreatModel
from mipoison.simplex import label_of

CLOSED_FORMS: Mapping[str, Config] = {
    "ridge": RidgeConfig(),
    "knn": KNNConfig(),
    "kernel": KernelConfig(),
    "trees": TreesConfig(),
}
"""Members of every stack, besides the class mean."""
TRAINED: Mapping[str, Config] = {
    "mlp": MLPConfig(),
    "pca-mlp": PCAMLPConfig(),
    "passive": DecoderConfig(),
}
"""Members that are trained by gradients."""
ASKING: Mapping[str, Config] = {"mixtures": MixturesConfig(each=4, levels=1)}
"""Members that ask the API about more than the attacker's own images: those of each fold, anew."""
JUDGED = 2048
"""Images, drawn at random, on whose reconstructions the weights are computed: bounds the memory."""
CHUNK = 512
"""Vectors inverted at once: bounds the memory for the members' images."""
COMPONENTS = 64
"""Leading principal components that may have weights of their own."""


@dataclass(frozen=True, kw_only=True)
class CheapStackConfig(Config):
    """Weights the reconstructions of the class mean and of all closed forms by least squares on its own
    images.

    Attributes:
        folds: of the cross-validation on its own images, 2 to 20. Each member is fitted that often.
        data: the attacker's own images: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
        width, steps, batch, lr: of trained members. None as in DecoderConfig.
    """

    COST: ClassVar[int] = 1

    folds: int = 5
    data: str = "all"
    width: int | None = None
    steps: int | None = None
    batch: int | None = None
    lr: float | None = None

    def validate(self) -> None:
        self.require("folds", 2 <= self.folds <= 20, "between 2 and 20")
        self.one_of("data", ("all", "D1", "D2"))
        for name in ("width", "steps", "batch"):
            value = getattr(self, name)
            self.require(name, value is None or value >= 1, "at least 1")
        self.require("lr", self.lr is None or self.lr > 0, "above 0")

    def members(self) -> dict[str, Config]:
        """Names and configurations of the members, the class mean apart."""
        return self._sized(CLOSED_FORMS)

    def _sized(self, members: Mapping[str, Config]) -> dict[str, Config]:
        sizes: dict[str, Plain] = {}
        for name in ("width", "steps", "batch", "lr"):
            if (value := getattr(self, name)) is not None:
                sizes[name] = value
        return {name: sized(config, sizes) for name, config in members.items()}

    def make(self) -> Stack:
        return Stack(sized(self))


@dataclass(frozen=True, kw_only=True)
class StackConfig(CheapStackConfig):
    """Weights the reconstructions of the class mean, all closed forms, trained decoders and ``mixtures`` by
    least squares on its own images: the attacker that is fixed beforehand.

    Attributes: see CheapStackConfig.
    """

    COST: ClassVar[int] = 2

    def members(self) -> dict[str, Config]:
        return self._sized({**CLOSED_FORMS, **TRAINED, **ASKING})


class Stack:
    """Queries its images once, and weights what its members make of the answers.

    Attributes:
        names: of the members, in the order of the weights.
        gains: after :meth:`fit`, the share of the class mean's squared error that each scheme of weights
            takes away, by cross-validation on the attacker's own images.
    """

    def __init__(self, config: CheapStackConfig) -> None:
        self.config = config

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query its images once, fit every member to each fold's rest (ASKING ask more), compute the weights.

        Raises:
            ValueError: fewer than eight images.
        """
        if len(x_NCHW) < 8:
            raise ValueError(f"the stack needs at least 8 images of its own, got {len(x_NCHW)}")
        self.shape, self.classes = known.image_shape, oracle.n_classes
        c_NK, x_NCHW = oracle.query(x_NCHW), x_NCHW.cpu().float()
        fold_N = folds(len(x_NCHW), self.config.folds, rng)
        judged_N = torch.randperm(len(x_NCHW), generator=rng)[:JUDGED].sort().values
        place_N = torch.full((len(x_NCHW),), -1).index_put((judged_N,), torch.arange(len(judged_N)))
        members = self.config.members()
        self.names = tuple(members)
        d_JND = torch.zeros(len(members), len(judged_N), x_NCHW[0].numel())
        r_ND = torch.zeros(d_JND.shape[1:])
        self.fits: list[tuple[Attack, list[Attack]]] = []
        for fold in range(int(fold_N.max()) + 1):
            rest = (fold_N != fold).nonzero()[:, 0]
            held = ((fold_N == fold) & (place_N >= 0)).nonzero()[:, 0]
            mean, *others = [
                self._fitted(config, RecordedAnswers(c_NK[rest], oracle), x_NCHW[rest], known, rng)
                for config in (ClassMeanConfig(), *members.values())
            ]
            self.fits.append((mean, others))
            mean_nD = mean.reconstruct(c_NK[held]).flatten(1)
            r_ND[place_N[held]] = x_NCHW[held].flatten(1) - mean_nD
            for j, member in enumerate(others):
                d_JND[j, place_N[held]] = member.reconstruct(c_NK[held]).flatten(1) - mean_nD
        self.basis_DR = leading_components(r_ND.double(), COMPONENTS)
        label_N = label_of(c_NK[judged_N])
        products = Products.of(d_JND, r_ND, label_N, fold_N[judged_N], self.basis_DR, self.classes)
        self.w_GBJ, self.scheme, errors = products.best()
        self.gains = {scheme: -error for scheme, error in errors.items()}

    def _fitted(
        self, config: Config, oracle: Oracle, x_NCHW: Tensor, known: ThreatModel, rng: torch.Generator
    ) -> Attack:
        attack: Attack = config.make()
        attack.fit(oracle, x_NCHW, known=known, rng=rng)
        return attack

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from released vectors."""
        parts = [self._reconstruct(c_NK[i : i + CHUNK]) for i in range(0, max(1, len(c_NK)), CHUNK)]
        return torch.cat(parts).clamp(0, 1).float().reshape(-1, *self.shape)

    def _reconstruct(self, c_NK: Tensor) -> Tensor:
        pixels = len(self.basis_DR)
        mean_ND = torch.zeros(len(c_NK), pixels, dtype=torch.float64)
        rec_JND = torch.zeros(len(self.names), len(c_NK), pixels, dtype=torch.float64)
        for mean, members in self.fits:
            mean_ND += mean.reconstruct(c_NK).flatten(1) / len(self.fits)
            for j, member in enumerate(members):
                rec_JND[j] += member.reconstruct(c_NK).flatten(1) / len(self.fits)
        d_ND = combine(rec_JND - mean_ND, label_of(c_NK.cpu()), self.w_GBJ, self.basis_DR)
        return mean_ND + d_ND
