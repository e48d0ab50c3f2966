"""From what a defense states of its releases to the columns of a record.

Shape suffixes: N images, CHW image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mipoison.certificates.observation import Observation, Uncertifiable
from mipoison.certificates.pool import DRAWS, PoolBound, cells_of, exact, sampled, within_variance


@dataclass(frozen=True)
class Certificate:
    """What no attacker can beat on a pool of images.

    Attributes:
        bound: error, identification, cells.
        floor: the error of whoever knows the label alone: mean variance of the images of one label.
        size: images of the pool. Few images overstate what leaks: a cell of one image counts as read.
    """

    bound: PoolBound
    floor: float
    size: int

    @property
    def excess(self) -> float:
        """Share by which an error can lie below the floor at most."""
        return 1 - self.bound.error / self.floor


def certify(
    observation: Observation | Uncertifiable,
    x_NCHW: Tensor,
    label_N: Tensor,
    *,
    rng: torch.Generator,
    askings: int = 1,
    draws: int = DRAWS,
) -> Certificate | Uncertifiable:
    """The certificate of a pool, or why there is none. No attacker is trained.

    Args:
        observation: what the defense states of the releases for these images.
        x_NCHW: the pool, pixels in [0, 1]. label_N: the labels that the clean vectors tell, for the floor.
        rng: draws the noise, where there is some.
        askings: answers with independent noise that an attacker has to one image, where noise is fresh.
        draws: of the noise, at most.

    Raises:
        ValueError: the numbers of images, labels and observed rows differ, or askings is below 1.
    """
    if isinstance(observation, Uncertifiable):
        return observation
    if not len(observation) == len(x_NCHW) == len(label_N):
        raise ValueError(
            f"{len(observation)} observed rows, {len(x_NCHW)} images and {len(label_N)} labels: one each"
        )
    if askings < 1:
        raise ValueError(f"askings = {askings}: at least 1")
    if not len(x_NCHW):
        return Uncertifiable("there is no image in the pool")
    certificate = _of_pool(observation, x_NCHW, label_N, rng=rng, askings=askings, draws=draws)
    if not certificate.floor > 0:
        return Uncertifiable("each label has one image in the pool: the label tells everything")
    return certificate


def _of_pool(
    observation: Observation,
    x_NCHW: Tensor,
    label_N: Tensor,
    *,
    rng: torch.Generator,
    askings: int = 1,
    draws: int = DRAWS,
) -> Certificate:
    """The certificate, also of a pool whose floor is 0: then there is no excess."""
    x_ND, label_N = x_NCHW.detach().cpu().flatten(1), label_N.detach().cpu()
    cell_N, noise = cells_of(observation.rows_ND), observation.gaussian
    if noise is None:
        bound = exact(cell_N, x_ND, label_N)
    else:
        bound = sampled(cell_N, noise, x_ND, rng=rng, askings=askings, draws=draws)
        # Identification is measured among the images of one clean label, whether the release tells it or not.
        told_N = cells_of(torch.stack([cell_N, label_N.to(cell_N)], 1))
        if int(told_N.max()) > int(cell_N.max()):
            told = sampled(told_N, noise, x_ND, rng=rng, askings=askings, draws=draws)
            bound = replace(bound, identification=told.identification)
    return Certificate(bound, within_variance(cells_of(label_N[:, None]), x_ND), len(x_ND))


def by_pool_size(
    observation: Observation,
    x_NCHW: Tensor,
    label_N: Tensor,
    sizes: Iterable[int],
    *,
    rng: torch.Generator,
    repeats: int = 10,
) -> dict[int, Certificate]:
    """Certificates of random parts of a pool: how the bound changes with the number of images.

    Args:
        observation, x_NCHW, label_N, rng: see :func:`certify`.
        sizes: images of a part, each at most those of the pool. repeats: parts of one size.

    Returns:
        size -> the certificate with the mean error, floor and identification of the parts; of their cells
        nothing is said.

    Raises:
        ValueError: a size below 1 or above the pool's, or one at which labels tell the images of every part.
    """
    out = {}
    for size in sizes:
        if not 1 <= size <= len(observation):
            raise ValueError(f"size = {size}: must be between 1 and the pool's {len(observation)} images")
        found = []
        for _ in range(repeats):
            part_S = torch.randperm(len(observation), generator=rng)[:size]
            found.append(_of_pool(observation.part(part_S), x_NCHW[part_S], label_N[part_S], rng=rng))
        if not any(certificate.floor > 0 for certificate in found):
            raise ValueError(f"size = {size}: in no part does a label have two different images")
        out[size] = Certificate(
            PoolBound(
                error=sum(c.bound.error for c in found) / repeats,
                identification=sum(c.bound.identification for c in found) / repeats,
            ),
            floor=sum(c.floor for c in found) / repeats,
            size=size,
        )
    return out


COLUMNS = (
    "certified_error",
    "certified_excess",
    "certified_identification",
    "certified_tolerance",
    "smallest_cell",
    "share_in_small_cells",
    "pool_size",
)
"""Of each pool; beside them stands ``certificate_none``, the reason where they are null."""


def certificate_columns(certificates: Mapping[str, Certificate | Uncertifiable]) -> dict[str, Any]:
    """A record's columns; null where there is no certificate, and ``certificate_none`` says why.

    Args:
        certificates: of each pool, by the suffix of its columns.
    """
    columns: dict[str, Any] = {"certificate_none": None}
    for suffix, certificate in certificates.items():
        if isinstance(certificate, Uncertifiable):
            columns["certificate_none"] = certificate.reason
            columns |= {name + suffix: None for name in COLUMNS}
            continue
        bound = certificate.bound
        values = (
            bound.error,
            certificate.excess,
            bound.identification,
            bound.tolerance,
            bound.smallest_cell,
            bound.share_in_small_cells,
            certificate.size,
        )
        columns |= {name + suffix: value for name, value in zip(COLUMNS, values, strict=True)}
    return columns
