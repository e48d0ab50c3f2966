"""Rendering from records alone: the same page from a study's folder and from its compact copy."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study import pareto, render
from study.records.curves import CURVES
from study.records.finished import load
from study.reports.report_files import markdown_of

TINY = "--executor local --trials 2 --seeds 2 --fresh-seeds 1 --victim-steps 30 --decoder-steps 20"
TINY += " --limit 100 --decoder-width 4"
TINY += " --attackers ridge label-only --defenses rounding noise --name s"
RESULTS = Path(__file__).parents[2] / "study" / "results"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("render")
    assert pareto.main([*TINY.split(), "--storage", str(root)]) == 0
    return root / "s"


def test_the_page_is_the_one_that_the_study_wrote(study: Path, tmp_path: Path) -> None:
    assert render.main([str(study), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "report.md").read_text() == (study / "report.md").read_text()
    assert (tmp_path / "frontier.png").stat().st_size > 20_000


def test_a_compact_copy_renders_the_same_page(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert render.main([str(study), "--out", str(tmp_path / "a"), "--compact", str(copy)]) == 0
    assert {p.name for p in copy.iterdir()} == {
        "episodes.parquet", "fresh.parquet", CURVES, "study.json", "report.md", "frontier.png",
    }  # fmt: skip
    assert render.main([str(copy), "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "b" / "report.md").read_bytes() == (study / "report.md").read_bytes()
    assert str(tmp_path.parent) not in (copy / "study.json").read_text()  # no path of this machine
    assert json.loads((copy / "study.json").read_text())["study"] == "s"


def test_a_copy_has_no_images_and_is_small(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list((study / "pictures").glob("*.npz"))  # the study itself has some
    copy = tmp_path / "copy"
    asked = [str(study), "--out", str(tmp_path / "a"), "--compact", str(copy)]
    assert render.main([*asked, "--most-mb", "0.001"]) == 2
    assert "episodes.parquet would have 0." in capsys.readouterr().err
    assert not copy.exists()
    assert render.main(asked) == 0
    for path in copy.glob("*.parquet"):
        for field in pq.read_schema(path):
            held = pa.types.is_list(field.type) or pa.types.is_binary(field.type)
            assert not held or path.name == CURVES, field.name
        assert path.stat().st_size < 1_000_000


def test_bad_folders_are_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render.main([str(tmp_path / "nothing")]) == 2
    assert "no study here" in capsys.readouterr().err
    (tmp_path / "study.json").write_text("{}")
    assert render.main([str(tmp_path)]) == 2
    assert "no finished episode" in capsys.readouterr().err


@pytest.mark.parametrize("folder", sorted(RESULTS.glob("*/study.json")), ids=lambda p: p.parent.name)
def test_committed_pages_are_what_the_committed_records_give(folder: Path) -> None:
    found = load(folder.parent)
    assert markdown_of(found) == (folder.parent / "report.md").read_text()
