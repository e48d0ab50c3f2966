"""The records that claims are decided by: studies of a folder, their settings, and values by seed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.plugins import is_stand_in
from study.analysis.knobs import knobs_text
from study.records.finished import load
from study.records.flat import knobs_of
from study.records.store import STUDY_FILE

SAME_SCENE = ("dataset", "auxiliary", "scene.limit", "scene.victim_steps", "scene.decoder_steps", "victim")
"""Columns that studies share whose numbers are of the same scenes."""
TOLERANCE = 1e-9
"""Relative difference of two values of a knob that are the same."""


@dataclass(frozen=True)
class Setting:
    """Which settings a claim speaks of: those of a defense whose knobs fit.

    Attributes:
        defense: a name of DEFENSES.
        knobs: name -> a value; or ``(low, high)``, both included. Knobs that are not named may have any
            value. Knobs that older records lack have the value that the code had then.
    """

    defense: str
    knobs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        knobs = [
            f"{name} {v[0]:g} to {v[1]:g}" if isinstance(v, tuple) else f"{name} {v}"
            for name, v in self.knobs.items()
        ]
        return f"{self.defense} ({', '.join(knobs)})" if knobs else self.defense

    def fits(self, row: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
        """Whether a record is of such a setting, given its knobs."""
        if row["defense"] != self.defense:
            return False
        return all(_equal(known.get(name), wanted) for name, wanted in self.knobs.items())


def setting(defense: str, **knobs: Any) -> Setting:
    """A :class:`Setting`.

    Raises:
        KeyError: there is no such defense, or it has no such knob.
    """
    for name in knobs:
        DEFENSES[defense].field_kinds()[name]
    DEFENSES[defense]
    return Setting(defense, knobs)


def _equal(value: Any, wanted: Any) -> bool:
    if value is None:
        return False
    if isinstance(wanted, tuple):
        return bool(wanted[0] <= value <= wanted[1])
    if isinstance(wanted, float):
        return abs(value - wanted) <= TOLERANCE * abs(wanted)
    return bool(value == wanted)


@dataclass(frozen=True)
class Evidence:
    """The records of one study: those of its search and, as further seeds, those of its fresh seeds.

    Attributes:
        name: the study's folder.
        records: one row per trial, attacker and seed; status ``ok`` or another one.
    """

    name: str
    records: pd.DataFrame

    @functools.cached_property
    def rows(self) -> pd.DataFrame:
        """Successful episodes, each once."""
        ok = self.records[self.records["status"] == "ok"]
        return ok.drop_duplicates(["trial", "attack", "seed"])

    @functools.cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Trial -> one of its records."""
        first = self.rows.drop_duplicates("trial").set_index("trial")
        return {str(trial): row.to_dict() for trial, row in first.iterrows()}

    def text(self, trial: str) -> str:
        """Defense and knobs of a trial, in a few words."""
        row = self.settings[trial]
        return f"{row['defense']} {knobs_text(row)}".strip()

    def trials(self, wanted: Setting) -> list[str]:
        """The trials of such settings, sorted."""
        return sorted(trial for trial, row in self.settings.items() if wanted.fits(row, self.knobs[trial]))

    @functools.cached_property
    def knobs(self) -> dict[str, dict[str, Any]]:
        """Trial -> its knobs; none for defenses that this installation lacks."""
        return {
            trial: knobs_of(row)
            if row["defense"] in DEFENSES and not is_stand_in(DEFENSES[str(row["defense"])])
            else {}
            for trial, row in self.settings.items()
        }

    @functools.cached_property
    def auxiliary(self) -> str:
        """``same`` or ``disjoint``: the classes of the attacker's images."""
        return str(self.records["auxiliary"].iloc[0])

    @functools.cached_property
    def dataset(self) -> str:
        """The data set's name, without a path."""
        return str(self.records["dataset"].iloc[0]).partition(":")[0]

    @functools.cached_property
    def scene(self) -> tuple[str, ...]:
        """What the study has in common with others whose numbers are of the same scenes."""
        first = self.records.iloc[0]
        return tuple(str(first.get(name)).partition(":")[0] for name in SAME_SCENE)

    @functools.cached_property
    def _parts(self) -> dict[str, pd.DataFrame]:
        return {str(trial): part.set_index(["seed", "attack"]) for trial, part in self.rows.groupby("trial")}

    def by_seed(self, trial: str, column: str) -> pd.DataFrame:
        """A column's values, seeds down and attackers across; NaN where unknown, empty without the column."""
        part = self._parts[trial]
        if column not in part:
            return pd.DataFrame()
        return part[column].astype("Float64").astype(float).unstack("attack").sort_index()

    def incomplete(self, trial: str) -> bool:
        """Whether an attacker was left out or failed on some seed, so that a worst case may be missing."""
        part = self.records[self.records["trial"] == trial]
        return bool((part["status"] != "ok").any())


def collect_one(folder: Path, name: str | None = None) -> Evidence:
    """The records of a study's folder, or of a compact copy.

    Raises:
        ConfigError: it is none, or is damaged.
    """
    study = load(folder)
    frames = [study.episodes] if study.fresh is None else [study.episodes, study.fresh]
    return Evidence(name or folder.name, pd.concat(frames, ignore_index=True))


def collect(folder: Path, tell: Callable[[str], None] = lambda text: None) -> list[Evidence]:
    """The studies (or compact copies) in a folder and one level below its sub-folders, sorted by name.

    Args:
        tell: is told of each study that cannot be read, in a line.

    Raises:
        ConfigError: there is no such folder, or no study in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"--studies {folder}: no such folder")
    found = []
    for file in sorted((*folder.glob(f"*/{STUDY_FILE}"), *folder.glob(f"*/*/{STUDY_FILE}"))):
        name = file.parent.relative_to(folder).as_posix()
        try:
            found.append(collect_one(file.parent, name))
        except ConfigError as error:
            tell(f"left out: {error}")
    if not found:
        raise ConfigError(f"--studies {folder}: no study in it")
    return found
