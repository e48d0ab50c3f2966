"""Mixing attacker: asks the API about images made of its own ones, too, and learns from all of them.

An attacker has few images of its own, and an API answers any image. Most of what it makes are rotations of
two images with the same label into each other, ``m + cos(a) (x - m) + sin(a) (x' - m)`` around the label's
mean image m by an angle a that is drawn for each, which have the mean and the covariance of its images;
others are warps of single images, and patches: a part of one image in another
(:mod:`mipoison.attacks.questions`). Records of before are of warps and patches, or of mixtures by a small
angle. All are more pairs (vector, image), and average out what a defense draws anew for each image, or makes
jump from image to image. Below, all of them are called mixtures; a warp is one of an image with itself.

The kernel attacker on its own images alone votes with kernel ridge regressions on images and mixtures
together, in which what an answer tells of a mixture may differ from what it tells of an image
(:mod:`mipoison.attacks.two_levels`). These are judged on its own images, by folds: without an image, and
without all mixtures that it is part of. Each group of principal components has votes of its own. Where the
defense's noise can be drawn by whoever knows its settings, regressions on simulated releases of images and
mixtures vote, too (:mod:`mipoison.attacks.imitation`); they are judged on the answers that the API gave to
images that neither they nor their imitation of the victim have seen.

Shape suffixes: N images, M mixtures or landmarks, K classes, D pixels, P principal components.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.attacks import imitation, two_levels
from mipoison.attacks.asked_pairs import Data
from mipoison.attacks.feature_sets import FeatureSet
from mipoison.attacks.group_votes import ENDS, group_votes
from mipoison.attacks.imitation import ManyPairs, Simulate
from mipoison.attacks.kernel import Chosen, KernelAttack, KernelConfig
from mipoison.attacks.kernel_regression import Voter
from mipoison.attacks.kernel_ridge import PENALTIES, Kernel
from mipoison.attacks.questions import KINDS
from mipoison.attacks.selection import RankedByLabel, Reading, folds
from mipoison.attacks.undone import undone_sets
from mipoison.config import Plain
from mipoison.models.label_means import label_means
from mipoison.protocols import Oracle, ThreatModel
from mipoison.simplex import label_of

_NEAR_AND_FAR = tuple(Kernel("inverse", width, across=0.5) for width in (0.4, 0.8, 1.6))
KERNELS: Mapping[str, tuple[Kernel, ...]] = {
    "rotations": tuple(Kernel("inverse", width, across=0.5) for width in (0.5, 1.4)),
    "warps": _NEAR_AND_FAR,
    "mixtures": _NEAR_AND_FAR,
}
"""Kernels that are tried on images and questions, by what these are made of."""
SETS: Mapping[str, int] = {"rotations": 3, "warps": 4, "mixtures": 4}
"""Number of feature sets on which they are tried: the best for the kernel attacker. With rotations the
features' ranks within each label are read as well as the features."""
SIMULATED_SETS = 2
"""Number of feature sets that are tried on simulated releases."""
FOLDS = 5
JUDGED_FOLDS = 3
"""Folds on which they are judged; the other folds' images are learned from only."""
VOTERS = 6
"""Number of regressions on mixtures that may vote: the best."""
SIMULATED_KERNELS = (Kernel("inverse", 0.4, across=0.5), Kernel("matern", 2.0, across=0.5))
"""Kernels that are tried on simulated releases."""
LEAST_SIMULATED = 20
"""With fewer images to judge on, nothing is simulated."""


@dataclass(frozen=True, kw_only=True)
class MixturesConfig(KernelConfig):
    """Asks about warps of its own images, patches and rotations of pairs of them, too, and regresses on all.

    Attributes:
        each: number of questions made of an image, at least 1.
        made: ``rotations``: four of 14 are warps, two patches, the others rotations of two images into each
            other; ``warps``: half of them (rounded down) are warps, the others patches; ``mixtures``: all
            are mixtures, as in older records.
        mixed: most of its images that are used for them, at least 20.
        angle: in a mixture the smaller part's weight is its sine, in (0, pi / 4].
        simulated: about so many releases are simulated where the defense can be; 0: none, as in older
            records.
        levels: 2: answers to questions may tell otherwise than answers to images, each group of components
            has votes of its own, and a defense that can be undone is (:mod:`mipoison.attacks.undone`); 1:
            questions count as images do, and there is one vote for all components, as in older records.

    See KernelConfig for the others.
    """

    COST: ClassVar[int] = 1
    SCREENS: ClassVar[bool] = False  # it asks about mixtures, too
    BEFORE: ClassVar[Mapping[str, Plain | None]] = {"simulated": 0, "made": "mixtures", "levels": 1}

    each: int = 14
    mixed: int = 600
    angle: float = 0.3
    simulated: int = 20000
    made: Literal["rotations", "warps", "mixtures"] = "rotations"
    levels: int = 2

    def validate(self) -> None:
        super().validate()
        self.require("each", self.each >= 1, "at least 1")
        self.require("mixed", self.mixed >= 20, "at least 20")
        self.require("angle", 0 < self.angle <= math.pi / 4, "above 0 and at most pi / 4 (0.785)")
        self.require("simulated", self.simulated >= 0, "at least 0")
        self.one_of("levels", (1, 2))

    def make(self) -> Mixtures:
        return Mixtures(self)


@dataclass
class Tried:
    """A regression on images and mixtures: features, kernel and the penalty of least error.

    Attributes:
        error_nP: its errors on the judged images.
        apart: how far questions may differ from images; None: they count as images do.
    """

    standardise: Reading
    kernel: Kernel
    penalty: float
    error_nP: Tensor
    apart: float | None = None


@dataclass
class Judged:
    """A voter that was judged on held-out images.

    Attributes:
        error_nP: its errors on the judged images.
        voter: weights (P,) of components -> vectors (N, K) to predicted components, times these.
    """

    error_nP: Tensor
    voter: Callable[[Tensor], Callable[[Tensor], Tensor]]


class Mixtures(KernelAttack):
    """Queries its images and mixtures of them, once each, and solves linear systems.

    Attributes:
        weight_VP: after :meth:`fit`, the weights of the mean image, of the kernel attacker and of the best
            regressions on mixtures, for each component; they sum to 1.
    """

    config: MixturesConfig

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query, mix, query the mixtures, choose the voters and fit them, in float64.

        Args:
            rng: draws the mixtures, the folds, and what the kernel attacker draws.

        Raises:
            ValueError: fewer than four images.
        """
        if len(x_NCHW) < 4:
            raise ValueError(f"the mixing attacker needs at least 4 images of its own, got {len(x_NCHW)}")
        c_NK, x_ND = oracle.query(x_NCHW).cpu(), x_NCHW.cpu().double().flatten(1)
        chosen = self.learn(c_NK, x_ND, known, rng)
        c_NK, x_ND = c_NK[chosen.order], x_ND[chosen.order]
        n = len(chosen.error_NP)
        mean_KD = label_means(label_of(c_NK[:n]), x_ND[:n], oracle.n_classes)
        config, label_N = self.config, label_of(c_NK)
        asked = KINDS[config.made](
            label_N[: config.mixed],
            x_ND.reshape(-1, *self.shape),
            mean_KD[label_N],
            config.each,
            config.angle,
            rng,
        )
        x_MCHW = asked.x_MD.reshape(-1, *self.shape)
        answer_MK = oracle.query(x_MCHW).cpu() if len(x_MCHW) else c_NK[:0]
        data = Data(c_NK, x_ND, answer_MK, asked.x_MD.double(), asked.parent_M2, asked.share_M)
        # All voters are judged on the same images, and what is compared has learned from these alone.
        judging, learning = data.first(n).along(chosen.judged.basis_DP), data.along(self.parts.basis_DP)
        fold_n = folds(n, FOLDS, rng)
        tried = [
            self._tried(reading, kernel, judging, fold_n)
            for reading in self._readings(chosen, c_NK)
            for kernel in KERNELS[config.made]
        ]
        tried = sorted(tried, key=lambda t: float(t.error_nP.square().sum()))[:VOTERS]
        simulate = imitation.simulator(known, rng) if self.config.simulated else None
        drawn, imitations = list[Tried](), list[Callable[[Tensor], Tensor]]()
        if simulate is not None and n >= LEAST_SIMULATED:
            drawn, imitations = self._drawn(simulate, data, chosen, fold_n, rng)
        held_n = fold_n < JUDGED_FOLDS
        known_VnP = [chosen.judged.without_NP[held_n], chosen.error_NP[held_n]]
        ends = ENDS if config.levels == 2 else ()
        more = self.more(judging, learning, fold_n, rng)
        error_VnP = [*known_VnP, *(t.error_nP for t in (*tried, *drawn)), *(m.error_nP for m in more)]
        self.weight_VP = group_votes(error_VnP, self.parts.rest_NP.shape[1], ends)
        self.share_P = self.weight_VP[1]
        asked_VP, drawn_VP, more_VP = self.weight_VP[2:].split([len(tried), len(drawn), len(more)])
        self.others = [
            self._mixing_voter(w_P, t, learning) for w_P, t in zip(asked_VP, tried, strict=True) if w_P.any()
        ]
        if simulate is not None and bool(drawn_VP.any()):
            released = self._releases(simulate, imitations, data, self.config.simulated)
            self.others += [
                self._drawn_regression(
                    t.standardise, t.kernel, released, data, self.parts.mean_KD, rng
                ).voter(t.penalty, w_P)
                for w_P, t in zip(drawn_VP, drawn, strict=True)
                if w_P.any()
            ]
        self.further = [m.voter(w_P) for w_P, m in zip(more_VP, more, strict=True) if w_P.any()]

    def more(self, judging: Data, learning: Data, fold_n: Tensor, rng: torch.Generator) -> list[Judged]:
        """Further voters, none here.

        Args:
            judging: images on which voters are judged, in components, and questions of them alone; a voter is
                judged on those whose fold is below JUDGED_FOLDS. learning: all of both. fold_n: of images.
        """
        return []

    def feature_sets(self, known: ThreatModel) -> list[FeatureSet]:
        """The kernel attacker's and, on two levels, those of undone vectors where there is an undoing."""
        undone = undone_sets(known) if self.config.levels == 2 else {}
        return [*super().feature_sets(known), *undone.values()]

    def _readings(self, chosen: Chosen, c_NK: Tensor) -> list[Reading]:
        """What the regressions on images and questions read."""
        best = chosen.sets[: SETS[self.config.made]]
        if self.config.made != "rotations":
            return list(best)
        return [reading for s in best for reading in (s, RankedByLabel(c_NK, s.kind))]

    def _tried(self, standardise: Reading, kernel: Kernel, data: Data, fold_n: Tensor) -> Tried:
        """Errors on held-out images of regressions that have seen nothing of them, with the best penalty
        and, on two levels, the best variance of what questions differ by."""
        two = self.config.levels == 2
        aparts: tuple[float | None, ...] = two_levels.APART if two else (None,)
        penalties = two_levels.PENALTIES if two else PENALTIES
        error_ALnP = torch.zeros(len(aparts), len(penalties), *data.y_NP.shape, dtype=torch.float64)
        for out, train, rest_KP, left_nP in data.held_out(fold_n, JUDGED_FOLDS):
            found_A = train.regressions(standardise, kernel, rest_KP, self.config.landmarks, aparts)
            gram_nM = found_A[0].gram(data.c_NK[out])
            for a, found in enumerate(found_A):
                for p, penalty in enumerate(penalties):
                    error_ALnP[a, p, out] = left_nP - gram_nM @ found.weights(penalty)
        error_ALnP = error_ALnP[:, :, fold_n < JUDGED_FOLDS]
        best = int(error_ALnP.square().flatten(2).sum(2).argmin())
        a, p = divmod(best, len(penalties))
        return Tried(standardise, kernel, penalties[p], error_ALnP[a, p], aparts[a])

    def _drawn(
        self, simulate: Simulate, data: Data, chosen: Chosen, fold_n: Tensor, rng: torch.Generator
    ) -> tuple[list[Tried], list[Callable[[Tensor], Tensor]]]:
        """Errors of regressions on simulated releases, on the answers that the API gave to held-out images.

        Neither the regression nor its imitation of the victim has seen anything of these images. Returns
        the imitations of all folds, too.
        """
        judging, basis_DP = data.first(len(fold_n)), chosen.judged.basis_DP
        label_n, classes = label_of(judging.c_NK), judging.c_NK.shape[1]
        mean_KD = label_means(label_n, judging.y_NP, classes)
        sets = chosen.sets[:SIMULATED_SETS]
        shapes = [(standardise, kernel) for standardise in sets for kernel in SIMULATED_KERNELS]
        penalties = imitation.PENALTIES
        error_TLnP = torch.zeros(len(shapes), len(penalties), len(fold_n), basis_DP.shape[1]).double()
        imitations: list[Callable[[Tensor], Tensor]] = []
        for fold in range(JUDGED_FOLDS):
            out = fold_n == fold
            train = judging.without(out)
            imitations.append(imitation.imitation(*self._pairs(train), rng))
            released = self._releases(simulate, imitations[-1:], train, self.config.simulated // 2)
            rest_KD = label_means(label_of(train.c_NK), train.y_NP, classes)
            train = train.remeaned((rest_KD - mean_KD)[label_n])
            left_nP = (judging.y_NP[out] - rest_KD[label_n[out]]) @ basis_DP
            for t, (standardise, kernel) in enumerate(shapes):
                found = self._drawn_regression(standardise, kernel, released, train, rest_KD, rng, basis_DP)
                gram_nM = found.gram(judging.c_NK[out])
                for p, penalty in enumerate(penalties):
                    error_TLnP[t, p, out] = left_nP - gram_nM @ found.weights(penalty)
        error_TLnP = error_TLnP[:, :, fold_n < JUDGED_FOLDS]
        best_T = error_TLnP.square().flatten(2).sum(2).argmin(1).tolist()
        found_T = [
            Tried(standardise, kernel, penalties[best], error_TLnP[t, best])
            for t, ((standardise, kernel), best) in enumerate(zip(shapes, best_T, strict=True))
        ]
        return found_T, imitations

    def _pairs(self, data: Data) -> tuple[Tensor, Tensor]:
        """Images and mixtures (N, C, H, W), float32, and the answers to them."""
        x_ND = torch.cat([data.y_NP, data.mixed_MP]).float()
        return x_ND.reshape(-1, *self.shape), torch.cat([data.c_NK, data.answer_MK])

    def _releases(
        self, simulate: Simulate, imitations: list[Callable[[Tensor], Tensor]], data: Data, rows: int
    ) -> tuple[Tensor, Tensor]:
        """Simulated releases (R, K) of images and mixtures, and which of these each is of."""
        return imitation.releases(simulate, imitations, self._pairs(data)[0], max(rows, 1))

    def _drawn_regression(
        self,
        standardise: Reading,
        kernel: Kernel,
        released: tuple[Tensor, Tensor],
        data: Data,
        mean_KD: Tensor,
        rng: torch.Generator,
        basis_DP: Tensor | None = None,
    ) -> ManyPairs:
        """A regression on simulated releases of images and mixtures, of what they add to the mean images."""
        basis_DP = self.parts.basis_DP if basis_DP is None else basis_DP
        c_RK, of_R = released
        y_NP, mean_KP = torch.cat([data.y_NP, data.mixed_MP]) @ basis_DP, mean_KD @ basis_DP
        return ManyPairs(standardise, kernel, c_RK, y_NP[of_R] - mean_KP[label_of(c_RK)], rng)

    def _mixing_voter(self, weight_P: Tensor, tried: Tried, data: Data) -> Voter:
        """The regression on all images and mixtures, times its weights."""
        mean_KP, landmarks = self.parts.mean_KD @ self.parts.basis_DP, self.config.landmarks
        (found,) = data.regressions(tried.standardise, tried.kernel, mean_KP, landmarks, (tried.apart,))
        return found.voter(tried.penalty, weight_P)

    def rest(self, c_NK: Tensor) -> Tensor:
        """Predicted principal components (N, P) of what the images add to the means of their labels."""
        rest_NP = self.share_P * super().rest(c_NK)
        for voter in self.others:
            rest_NP += voter(c_NK)
        for further in self.further:
            rest_NP += further(c_NK)
        return rest_NP
