"""What a study brings to a page, and where several keep their own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from study.reports.html import build_page
from study.reports.html.content import CONTENTS, Source, VectorOptions, content, safe_prefix
from tests.study.reports.html.helpers import Reader, finished, numbers_of


@pytest.fixture(scope="module")
def source(episodes: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source.of(finished(episodes, tmp_path_factory.mktemp("one")), "results/one")


def test_charts_and_texts_belong_together(source: Source) -> None:
    page, numbers = content(source, 0, "", VectorOptions(False))
    drawn = [
        page["hero"],
        *page["utility_charts"],
        *page["leakage_charts"],
        *page["knob_charts"],
        page["shares"],
    ]
    assert {d.name for d in drawn} == set(numbers["charts"])
    for chart in numbers["charts"].values():
        rows = numbers["datasets"][chart["data"]]
        assert set(chart["columns"]) <= {name for row in rows for name in row}, chart["title"]
    (best,) = [row["trial"] for row in numbers["datasets"]["settings"] if row["recommended"]]
    assert best == page["label"]["trial"]
    assert {name for name, _ in page["contents"]} == set(CONTENTS) - {"reconstructions"}
    assert page["answer"][0][0] == "DEPLOY"


def test_two_studies_on_one_page(source: Source, episodes: pd.DataFrame, tmp_path: Path) -> None:
    other = Source.of(finished(episodes, tmp_path, "other one"), "results/other")
    page = build_page([source, other], VectorOptions(False))
    read = Reader(page)
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {"made-up/settings", "other-one-1/settings"} <= set(ids)
    numbers = numbers_of(page)
    assert [study["prefix"] for study in numbers["studies"]] == ["made-up/", "other-one-1/"]
    rows = numbers["compare"]["datasets"]["all"]
    assert {row["study"] for row in rows} == {"made-up", "other one"}
    assert {row["part"] for row in rows} == {0, 1}
    assert len(rows) == sum(len(study["datasets"]["settings"]) for study in numbers["studies"])
    assert page.index('data-chart="compare"') < page.index('data-chart="hero"')
    assert any(row[:1] == ["other one"] and "Release labels only" in row[1] for row in read.rows)


def test_a_prefix_is_safe_in_an_address() -> None:
    assert safe_prefix('a "b"<c>', 0) == "a--b--c-/"
    assert safe_prefix("digits-same", 1) == "digits-same-1/"
