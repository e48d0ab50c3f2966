"""The table of what is known of each setting's leakage, from the surest number to the most optimistic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from study.reports.cells import add_row, new_table, setting_name, with_interval
from study.reports.extrapolations import CUT
from study.reports.findings import Findings
from study.reports.leakage import CERTIFIED, EXCESS, EXTRAPOLATED, POSSIBLE
from study.reports.rounding import limits_of, upper_limit
from study.runtime.plain import number

BOUNDS_NOTHING = "An extrapolation bounds nothing: another attacker may do better, with fewer images."

CERTIFICATE_HOLDS = (
    "Where they lie above a certificate, the certificate holds: its unit is the best use of the label, "
    "theirs label-only's measured error, which more images lower."
)
ONE_SEED = "too narrow, as one seed does not show what the choice of the attacker's images does"
FLAT = "no law of a falling error fits"


def limits_report(found: Findings) -> Table:
    """Certificate, measured excess, estimated limit and extrapolation of settings with learning curves."""
    curves = {row["trial"]: row for row in found.extrapolated if row["face"] == "train"}
    rows = found.configurations.merge(found.leakage, on="trial")
    rows = rows[rows["trial"].isin(curves)]
    above = (rows[[POSSIBLE, EXTRAPOLATED]].gt(rows[CERTIFIED], axis=0)).fillna(False).any(axis=None)
    holds = f"{CERTIFICATE_HOLDS} " if above else ""
    one = f" ({ONE_SEED})" if any(len(row["seeds"]) == 1 for row in found.curves) else ""
    attackers = ", ".join(sorted({row["attack"] for row in found.curves}))
    table = new_table(
        "How much leaks: what is certain, measured, estimated and extrapolated",
        "Shares of label-only's error, the larger of private train and test images. Certificate: no attacker "
        "gains more. Measured: by the worst attacker, with one-sided 95 % limits, on the images "
        "whose upper one is larger. Seems possible: by the "
        f"estimated limit of the releases. Extrapolated: to what the attacker {attackers} would reach with "
        "ever more images of its own, by the law error = a + b n^-c of its mean errors (x 1000, train) at n "
        "images, with a 95 % bootstrap interval over the private images and the choice of the attacker's"
        f"{one}, cut off at an exact certificate. {holds}{BOUNDS_NOTHING} {found.info}.",
        "distortion", "defense|", "certificate", "measured", "seems\npossible", "extra-\npolated",
        "errors at n images",
    )  # fmt: skip
    for _, s in rows.sort_values(["confidence_distortion", "trial"], kind="stable").iterrows():
        add_row(
            table,
            number(s["confidence_distortion"], ".3g"),
            setting_name(s),
            upper_limit(s[CERTIFIED]),
            limits_of(s, EXCESS, between="\n"),
            number(s[POSSIBLE], ".3f"),
            with_interval(s, EXTRAPOLATED, ".3f"),
            errors_text(curves[s["trial"]]),
        )
    return table


def errors_text(curve: Mapping[str, Any]) -> str:
    """``48.1 at 45, 45.0 at 90, ...`` on lines of two."""
    pairs = [f"{1000 * e:.1f} at {n}" for n, e in zip(curve["sizes"], curve["errors"], strict=True)]
    return "\n".join(", ".join(pairs[i : i + 2]) for i in range(0, len(pairs), 2))


def extrapolation_text(curve: Mapping[str, Any]) -> str:
    """What the answer says of a curve."""
    low, high = curve["limit_low"], curve["limit_high"]
    doubts = ["it bounds nothing"]
    doubts += [f"interval {ONE_SEED}"] if len(curve["seeds"]) == 1 else []
    doubts += [FLAT] if curve["scale"] == 0 else []
    doubts += ["cut off at its certificate"] if curve.get(CUT) else []
    return (
        f"error {curve['limit']:.4f} [{low:.4f}, {high:.4f}] on {curve['face']} images if {curve['attack']} "
        f"had ever more images than its {curve['sizes'][-1]} ({'; '.join(doubts)})"
    )
