"""Images and questions made of them with the answers to both, and what is left of them without some images.

Shape suffixes: N images, M questions, K classes, D pixels, P principal components.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mipoison.attacks.kernel_choice import landmark_count
from mipoison.attacks.kernel_regression import LandmarkRegression, Regression
from mipoison.attacks.kernel_ridge import Kernel
from mipoison.attacks.selection import Reading
from mipoison.attacks.two_levels import TwoLevels
from mipoison.models.label_means import label_means
from mipoison.simplex import label_of


@dataclass
class Data:
    """Images and mixtures with the answers to them. A warp has its image as both parents.

    Attributes:
        c_NK, y_NP: answers to the images, and these, in pixels or principal components.
        answer_MK, mixed_MP: the same of the mixtures. parent_M2: of which images they are mixtures.
        share_M: how often the mean image of the first parent's label is in each.
    """

    c_NK: Tensor
    y_NP: Tensor
    answer_MK: Tensor
    mixed_MP: Tensor
    parent_M2: Tensor
    share_M: Tensor

    def without(self, out_N: Tensor) -> Data:
        """What is left without these images and all mixtures of which one of them is a part; parents keep
        their old places."""
        kept_M = ~out_N[self.parent_M2].any(1)
        mixtures = (self.answer_MK, self.mixed_MP, self.parent_M2, self.share_M)
        return Data(self.c_NK[~out_N], self.y_NP[~out_N], *(of_M[kept_M] for of_M in mixtures))

    def first(self, count: int) -> Data:
        """The first images, and mixtures of these alone."""
        return self.without(torch.arange(len(self.c_NK)) >= count)

    def along(self, basis_DP: Tensor) -> Data:
        """The same in components along these directions."""
        return replace(self, y_NP=self.y_NP @ basis_DP, mixed_MP=self.mixed_MP @ basis_DP)

    def remeaned(self, moved_NP: Tensor) -> Data:
        """The same with mixtures around other mean images, where no pixel was clamped.

        Args:
            moved_NP: by how much the mean image of each old place's label moves.
        """
        moved_MP = self.share_M[:, None] * moved_NP[self.parent_M2[:, 0]]
        return replace(self, mixed_MP=self.mixed_MP + moved_MP)

    def pairs(self, mean_KP: Tensor) -> tuple[Tensor, Tensor]:
        """Answers to images and mixtures together, and what these add to the mean images of the labels."""
        c_NK = torch.cat([self.c_NK, self.answer_MK])
        return c_NK, torch.cat([self.y_NP, self.mixed_MP]) - mean_KP[label_of(c_NK)]

    def held_out(self, fold_N: Tensor, judged: int) -> Iterator[HeldOut]:
        """Each of the first ``judged`` folds held out, where it has images and leaves some.

        The mean image in a mixture (``made``) is that of all images. What a held-out image has in it is taken
        out of the mixture's target, where no pixel was clamped; the answer still has it.
        """
        label_N, classes = label_of(self.c_NK), self.c_NK.shape[1]
        mean_KP = label_means(label_N, self.y_NP, classes)
        for fold in range(judged):
            out_N = fold_N == fold
            if not bool(out_N.any()) or bool(out_N.all()):
                continue
            train = self.without(out_N)
            rest_KP = label_means(label_of(train.c_NK), train.y_NP, classes)
            left_nP = self.y_NP[out_N] - rest_KP[label_N[out_N]]
            yield HeldOut(out_N, train.remeaned((rest_KP - mean_KP)[label_N]), rest_KP, left_nP)

    def regression(self, standardise: Reading, kernel: Kernel, mean_KP: Tensor, landmarks: int) -> Regression:
        """Regressions on images and mixtures together; the first images are the landmarks.

        Args:
            mean_KP: principal components of the mean images. landmarks: of the configuration.
        """
        c_NK, target_NP = self.pairs(mean_KP)
        return Regression(standardise, kernel, c_NK, target_NP, landmark_count(len(self.c_NK), landmarks))

    def regressions(
        self,
        standardise: Reading,
        kernel: Kernel,
        mean_KP: Tensor,
        landmarks: int,
        apart: tuple[float | None, ...],
    ) -> list[LandmarkRegression]:
        """Regressions in which questions may differ from images by each of these variances; None: they
        count as images do (:meth:`regression`)."""
        if apart == (None,):
            return [self.regression(standardise, kernel, mean_KP, landmarks)]
        own_NP, asked_MP = (
            y_NP - mean_KP[label_of(c_NK)]
            for c_NK, y_NP in ((self.c_NK, self.y_NP), (self.answer_MK, self.mixed_MP))
        )
        count = landmark_count(len(self.c_NK), landmarks)
        found = TwoLevels(standardise, kernel, self.c_NK, own_NP, self.answer_MK, asked_MP, count)
        return [found.at(variance) for variance in apart if variance is not None]


class HeldOut(NamedTuple):
    """Some images held out, and what is learned from without them.

    Attributes:
        out_N: which images. train: the others, and mixtures of these alone. rest_KP: their mean images.
        left_nP: what the held-out images add to these.
    """

    out_N: Tensor
    train: Data
    rest_KP: Tensor
    left_nP: Tensor
