"""Kernel ridge regression on own images and on questions made of them, where the two may differ.

A classifier answers a mixture or a warp otherwise than an image, so that what an answer tells of a question
is not quite what it tells of an image. Here what answers to questions tell is one function f of the vector,
and what answers to images tell is that function plus another one, g: a Gaussian process on two levels
(Kennedy and O'Hagan, "Predicting the output from a complex computer code when fast approximations are
available", Biometrika 87, 2000, with a factor of 1). Both have the same kernel, and g has ``apart`` times the
variance of f: at 0 questions count as images do, and the larger it is the less they are believed.

Both functions are spanned by the kernels of landmarks. For given f the solution g is known in closed form,
and what is left is one system of linear equations for f; its size is the number of landmarks.

Shape suffixes: N images, M questions, L landmarks, F features, K classes, P principal components, R rank.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from mipoison.attacks.kernel_regression import LandmarkRegression
from mipoison.attacks.kernel_ridge import Kernel, whitening
from mipoison.attacks.selection import Reading
from mipoison.simplex import label_of

APART = (0.0, 0.03, 0.3)
"""Variances of g that are tried, in units of that of f. Where a defense draws noise anew for each question, 0
is right."""
PENALTIES = (1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0, 30.0)
"""Ridge penalties that are tried, where the kernel of a vector with itself is 1."""

LEAST_EIGENVALUE = 1e-8
"""Directions of the landmarks' kernels below this share of the largest eigenvalue are left out: products of
thousands of rows are rounded by up to 1e-4 there, and the least penalty makes them count for nothing."""


class TwoLevels(LandmarkRegression):
    """The regressions of all penalties for one ``apart``; :meth:`at` gives those of another one.

    They minimise ``|y_own - f - g|^2 + |y_asked - f|^2 + penalty (|f|^2 + |g|^2 / apart)``, with the norms of
    the kernel's space, and predict f + g.

    Args:
        standardise: vectors -> features.
        c_NK, y_NP: answers to images, and what is predicted of these, float64.
        answer_MK, y_MP: the same of questions.
        landmarks: so many of the first images are landmarks.
        apart: variance of g in units of that of f, at least 0.
    """

    def __init__(
        self,
        standardise: Reading,
        kernel: Kernel,
        c_NK: Tensor,
        y_NP: Tensor,
        answer_MK: Tensor,
        y_MP: Tensor,
        landmarks: int,
        apart: float = 0.0,
    ) -> None:
        self.standardise, self.kernel, self.apart = standardise, kernel, apart
        self.z_MF, self.label_M = standardise(c_NK[:landmarks]), label_of(c_NK[:landmarks])
        own_NL, asked_ML = self.gram(c_NK), self.gram(answer_MK)
        white_LR = whitening(own_NL[:landmarks], LEAST_EIGENVALUE)
        # In these directions both functions have the norm of their weights, and the images' products are
        # diagonal. Products first, directions then: there are far more rows than landmarks.
        self.own_R, turn_RR = torch.linalg.eigh(white_LR.mT @ (own_NL.mT @ own_NL) @ white_LR)
        self.own_R, self.turn_LR = self.own_R.clamp_min(0), white_LR @ turn_RR
        self.asked_RR = self.turn_LR.mT @ (asked_ML.mT @ asked_ML) @ self.turn_LR
        self.own_RP = self.turn_LR.mT @ (own_NL.mT @ y_NP)
        self.asked_RP = self.turn_LR.mT @ (asked_ML.mT @ y_MP)

    def at(self, apart: float) -> TwoLevels:
        """The same regressions for another ``apart``; what was computed is shared."""
        other = copy.copy(self)
        other.apart = apart
        return other

    def weights(self, penalty: float) -> Tensor:
        """Weights (L, P) of the landmarks' kernels in f + g."""
        belief_R = self.apart * self.own_R + penalty
        left_R = penalty / belief_R  # the images' say about f is less, since g may explain it, too
        square_RR = self.asked_RR + torch.diag(left_R * self.own_R + penalty)
        root_RR = torch.linalg.cholesky(square_RR)
        f_RP = torch.cholesky_solve(self.asked_RP + left_R[:, None] * self.own_RP, root_RR)
        g_RP = self.apart * (self.own_RP - self.own_R[:, None] * f_RP) / belief_R[:, None]
        return self.turn_LR @ (f_RP + g_RP)
