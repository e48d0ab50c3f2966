"""Which records a claim is read from: settings by their knobs, studies by their folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from mipoison.config import ConfigError
from study.paper.claims.evidence import Evidence, collect, collect_one, setting
from tests.study.paper.claims.made_up import evidence, row

RESULTS = Path(__file__).parents[4] / "study" / "results"


def test_settings_are_found_by_their_knobs() -> None:
    study = evidence(
        [
            row("a", "noise", "ridge", 0, **{"defense.budget": 0.015}),
            row("b", "noise", "ridge", 0, **{"defense.budget": 0.0045}),
            row("c", "tail-noise", "ridge", 0, **{"defense.budget": 0.015}),
        ]
    )
    assert study.trials(setting("noise")) == ["a", "b"]
    assert study.trials(setting("noise", budget=0.015)) == ["a"]
    assert study.trials(setting("noise", budget=(0.001, 0.01))) == ["b"]
    assert study.trials(setting("rounding")) == []


def test_a_knob_that_older_records_lack_has_the_value_of_then() -> None:
    old = row("old", "lpa", "ridge", 0, **{"defense.budget": 0.01})
    new = row("new", "lpa", "ridge", 0, **{"defense.budget": 0.01, "defense.search": "restarts"})
    study = evidence([old, new])
    assert study.trials(setting("lpa", search="descent")) == ["old"]
    assert study.trials(setting("lpa", search="restarts")) == ["new"]


@pytest.mark.parametrize(("defense", "knobs"), [("nois", {}), ("noise", {"length": 1})])
def test_a_name_that_does_not_exist_is_refused(defense: str, knobs: dict[str, int]) -> None:
    with pytest.raises(KeyError):
        setting(defense, **knobs)


def test_scenes_of_folders_differ_by_their_content_or_path() -> None:
    def of(content: str | None, **more: object) -> tuple[str, ...]:
        records = evidence([row("a", "noise", "ridge", 0, victim="net@1", **more)]).records
        return Evidence("s", records, content).scene

    assert of(None, dataset="folder:/a") != of(None, dataset="folder:/b")
    assert of("x", dataset="folder:/a") == of("x", dataset="folder:/b")  # moved
    assert of("x", dataset="folder:/a") != of("y", dataset="folder:/a")  # changed
    assert of(None, dataset="folder", split="1") != of(None, dataset="folder", split="2")
    assert of("x") == of(None)  # a data set that everybody has
    assert of(None, **{"scene.image_size": 8}) != of(None, **{"scene.image_size": 16})
    assert of(None, **{"scene.limit": None}) == of(None, **{"scene.limit": float("nan")}) == of(None)


def test_the_exact_setting_has_all_digits() -> None:
    rows = [row(t, "noise", "a", 0, **{"defense.budget": b}) for t, b in (("t", 0.01), ("u", 0.010001))]
    some = evidence(rows)
    assert some.exact("t") != some.exact("u")
    assert some.exact("t", but="budget") == some.exact("u", but="budget")
    away = evidence([row("t", "of-a-plug-in", "a", 0, **{"defense.z": z}) for z in (1.0,)])
    assert "defense.z=1.0" in away.exact("t")


def test_defenses_that_this_installation_lacks_are_left_out() -> None:
    study = evidence([row("x", "of-a-plug-in", "ridge", 0), row("a", "noise", "ridge", 0)])
    assert study.trials(setting("noise")) == ["a"]


def test_failed_episodes_are_no_values_and_mark_the_trial() -> None:
    rows = [row("a", "noise", attack, seed, x=float(seed)) for attack in "rs" for seed in (1, 0)]
    rows[0] |= {"status": "failed", "x": None}
    study = evidence(rows)
    table = study.by_seed("a", "x")
    assert table.index.tolist() == [0, 1]
    assert table["s"].tolist() == [0.0, 1.0]
    assert pd.isna(table["r"][1])
    assert study.incomplete("a")
    assert study.by_seed("a", "no_such_column").empty


def test_fresh_seeds_count_as_further_seeds() -> None:
    study = collect_one(RESULTS / "digits-search")
    assert study.by_seed("none", "reconstruction_error").index.tolist() == [0, 1, 2, 3, 4]
    assert study.by_seed("t0001-rounding", "reconstruction_error").index.tolist() == [0, 1, 2]
    assert (study.dataset, study.auxiliary) == ("digits", "same")


def test_studies_are_found_by_their_folder(tmp_path: Path) -> None:
    shutil.copytree(RESULTS / "digits-fresh-noise", tmp_path / "any name")
    shutil.copytree(RESULTS / "digits-fresh-noise", tmp_path / "group" / "inner")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.json").write_text(json.dumps({}))
    said: list[str] = []
    assert [s.name for s in collect(tmp_path, said.append)] == ["any name", "group/inner"]
    assert len(said) == 1
    assert "broken" in said[0]


@pytest.mark.parametrize("name", ["", "nothing"])
def test_a_folder_without_studies_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--studies"):
        collect(tmp_path / name)
