"""The mixing attacker with one voter more: a forest grown on its images and questions together.

Where a defense makes answers jump with the image, as one that optimises each answer does, a forest follows
steps that no smooth function does, and many questions average them out. Geurts, Ernst and Wehenkel,
"Extremely randomized trees" (Machine Learning 63, 2006), as in scikit-learn.

Shape suffixes: N images, M questions, K classes, F features, P principal components.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipoison.attacks.asked_pairs import Data
from mipoison.attacks.mixtures import JUDGED_FOLDS, Judged, Mixtures, MixturesConfig
from mipoison.attacks.trees import tree_features

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesRegressor

COMPONENTS = 16
"""Principal components that the forest predicts; of the others it says nothing."""
LEAF = 8
"""Least number of images and questions in a leaf."""
FEATURES = 0.5
"""Share of the features that are tried at each split."""
ASKED = 0.5
"""Weight of a question where an image has 1."""


@dataclass(frozen=True, kw_only=True)
class AskedTreesConfig(MixturesConfig):
    """``mixtures`` with a forest on images and questions as one more voter.

    Attributes:
        trees: number of trees, at least 10.

    See MixturesConfig for the others.
    """

    trees: int = 40

    def validate(self) -> None:
        super().validate()
        self.require("trees", self.trees >= 10, "at least 10")

    def make(self) -> AskedTrees:
        return AskedTrees(self)


class AskedTrees(Mixtures):
    """Grows a forest for each judged fold, and one more on everything if it has a vote."""

    config: AskedTreesConfig

    def more(self, judging: Data, learning: Data, fold_n: Tensor, rng: torch.Generator) -> list[Judged]:
        """The forest, judged on images of which, and of whose questions, it has seen nothing."""
        seed = int(torch.randint(2**31, (1,), generator=rng))
        error_nP = torch.zeros_like(judging.y_NP)
        for out, train, rest_KP, left_nP in judging.held_out(fold_n, JUDGED_FOLDS):
            forest = self._grown(train, rest_KP, seed)
            error_nP[out] = left_nP - predicted(forest, judging.c_NK[out], left_nP.shape[1])

        def voter(weight_P: Tensor) -> Callable[[Tensor], Tensor]:
            mean_KP = self.parts.mean_KD @ self.parts.basis_DP
            return Forest(self._grown(learning, mean_KP, seed), weight_P)

        return [Judged(error_nP[fold_n < JUDGED_FOLDS], voter)]

    def _grown(self, data: Data, mean_KP: Tensor, seed: int) -> ExtraTreesRegressor | None:
        """A forest on what images and questions add to the mean images; None without components."""
        from sklearn.ensemble import ExtraTreesRegressor

        c_NK, rest_NP = data.pairs(mean_KP)
        if not rest_NP.shape[1]:
            return None
        weight_N = np.r_[np.ones(len(data.c_NK)), np.full(len(data.answer_MK), ASKED)]
        forest = ExtraTreesRegressor(
            self.config.trees, min_samples_leaf=LEAF, max_features=FEATURES, n_jobs=1, random_state=seed
        )
        told_NP = rest_NP[:, :COMPONENTS].numpy()
        told = told_NP if told_NP.shape[1] > 1 else told_NP[:, 0]
        return forest.fit(tree_features(c_NK), told, sample_weight=weight_N)


@dataclass
class Forest:
    """A forest with a weight for each component."""

    forest: ExtraTreesRegressor | None
    weight_P: Tensor

    def __call__(self, c_NK: Tensor) -> Tensor:
        """Predicted principal components (N, P), times the weights."""
        return self.weight_P * predicted(self.forest, c_NK, len(self.weight_P))


def predicted(forest: ExtraTreesRegressor | None, c_NK: Tensor, components: int) -> Tensor:
    """What a forest predicts of the leading components, and 0 of the others (N, P), float64."""
    rest_NP = torch.zeros(len(c_NK), components, dtype=torch.float64)
    if forest is not None and len(c_NK):
        found: NDArray[np.float64] = forest.predict(tree_features(c_NK)).reshape(len(c_NK), -1)
        rest_NP[:, : found.shape[1]] = torch.from_numpy(found[:, :components])
    return rest_NP
