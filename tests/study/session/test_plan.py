"""The plan of a study: its counts are those of a run, and its costs those that a study stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mipoison.config import ConfigError
from mipoison.data.images import DataError
from mipoison.storage.files import Storage
from study.session.plan import (
    CONFIRMED,
    DECODERS,
    Costs,
    Counts,
    counts_of,
    measured_costs,
    plan_lines,
    processes_of,
    seconds_of,
    stored_costs,
)
from study.settings.study_settings import StudySettings

SMALL = StudySettings(
    executor="local", trials=3, seeds=2, victim_steps=40, decoder_steps=20, limit=100, name="small",
    attackers=("class-mean", "ridge", "passive", "label-only"), defenses=("rounding", "tail-noise", "lpa"),
)  # fmt: skip
"""The settings of the fixture ``small_study``."""


def test_without_screening_the_counts_are_those_of_the_finished_study(small_study: Path) -> None:
    counts = counts_of(SMALL, screens=False, finished=0, anchors=2)
    rows = pd.read_parquet(small_study / "episodes")
    assert counts.episodes == rows.groupby("attack").size().to_dict()
    assert counts.settings == rows["trial"].nunique()


def test_screening_spares_those_that_do_not_screen() -> None:
    counts = counts_of(SMALL, screens=True, finished=0, anchors=2)
    assert counts.episodes["ridge"] == 2 * 5
    assert counts.episodes["passive"] == 2 * (2 + 3 * CONFIRMED)
    assert counts_of(SMALL, screens=True, finished=3, anchors=0).episodes["ridge"] == 0
    assert counts_of(SMALL, screens=True, finished=9, anchors=0).settings == 0


def test_seconds_add_up_by_hand() -> None:
    costs = Costs({"a": 2.0, "b": 10.0}, poisoning=3.0, scene=7.0, source="")
    counts = Counts(scenes=2, settings=5, episodes={"a": 10, "b": 4})
    assert seconds_of(counts, costs, 1) == 2 * 7 + 5 * 2 * 3 + 20 + 40
    assert seconds_of(counts, costs, 4) == (2 * 7 + 5 * 2 * 3 + 20 + 40) / 4


def test_stored_costs_are_the_means_of_the_episodes(small_study: Path) -> None:
    storage = Storage(small_study.parent)
    found = stored_costs(SMALL, storage, ["nothing", "small"])
    assert found is not None
    rows = pd.read_parquet(small_study / "episodes")
    ridge = rows[(rows["attack"] == "ridge") & (rows["status"] == "ok")]
    assert found.attackers["ridge"] == pytest.approx(
        (ridge["seconds_attack"] + ridge["seconds_evaluate"]).mean()
    )
    assert "study small" in found.source
    others = replace(SMALL, decoder_steps=21)
    assert stored_costs(others, storage, ["small"]) is None
    more = replace(SMALL, attackers=("knn",))
    assert stored_costs(more, storage, ["small"]) is None


def test_measured_costs_follow_the_cost_classes() -> None:
    costs = measured_costs(SMALL)
    assert costs.attackers["ridge"] / costs.attackers["passive"] == pytest.approx(DECODERS[0] / DECODERS[1])
    assert costs.scene > 0
    assert "timed here" in costs.source


def test_processes() -> None:
    assert processes_of(SMALL) == 1
    one = StudySettings(concurrent=1)
    assert processes_of(one) == 1
    assert processes_of(StudySettings()) >= 1


def test_a_plan_writes_nothing_and_names_what_would_run(tmp_path: Path) -> None:
    settings = replace(SMALL, storage=str(tmp_path / "out"))
    text = "\n".join(plan_lines(settings))
    assert not (tmp_path / "out").exists()
    for part in (
        "small, new",
        "seeds 0, 1",
        "3 of rounding, tail-noise, lpa",
        "ridge (cost 0)",
        "timed here",
    ):
        assert part in text


def test_a_resumed_plan_counts_what_is_left(small_study: Path) -> None:
    resumed = replace(SMALL, storage=str(small_study.parent), resume=True, trials=5)
    text = "\n".join(plan_lines(resumed))
    assert "small, resumed" in text
    assert "(3 finished)" in text
    assert "from the episodes of study small" in text
    with pytest.raises(ConfigError, match="seeds: 2 -> 3"):
        list(plan_lines(replace(resumed, seeds=3)))
    with pytest.raises(ConfigError, match="exists in"):
        list(plan_lines(replace(resumed, resume=False)))
    with pytest.raises(ConfigError, match="there is no study"):
        list(plan_lines(replace(resumed, name="other")))


def test_a_plan_tells_the_images_and_leaves_nothing(tmp_path: Path) -> None:
    fresh = replace(SMALL, storage=str(tmp_path / "results"))
    text = "\n".join(plan_lines(fresh))
    assert "images      digits (same, seed 0): 5 private classes, 1x16x16, private 100 train / " in text
    assert not (tmp_path / "results").exists()
    later = "\n".join(plan_lines(replace(fresh, dataset="mnist", data_root=tmp_path)))
    assert "images      not read, the study will: " in later


def test_a_plan_says_that_the_machine_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = replace(SMALL, storage=str(tmp_path))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (8.66, 3.0, 1.0))
    assert "the load is 8.7 on 2 cores: others slow" in "\n".join(plan_lines(fresh))
    monkeypatch.setattr("os.getloadavg", lambda: (2.0, 8.0, 8.0))
    assert "the load is" not in "\n".join(plan_lines(fresh))


def test_a_plan_refuses_what_the_study_would(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list(plan_lines(replace(SMALL, dataset=f"folder:{tmp_path / 'nowhere'}", storage=str(tmp_path))))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        list(plan_lines(replace(SMALL, storage=str(tmp_path / "file"))))
    with pytest.raises(ConfigError, match="needs 6 classes or more"):
        list(plan_lines(replace(SMALL, min_top5_agreement=0.9, storage=str(tmp_path))))
