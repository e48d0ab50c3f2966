"""The privacy label says what the records say, and keeps to its committed schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest

from mipoison.config import ConfigError
from mipoison.storage.files import Storage
from study.analysis.verdicts import DOUBTS
from study.records.finished import StoredStudy, load
from study.records.status import PRUNED
from study.reports.label import SCHEMA, UTILITY, label, label_files, label_markdown, trial_of
from tests.study.reports.test_summary import ANCHORS, CERTIFIED, rows

RESULTS = Path(__file__).parents[3] / "study" / "results"


def study_of(*parts: list[Any], tmp_path: Path, name: str = "made") -> StoredStudy:
    frame = pd.DataFrame([row for part in (ANCHORS, *parts) for row in part])
    return StoredStudy(name, {"settings": {}}, frame, None, Storage(tmp_path), "made up")


@pytest.fixture
def study(tmp_path: Path) -> StoredStudy:
    return study_of(
        rows("t0001-rounding", "rounding", distortion=0.2, gain=0.0, seed=3, **CERTIFIED),
        rows("t0002-noise", "noise", distortion=0.05, gain=0.2, seed=6),
        tmp_path=tmp_path,
    )


def valid(made: dict[str, Any]) -> dict[str, Any]:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    read = json.loads(label_files(made)["label.json"])
    jsonschema.validate(read, schema, cls=jsonschema.Draft202012Validator)
    assert read == made
    return made


def test_the_recommended_setting_s_label(study: StoredStudy) -> None:
    made = valid(label(study))
    assert (made["trial"], made["verdict"], made["recommended"]) == ("t0001-rounding", "certified", True)
    assert made["certificate"] == {"excess_leakage_at_most": 0.015, "identification_at_most": 0.02}
    assert made["command"] == "python study/evaluate.py --like 'made up' --trial t0001-rounding"
    assert made["utility"]["distortion_share_of_label_only"] == pytest.approx(0.4)
    assert (made["utility"]["log_loss"], made["utility"]["clean_log_loss"]) == (0.2, 0.1)
    text = label_markdown(made)
    assert "**certified**" in text
    assert "excess leakage at most 0.015, right image named at most 0.020, for every attacker" in text
    assert len(text.splitlines()) < 30


def test_no_path_of_the_machine_is_in_a_label(tmp_path: Path) -> None:
    """The data folder has a placeholder, and an absolute path of the study its folder's name."""
    found = study_of(tmp_path=tmp_path)
    found.about["command"] = ["study/pareto.py", "--data-root", "/mnt/anna/data"]
    found.episodes["dataset"] = "folder:/mnt/anna/faces"
    command = "python study/evaluate.py --like {} --trial none --data-root DATA --dataset folder:FOLDER"
    for like, shown in (
        (None, "'made up'"),
        ("/mnt/anna/results/x", "'made up'"),
        ("~/results/x", "'made up'"),
        ("results/x", "results/x"),
        ("s3://bucket/x", "s3://bucket/x"),
    ):
        made = valid(label(found, "none", like=like))
        assert made["command"] == command.format(shown)
        assert made["data"]["dataset"] == "folder"
        assert not any(b"anna" in text for text in label_files(made).values())


def test_what_was_measured_is_in_the_records(study: StoredStudy) -> None:
    """Against means over the records, computed here."""
    made = valid(label(study, "t0002"))
    frame = study.episodes
    assert (made["verdict"], made["certificate"], made["recommended"]) == ("leaks", None, False)

    def least(trial: str, column: str) -> float:
        return float(frame[frame["trial"] == trial].groupby("attack")[column].mean().min())

    excess = made["measured"]["excess_leakage"]
    for face, column in (("train", "reconstruction_error"), ("test", "reconstruction_error_test")):
        expected = 1 - least("t0002-noise", column) / least("label-only", column)
        assert excess[face]["value"] == pytest.approx(expected)
        assert excess[face]["low"] < expected < excess[face]["high"]
    pool = max(("train", "test"), key=lambda name: excess[name]["high"])
    assert excess["worst"] == excess[pool] | {"attacker": "ridge", "pool": pool}
    error = made["measured"]["reconstruction_error"]
    assert error["value"] == pytest.approx(least("t0002-noise", "reconstruction_error"))
    assert error["attacker"] == "ridge"
    assert made["measured"]["identification_auc"]["value"] == pytest.approx(0.7)
    assert made["seeds"] == [0, 1, 2, 3, 4]
    assert "none: another attacker may read more" in label_markdown(made)


@pytest.mark.parametrize("name", ["digits-search", "lfw-suite", "mnist-suite"])
def test_labels_of_committed_studies_keep_to_the_schema(name: str) -> None:
    study = load(RESULTS / name)
    for trial in (None, *sorted(set(study.episodes["trial"]))[:3]):
        made = valid(label(study, trial))
        assert "nan" not in label_markdown(made)
        assert set(UTILITY) < set(made["utility"])


def test_a_raised_check_is_named(tmp_path: Path) -> None:
    noise = rows("t1", "noise", distortion=0.2, gain=0.0, seed=3, **{"check.hidden_channel": True})
    made = valid(label(study_of(noise, tmp_path=tmp_path), "t1"))
    assert made["checks_raised"] == ["hidden_channel"]
    assert "hidden_channel" in label_markdown(made)


def test_an_undefended_setting_that_is_not_shown_to_leak_is_called_so(tmp_path: Path) -> None:
    study = study_of(rows("t1", "noise", distortion=0.2, gain=0.0, seed=3), tmp_path=tmp_path)
    assert valid(label(study, "t1"))["measured"]["excess_leakage"]["undefended_leaks"] is True
    assert "not shown to leak itself" not in label_markdown(label(study, "t1"))
    weak = rows("none", "none", distortion=0.0, gain=0.0, seed=1)
    rest = study.episodes[study.episodes["trial"] != "none"]
    frame = pd.concat([rest, pd.DataFrame(weak)], ignore_index=True)
    made = valid(
        label(StoredStudy("made", {"settings": {}}, frame, None, Storage(tmp_path), "made up"), "t1")
    )
    assert made["measured"]["excess_leakage"]["undefended_leaks"] is False
    assert "not shown to leak itself: more seeds" in label_markdown(made)


def test_only_attackers_that_ran_and_seeds_that_succeeded_are_counted(tmp_path: Path) -> None:
    screened = rows("t1", "noise", distortion=0.2, gain=0.0, seed=3)
    for row in screened:
        if row["attack"] == "ridge":
            row["status"] = PRUNED
    failed = rows("t2", "noise", distortion=0.3, gain=0.0, seed=4)
    failed[2]["status"] = "failed"
    study = study_of(screened, failed, tmp_path=tmp_path)
    made = valid(label(study, "t1"))
    assert made["measured"]["attackers"] == ["class-mean"]
    assert "only a part of the attackers ran (screened)" in label_markdown(made)
    assert "by the worst of 1 attacker" in label_markdown(made)
    made = valid(label(study, "t2"))
    assert made["measured"]["attackers"] == ["class-mean", "ridge"]
    assert made["seeds"] == [0, 2, 3, 4]
    assert "only a part" not in label_markdown(made)


def changed(made: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(made))
    *parents, name = path.split("/")
    place = copy
    for parent in parents:
        place = place[parent]
    place[name] = value
    return dict(copy)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("certificate", None), ("certificate/excess_leakage_at_most", -0.1),
        ("certificate/identification_at_most", 1.1), ("measured/excess_leakage/worst/value", 1.5),
        ("measured/excess_leakage/worst/pool", "none"), ("measured/reconstruction_error/value", -1),
        ("measured/identification_auc/value", 1.2), ("measured/attackers", ["knn", "knn"]),
        ("data/classes", 0), ("data/private_images/train", -1), ("victim/accuracy", 2),
        ("utility/label_agreement", 1.2), ("utility/rank_correlation", -2), ("utility/log_loss", -1),
        ("seeds", [1, 1]), ("seeds", [-1]), ("checks_raised", ["nonsense"]), ("margin", -1),
    ],
)  # fmt: skip
def test_the_schema_refuses_nonsense(path: str, value: Any, study: StoredStudy) -> None:
    made = valid(label(study))
    schema = json.loads(SCHEMA.read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(made, path, value), schema, cls=jsonschema.Draft202012Validator)


def test_the_schema_names_all_checks_that_a_label_can_have() -> None:
    named = json.loads(SCHEMA.read_text())["properties"]["checks_raised"]["items"]["enum"]
    assert sorted(named) == sorted(name.removeprefix("check.") for name in DOUBTS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_label_has_a_number_that_is_none(value: float, study: StoredStudy) -> None:
    made = changed(label(study), "measured/identification_auc/value", value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        label_files(made)
    made = changed(label(study), "margin", value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        label_files(made)


def test_an_own_classifier_is_named_by_its_digest_alone(tmp_path: Path) -> None:
    own = {"scene.victim": "private/place.py:make", "scene.victim_digest": "ab12"}
    study = study_of(rows("t1", "noise", distortion=0.2, gain=0.0, seed=3, **own), tmp_path=tmp_path)
    made = valid(label(study, "t1"))
    assert made["victim"] == made["victim"] | {"kind": "own", "digest": "ab12", "training_steps": None}
    assert made["command"].endswith(" --victim YOUR_CLASSIFIER")
    assert "private" not in json.dumps(made["victim"])


def test_a_setting_is_found_by_the_start_of_its_name(study: StoredStudy) -> None:
    assert trial_of(study, "t0001") == trial_of(study, "t0001-rounding") == "t0001-rounding"
    assert trial_of(study, "none") == "none"
    with pytest.raises(ConfigError, match="unknown trial 't00'"):
        trial_of(study, "t00")


def test_a_hostile_name_adds_nothing_to_the_markdown(tmp_path: Path) -> None:
    study = study_of(tmp_path=tmp_path, name="x\n# heading <script>|")
    text = label_markdown(valid(label(study)))
    assert "\n# heading" not in text
    assert "<script>" not in text


def test_it_needs_no_figure_and_no_template() -> None:
    """The server makes labels, too."""
    program = (
        "import sys, study.reports.label; "
        "print({m.split('.')[0] for m in sys.modules} & {'matplotlib', 'jinja2', 'altair', 'ray'})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert run.stdout.strip() == "set()", run.stderr
