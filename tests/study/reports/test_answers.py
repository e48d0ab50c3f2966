"""A setting that answers each label alike is called so: in the answer, the label and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study.reports.findings import Findings
from study.reports.html.verdict import verdict
from study.reports.label import label, label_markdown
from study.reports.summary import answer
from tests.study.reports.test_label import study_of, valid
from tests.study.reports.test_summary import CERTIFIED, rows

FIVE = {"distinct_releases": 5, "distinct_releases_test": 5, "distinct_labels": 5, "distinct_labels_test": 5}
MORE = FIVE | {"distinct_releases": 36, "distinct_releases_test": 21}
ZERO = CERTIFIED | {"certified_excess": 1e-16, "certified_excess_test": 0.0}
ONE = "one answer a label: the label's information, with softer scores"


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (
            CERTIFIED | FIVE,
            f"{ONE} (5 different answers to private train images, 5 to test images, of 5 labels)",
        ),
        (CERTIFIED | MORE, "36 different answers to private train images, 21 to test images, of 5 labels"),
        (ZERO, ONE),
        (CERTIFIED, None),  # older records of which nothing is known
    ],
)
def test_answer_label_and_page_say_how_many(
    records: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    study = study_of(
        rows("t1", "codebook", distortion=0.2, gain=0.0, seed=3, **records),
        rows("t2", "codebook", distortion=0.1, gain=0.0, seed=4, **(records | {"certified_excess": None})),
        tmp_path=tmp_path,
    )
    found = Findings.of(study)
    lines = dict(answer(found))
    made = valid(label(study))
    assert lines.get("answers") == said
    assert (made["trial"], made["answers"]["one_a_label"]) == (
        "t1",
        None if said is None else said.startswith(ONE),
    )
    assert (said or "different answers") in label_markdown(made) or said is None
    page = verdict(found, made)
    assert [more for name, _, more in page["numbers"] if name == "answers"] == (
        [] if said is None else [said]
    )
    runner_up = {FIVE["distinct_releases"]: "one answer a label", 36: "36 different answers of 5 labels"}
    expected = runner_up.get(records.get("distinct_releases", 0))
    assert expected is None or expected in lines["runner-up"]


def test_of_label_only_it_goes_without_saying(tmp_path: Path) -> None:
    study = study_of(tmp_path=tmp_path)
    assert "answers" not in dict(answer(Findings.of(study)))
    made = valid(label(study))
    assert made["trial"] == "label-only"
    assert made["answers"]["one_a_label"] is True
    assert ONE not in label_markdown(made)
