"""One setting of a finished study once more, from its records: same scenes, attackers, secrets and numbers.

Everything that a trial needs is in its records (``scene.*``, ``defense.*``, the attackers), so that a compact
copy can be rerun, too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mipoison.attacks import ATTACKS
from mipoison.config import Config, ConfigError, choose
from mipoison.defenses import ANCHORS, DEFENSES
from mipoison.scene import SceneConfig
from study.records.finished import StoredStudy
from study.records.flat import knobs_of
from study.records.schema import episode_schema
from study.records.status import PRUNED
from study.records.store import STUDY_FILE, Records
from study.search.pruning import worst_point
from study.trial.preparation import prepare_scene, scenes_of
from study.trial.run import record_trial, records_of
from study.trial.spec import TrialSpec, TrialTemplate
from study.trial.worker import run_trial

TIMES = ("seconds_", "peak_memory", "poison_ms", "inference_ms")
"""Beginnings of columns that are measured by a clock or by the operating system: they never repeat."""
POLL = 0.5
"""Seconds between two looks at how many episodes are finished."""


@dataclass(frozen=True)
class Difference:
    """A number that was not measured again as it is stored."""

    attack: str
    seed: int
    column: str
    stored: float | None
    measured: float | None

    @property
    def size(self) -> float:
        """Relative to the stored value; infinite where one of the two is missing."""
        if self.stored is None or self.measured is None:
            return float("inf")
        return abs(self.measured - self.stored) / max(abs(self.stored), 1e-12)


def trial_rows(study: StoredStudy, trial: str) -> pd.DataFrame:
    """A trial's records; ConfigError lists the trials where there is none of that name."""
    choose("trial", trial, sorted(set(study.episodes["trial"])))
    return study.episodes[study.episodes["trial"] == trial]


def to_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as records: missing is None."""
    return pa.Table.from_pandas(frame, preserve_index=False).to_pylist()


@dataclass(frozen=True)
class GivenVictim:
    """The classifier that the reader of somebody's records gives on the command line; by default none.

    What the records name is never loaded: they were written by whoever could write to the storage, and a
    module or a ``.pt2`` file runs code.
    """

    victim: str | None = None
    victim_state: str | None = None


NO_VICTIM = GivenVictim()


class VictimMissingError(ConfigError):
    """Records of somebody's own classifier, and no classifier was given."""


def has_own_victim(rows: pd.DataFrame) -> bool:
    """Whether the records are of somebody's own classifier."""
    return "scene.victim" in rows and bool(rows["scene.victim"].notna().any())


def scenes_in(rows: pd.DataFrame, given: GivenVictim = NO_VICTIM) -> tuple[SceneConfig, ...]:
    """The scenes of some records, one a seed, with the classifier that the reader gave.

    Raises:
        VictimMissingError: the records are of an own classifier, and none was given.
        ConfigError: settings that this version does not know, or a classifier for records that have none.
    """
    if given.victim is None and given.victim_state is not None:
        raise ConfigError(f"victim_state {given.victim_state!r} without --victim module:factory")
    if has_own_victim(rows) and given.victim is None:
        raise VictimMissingError(
            "these records are of somebody's own classifier, and what records name is never loaded (it runs "
            "code): give the classifier, if you have it and trust it, with --victim (and --victim-state)"
        )
    if given.victim is not None and not has_own_victim(rows):
        raise ConfigError(f"victim {given.victim!r}: these records trained their own; leave --victim out")
    columns = [c for c in rows if c.startswith("scene.")]
    found = []
    for record in to_records(rows.drop_duplicates("seed").sort_values("seed")[columns]):
        known = {name.removeprefix("scene."): value for name, value in record.items() if value is not None}
        if given.victim is not None:
            known |= {"victim": given.victim, "victim_state": given.victim_state}
        found.append(SceneConfig.from_flat(known))
    return tuple(found)


def rerun_spec(
    study: StoredStudy,
    trial: str | None,
    defense: str | None,
    knobs: list[str],
    root: str,
    data_root: str | None,
    given: GivenVictim = NO_VICTIM,
) -> TrialSpec:
    """What is to be run: a recorded trial, or a given setting on the scenes and attackers of the study.

    Args:
        trial: a recorded one, None for a setting of one's own. defense: a name of DEFENSES. knobs:
            ``name=value`` each, over the trial's knobs or the defense's defaults.
        root: where trained parts and records go. data_root: the data folder, None for the default.
        given: the reader's classifier, see :func:`scenes_in`.

    Raises:
        ConfigError: names and values that do not exist or do not fit.
    """
    if trial is None and defense is None:
        raise ConfigError("nothing to evaluate: give --trial (a recorded one) or --defense and --knob")
    stored = None if trial is None else trial_rows(study, trial)
    source = _anchor_rows(study) if stored is None else stored
    name = defense or str(source["defense"].iloc[0])
    choose("defense", name, DEFENSES)
    own = {} if stored is None or name != str(stored["defense"].iloc[0]) else knobs_of(stored.iloc[0])
    config = _changed(DEFENSES[name], own, knobs)
    same = stored is not None and not knobs and defense in (None, str(stored["defense"].iloc[0]))
    for attack in source["attack"]:
        choose("attacker", str(attack), ATTACKS)
    cut = same and bool((source["status"] == PRUNED).any())
    floor = to_records(study.episodes[study.episodes["trial"] == ANCHORS[0]]) if cut else []
    template = TrialTemplate(
        study=study.folder,
        root=root,
        data_root=data_root,
        max_accuracy_drop=study.max_accuracy_drop,
        attackers=tuple(dict.fromkeys(source["attack"])),
        scenes=scenes_in(source, given),
    )
    trial_id = str(trial) if same else f"again-{name}"
    return template.spec(trial_id, name, config.flat(), floor=worst_point(floor))


def _anchor_rows(study: StoredStudy) -> pd.DataFrame:
    for name in (*ANCHORS, *study.episodes["trial"]):
        rows = study.episodes[study.episodes["trial"] == name]
        if len(rows):
            return rows
    raise ConfigError("the study has no records")


def _changed(cls: type[Config], own: Mapping[str, Any], texts: list[str]) -> Config:
    """The configuration with ``name=value`` texts read by the types of its fields."""
    kinds = cls.field_kinds()
    values = dict(own)
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--knob {text!r}: write name=value")
        choose(f"knob of {cls.__name__}", name, kinds)
        values[name] = _value(name, value, kinds[name][0])
    return cls.from_flat(values)


def _value(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        words = {"true": True, "yes": True, "false": False, "no": False}
        if text.lower() not in words:
            raise ConfigError(f"--knob {name}={text}: write true or false")
        return words[text.lower()]
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(f"--knob {name}={text}: not a value of type {kind.__name__}") from error


def rerun(study: StoredStudy, spec: TrialSpec, progress: Callable[[int, int], None]) -> pd.DataFrame:
    """Run the trial in this process, write its records below ``spec.root`` and return them.

    What compares a record with the anchors (excess leakage, checks) is taken against the stored anchors.

    Args:
        progress: told how many of how many steps are done: scenes prepared and episodes finished.
    """
    scenes = scenes_of([spec])
    total = len(scenes) + len(spec.episodes())
    for i, scene in enumerate(scenes):
        progress(i, total)
        prepare_scene(scene, spec.root, spec.data_root)
    with _watched(spec, lambda n: progress(min(total, len(scenes) + n), total)):
        result = run_trial(spec)
    anchors = to_records(study.episodes[study.episodes["trial"].isin(ANCHORS)])
    record_trial(spec, result, anchors)
    records = records_of(spec)
    about = {key: value for key, value in study.about.items() if key != "command"}
    records.storage.write(f"{spec.study}/{STUDY_FILE}", json.dumps(about, indent=2, sort_keys=True).encode())
    return Records(records.storage, spec.study).read().query("trial == @spec.trial")


@contextmanager
def _watched(spec: TrialSpec, tell: Callable[[int], None]) -> Iterator[None]:
    """Count the finished episodes of the store while a trial runs in this thread."""
    storage, stop = records_of(spec).storage, threading.Event()

    def count() -> int:
        return sum("/episode-" in name for name in storage.names("artifacts"))

    before = count()

    def watch() -> None:
        while not stop.wait(POLL):
            tell(count() - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)


def measured_columns(stored: pd.DataFrame) -> list[str]:
    """The columns of a measurement that repeats: numbers, but for what a clock tells. Checks are left out:
    they are one version's verdicts on these numbers."""
    kinds = {field.name: field.type for field in episode_schema()}
    names = [
        c for c in stored
        if c in kinds
        and (pa.types.is_floating(kinds[c]) or c == "queries")
        and not c.startswith((*TIMES, "scene.", "defense.", "attack."))
    ]  # fmt: skip
    return [c for c in names if stored[c].notna().any()]


def differences(stored: pd.DataFrame, measured: pd.DataFrame) -> tuple[int, list[Difference]]:
    """How many stored numbers were compared, and those that were measured otherwise; exact comparison.

    Columns that the stored records lack (an older version) are not compared.
    """
    columns, key = measured_columns(stored), ["attack", "seed"]
    both = stored[[*key, *columns]].merge(
        measured.reindex(columns=[*key, *columns]), on=key, how="left", suffixes=("", " again")
    )
    n, found = 0, []
    for row in to_records(both):
        for column in columns:
            old, new = row[column], row[f"{column} again"]
            if old is None:
                continue
            n += 1
            if new is None or old != new:
                numbers = [None if v is None else float(v) for v in (old, new)]
                found.append(Difference(row["attack"], row["seed"], column, *numbers))
    return n, found


def largest_difference(found: list[Difference]) -> Difference:
    """The largest relative difference, the first of equals."""
    return found[int(np.argmax([d.size for d in found]))]
