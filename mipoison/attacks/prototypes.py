"""Prototypes: an image of each class, searched with labels alone, by repulsion from the class's boundary.

The attackers of the registry answer released vectors with images. This one answers none: it looks for an
image that stands for a *class*, far inside it, and reads nothing of an answer but its label. So it is no
attacker of a suite and has no part in excess leakage. What it finds is the same behind every defense that
keeps labels, because it asks the same questions there and reads the same out of the answers.

It is the attack of Kahla et al., "Label-Only Model Inversion Attacks via Boundary Repulsion" (CVPR 2022),
with a cheap prior in place of their generative network: principal components of the attacker's own images.
From a point that the API gives the class's label it asks about points on a sphere around it. Where some get
another label the centre moves away from their mean direction; where all get the label, the radius grows. As
in the authors' program centres stay in a box of coefficients and points on spheres do not have to. Other than
there, all of a sphere's points have to get the label (theirs: three quarters, see ``clear``), steps are
longer, and a class ends by its queries.

Shape suffixes: N images, K classes, k classes that are searched still, S points on a sphere, D pixels,
P components, CHW image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipoison.config import Config
from mipoison.linalg.principal import PrincipalComponents
from mipoison.protocols import Oracle
from mipoison.simplex import label_of

LEAST = 1e-9
"""Components of less than this share of the largest one's sum of squares are none."""
MOST = 1_000_000
"""Bound of all numbers of queries."""


@dataclass(frozen=True, kw_only=True)
class PrototypeConfig(Config):
    """Searches an image for each class with labels alone, away from the class's boundary.

    Attributes:
        components: P, principal components of the attacker's images at most, 1 to 4096.
        points: S, asked on each sphere, 2 to 4096.
        radius: of the first sphere, above 0, in standard deviations of the components.
        growth: factor of the radius after a sphere without another label, above 1, at most 10.
        clear: share of a sphere's points that have to get the label for it to grow, in [0.5, 1].
        step: the longest move, in radii, in (0, 1]: all points of another label in one direction would move
            the centre so far.
        queries: of each class at most, beside the starts, at least ``points + 1`` (a sphere and a move), at
            most 1,000,000.
        starts: points that are drawn from the prior at most to begin from, together for all classes, 1 to
            1,000,000.
        reach: bound of a centre's coefficients, in (0, 10] standard deviations.
    """

    SOURCE: ClassVar[str] = "Kahla et al., CVPR 2022"

    components: int = 20
    points: int = 32
    radius: float = 1.0
    growth: float = 1.3
    clear: float = 1.0
    step: float = 1.0
    queries: int = 1000
    starts: int = 1024
    reach: float = 1.5

    def validate(self) -> None:
        self.require("components", 1 <= self.components <= 4096, "between 1 and 4096")
        self.require("points", 2 <= self.points <= 4096, "between 2 and 4096 (points on a sphere)")
        self.require("radius", self.radius > 0, "above 0 (standard deviations of the components)")
        self.require("growth", 1 < self.growth <= 10, "above 1 and at most 10 (factor of the radius)")
        self.require("clear", 0.5 <= self.clear <= 1, "between 0.5 and 1 (share of a sphere's points)")
        self.require("step", 0 < self.step <= 1, "above 0 and at most 1 (radii)")
        least = self.points + 1
        self.require(
            "queries",
            least <= self.queries <= MOST,
            f"between {least:,} and {MOST:,}: one sphere and one move cost points + 1; raise queries or "
            "lower points",
        )
        self.require("starts", 1 <= self.starts <= MOST, f"between 1 and {MOST:,}")
        self.require("reach", 0 < self.reach <= 10, "above 0 and at most 10 (standard deviations)")

    def make(self) -> PrototypeSearch:
        return PrototypeSearch(self)


class ImagePrior:
    """Images as the mean plus whitened principal components: what stands in for a generator.

    Mean and components are of all images together, whatever their classes.

    Args:
        x_NCHW: images in [0, 1]. components: P at most; fewer where the images vary in fewer directions.

    Attributes:
        components: P.

    Raises:
        ValueError: fewer than two images, or images that are all equal.
    """

    def __init__(self, x_NCHW: Tensor, components: int) -> None:
        if len(x_NCHW) < 2:
            raise ValueError(f"prototypes need at least 2 images of the attacker, got {len(x_NCHW)}")
        self.shape, x_ND = x_NCHW.shape[1:], x_NCHW.cpu().double().flatten(1)
        self.mean_D = x_ND.mean(0)
        found = PrincipalComponents(x_ND - self.mean_D)
        leading = found.leading(components, LEAST)
        if len(leading) == 0:
            raise ValueError(
                f"prototypes need images that differ, got {len(x_NCHW)} equal ones: give the attacker others"
            )
        deviation_P = (found.square_R[leading] / len(x_ND)).sqrt()
        self.components = len(leading)
        self.basis_PD = (found.directions(leading) * deviation_P).mT

    def images(self, z_NP: Tensor) -> Tensor:
        """Images (N, C, H, W), float32, clamped to [0, 1], of coefficients in standard deviations."""
        x_ND = self.mean_D + z_NP @ self.basis_PD
        return x_ND.clamp(0, 1).float().reshape(-1, *self.shape)


@dataclass(frozen=True, eq=False)
class Prototype:
    """What was found of one class.

    Attributes:
        image_CHW: the prototype, float32 in [0, 1]; the API gave it the class's label.
        radius: of the largest sphere around it whose points got the label (all, or the share ``clear``), in
            standard deviations of the prior's components; 0 where there was no such sphere.
        queries: asked for this class, without the starts.
    """

    image_CHW: Tensor
    radius: float
    queries: int


@dataclass(frozen=True, eq=False)
class Prototypes:
    """What was found of all classes.

    Attributes:
        classes: K entries, in the classes' order; None where no start got the label.
        start_queries: asked to find the starts of all classes.
    """

    classes: tuple[Prototype | None, ...]
    start_queries: int

    @property
    def queries(self) -> int:
        """All that were asked."""
        return self.start_queries + sum(one.queries for one in self.classes if one is not None)

    @property
    def missing(self) -> tuple[int, ...]:
        """Classes without a prototype."""
        return tuple(k for k, one in enumerate(self.classes) if one is None)


class PrototypeSearch:
    """Searches all classes side by side, so that a request holds a sphere of each.

    Each class draws from a generator of its own: its questions depend on the labels that it was given and not
    on how long other classes are searched.
    """

    def __init__(self, config: PrototypeConfig) -> None:
        self.config = config

    def search(self, oracle: Oracle, x_NCHW: Tensor, *, rng: torch.Generator) -> Prototypes:
        """Find starts, then move and grow until a class has no queries left.

        At most ``starts + K * queries`` images are asked. A class also ends when its sphere is larger than
        the box of the centres, as where one label is all that the API answers.

        Args:
            oracle: the defended API, K classes. x_NCHW: the attacker's own images in [0, 1], at least two;
                they make the prior and are not asked. rng: a generator on the CPU.

        Raises:
            ValueError: fewer than two images, or images that are all equal.
        """
        config, n_classes = self.config, oracle.n_classes
        prior = ImagePrior(x_NCHW, config.components)
        *seeds, first = torch.randint(2**62, (n_classes + 1,), generator=rng).tolist()
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        z_KP, started_K, start_queries = self._starts(oracle, prior, torch.Generator().manual_seed(first))
        best_KP = z_KP.clone()
        next_K = torch.full((n_classes,), config.radius, dtype=torch.float64)
        reached_K, queries_K = torch.zeros_like(next_K), torch.zeros(n_classes, dtype=torch.int64)
        widest = 2 * config.reach * math.sqrt(prior.components)
        while True:
            left_K = started_K & (queries_K + config.points + 1 <= config.queries) & (next_K <= widest)
            at_k = left_K.nonzero()[:, 0]
            if len(at_k) == 0:
                break
            u_kSP = torch.stack([self._directions(rngs[k], prior.components) for k in at_k.tolist()])
            z_kSP = z_KP[at_k, None] + next_K[at_k, None, None] * u_kSP
            label_kS = self._labels(oracle, prior, z_kSP.flatten(0, 1)).view(len(at_k), -1)
            queries_K[at_k] += config.points
            outside_kS = label_kS != at_k[:, None]
            clear_k = outside_kS.sum(1) <= config.points * (1 - config.clear)
            won = at_k[clear_k]
            best_KP[won], reached_K[won] = z_KP[won], next_K[won]
            next_K[won] *= config.growth
            pushed = at_k[~clear_k]
            if len(pushed) == 0:
                continue
            away_kP = -(outside_kS[..., None] * u_kSP).mean(1)[~clear_k]
            moved_kP = z_KP[pushed] + config.step * next_K[pushed, None] * away_kP
            moved_kP = moved_kP.clamp(-config.reach, config.reach)
            inside_k = self._labels(oracle, prior, moved_kP) == pushed
            queries_K[pushed] += 1
            z_KP[pushed] = torch.where(inside_k[:, None], moved_kP, z_KP[pushed])
        best_KP = torch.where(reached_K[:, None] > 0, best_KP, z_KP)
        image_KCHW = prior.images(best_KP)
        return Prototypes(
            tuple(
                Prototype(image_KCHW[k], float(reached_K[k]), int(queries_K[k])) if started_K[k] else None
                for k in range(n_classes)
            ),
            start_queries,
        )

    def _starts(self, oracle: Oracle, prior: ImagePrior, rng: torch.Generator) -> tuple[Tensor, Tensor, int]:
        """The first drawn point of each class: coefficients (K, P), whether there is one (K,), queries."""
        z_KP = torch.zeros(oracle.n_classes, prior.components, dtype=torch.float64)
        started_K = torch.zeros(oracle.n_classes, dtype=torch.bool)
        asked, reach = 0, self.config.reach
        while asked < self.config.starts and not started_K.all():
            n = min(4 * self.config.points, self.config.starts - asked)
            z_NP = torch.randn(n, prior.components, generator=rng, dtype=torch.float64).clamp(-reach, reach)
            asked += n
            for z_P, label in zip(z_NP, self._labels(oracle, prior, z_NP).tolist(), strict=True):
                if not started_K[label]:
                    z_KP[label], started_K[label] = z_P, True
        return z_KP, started_K, asked

    def _directions(self, rng: torch.Generator, components: int) -> Tensor:
        """Directions (S, P) of length 1, evenly distributed."""
        u_SP = torch.randn(self.config.points, components, generator=rng, dtype=torch.float64)
        return u_SP / u_SP.norm(dim=1, keepdim=True).clamp_min(1e-300)

    @staticmethod
    def _labels(oracle: Oracle, prior: ImagePrior, z_NP: Tensor) -> Tensor:
        """All that is read of the answers."""
        return label_of(oracle.query(prior.images(z_NP)).cpu())
