"""Settings: every bad value is refused in one line that names it, before any work."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tyro

from mipoison.attacks import ATTACKS, REPLICATION, SUITE
from mipoison.config import ConfigError
from mipoison.data.datasets import DataError
from mipoison.defenses import ANCHORS
from mipoison.defenses.lfp import LFPConfig
from mipoison.defenses.lpa import LPAConfig
from mipoison.scene_config import SCALES, SceneConfig
from study.records.constraints import FIELDS
from study.search.sampler import SAMPLERS
from study.search.space import searchable
from study.settings.study_settings import (
    DEFAULT_ATTACKERS,
    SCENES,
    Arguments,
    StudySettings,
    config_of,
    differences,
)

RESULTS = Path(__file__).parents[3] / "study" / "results"


def refused(**values: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        StudySettings(**values)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("trials", -1, "at least 0"),
        ("seeds", 0, "at least 1"),
        ("seeds", -3, "at least 1"),
        ("first_seed", -1, "at least 0"),
        ("workers", -1, "at least 0"),
        ("concurrent", 0, "at least 1"),
        ("threads", 0, "at least 1"),
        ("limit", 9, "at least 10"),
        ("limit", -5, "at least 10"),
        ("victim_steps", 0, "at least 1"),
        ("decoder_steps", -1, "at least 1"),
        ("decoder_width", 0, "at least 1"),
        ("gpus_per_worker", -0.5, "at least 0"),
        ("cpus_per_worker", 0.0, "above 0"),
        ("cpus_per_worker", -1.0, "above 0"),
        ("max_accuracy_drop", -0.01, "between 0 and 1"),
        ("max_accuracy_drop", 1.5, "between 0 and 1"),
        ("max_accuracy_drop", math.nan, "between 0 and 1"),
        ("max_confidence_distortion", 1.5, "between 0 and 1.414"),
        ("min_top2_agreement", -0.5, "between 0 and 1"),
        ("margin", -0.01, "at least 0 and below 1"),
        ("margin", 1.0, "at least 0 and below 1"),
    ],
)
def test_numbers_out_of_bounds(name: str, value: float, bound: str) -> None:
    text = refused(**{name: value})
    assert f"{name} = {value}" in text
    assert bound in text


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [
        ("sampler", "cma-es", list(SAMPLERS)),
        ("scale", "quickk", ["quick", "full"]),
        ("dataset", "digitz", ["digits", "mnist", "faces:PATH"]),
        ("defenses", ("lpa", "lapa"), searchable()),
        ("attackers", ("pasive",), list(ATTACKS)),
        ("auxiliary", "other", ["same", "disjoint"]),
    ],
)
def test_unknown_names_list_the_valid_ones(name: str, value: Any, choices: list[str]) -> None:
    text = refused(**{name: value})
    assert (value if isinstance(value, str) else value[-1]) in text
    for choice in choices:
        assert choice in text


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "a b", "x" * 101])
def test_names_cannot_escape(name: str) -> None:
    assert repr(name) in refused(name=name)


@pytest.mark.parametrize("dataset", ["faces", "faces:", "facescrub", "digits:/tmp"])
def test_paths_where_they_belong(dataset: str) -> None:
    assert repr(dataset) in refused(dataset=dataset)


@pytest.mark.parametrize(
    ("cls", "values", "expected"),
    [
        (LPAConfig, {"budget": -0.1}, "LPAConfig.budget = -0.1: must be between 0 and 1.5"),
        (LPAConfig, {"budget": math.nan}, "LPAConfig.budget = nan: must be finite"),
        (LPAConfig, {"rounds": -1}, "LPAConfig.rounds = -1: must be between 0"),
        (LPAConfig, {"rounds": 2.5}, "LPAConfig.rounds = 2.5: must be int"),
        (LPAConfig, {"step": 0.0}, "LPAConfig.step = 0.0: must be above 0"),
        (LPAConfig, {"scope": "all"}, "LPAConfig.scope = 'all': must be one of sample, batch"),
        (LFPConfig, {"ratio": 0.0}, "LFPConfig.ratio = 0.0: must be above 0 and below 1"),
        (LFPConfig, {"ratio": 1.0}, "LFPConfig.ratio = 1.0: must be above 0 and below 1"),
        (LFPConfig, {"ratio": -0.1}, "LFPConfig.ratio = -0.1: must be above 0 and below 1"),
        (LFPConfig, {"threshold": 1.1}, "LFPConfig.threshold = 1.1: must be above 0 and at most 1"),
    ],
)
def test_bad_knobs(cls: type, values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cls(**values)
    assert str(caught.value).startswith(expected)
    name = {LPAConfig: "lpa", LFPConfig: "lfp"}[cls]
    with pytest.raises(ConfigError):
        config_of(name, values)


def test_stored_knobs_come_back_and_unknown_ones_raise() -> None:
    config = LPAConfig(budget=0.03, rounds=4, substitute_features="raw")
    assert config_of("lpa", json.loads(json.dumps(config.flat()))) == config
    with pytest.raises(ConfigError, match=r"'bugdet' .did you mean 'budget'"):
        config_of("lpa", {"bugdet": 0.1})


# ---------------------------------------------------------------- lists


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("lpa", "noise"), ("lpa", "noise")),
        (("noise,lpa",), ("noise", "lpa")),
        (("noise,", "lpa"), ("noise", "lpa")),
        (("noise,lpa", "rounding"), ("noise", "lpa", "rounding")),
        (("lpa", "lpa,lpa"), ("lpa",)),
        (("all",), tuple(searchable())),
        (("lpa", "all"), tuple(dict.fromkeys(["lpa", *searchable()]))),
        (("none", "lpa", "label-only"), ("lpa",)),
        (("none,lpa",), ("lpa",)),
    ],
)
def test_lists_of_defenses(given: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert StudySettings(defenses=given).defenses == expected


def test_lists_of_attackers() -> None:
    assert StudySettings().attackers == DEFAULT_ATTACKERS
    assert StudySettings(attackers=("all",)).attackers == tuple(ATTACKS)
    assert StudySettings(attackers=("suite",)).attackers == SUITE
    assert set(ATTACKS) - set(SUITE) == set(REPLICATION)
    assert [ATTACKS[name].COST for name in SUITE] == sorted(ATTACKS[name].COST for name in SUITE)
    assert StudySettings(attackers=("label-only,passive", "raw")).attackers == (
        "label-only",
        "passive",
        "raw",
    )  # no anchor here


@pytest.mark.parametrize(
    ("name", "value"), [("defenses", ()), ("defenses", (",",)), ("defenses", ANCHORS), ("attackers", ())]
)
def test_an_empty_list_says_what_there_is(name: str, value: tuple[str, ...]) -> None:
    text = refused(**{name: value})
    assert f"no {name[:-1]} chosen" in text
    assert {"defenses": "rounding, codebook, noise, lpa, lfp, ", "attackers": "passive, raw"}[name] in text


# ---------------------------------------------------------------- scenes, sharing, names


def test_one_scene_a_seed_at_the_asked_scale() -> None:
    scenes = StudySettings(
        seeds=2, first_seed=5, decoder_steps=7, limit=50, threads=2, auxiliary="disjoint"
    ).scenes()
    assert [s.seed for s in scenes] == [5, 6]
    for s in scenes:
        assert (s.decoder_steps, s.limit, s.threads, s.auxiliary, s.dataset) == (
            7,
            50,
            2,
            "disjoint",
            "digits",
        )
        assert (s.victim_steps, s.decoder_width) == (200, 16)  # the scale's
    assert StudySettings(scale="full").scenes()[0].decoder_steps > 1000


def test_differences_name_what_changed() -> None:
    one, other = (
        StudySettings(seeds=2),
        StudySettings(seeds=3, attackers=("raw",), trials=99, workers=3, verbose=True),
    )
    stored = json.loads(json.dumps(one.identity()))  # as a resumed study reads it
    assert differences(stored, one.identity()) == []
    assert differences(stored, StudySettings(seeds=2, trials=99, storage="elsewhere").identity()) == []
    found = differences(stored, other.identity())
    assert [f.split(":")[0] for f in found] == ["attackers", "seeds"]
    assert found[1] == "seeds: 2 -> 3"
    assert differences({"old": 1}, {"new": 2}) == ["new: None -> 2", "old: 1 -> None"]


def test_everything_that_changes_a_scene_is_shared() -> None:
    changed = dict(
        dataset="mnist",
        auxiliary="disjoint",
        scale="full",
        limit=100,
        seeds=4,
        first_seed=1,
        threads=2,
        stacked="on",
        victim_steps=9,
        victim_augment="faces",
        decoder_steps=9,
        decoder_width=9,
        decoder_batch=9,
        defenses=("lpa",),
        attackers=("raw",),
        sampler="random",
        objectives=("certified", "distortion"),
        screen=False,
        **dict.fromkeys(FIELDS, 0.5),
    )
    # see test_own_victim.py
    of_own_data = {"image_size", "victim_digest", "victim_outputs", "victim_transforms"}
    assert set(changed) == set(StudySettings().identity()) - of_own_data
    for name, value in changed.items():
        found = differences(StudySettings().identity(), StudySettings(**{name: value}).identity())
        assert len(found) == 1
        assert found[0].startswith(f"{name}: ")


def test_a_study_of_faces_from_before_augmentation_keeps_its_victims() -> None:
    now = StudySettings(dataset="olivetti", seeds=2)
    assert now.scenes()[0].victim_augment == "faces"
    stored = {k: v for k, v in now.identity().items() if k != "victim_augment"}
    resumed = now.continuing(stored)
    assert resumed.changes(stored) == []
    assert resumed.scenes()[0].flat() == SceneConfig(dataset="olivetti", **SCALES["quick"][64]).flat()
    digits = StudySettings(seeds=2)
    stored = {k: v for k, v in digits.identity().items() if k != "victim_augment"}
    assert digits.changes(stored) == []
    assert digits.continuing(stored).scenes() == digits.scenes()
    assert now.changes(stored | {"dataset": "olivetti"}) == ["victim_augment: 'none' -> 'faces'"]


def test_default_names(tmp_path: Path) -> None:
    assert StudySettings().default_name() == "digits-same"
    assert (
        StudySettings(dataset="fashion-mnist", auxiliary="disjoint").default_name()
        == "fashion-mnist-disjoint"
    )
    assert StudySettings(dataset=f"faces:{tmp_path}").default_name() == "faces-same"


def test_the_command_line_is_parsed_first_and_checked_then() -> None:
    """An error of ours is one line of ours: the parser would put it into a box of its own."""
    parsed = tyro.cli(Arguments, args=["--trials", "-1", "--seeds", "2"])
    assert (parsed.trials, parsed.seeds) == (-1, 2)
    with pytest.raises(ConfigError, match=r"^trials = -1: must be at least 0$"):
        parsed.checked()
    fine = tyro.cli(Arguments, args=["--defenses", "noise,lpa", "--workers", "0"]).checked()
    assert fine == StudySettings(defenses=("noise", "lpa"), workers=0)


def test_the_papers_runs_share_the_scenes_alone() -> None:
    one, other = StudySettings(), StudySettings(attackers=("raw",), sampler="random", max_accuracy_drop=0.5)
    assert other.changes(one.identity(*SCENES), *SCENES) == []
    assert len(other.changes(one.identity())) == 3
    assert StudySettings(seeds=5).changes(one.identity(*SCENES), *SCENES) == ["seeds: 3 -> 5"]


def test_settings_that_an_earlier_version_did_not_store_had_their_defaults() -> None:
    stored = StudySettings().identity()
    older = {name: value for name, value in stored.items() if name not in ("stacked", "max_accuracy_drop")}
    assert StudySettings().changes(older) == []
    assert StudySettings(max_accuracy_drop=0.1).changes(older) == ["max_accuracy_drop: 0.02 -> 0.1"]
    unbound = {name: value for name, value in stored.items() if name not in FIELDS}
    assert StudySettings().changes(unbound) == []
    assert StudySettings(min_top5_agreement=0.9).changes(unbound) == ["min_top5_agreement: None -> 0.9"]
    # One that this version does not know is a difference, not ignored.
    assert StudySettings().changes(stored | {"later": 1}) == ["later: 1 -> None"]


@pytest.mark.parametrize(
    "folder", sorted(p.parent.name for p in RESULTS.glob("*/study.json") if p.parent.name != "reproduction")
)
def test_settings_stored_by_earlier_versions_are_understood(folder: str) -> None:
    """The committed studies, some of them older than some settings."""
    stored = json.loads((RESULTS / folder / "study.json").read_text())["settings"]
    known = {name: value for name, value in stored.items() if name != "victim_digest"}
    assert StudySettings(**known).continuing(stored).changes(stored) == []
