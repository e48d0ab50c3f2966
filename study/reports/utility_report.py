"""The table of what each setting costs in utility, one column per face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.table import Table

from mipoison.defenses import ANCHORS
from study.records.constraints import FACES
from study.reports.cells import add_row, new_table, setting_name
from study.reports.findings import Findings
from study.runtime.plain import number

HEADINGS = {
    "accuracy_drop": "accuracy\ndrop",
    "label_agreement": "labels\nkept",
    "rank_correlation": "rank\ncorr.",
    "tail_rank_correlation": "below\nthe top",
    "top2_agreement": "top-2",
    "top5_agreement": "top-5",
    "log_loss_increase": "log loss",
    "brier_score_increase": "Brier\nscore",
    "ece_increase": "calib.\nerror",
}
"""Face -> heading of its column, after the distortion."""
BROKEN = "!"


def utility_report(found: Findings) -> Table:
    """The faces of utility of the anchors, of the frontier and of what is certified or safe."""
    claimed = found.verdicts.loc[found.verdicts["verdict"].isin(["certified", "safe"]), "trial"]
    rows = found.configurations
    rows = rows[
        rows["defense"].isin(ANCHORS) | rows["trial"].isin(found.front["trial"]) | rows["trial"].isin(claimed)
    ]
    rows = rows.sort_values(["confidence_distortion", "trial"], kind="stable")
    utility = found.utility.set_index("trial")
    broken = found.constraints.broken(utility)
    shown = {face: heading for face, heading in HEADINGS.items() if utility[FACES[face].column].notna().any()}
    table = new_table(
        f"What each setting costs in utility: {len(rows)} of {len(found.configurations)} settings",
        "The anchors, the frontier, and what is certified or safe; on private test images, mean over seeds. "
        "Rank correlation: Spearman, of released with clean scores; below the top: without the clean label. "
        "Top-2, top-5: share of the clean vector's second, of its second to fifth class that the released "
        "one keeps there. Log loss (nats), Brier score, calibration error: on true labels, with the increase "
        f"over the clean vectors' below. A face that no record has is left out. {BROKEN}: outside the "
        f"study's constraints: {found.constraints}. {found.info}.",
        "distortion", "defense|", *shown.values(),
    )  # fmt: skip
    for _, setting in rows.iterrows():
        trial = setting["trial"]
        cells = [
            _cell(utility.loc[trial], face, broken.loc[trial]) for face in ("confidence_distortion", *shown)
        ]
        add_row(table, cells[0], setting_name(setting), *cells[1:])
    return table


def _cell(utility: Mapping[str, Any], name: str, broken: pd.Series) -> str:
    """The value (of an increase: the number itself, the increase below it), marked if it is out of bounds."""
    face, value = FACES[name], utility[name]
    mark = f" {BROKEN}" if broken.get(name, False) else ""
    if face.less is None or name == "accuracy_drop":
        return number(value, ".3g") + mark
    below = "" if pd.isna(value) else f"\n{value:+z.3f}"
    return number(utility[face.column], ".3f") + below + mark
