"""Learning curves after the search: of the anchors and the frontier, once, whatever becomes of one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mipoison.metrics.learning_curve import learning_curve
from mipoison.storage.files import Storage, StorageError
from study import pareto
from study.analysis.verdicts import verdict_table
from study.executors.local import LocalExecutor
from study.records.curves import CURVES, curves_bytes, read_curves
from study.records.finished import load
from study.runtime.progress import Progress
from study.session import curves
from study.session.curves import curve_rows, not_leaking, write_learning_curves
from study.session.opening import open_study
from study.session.study import Study
from study.settings.study_settings import StudySettings
from study.trial.curves import CurveErrors
from study.trial.spec import TrialSpec
from tests.reportless import without_report

TINY = (
    "--executor local --seeds 2 --limit 100 --victim-steps 30 --decoder-steps 20 --decoder-width 4 --name s"
)
TINY += " --attackers class-mean ridge --defenses rounding noise"


def law(sizes: Any, a: float) -> np.ndarray:
    return a + 0.2 * np.asarray(sizes, float)[:, None] ** -0.6 * np.ones(30)


def found(a: float = 0.03) -> CurveErrors:
    sizes = (10, 20, 40, 80)
    errors = {"train": law(sizes, a), "test": law(sizes, a / 2)}
    return CurveErrors("kernel", (0, 1), sizes, errors, {"train": (10, 20), "test": (15, 15)})


def opened(root: Path) -> Study:
    return open_study(StudySettings(seeds=2, name="s", storage=str(root)), Console(file=io.StringIO()))


def front(*trials: str) -> pd.DataFrame:
    return pd.DataFrame({"trial": trials, "defense": "noise", "defense.budget": 0.1})


def written(
    root: Path, monkeypatch: pytest.MonkeyPatch, measure: Any, *trials: str
) -> tuple[list[dict[str, Any]], list[TrialSpec], list[str]]:
    """The rows of the file, the specs that were measured, and the lines that were printed."""
    asked: list[TrialSpec] = []
    lines: list[str] = []

    def measured(spec: TrialSpec) -> CurveErrors:
        asked.append(spec)
        return measure(spec)

    monkeypatch.setattr(curves, "measure_curve", measured)
    progress = Progress(Console(file=io.StringIO()))
    write_learning_curves(opened(root), front(*trials), LocalExecutor(), progress, lines.append)
    return read_curves(Storage(root), "s"), asked, lines


def test_rows_are_the_fitted_laws() -> None:
    rows = curve_rows("t1", found())
    assert [(row["face"], row["images"], row["seeds"]) for row in rows] == [
        ("train", 30, [0, 1]),
        ("test", 30, [0, 1]),
    ]
    for row, a in zip(rows, (0.03, 0.015), strict=True):
        assert row["limit"] == pytest.approx(a, abs=1e-4)
        assert row["errors"] == pytest.approx(law(row["sizes"], a)[:, 0])
        assert row["gain"] == pytest.approx(1 - a / law([80], a)[0, 0], abs=0.01)
        fitted = learning_curve(row["sizes"], law(row["sizes"], a), rng=np.random.default_rng(0))
        assert found().seed_of(row["face"]).tolist() == {
            "train": [0] * 10 + [1] * 20, "test": [0] * 15 + [1] * 15
        }[row["face"]]  # fmt: skip
        assert (row["scale"], row["exponent"]) == (fitted.scale, fitted.exponent)


def test_the_anchors_and_the_frontier_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, asked, lines = written(tmp_path, monkeypatch, lambda spec: found(), "t1-noise", "none")
    assert [spec.trial for spec in asked] == ["label-only", "none", "t1-noise"]
    assert {spec.attackers for spec in asked} == {("kernel",)}
    assert [len(spec.scenes) for spec in asked] == [2] * 3
    assert asked[2].knobs["budget"] == 0.1
    assert len(rows) == 6
    assert not lines
    before = (tmp_path / "s" / CURVES).read_bytes()
    again, asked, _ = written(tmp_path, monkeypatch, lambda spec: found(), "t1-noise")
    assert asked == []
    assert (tmp_path / "s" / CURVES).read_bytes() == before
    # A setting that has joined the frontier is added; those that were measured are kept.
    more, asked, _ = written(tmp_path, monkeypatch, lambda spec: found(), "t2-noise")
    assert [spec.trial for spec in asked] == ["t2-noise"]
    assert [row for row in more if row["trial"] != "t2-noise"] == again


def test_a_setting_with_one_face_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, monkeypatch, lambda spec: found(), "t1-noise")
    rows = read_curves(Storage(tmp_path), "s")
    half = [row for row in rows if (row["trial"], row["face"]) != ("none", "test")]
    Storage(tmp_path).write(f"s/{CURVES}", curves_bytes(half))
    again, asked, _ = written(tmp_path, monkeypatch, lambda spec: found(), "t1-noise")
    assert [spec.trial for spec in asked] == ["none"]
    assert again == rows


def test_a_remote_error_is_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's error has the text of the remote traceback, which names files and processes."""

    def measure(spec: TrialSpec) -> CurveErrors:
        error = RuntimeError("\x1b[36mpython (pid=1) File x\n" * 9)
        error.cause = ValueError("nothing to fit")  # type: ignore[attr-defined]
        raise error

    _, _, lines = written(tmp_path, monkeypatch, measure)
    assert lines[0] == "no learning curve of label-only: ValueError: nothing to fit"


def test_one_that_cannot_be_measured_is_a_line_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(spec: TrialSpec) -> CurveErrors:
        if spec.trial == "none":
            raise MemoryError("too\nlarge")
        few = CurveErrors("kernel", (0,), (1, 2, 3), {"train": np.ones((3, 2))}, {"train": (2,)})
        return few if spec.trial == "label-only" else found()

    rows, _, lines = written(tmp_path, monkeypatch, measure, "t1-noise")
    assert {row["trial"] for row in rows} == {"t1-noise"}
    assert len(lines) == 2
    assert lines[0].startswith("no learning curve of label-only: ValueError: a learning curve needs 4")
    assert lines[1].startswith("no learning curve of none: MemoryError: too")
    assert "\n" not in lines[1]
    _, asked, lines = written(tmp_path, monkeypatch, lambda spec: found(), "t1-noise")
    assert [spec.trial for spec in asked] == ["label-only", "none"]
    assert not lines


@pytest.mark.parametrize("end", [KeyboardInterrupt, StorageError])
def test_what_was_measured_before_an_end_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    def measure(spec: TrialSpec) -> CurveErrors:
        if spec.trial == "none":
            raise end("disk full")
        return found()

    with pytest.raises(end):
        written(tmp_path, monkeypatch, measure, "t1-noise")
    assert {row["trial"] for row in read_curves(Storage(tmp_path), "s")} == {"label-only"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder; tests must not change what is in it."""
    root = tmp_path_factory.mktemp("curves")
    assert pareto.main([*TINY.split(), "--trials", "2", "--storage", str(root)]) == 0
    return root / "s"


def test_a_study_has_its_curves_and_a_resumed_one_measures_none(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_curves(Storage(study.parent), "s")
    verdicts = verdict_table(load(str(study)).episodes)
    leaking = set(verdicts.loc[verdicts["verdict"] == "leaks", "trial"])
    front = set(pd.read_parquet(study / "frontier.parquet")["trial"])
    trials = {"none", "label-only"} | front - leaking
    assert {(row["trial"], row["face"]) for row in rows} == {
        (t, f) for t in trials for f in ("train", "test")
    }
    assert {tuple(row["seeds"]) for row in rows} == {(0, 1)}
    limits = {row["trial"]: row["limit"] for row in rows if row["face"] == "train"}
    assert limits["none"] < limits["label-only"]
    assert "extrapolated" in (study / "report.md").read_text()
    assert "extrapolated" in (study / "report.html").read_text()
    assert "learning_curves" not in json.loads((study / "study.json").read_text())["settings"]

    def again(spec: TrialSpec) -> CurveErrors:
        raise AssertionError("measured again")

    monkeypatch.setattr(curves, "measure_curve", again)
    without_report(monkeypatch)
    stored = (study / CURVES).read_bytes()
    arguments = [*TINY.split(), "--trials", "2", "--storage", str(study.parent), "--resume"]
    assert pareto.main(arguments) == 0
    assert (study / CURVES).read_bytes() == stored


def test_settings_shown_to_leak_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = pd.DataFrame({"trial": ["a", "b", "c"], "verdict": ["leaks", "undecided", "certified"]})
    asked: list[float] = []
    monkeypatch.setattr(curves, "verdict_table", lambda episodes, margin: (asked.append(margin), found)[1])
    kept = not_leaking(front("d", "c", "b", "a"), pd.DataFrame(), 0.03)
    assert kept["trial"].tolist() == ["d", "c", "b"]  # d: no verdict, so nothing is shown
    assert asked == [0.03]


def test_none_without_the_setting(tmp_path: Path) -> None:
    arguments = [*TINY.split(), "--trials", "0", "--seeds", "1", "--no-learning-curves"]
    assert pareto.main([*arguments, "--storage", str(tmp_path)]) == 0
    assert not (tmp_path / "s" / CURVES).exists()
    assert "extrapolated" not in (tmp_path / "s" / "report.md").read_text()
