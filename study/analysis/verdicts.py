"""What may be said of each setting: certified, safe, leaks or undecided, from the records alone.

On private train and on private test images: a claim holds on both or not at all. Shape suffixes: T
settings, S seeds, A attackers, H the mean over all images and those over half-samples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mipoison.defenses import LABEL_ONLY
from mipoison.metrics import half_samples
from mipoison.metrics.checks import LABEL_ONLY_TOLERANCE
from mipoison.metrics.excess import MARGIN, Excess, excess_intervals, seeds_needed, verdict
from study.records.status import PRUNED

if TYPE_CHECKING:
    import pandas as pd

POOLS = {
    "": ("reconstruction_error", *half_samples.COLUMNS),
    "_test": ("reconstruction_error_test", *half_samples.TEST_COLUMNS),
}
"""Ending of a pool's columns -> its mean error, and those over its half-samples."""
CERTIFIED = ("certified_excess", "certified_excess_test")
EXACT = ("smallest_cell", "smallest_cell_test")
"""Known where a certificate is exact: it counts cells, and holds however many answers an attacker compares.
That of noise speaks of one answer at a time, and of attackers who ask for no image of the same pixels: it
is a column, and no reason to call a setting certified."""
AGREEMENT = ("label_agreement", "attack_set_label_agreement")
BROKEN, VARIES = "check.beats_certificate", "check.repeated_queries_differ"
DOUBTS = (BROKEN, *(f"check.{n}" for n in ("hidden_channel", "writes_image", "asked_nothing")),
          VARIES)  # fmt: skip
"""Checks that say that more is in the answers than these attackers can read, or that they read too few."""
COLUMNS: dict[str, str] = {
    "trial": "string",
    "verdict": "string",
    **{f"suite_excess{pool}{end}": "Float64" for pool in POOLS for end in ("", "_low", "_high")},
    "suite_excess_worst": "Float64",
    "certified_excess_worst": "Float64",
    "seeds_to_decide": "Int64",
}
"""Columns of a verdict table and their types. ``suite_excess``: with the whole suite's best attacker, and its
one-sided 95 % bounds; ``_worst``: the larger of train and test. ``certified_excess_worst``: the largest
exact certificate over seeds and pools. ``seeds_to_decide``: how many more seeds would decide, of those
undecided."""


def verdict_table(episodes: pd.DataFrame, *, margin: float = MARGIN) -> pd.DataFrame:
    """One row per setting that was measured beside label-only on a common seed, sorted by trial.

    The seeds are those on which every attacker of the setting and of label-only succeeded. A setting whose
    record is not whole can be seen to leak, and is never safe: one that was cut short, lacks an attacker or a
    seed of label-only, or has a failed episode; one that flips labels, since attackers that trust labels then
    say little; one against which all attackers do worse than label-only's, which is their failure; one with a
    raised check of DOUBTS. It is certified only where every seed has an exact certificate on both pools, no
    attacker beat one, repeated queries get one answer, and no attacker gains more than the margin over these
    attackers' label-only error, which may lie above the best answer to a label. Label-only is certified, in
    older records too, as it tells nothing but the label. Where it is missing there is a verdict only for what
    is certified.

    Args:
        episodes: records of one scene with the column ``trial``.
        margin: excess leakage that is accepted, a share of label-only's error.
    """
    import pandas as pd

    names = [name for pool in POOLS.values() for name in pool]
    wanted = ["trial", "defense", "attack", "seed", "status", *names, *CERTIFIED, *EXACT, *AGREEMENT, *DOUBTS]
    rows = episodes.reindex(columns=wanted)
    anchor = rows[(rows["defense"] == LABEL_ONLY) & (rows["status"] == "ok")]
    by_trial = _by_trial(rows)
    certified = _certified(by_trial, set(anchor["seed"]))
    floor_pairs = zip(anchor["seed"].tolist(), anchor["attack"].tolist(), strict=True)
    floor_seeds, floor_attackers = _shared(floor_pairs, set(anchor["attack"]))
    floor_trial = anchor["trial"].iloc[0] if len(anchor) else None
    groups: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
    whole: dict[Any, bool] = {}
    doubted: dict[Any, bool] = {}
    for trial, part in by_trial.items():
        gone = {r.attack for r in part if r.status == PRUNED}
        pairs = ((r.seed, r.attack) for r in part if r.ok and r.attack not in gone)
        seeds, attackers = _shared(pairs, {r.attack for r in part} - gone)
        whole[trial] = (
            {r.status for r in part} == {"ok"}
            and set(floor_attackers) <= set(attackers)
            and set(floor_seeds) <= set(seeds)
            and not any(r.flips for r in part)
        )
        doubted[trial] = any(r.doubted for r in part)
        groups[(seeds, attackers)].append(trial)
    indexed = rows[rows["status"] == "ok"].drop_duplicates(["trial", "seed", "attack"])
    indexed = indexed.set_index(["trial", "seed", "attack"])[names].astype("Float64")
    found: dict[Any, dict[str, Excess]] = defaultdict(dict)
    for (seeds, attackers), trials in groups.items():
        common = tuple(s for s in seeds if s in set(floor_seeds))
        if not common or not attackers or floor_trial is None:
            continue
        for pool, columns in POOLS.items():
            error = _errors(indexed, trials, common, attackers, columns)
            floor = _errors(indexed, [floor_trial], common, floor_attackers, columns)[0]
            known = np.isfinite(error).all(axis=(1, 2, 3))
            if np.isnan(floor).any() and not np.isnan(floor[..., 0]).any():  # records without half-samples
                error, floor = error[..., :1], floor[..., :1]
                known = np.isfinite(error).all(axis=(1, 2, 3))
            if not np.isfinite(floor).all() or not known.any() or not (floor > 0).all():
                continue
            excess = excess_intervals(error[known], floor, rng=np.random.default_rng(0))
            for trial, value in zip(np.asarray(trials, dtype=object)[known], excess, strict=True):
                found[trial][pool] = value
    out = [_row(t, found.get(t, {}), certified.get(t), whole[t], doubted[t], margin) for t in whole]
    return pd.DataFrame(out, columns=list(COLUMNS), dtype=object).astype(COLUMNS)


class _Episode(NamedTuple):
    """What of a record decides beside its errors. ``known``: it has exact certificates on both pools;
    ``certified``: their larger one; ``flips``: it changes labels; ``broken``, ``doubted``: of those that are
    ok, a raised check that contradicts the certificate, or any."""

    defense: Any
    attack: Any
    seed: Any
    status: Any
    ok: bool
    known: bool
    certified: float
    flips: bool
    broken: bool
    doubted: bool


def _by_trial(rows: pd.DataFrame) -> dict[Any, list[_Episode]]:
    """The episodes of each trial, in the order of the trials' names."""
    import pandas as pd

    ok_N = (rows["status"] == "ok").to_numpy(dtype=bool, na_value=False)
    known_N = rows[[*CERTIFIED, *EXACT]].notna().to_numpy().all(axis=1)
    both_N2 = rows[list(CERTIFIED)].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    flips_N2 = (rows[list(AGREEMENT)].astype("Float64") < 1).fillna(False).to_numpy(dtype=bool)
    raised_ND = np.zeros((len(rows), len(DOUBTS)), dtype=bool)
    raised_ND[ok_N] = rows.loc[ok_N, list(DOUBTS)].astype("boolean").fillna(False).to_numpy(dtype=bool)
    contradicts = [DOUBTS.index(BROKEN), DOUBTS.index(VARIES)]
    columns: list[Any] = [rows[name].tolist() for name in ("defense", "attack", "seed", "status")]
    columns += [ok_N, known_N, both_N2.max(axis=1, initial=-np.inf), flips_N2.any(axis=1)]
    columns += [raised_ND[:, contradicts].any(axis=1), raised_ND.any(axis=1)]
    code_N, names = pd.factorize(rows["trial"], sort=True)
    out: dict[Any, list[_Episode]] = {name: [] for name in names.tolist()}
    for code, episode in zip(code_N.tolist(), map(_Episode._make, zip(*columns, strict=True)), strict=True):
        if code >= 0:
            out[names[code]].append(episode)
    return out


def _certified(by_trial: dict[Any, list[_Episode]], seeds: set[Any]) -> dict[Any, float]:
    """Trial -> largest exact certified excess over seeds and pools; absent if one is missing or was beaten,
    or if repeated queries differ.

    Args:
        seeds: label-only's; a trial needs a certificate on each of them and of its own.
    """
    out = {}
    for trial, part in by_trial.items():
        ok = [r for r in part if r.ok]
        # An exact certificate is over answers that are the same whenever the query is asked.
        if not ok or any(r.broken for r in ok):
            continue
        if all(r.known for r in ok) and {r.seed for r in ok} >= seeds | {r.seed for r in part}:
            out[trial] = float(max(r.certified for r in ok))
        elif {r.defense for r in part} == {LABEL_ONLY}:
            out[trial] = 0.0
    return out


def largest_certificates(rows: pd.DataFrame) -> dict[Any, float]:
    """Trial -> largest certified excess over seeds and pools; absent where a pool has none on some seed."""
    import pandas as pd

    ok = rows[rows["status"] == "ok"].drop_duplicates(["trial", "seed"])
    values = ok[list(CERTIFIED)].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    largest = pd.Series(values.max(axis=1), index=ok["trial"]) if len(ok) else pd.Series(dtype=float)
    return {trial: float(v.max()) for trial, v in largest.groupby(level=0) if not v.isna().any()}


def _shared(
    pairs: Iterable[tuple[Any, Any]], attackers: Iterable[Any]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Seeds on which all the attackers succeeded, and the attackers, sorted.

    Args:
        pairs: seed and attacker of each success.
    """
    names = tuple(sorted(attackers))
    by_seed: dict[Any, set[Any]] = defaultdict(set)
    for seed, attack in pairs:
        by_seed[seed].add(attack)
    return tuple(sorted(seed for seed, found in by_seed.items() if len(found) == len(names))), names


def _errors(
    indexed: pd.DataFrame, trials: list[Any], seeds: tuple[Any, ...], attackers: tuple[Any, ...],
    columns: tuple[str, ...],
) -> NDArray[np.float64]:  # fmt: skip
    """Mean errors (T, S, A, H); NaN where one is missing."""
    import pandas as pd

    places = pd.MultiIndex.from_product([trials, seeds, attackers])
    values = indexed[list(columns)].reindex(places).to_numpy(dtype=float, na_value=np.nan)
    return values.reshape(len(trials), len(seeds), len(attackers), len(columns))


def _row(
    trial: Any, found: dict[str, Excess], certified: float | None, whole: bool, doubted: bool, margin: float
) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": trial, "certified_excess_worst": certified}
    for pool, excess in found.items():
        name = f"suite_excess{pool}"
        row |= {name: excess.mean, f"{name}_low": excess.low, f"{name}_high": excess.high if whole else None}
    if found:
        row["suite_excess_worst"] = max(excess.mean for excess in found.values())
    train, test = found.get(""), found.get("_test")
    if train is None:
        row["verdict"] = "certified" if certified is not None and certified <= margin else None
        return row
    whole = whole and all(excess.gain >= -LABEL_ONLY_TOLERANCE for excess in found.values())
    if any(excess.low is not None and excess.low > margin for excess in found.values()):
        certified = None
    trusted = whole and not doubted
    row["verdict"] = verdict(train, test, certified_excess=certified, margin=margin, whole=trusted)
    if row["verdict"] == "undecided" and trusted:
        row["seeds_to_decide"] = _more_seeds(list(found.values()), margin)
    return row


def _more_seeds(pools: list[Excess], margin: float) -> int | None:
    """How many more seeds would decide, if the means stay what they are: the setting leaks (the effect is its
    excess) or is safe (the effect is what is left up to the margin), whichever is shown with fewer."""
    spreads = [pool.spread for pool in pools if pool.spread is not None]
    if len(spreads) < len(pools):
        return None
    mean, seeds = max(pool.mean for pool in pools), min(pool.seeds for pool in pools)
    effect = max(mean, margin - mean)
    return max(seeds_needed(max(spreads), effect, pilot=seeds) - seeds, 1)
