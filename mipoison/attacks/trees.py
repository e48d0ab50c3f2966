"""Trees attacker: the mean image of the label plus extremely randomised trees of the rest on the scores.

Trees see the order of a feature's values only. So no floor has to be chosen, and steps in the scores, as
rounding makes them, are as easy to follow as lines. Geurts, Ernst and Wehenkel, "Extremely randomized trees"
(Machine Learning 63, 2006), as in scikit-learn.

Shape suffixes: N samples, K classes, F features, P principal components.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mipoison.attacks.feature_sets import centred_logs, gaps, log_odds, logs, ranks
from mipoison.attacks.residuals import Residuals
from mipoison.config import Config
from mipoison.protocols import Oracle, ThreatModel
from mipoison.simplex import label_of

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesRegressor

LEAVES = (2, 4, 8)
"""Least numbers of images in a leaf that are tried."""
COMPONENTS = 16
"""Principal components of the images' residuals that are predicted."""
FLOOR = 1e-9
"""Least score inside a logarithm."""


@dataclass(frozen=True, kw_only=True)
class TreesConfig(Config):
    """The label's mean image plus extremely randomised trees of the rest on the scores, their order and the
    label; the size of the leaves is chosen out of bag.

    Attributes:
        trees: number of trees, at least 10. An image is out of bag of a third of them.
        most: most images that they are grown on, at least 20. A tree's cost grows with it, the gain hardly.
        data: the attacker's own images: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
    """

    COST: ClassVar[int] = 0

    trees: int = 60
    most: int = 4000
    data: Literal["all", "D1", "D2"] = "all"

    def validate(self) -> None:
        self.require("trees", self.trees >= 10, "at least 10")
        self.require("most", self.most >= 20, "at least 20")

    def make(self) -> Trees:
        return Trees(self)


def tree_features(c_NK: Tensor) -> NDArray[np.float32]:
    """Log-odds, log and centred log scores, ranks, gaps, and the label's one-hot (N, 5 K)."""
    c_NK = c_NK.cpu().double()
    label_NK = F.one_hot(label_of(c_NK), c_NK.shape[1]).double()
    parts = [f(c_NK, FLOOR) for f in (logs, centred_logs, ranks, gaps)]
    return torch.cat([log_odds(c_NK, FLOOR)[:, None], *parts, label_NK], 1).float().numpy()


class Trees:
    """Queries its images once and grows forests."""

    def __init__(self, config: TreesConfig) -> None:
        self.config = config

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query, grow a forest for each size of the leaves, and keep the best out of bag.

        Args:
            rng: draws the images, if they are too many, and the seed of the trees.

        Raises:
            ValueError: fewer than four images.
        """
        if len(x_NCHW) < 4:
            raise ValueError(f"the trees attacker needs at least 4 images of its own, got {len(x_NCHW)}")
        self.shape = known.image_shape
        c_NK, x_ND = oracle.query(x_NCHW).cpu(), x_NCHW.cpu().double().flatten(1)
        self.parts = Residuals(label_of(c_NK), x_ND, oracle.n_classes, COMPONENTS, rng)
        some = torch.randperm(len(x_ND), generator=rng)[: self.config.most].numpy()
        z_NF, rest_NP = tree_features(c_NK)[some], self.parts.rest_NP.numpy()[some]
        seed = int(torch.randint(2**31, (1,), generator=rng))
        self.forest, self.factor, best = None, 0.0, np.square(rest_NP).sum()
        for leaf in LEAVES if rest_NP.shape[1] else ():
            forest, found_NP = self._grown(z_NF, rest_NP, leaf, seed)
            factor = best_factor(found_NP, rest_NP)
            loss = np.square(factor * found_NP - rest_NP).sum()
            if loss < best:
                self.forest, self.factor, best = forest, factor, loss

    def _grown(
        self, z_NF: NDArray[np.float32], rest_NP: NDArray[np.float64], leaf: int, seed: int
    ) -> tuple[ExtraTreesRegressor, NDArray[np.float64]]:
        """A forest and its predictions out of bag."""
        from sklearn.ensemble import ExtraTreesRegressor

        forest = ExtraTreesRegressor(
            self.config.trees,
            min_samples_leaf=leaf,
            bootstrap=True,
            oob_score=True,
            n_jobs=1,
            random_state=seed,
        )
        with warnings.catch_warnings():  # an image that no tree left out is predicted as 0
            warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores")
            warnings.filterwarnings("ignore", message="R\\^2 score is not well-defined")
            forest.fit(z_NF, rest_NP if rest_NP.shape[1] > 1 else rest_NP[:, 0])
        return forest, forest.oob_prediction_.reshape(rest_NP.shape)

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from released vectors."""
        rest_NP = torch.zeros(len(c_NK), self.parts.rest_NP.shape[1], dtype=torch.float64)
        if self.forest is not None and len(c_NK):
            found_NP = self.forest.predict(tree_features(c_NK)).reshape(rest_NP.shape)
            rest_NP += self.factor * torch.from_numpy(found_NP)
        return self.parts.images(label_of(c_NK.cpu()), rest_NP).float().reshape(-1, *self.shape)


def best_factor(found_NP: NDArray[np.float64], rest_NP: NDArray[np.float64]) -> float:
    """The factor from 0 to 1 by which predictions come closest to the targets: the mean of trees is too bold
    where scores tell little."""
    square = float(np.square(found_NP).sum())
    return min(max(float((found_NP * rest_NP).sum()) / square, 0.0), 1.0) if square > 0 else 0.0
