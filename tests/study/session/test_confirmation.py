"""Screening and confirming: the frontier of the whole suite, whatever the order, at less work."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mipoison.attacks import ATTACKS
from mipoison.defenses import ANCHORS
from study.analysis.frontier import configuration_table, frontier_table, pareto_front, settled, waiting
from study.analysis.verdicts import POOLS, verdict_table
from study.executors.base import Ask, Tell
from study.executors.local import LocalExecutor
from study.records.constraints import Constraints
from study.records.finished import load
from study.records.flat import knobs_of
from study.search.objectives import chosen, default_names
from study.search.pruning import can_screen, screened_rows
from study.session.callbacks import Metrics
from study.session.confirmation import confirm, unconfirmed
from study.session.driver import not_run, run_study
from study.session.loop import FixedTrials, TrialLoop
from study.session.monitoring import Monitor
from study.session.opening import open_study
from study.session.study import Study
from study.settings.study_settings import StudySettings
from study.trial.failure import FailureKind, TrialFailure
from study.trial.rerun import rerun_spec
from study.trial.spec import TrialSpec
from study.trial.worker import run_trial
from tests.study.analysis.helpers import record
from tests.study.session import test_loop

SCREENING, OTHERS = ("class-mean", "ridge", "kernel"), ("passive", "tuned")
Rows = list[dict[str, Any]]


def suite(trial: str, rng: np.random.Generator) -> Rows:
    """All records of a setting: random errors and accuracies, coarse enough for ties."""
    distortion = float(rng.integers(1, 9)) / 100
    return [
        record(trial, "noise", attack, seed, distortion=distortion, drop=0.01 * (trial == "t0003"),
               error=float(rng.integers(1, 9)) / 100, accuracy=float(rng.integers(3, 6)) / 5)
        | {"attempt": 0, "screened": None}
        for seed in range(2) for attack in (*SCREENING, *OTHERS)
    ]  # fmt: skip


def screened(rows: Rows) -> Rows:
    """The same, as screening leaves it."""
    gone = {"status": "cut", "attack_accuracy": None, "reconstruction_error": None}
    return [r | {"screened": True} | ({} if r["attack"] in SCREENING else gone) for r in rows]


def confirmed(whole: dict[str, Rows], order: list[str]) -> tuple[list[str], int, dict[str, Rows]]:
    """Confirm in rounds; returns the front, the number of trials that were confirmed, the records."""
    known = {t: whole[t] if t == "none" else screened(whole[t]) for t in order}
    count = 0
    while True:
        frame = pd.DataFrame([r for t in order for r in known[t]])
        found = unconfirmed(frame, BOUNDS, 0.02)
        if not found:
            return frontier_table(frame, BOUNDS)["trial"].tolist(), count, known
        assert not [t for t in found if not known[t][0]["screened"]]  # nothing twice
        known |= {t: whole[t] for t in found}
        count += len(found)


BOUNDS = Constraints(max_accuracy_drop=0.005)


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(5, 20))]
)
def test_the_front_is_that_of_the_whole_suite(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = ["none", *(f"t{i:04d}" for i in range(25))]
    whole = {name: suite(name, rng) for name in names}
    table = configuration_table(
        pd.DataFrame([r for rows in whole.values() for r in rows]), constraints=BOUNDS
    )
    expected = pareto_front(table)["trial"].tolist()
    front, count, known = confirmed(whole, names)
    assert front == expected
    assert count < 25
    assert known["t0003"][0]["screened"]  # outside the constraints: needs no further attacker
    shuffled = [names[i] for i in rng.permutation(len(names))]
    assert confirmed(whole, shuffled) == (front, count, {t: known[t] for t in shuffled})


def leaking_suite(trial: str, rng: np.random.Generator) -> Rows:
    """All records of a setting on three seeds: some protect as label-only does, some leak beyond a margin of
    0.1, some are too noisy to tell."""
    level = float(rng.choice([0.02, 0.019, 0.016, 0.01, 0.005]))
    distortion = float(rng.integers(1, 30)) / 100 * level / 0.02  # what hides more costs more
    noise = float(rng.choice([1e-5, 3e-3]))
    rows = []
    for attack in (*SCREENING, *OTHERS):
        stronger = float(rng.choice([0.0, 0.0, 0.0005, 0.004]))
        for seed in range(3):
            error = max(level - stronger + noise * rng.normal(), 1e-4)
            row = record(trial, "noise", attack, seed, distortion=distortion, error=error)
            rows.append(row | {"reconstruction_error_test": error, "attempt": 0, "screened": None})
    return rows


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5, 6])  # with 3 nothing is settled
def test_up_to_the_margin_the_front_needs_nothing_of_what_leaks_beyond_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = ["none", "label-only", *(f"t{i:04d}" for i in range(40))]
    whole = {trial: leaking_suite(trial, rng) for trial in order}
    for attack, row in enumerate(whole["label-only"]):
        error = 0.02 + 0.001 * attack
        row |= {"defense": "label-only", "confidence_distortion": 0.5}
        row |= {"reconstruction_error": error, "reconstruction_error_test": error}
    everything = pd.DataFrame([r for rows in whole.values() for r in rows])
    full = configuration_table(everything, constraints=BOUNDS, margin=0.1).set_index("trial")
    known = {t: rows if t in order[:2] else screened(rows) for t, rows in whole.items()}
    while True:
        frame = pd.DataFrame([r for t in order for r in known[t]])
        found = unconfirmed(frame, BOUNDS, 0.1)
        if not found:
            break
        known |= {t: whole[t] for t in found}
    table = configuration_table(frame, constraints=BOUNDS, margin=0.1)
    assert not waiting(table).any()
    left = table[settled(table)].set_index("trial")
    assert len(left)
    assert (full.loc[left.index, "excess_leakage"] >= left["excess_leakage"]).all()  # at least so much
    verdicts = verdict_table(frame, margin=0.1).set_index("trial")["verdict"]
    assert set(verdicts[left.index]) == {"leaks"}
    front = pareto_front(table)["trial"].tolist()
    near = 0.9 * full.loc["label-only", "worst_reconstruction_error"]
    expected = pareto_front(full.reset_index()).query("worst_reconstruction_error >= @near")["trial"].tolist()
    assert [t for t in front if full.loc[t, "worst_reconstruction_error"] >= near] == expected
    assert set(table.loc[table["cut"], "trial"]) & set(front) <= set(left.index)


def test_by_hand() -> None:
    def setting(trial: str, distortion: float, error: float, **more: Any) -> dict[str, Any]:
        return (
            record(trial, "noise", "ridge", 0, distortion=distortion, error=error) | {"screened": None} | more
        )

    def pair(trial: str, distortion: float, error: float) -> Rows:
        gone = {"attack": "passive", "status": "cut", "attack_accuracy": None, "reconstruction_error": None}
        row = setting(trial, distortion, error, screened=True)
        return [row, row | gone]

    a = [setting("a", 0.1, 0.02), setting("a", 0.1, 0.02, attack="passive")]
    worse, better, best = pair("w", 0.2, 0.015), pair("b", 0.05, 0.01), pair("c", 0.05, 0.03)
    frame = pd.DataFrame([*a, *worse, *better, *best])
    assert unconfirmed(frame, Constraints(), 0.02) == ["c"]  # b is dominated by c's bound: only if c falls
    assert waiting(configuration_table(frame, constraints=Constraints())).sum() == 2
    fallen = [best[0] | {"screened": None}, best[1] | {"screened": None, "status": "ok",
              "attack_accuracy": 0.8, "reconstruction_error": 0.005}]  # fmt: skip
    frame = pd.DataFrame([*a, *worse, *better, *fallen])
    assert unconfirmed(frame, Constraints(), 0.02) == ["b"]
    assert unconfirmed(pd.DataFrame([*a, *worse]), Constraints(), 0.02) == []
    lines = not_run(frame)
    assert "2 settings were screened alone" in lines
    assert "outside the constraints, or not measured)" in lines
    assert "2 episodes saved" in lines


def judged_setting(
    trial: str, distortion: float, gains: dict[str, Sequence[float]], *, test: float | None = None
) -> Rows:
    """A setting on three seeds: gains by attacker and seed; ``test``: ridge's on test images, if another."""
    out = []
    for attack in (*SCREENING, *OTHERS):
        for seed in range(3):
            gain = gains.get(attack, (0.0,) * 3)[seed]
            there = test if test is not None and attack == "ridge" else gain
            error = dict.fromkeys(POOLS[""], 0.05 * (1 - gain))
            error |= dict.fromkeys(POOLS["_test"], 0.05 * (1 - there))
            defense = trial if trial in ANCHORS else "noise"
            row = record(trial, defense, attack, seed, distortion=distortion, accuracy=1.0)
            out.append(row | error | {"attempt": 0, "screened": None})
    return out


def in_rounds(whole: dict[str, Rows], constraints: Constraints) -> tuple[pd.DataFrame, list[list[str]]]:
    """Screen all but the anchors and confirm; returns the records and who was confirmed in each round."""
    known = {trial: rows if trial in ANCHORS else screened(rows) for trial, rows in whole.items()}
    rounds = []
    while True:
        frame = pd.DataFrame([row for rows in known.values() for row in rows])
        found = unconfirmed(frame, constraints, 0.02)
        if not found:
            return frame, rounds
        rounds.append(found)
        known |= {trial: whole[trial] for trial in found}


FLOOR = judged_setting("label-only", 0.5, {})
BARE = judged_setting("none", 0.0, {"ridge": (0.3,) * 3, "passive": (0.35,) * 3})


def test_what_is_settled_is_shown_to_leak() -> None:
    """Student's t of the strongest attacker alone says more than the verdict, which pays for choosing it."""
    gains = {"ridge": (0.0608, 0.0172, 0.0826), "kernel": (0.0618, 0.0653, 0.0749)}
    whole = judged_setting("t1", 0.1, gains)
    for row in whole:
        row |= {name: 0.05 for name in POOLS["_test"]}
    frame = pd.DataFrame([*BARE, *FLOOR, *screened(whole)])
    row = configuration_table(frame, constraints=Constraints()).set_index("trial").loc["t1"]
    assert row["excess_leakage_low"] > 0.02
    assert verdict_table(frame).set_index("trial").loc["t1", "verdict"] == "undecided"
    assert not row["beyond_margin"]
    assert unconfirmed(frame, Constraints(), 0.02) == ["t1"]
    clear = screened(judged_setting("t1", 0.1, {"ridge": (0.06, 0.061, 0.062)}))
    frame = pd.DataFrame([*BARE, *FLOOR, *clear])
    assert settled(configuration_table(frame, constraints=Constraints())).sum() == 1
    assert unconfirmed(frame, Constraints(), 0.02) == []


@pytest.mark.parametrize("most", [None, 0.3])
def test_a_safe_setting_is_not_missed_where_nothing_else_could_be_recommended(most: float | None) -> None:
    """What dominates it in the means leaks on test images. With a bound label-only is not feasible."""
    limits = Constraints(max_confidence_distortion=most)
    leaky = judged_setting("t1", 0.10, {"ridge": (0.001, 0.0012, 0.0011)}, test=0.2)
    safe = {
        f"t{i}": judged_setting(f"t{i}", 0.1 + 0.01 * i, {"ridge": (0.003, 0.0031, 0.0032)})
        for i in (2, 3, 4)
    }
    beyond = judged_setting("t5", 0.105, {"ridge": (0.2, 0.21, 0.22)})
    whole = {"none": BARE, "label-only": FLOOR, "t1": leaky, **safe, "t5": beyond}
    frame, rounds = in_rounds(whole, limits)
    assert rounds == [["t1"], ["t2", "t3"]]  # the cheapest, and no more
    assert verdict_table(frame).set_index("trial").loc["t2", "verdict"] == "safe"
    shuffled = dict(reversed(whole.items()))
    assert in_rounds(shuffled, limits)[1] == rounds
    # These fail to hold against the whole suite: the next ones are tried in their place, six in all.
    error = dict.fromkeys(POOLS["_test"], 0.04)
    worse = {
        trial: [row | (error if row["attack"] == "tuned" else {}) for row in rows]
        for trial, rows in safe.items()
    }
    assert in_rounds(whole | worse, limits)[1] == [["t1"], ["t2", "t3"], ["t4"]]
    many = {
        f"u{i}": [row | (error if row["attack"] == "tuned" else {}) for row in rows]
        for i in range(7)
        for rows in [judged_setting(f"u{i}", 0.11 + 0.01 * i, {"ridge": (0.003, 0.0031, 0.0032)})]
    }
    others = {trial: whole[trial] for trial in ("none", "label-only", "t1")}
    pairs = [["u0", "u1"], ["u2", "u3"], ["u4", "u5"]]
    assert in_rounds(others | many, limits)[1] == [["t1"], *pairs]
    some = many | {"u2": judged_setting("u2", 0.13, {"ridge": (0.003, 0.0031, 0.0032)})}
    assert in_rounds(others | some, limits)[1] == [["t1"], *pairs[:2]]  # u2 is safe: nothing dearer is tried
    # With one that is safe on the frontier and costs less nothing more is asked; if it costs more, they are.
    good = judged_setting("t1", 0.10, {"ridge": (0.001, 0.0012, 0.0011)})
    assert in_rounds(whole | {"t1": good}, limits)[1] == [["t1"]]
    dear = judged_setting("t6", 0.2, {"ridge": (0.0,) * 3})
    frame, rounds = in_rounds(whole | {"t6": dear}, limits)
    assert rounds == [["t1", "t6"], ["t2", "t3"]]
    assert verdict_table(frame).set_index("trial").loc["t6", "verdict"] == "safe"


def test_which_suites_screen() -> None:
    assert {name for name, config in ATTACKS.items() if config.SCREENS} == {
        "class-mean", "ridge", "knn", "kernel"
    }  # fmt: skip
    assert {config.COST for config in ATTACKS.values() if config.SCREENS} == {0}  # never pruned before others
    front = chosen(default_names("same")).values()
    assert can_screen(("class-mean", "ridge", "passive"), front)
    assert not can_screen(("class-mean", "passive"), front)  # the label alone tells no setting from another
    assert not can_screen(("class-mean", "ridge"), front)  # nothing is left to confirm
    assert StudySettings().screen
    assert can_screen(StudySettings().attackers, front)
    # The setting of the best order may be one that others dominate on the frontier.
    assert not can_screen(StudySettings().attackers, chosen(("order", "excess")).values())


# ---------------------------------------------------------------- real trials

TINY: dict[str, Any] = test_loop.TINY | {"attackers": ("ridge", "passive", "label-only"), "trials": 6}


class Counting(LocalExecutor):
    """Keeps the specs that ran; stops before the given number of trials."""

    def __init__(self, most: int = 1000) -> None:
        self.specs, self._most = list[TrialSpec](), most

    def search(self, n: int, ask: Ask, tell: Tell) -> None:
        def counted() -> TrialSpec | None:
            if len(self.specs) == self._most:
                raise KeyboardInterrupt
            spec = ask()
            self.specs += [] if spec is None else [spec]
            return spec

        super().search(n, counted, tell)


def opened(root: Path, **changes: Any) -> Study:
    settings = StudySettings(**TINY | {"storage": str(root)} | changes)
    return open_study(settings.checked(), Console(file=io.StringIO()))


def confirmed_again(root: Path, executor: LocalExecutor) -> None:
    """Resume the study and confirm it."""
    study = opened(root, resume=True)
    confirm(study, study.records.read(), executor)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose settings are screened, and not confirmed."""
    root = tmp_path_factory.mktemp("screened")
    study = opened(root)
    executor = Counting()
    run_study(study, executor)
    assert [spec.screen for spec in executor.specs] == [True] * 6
    return root


@pytest.fixture
def root(searched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "root"))


def told(study: Study) -> list[tuple[dict[str, Any], list[float]]]:
    trials = study.search.study.get_trials(deepcopy=False)
    return [(dict(t.params), list(t.values)) for t in trials if t.values is not None]


def test_the_frontier_is_that_of_a_study_without_screening(root: Path) -> None:
    study = opened(root, resume=True)
    before = study.records.read()
    assert set(before.loc[~before["trial"].isin(["none", "label-only"]), "screened"]) == {True}
    assert set(
        before.loc[before["attack"].isin(["passive", "label-only"]) & before["screened"], "status"]
    ) == {"cut"}
    executor = Counting()
    episodes = confirm(study, before, executor)
    assert not any(spec.screen for spec in executor.specs)
    assert {spec.attempt for spec in executor.specs} == {0}
    files = [path.name for path in (root / "s" / "episodes").iterdir()]
    assert len(files) == len(set(episodes["trial"]))  # one file a trial: plain readers count nothing twice
    assert not episodes.duplicated(["trial", "attack", "seed"]).any()
    front = frontier_table(episodes, study.settings.constraints)
    assert set(front["trial"]) - {"none", "label-only"} <= {spec.trial for spec in executor.specs}
    again = Counting()
    confirmed_again(root, again)
    assert again.specs == []

    whole = opened(root, name="whole", screen=False, trials=0)
    run_study(whole, LocalExecutor())
    trials = episodes[~episodes["trial"].isin(["none", "label-only"])].drop_duplicates("trial")
    specs = [whole.template.spec(row["trial"], row["defense"], knobs_of(row)) for _, row in trials.iterrows()]
    TrialLoop(LocalExecutor()).run(FixedTrials(whole.records, [], specs), len(specs))
    expected = frontier_table(whole.records.read(), study.settings.constraints)
    columns = [c for c in front if c != "dominated_by"]  # bounds dominate less
    pd.testing.assert_frame_equal(front[columns], expected[columns])


def test_an_interrupted_confirmation_is_continued(root: Path) -> None:
    study = opened(root, resume=True)
    with pytest.raises(KeyboardInterrupt):
        confirm(study, study.records.read(), Counting(most=1))
    assert waiting(configuration_table(study.records.read(), constraints=study.settings.constraints)).any()
    rest = Counting()
    confirmed_again(root, rest)
    assert rest.specs


def test_a_lost_confirmation_keeps_what_screening_measured(root: Path) -> None:
    class Losing(LocalExecutor):
        def search(self, n: int, ask: Ask, tell: Tell) -> None:
            while (spec := ask()) is not None:
                tell(spec, TrialFailure(kind=FailureKind.MACHINE, message="its process was lost"))

    study, said = opened(root, resume=True), list[str]()
    before = study.records.read()
    after = confirm(study, before, Losing(), say=said.append)  # ends, although nothing was confirmed
    pd.testing.assert_frame_equal(after, before)
    assert said
    assert all("its process was lost" in line and "--resume" in line for line in said)
    rest = Counting()
    confirmed_again(root, rest)
    assert rest.specs


def test_a_resumed_search_is_told_what_screening_measured(root: Path) -> None:
    before = told(opened(root, resume=True))
    assert len(before) == 6
    confirmed_again(root, LocalExecutor())
    assert told(opened(root, resume=True)) == before


def test_the_search_is_told_the_same_before_and_after_a_restart(tmp_path: Path, searched: Path) -> None:
    shutil.copytree(searched / "artifacts", tmp_path / "artifacts")
    study = opened(tmp_path)
    run_study(study, LocalExecutor())

    def key(t: Any) -> str:
        return json.dumps(t, sort_keys=True)

    assert sorted(told(opened(tmp_path, resume=True)), key=key) == sorted(told(study), key=key)


def test_a_study_begun_without_screening_is_continued_without(root: Path) -> None:
    file = root / "s" / "study.json"
    about = json.loads(file.read_text())
    assert about["settings"].pop("screen") is True
    file.write_text(json.dumps(about))
    assert not opened(root, resume=True).screens


def test_counters_equal_the_records(root: Path) -> None:
    class Sums(Monitor):
        def __init__(self) -> None:
            self.rows: list[tuple[Any, ...]] = []

        def finished(self, rows: Any, made: int = 0, reused: int = 0) -> None:
            self.rows += [(r["trial"], r["attack"], r["seed"], r["status"]) for r in rows]

    sums, study = Sums(), opened(root, resume=True)
    metrics = Metrics(sums)
    episodes = run_study(study, LocalExecutor(), [metrics])
    episodes = confirm(study, episodes, LocalExecutor(), [metrics])
    ran = episodes[episodes["status"] != "cut"]
    expected = sorted(ran[["trial", "attack", "seed", "status"]].itertuples(index=False, name=None))
    assert sorted(sums.rows) == expected


def test_a_screened_trial_is_replayed_as_it_was(root: Path) -> None:
    study = load(str(root / "s"))
    trial = str(study.episodes.loc[study.episodes["screened"].fillna(False).astype(bool), "trial"].iloc[0])
    spec = rerun_spec(study, trial=trial, knobs=[], root=str(root), data_root=None)
    assert spec.screen
    assert rerun_spec(study, trial="none", knobs=[], root=str(root), data_root=None).screen is False
    result = run_trial(spec)
    assert {(r["attack"], r["status"]) for r in result.records} == {
        ("class-mean", "ok"), ("ridge", "ok"), ("passive", "cut"), ("label-only", "cut")
    }  # fmt: skip
    assert {r["attack"] for r in screened_rows(result.records)} == {"class-mean", "ridge"}
