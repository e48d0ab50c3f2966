"""One audit: asks what is planned, attacks with the answers, and returns what was found.

Shape suffixes: N images, K classes, H height, W width, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipoison.certificates import Observation, Uncertifiable, certify
from mipoison.process import own_context
from mipoison.randomness import generator
from mipoison.simplex import label_of
from study.auditing.advice import least_change
from study.auditing.asking import Asker, OracleOf
from study.auditing.attacking import (
    ATTACKERS,
    Errors,
    Pool,
    are_logits,
    as_images,
    as_scores,
    attacked,
    half_gains,
    mixtures_within,
)
from study.auditing.family import family_of
from study.auditing.findings import HELD_OUT, Cells, Findings
from study.auditing.images import AuditImages
from study.auditing.intervals import AuditedExcess, excess_of
from study.auditing.plan import REPEATS, Plan, near_copies, planned
from study.auditing.probes import Probes, probe
from study.auditing.rechecking import recheck

HELD_OUT_SHARE = 0.3
"""Of the asked public images, where there are no private ones."""
SPLITS = 2
"""Into halves of the attacker's images."""
FRESH = "answers to one image differ"

Told = Callable[[str], None]


@dataclass(frozen=True)
class _Answered:
    """Images (uint8) and answers (float64, as they came) of a pool."""

    images_NHWC: NDArray[np.uint8]
    raw_NK: Tensor

    def pool(self, reading: Callable[[Tensor], Tensor]) -> Pool:
        return Pool(as_images(self.images_NHWC), reading(self.raw_NK))


@own_context()
def audit(
    asker: Asker,
    images: AuditImages,
    *,
    url: str,
    budget: int,
    bar: float = 0.02,
    seed: int = 0,
    advise: bool = True,
    told: Told = lambda text: None,
) -> Findings:
    """Ask, attack, conclude. The same arguments ask the same questions, so that a broken audit goes on.

    Args:
        asker: the endpoint, and the answers so far. images: public and private ones. url: for the report.
        budget: questions. bar: accepted excess. seed: which images are asked. advise: look for the least
            change that is safe. told: called with what is being done.

    Raises:
        EndpointError, AnswerError, BudgetSpentError: see :meth:`Asker.query`. StaleAnswersError: see
            :func:`recheck`. ConfigError: a small budget.
    """
    rng = np.random.default_rng([seed, budget])
    plan = planned(images, budget, rng)
    told(f"asking {url}, {budget} questions at most")
    asker.tell()
    rechecked = recheck(asker, images.public_NHWC[plan.rows["public"]])
    answered = {
        name: _ask(asker, images.public_NHWC if name == "public" else images.private[name], rows, name)
        for name, rows in plan.rows.items()
    }
    seen = _probed(asker, answered, plan, rng)
    reading = partial(as_scores, logits=seen.logits)
    own = answered["public"].pool(reading)
    pools = {n: a.pool(reading) for n, a in answered.items() if n != "public"}
    if not pools:
        held = max(1, int(HELD_OUT_SHARE * len(own.x_NCHW)))
        pools = {HELD_OUT: Pool(own.x_NCHW[:held], own.c_NK[:held])}
        own = Pool(own.x_NCHW[held:], own.c_NK[held:])
    left = min(plan.left, asker.left + asker.kept_of("mixture"))  # the same when a broken audit goes on
    config = mixtures_within(left, len(own.x_NCHW)) if _asks_more(seen) else None
    oracle = OracleOf(asker, "mixture", reading)
    errors = attacked(
        own, pools, seed=seed, asking=(config, oracle) if config else None,
        told=lambda name: told(f"attacking: {name}"),
    )  # fmt: skip
    doublings = max(0.0, math.log2(len(images.public_NHWC) / len(own.x_NCHW)))
    excess = _excess(own, pools, errors, doublings, seed, told)
    cells, why = _cells(answered if images.private else {}, pools, seen, seed)
    found = Findings(
        url=url,
        queries=asker.queries,
        asked={name: len(a.images_NHWC) for name, a in answered.items()},
        probes=seen,
        family=family_of(seen),
        excess=excess,
        cells=cells,
        uncertified=why,
        change=None,
        bar=bar,
        notes=images.notes,
        earlier=replace(asker.earlier, rechecked=rechecked),
        attackers=tuple(next(iter(errors.scores.values()))),
    )
    if not found.above or not advise or seen.one_a_label:  # less than the label cannot be answered
        return found
    change = least_change(
        own,
        pools,
        bar=bar,
        doublings=doublings,
        seed=seed,
        grids=seen.repeats,
        told=lambda text: told(f"changing: {text}"),
    )
    return replace(found, change=change)


def _ask(asker: Asker, images_NHWC: NDArray[np.uint8], rows: NDArray[np.int64], pool: str) -> _Answered:
    return _Answered(images_NHWC[rows], asker.query(images_NHWC[rows], pool))


def _probed(asker: Asker, answered: Mapping[str, _Answered], plan: Plan, rng: np.random.Generator) -> Probes:
    public = answered["public"]
    unsure = public.raw_NK.max(1).values.argsort(stable=True).tolist()
    # Half of them are the least certain, where labels may be flipped; the rest are as they come.
    near = [*unsure[: plan.near // 2], *unsure[len(unsure) - (plan.near - plan.near // 2) :]]
    copies_P2HWC = [near_copies(public.images_NHWC[i], rng) for i in near]
    first = [public.raw_NK[near]]
    first += [asker.query(np.stack([c[step] for c in copies_P2HWC]), "near") for step in range(2)]
    again_PHWC = public.images_NHWC[: plan.repeated]
    repeats = [public.raw_NK[: plan.repeated]]
    repeats += [asker.query(again_PHWC, "public", repetition=r + 1) for r in range(REPEATS)]
    everything = torch.cat([a.raw_NK for a in answered.values()])
    seen = probe(
        everything.numpy(), torch.stack(repeats, 1).numpy(), torch.stack(first, 1).numpy(), asker.decimals
    )
    return replace(seen, logits=are_logits(everything))


def _asks_more(seen: Probes) -> bool:
    """Mixtures add nothing where there are few answers: one a label."""
    return seen.most_of_label > 1


def _excess(
    own: Pool, pools: Mapping[str, Pool], errors: Errors, doublings: float, seed: int, told: Told
) -> dict[str, AuditedExcess]:
    told("attacking: halves")
    floor = {n: float(min(e.mean() for e in of.values())) for n, of in errors.labels.items()}
    totals = {
        name: sum(float(of[name].mean()) / floor[pool] for pool, of in errors.scores.items())
        for name in ATTACKERS
    }
    best = min(totals, key=totals.__getitem__)
    halves = half_gains(own, pools, best, floor, seed=seed, splits=SPLITS)
    return {
        pool: excess_of(
            errors.scores[pool],
            errors.labels[pool],
            halves[pool],
            doublings=doublings,
            rng=np.random.default_rng(seed),
        )
        for pool in pools
    }


def _cells(
    answered: Mapping[str, _Answered], pools: Mapping[str, Pool], seen: Probes, seed: int
) -> tuple[dict[str, Cells], str]:
    """Pool -> certificate, or why there is none."""
    if not seen.repeats:
        return {}, FRESH
    found, why = {}, "there are no private images"
    for name, pool in pools.items():
        if name not in answered:
            continue
        rows_NK = answered[name].raw_NK
        certificate = certify(
            Observation(rows_NK),
            pool.x_NCHW,
            label_of(pool.c_NK),
            rng=generator(seed, "audit certificate", name),
        )
        if isinstance(certificate, Uncertifiable):
            why = certificate.reason
            continue
        bound = certificate.bound
        found[name] = Cells(
            min(1.0, max(0.0, certificate.excess)),
            len(torch.unique(rows_NK, dim=0)),
            bound.smallest_cell or 1,
        )
    return found, why
