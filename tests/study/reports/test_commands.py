"""The command that runs a setting again is the same wherever it is shown, and has the study's data folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from study.records.finished import StoredStudy
from study.reports.board import judged_settings
from study.reports.commands import data_root, rerun_commands, without_paths
from study.reports.html import sections
from study.reports.html.content import Source, VectorOptions, content
from study.reports.label import label
from tests.study.reports.test_label import study_of
from tests.study.reports.test_summary import CERTIFIED, rows


@pytest.fixture
def study(tmp_path: Path) -> StoredStudy:
    part = rows("t0001-rounding", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED)
    study = study_of(part, tmp_path=tmp_path)
    study.episodes["victim"] = "mlp"
    return study


@pytest.mark.parametrize(
    ("words", "root"),
    [
        (["x", "--data-root", "/a b"], "/a b"),
        (["x", "--data-root=/a b", "--seeds", "1"], "/a b"),
        (["--data_root=/a=b"], "/a=b"),
        (["--data-root", "/a", "--data-root=/c"], "/c"),
        (["--seeds", "1"], None),
        (["--data-root"], None),
    ],
)
def test_the_data_folder(words: list[str], root: str | None, study: StoredStudy) -> None:
    study.about["command"] = words
    assert data_root(study) == root


@pytest.mark.parametrize("installed", [False, True])
def test_page_label_and_board_give_one_command(
    installed: bool, study: StoredStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/mipoison" if installed else "study/report.py"])
    study.about["command"] = ["--data-root=/my data"]
    program = "mipoison evaluate" if installed else "python study/evaluate.py"
    expected = f"{program} --like a/study --trial t0001-rounding --data-root DATA"
    assert rerun_commands(study, "a/study")["t0001-rounding"] == expected
    assert label(study, like="a/study")["command"] == expected
    table = judged_settings(study, "a/study").set_index("trial")
    assert table["command"]["t0001-rounding"] == expected
    page, _ = content(Source.of(study, "a/study"), 0, "", VectorOptions(False))
    commands = {row["trial"]: row["command"] for row in page["settings"]}
    assert commands["t0001-rounding"] == expected


@pytest.mark.parametrize("said_by", [None, "records", "settings"])
def test_an_own_classifier_s_weights_are_asked_for_where_the_study_had_a_file(
    said_by: str | None, study: StoredStudy
) -> None:
    study.episodes["scene.victim"] = "net:make"
    study.episodes["scene.victim_state"] = None
    expected = " --victim YOUR_CLASSIFIER" + ("" if said_by is None else " --victim-state YOUR_WEIGHTS")
    if said_by == "records":
        study.episodes["scene.victim_state"] = "/mnt/anna/w.pt"
    elif said_by == "settings":
        study.about["settings"]["victim_state"] = "/mnt/anna/w.pt"
    assert label(study)["command"].endswith(f"--trial t0001-rounding{expected}")
    page, _ = content(Source.of(study, "a/study"), 0, "", VectorOptions(False))
    assert page["vectors_command"].endswith(f"--vectors yes{expected}")
    assert all(row["command"].endswith(expected) for row in page["settings"])


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("--data-root /mnt/anna/data --seeds 2", "--data-root DATA --seeds 2"),
        ("--data_root=~/data --trials 3", "--data_root=DATA --trials 3"),
        ("--dataset folder:/mnt/anna/faces", "--dataset folder:FOLDER"),
        ("--dataset=folder:C:\\me\\faces", "--dataset=folder:FOLDER"),
        ("--dataset folder:faces --storage /mnt/s", "--dataset folder:faces --storage STORAGE"),
        ("--storage s3://bucket/prefix", "--storage s3://bucket/prefix"),
        ("--victim /mnt/anna/net.pt2 --victim-state=/w/x.pt", "--victim net.pt2 --victim-state=x.pt"),
        ("--victim net:make --name a/b", "--victim net:make --name a/b"),
        ("--plugin one /opt/two.py", "--plugin one two.py"),
    ],
)
def test_a_shown_command_has_no_path_of_the_machine(words: str, shown: str) -> None:
    assert without_paths(words.split()) == shown.split()


def test_the_page_shows_no_path_of_the_machine(study: StoredStudy) -> None:
    """One shows it around."""
    study.about["command"] = ["--data-root", "/mnt/anna/data", "--dataset", "folder:/mnt/anna/faces"]
    study.about["settings"] |= {"dataset": "folder:/mnt/anna/faces", "victim_state": "/mnt/anna/w.pt"}
    shown = sections.about(study)
    assert "/mnt/anna" not in shown
    assert "folder:FOLDER" in shown
    assert "w.pt" in shown
    assert study.about["command"][1] == "/mnt/anna/data"  # the records keep it
