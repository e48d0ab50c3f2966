"""Run a setting of a finished study again from its records, with the same scenes, attackers and secrets.

The records contain everything that a trial needs (``scene.*``, ``defense.*``, the attackers), so that trials
of a compact copy can be rerun, too.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mipoison.attacks import ATTACKS
from mipoison.config import Config, ConfigError, choose
from mipoison.data.datasets import parse_name
from mipoison.defenses import ANCHORS, DEFENSES
from mipoison.plugins import is_stand_in
from mipoison.scene import SceneConfig
from study.records.finished import StoredStudy
from study.records.flat import knobs_of
from study.records.schema import episode_schema
from study.records.status import PRUNED, is_screened
from study.records.store import STUDY_FILE, Records
from study.search.pruning import worst_point
from study.trial.preparation import prepare_scene, scenes_of
from study.trial.run import record_trial, records_of
from study.trial.spec import TrialSpec, TrialTemplate
from study.trial.worker import run_trial

TIMES = ("seconds_", "peak_memory", "poison_ms", "inference_ms")
"""Prefixes of columns with times and memory, which differ in every run."""
POLL = 0.5
"""Seconds between two counts of the finished episodes."""


@dataclass(frozen=True)
class Difference:
    """A number that the rerun measured differently from the stored one."""

    attack: str
    seed: int
    column: str
    stored: float | None
    measured: float | None

    @property
    def size(self) -> float:
        """The relative difference to the stored value; infinite if one of the two is missing."""
        if self.stored is None or self.measured is None:
            return float("inf")
        return abs(self.measured - self.stored) / max(abs(self.stored), 1e-12)


def trial_rows(study: StoredStudy, trial: str) -> pd.DataFrame:
    """A trial's records; raises ConfigError with the valid names if there is no such trial."""
    choose("trial", trial, sorted(set(study.episodes["trial"])))
    return study.episodes[study.episodes["trial"] == trial]


def to_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a data frame as records, with None for missing values."""
    return pa.Table.from_pandas(frame, preserve_index=False).to_pylist()


@dataclass(frozen=True)
class GivenVictim:
    """The classifier given on the command line by the reader of a study's records; by default none.

    A classifier that the records name is never loaded: a module or a ``.pt2`` file runs code, and anybody
    with access to the storage may have written the records.
    """

    victim: str | None = None
    victim_state: str | None = None


NO_VICTIM = GivenVictim()


class VictimMissingError(ConfigError):
    """The records belong to a user's own classifier, and no classifier was given."""


def has_own_victim(rows: pd.DataFrame) -> bool:
    """Whether the records belong to a user's own classifier."""
    return "scene.victim" in rows and bool(rows["scene.victim"].notna().any())


def scenes_in(rows: pd.DataFrame, given: GivenVictim = NO_VICTIM) -> tuple[SceneConfig, ...]:
    """The scenes of some records, one per seed, with the classifier that the reader gave.

    Raises:
        VictimMissingError: the records belong to a user's own classifier, and none was given.
        ConfigError: this version does not know a setting, or a classifier was given for records without one.
    """
    if given.victim is None and given.victim_state is not None:
        raise ConfigError(f"victim_state {given.victim_state!r} without --victim module:factory")
    if has_own_victim(rows) and given.victim is None:
        raise VictimMissingError(
            "these records belong to a user's own classifier, and a classifier that records name is never "
            "loaded (it runs code): if you have it and trust it, give it with --victim (and --victim-state)"
        )
    if given.victim is not None and not has_own_victim(rows):
        raise ConfigError(
            f"victim {given.victim!r}: this study trained its own classifier; leave --victim out"
        )
    columns = [c for c in rows if c.startswith("scene.")]
    found = []
    for record in to_records(rows.drop_duplicates("seed").sort_values("seed")[columns]):
        known = {name.removeprefix("scene."): value for name, value in record.items() if value is not None}
        if given.victim is not None:
            known |= {"victim": given.victim, "victim_state": given.victim_state}
        found.append(SceneConfig.from_flat(known))
    return tuple(found)


def with_folder(scenes: Sequence[SceneConfig], dataset: str | None) -> tuple[SceneConfig, ...]:
    """The scenes with the images of a folder that lies elsewhere now.

    Args:
        dataset: ``kind:PATH``, of the kind that the records have; None: as recorded.

    Raises:
        ConfigError: the records are of other data than a folder of this kind.
    """
    if dataset is None:
        return tuple(scenes)
    kind, path = parse_name(dataset)
    for recorded in sorted({scene.dataset for scene in scenes}):
        if not path or recorded.partition(":")[0] != kind:
            raise ConfigError(
                f"--dataset {dataset!r}: these records are of {recorded.partition(':')[0]!r}, and --dataset "
                "says where a folder of the same kind is now (folder:PATH)"
            )
    return tuple(dataclasses.replace(scene, dataset=dataset) for scene in scenes)


def rerun_spec(
    study: StoredStudy,
    *,
    trial: str | None = None,
    defense: str | None = None,
    knobs: list[str],
    root: str,
    data_root: str | None,
    given: GivenVictim = NO_VICTIM,
    plugins: Sequence[str] = (),
    dataset: str | None = None,
) -> TrialSpec:
    """The trial to run: a recorded one, or another setting on the scenes and attackers of the study.

    Args:
        trial: a recorded trial, or None for another setting. defense: a name of DEFENSES.
        knobs: ``name=value`` each; they replace knobs of the trial, or defaults of the defense.
        root: the storage for artifacts and records. data_root: the data folder, None for the default.
        given: the reader's classifier, see :func:`scenes_in`. plugins: the reader's plug-ins, loaded already.
        dataset: where the reader has the study's folder of images, see :func:`with_folder`.

    Raises:
        ConfigError: an unknown name, or a value that does not fit.
    """
    if trial is None and defense is None:
        raise ConfigError("nothing to evaluate: give a recorded --trial, or --defense and --knob")
    stored = None if trial is None else trial_rows(study, trial)
    source = _anchor_rows(study) if stored is None else stored
    name = defense or str(source["defense"].iloc[0])
    refuse_stand_ins("defense", [name])
    own = {} if stored is None or name != str(stored["defense"].iloc[0]) else knobs_of(stored.iloc[0])
    config = changed(DEFENSES[name], own, knobs)
    same = stored is not None and not knobs and defense in (None, str(stored["defense"].iloc[0]))
    refuse_stand_ins("attacker", sorted(set(source["attack"])))
    pruned = same and bool((source["status"] == PRUNED).any())
    floor = to_records(study.episodes[study.episodes["trial"] == ANCHORS[0]]) if pruned else []
    template = TrialTemplate(
        study=study.folder,
        root=root,
        data_root=data_root,
        constraints=study.constraints,
        attackers=tuple(dict.fromkeys(source["attack"])),
        scenes=with_folder(scenes_in(source, given), dataset),
        plugins=tuple(plugins),
    )
    trial_id = str(trial) if same else f"again-{name}"
    screened = same and bool(is_screened(source).any())
    return template.spec(trial_id, name, config.flat(), floor=worst_point(floor), screen=screened)


def refuse_stand_ins(kind: str, names: Sequence[str]) -> None:
    """Raise ConfigError if there is no code of some defenses or attackers of a study.

    Args:
        kind: ``defense`` or ``attacker``.
    """
    registry: Mapping[str, Any] = DEFENSES if kind == "defense" else ATTACKS
    for name in names:
        choose(kind, name, registry)
    if missing := [name for name in names if is_stand_in(registry[name])]:
        raise ConfigError(
            f"{kind} {', '.join(missing)} is of a plug-in, and code that records name is never loaded: if "
            "you have it and trust it, give it with --plugin"
        )


def _anchor_rows(study: StoredStudy) -> pd.DataFrame:
    for name in (*ANCHORS, *study.episodes["trial"]):
        rows = study.episodes[study.episodes["trial"] == name]
        if len(rows):
            return rows
    raise ConfigError("the study has no records")


def changed(cls: type[Config], own: Mapping[str, Any], texts: list[str]) -> Config:
    """The configuration with ``name=value`` texts applied, parsed by the types of its fields."""
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

    Columns that compare a record with the anchors (excess leakage, checks) use the stored anchors.

    Args:
        progress: called with the number of finished steps (scenes and episodes) and their total.
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
    """Report the number of new episodes in the store while the body runs a trial."""
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
    """The numeric columns that a rerun must reproduce: not times and memory, nor checks, whose rules may
    change between versions."""
    kinds = {field.name: field.type for field in episode_schema()}
    names = [
        c for c in stored
        if c in kinds
        and (pa.types.is_floating(kinds[c]) or c == "queries")
        and not c.startswith((*TIMES, "scene.", "defense.", "attack."))
    ]  # fmt: skip
    return [c for c in names if stored[c].notna().any()]


def differences(stored: pd.DataFrame, measured: pd.DataFrame) -> tuple[int, list[Difference]]:
    """Compare stored with measured numbers, exactly.

    Columns that the stored records lack, because an older version wrote them, are not compared.

    Returns:
        How many stored numbers were compared, and those that differ.
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
    """The largest relative difference; the first one if several are equal."""
    return found[int(np.argmax([d.size for d in found]))]
