"""Raised checks are named: those that doubt the verdict, and those that leave a number unread."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mipoison.metrics import CHECKS
from study.analysis.verdicts import DOUBTS
from study.reports.findings import Findings
from study.reports.label import label, label_markdown
from study.reports.raised import VOIDS, raised_text
from study.reports.summary import answer
from tests.study.reports.test_label import study_of, valid
from tests.study.reports.test_summary import CERTIFIED, rows


def test_an_unfit_judge_leaves_attack_accuracy_unread(tmp_path: Path) -> None:
    part = rows(
        "t1", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED, **{"check.unfit_judge": True}
    )
    part[0]["check.unfit_judge"] = False
    study = study_of(part, tmp_path=tmp_path)
    assert dict(answer(Findings.of(study)))["checks"] == (
        "unfit_judge in 9 of 10 records: do not read attack accuracy"
    )
    made = valid(label(study))
    assert (made["checks_raised"], made["not_to_be_read"]) == ([], ["attack_accuracy"])
    line = next(line for line in label_markdown(made).splitlines() if "Checks raised" in line)
    assert "none that puts the verdict in doubt; attack accuracy is not to be read" in line


def test_both_kinds_stand_in_one_line() -> None:
    frame = pd.DataFrame([{"trial": "t", "check.hidden_channel": True, "check.unfit_judge": True}])
    assert raised_text(frame) == (
        "raised in its records: hidden_channel; report.md says what they mean; "
        "unfit_judge in 1 of 1 records: do not read attack accuracy"
    )
    assert raised_text(frame.assign(**{"check.hidden_channel": False, "check.unfit_judge": False})) is None
    assert raised_text(frame[["trial"]]) is None


def test_they_are_checks_that_doubt_no_verdict() -> None:
    assert set(VOIDS) <= set(CHECKS)
    assert not {f"check.{name}" for name in VOIDS} & set(DOUBTS)
