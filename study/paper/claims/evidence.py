"""The records that claims are decided by: studies of a folder, their settings, and values by seed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mipoison.config import ConfigError
from mipoison.data.datasets import DATASETS
from mipoison.defenses import DEFENSES
from mipoison.plugins import is_stand_in
from study.analysis.knobs import KNOB, knobs_text
from study.records.finished import load
from study.records.flat import knobs_of, same_value
from study.records.status import PRUNED
from study.records.store import STUDY_FILE

SAME_SCENE = (
    "auxiliary", "scene.limit", "scene.image_size", "scene.victim_steps", "scene.decoder_steps", "victim",
)  # fmt: skip
"""Columns that studies share whose numbers are of the same scenes, besides the images (Evidence.images)."""


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
    return same_value(value, wanted)


@dataclass(frozen=True)
class Evidence:
    """The records of one study: those of its search and, as further seeds, those of its fresh seeds.

    Attributes:
        name: the study's folder.
        records: one row per trial, attacker and seed; status ``ok`` or another one.
        content: digest of all images of the data set; None if the study did not keep it (compact copies).
    """

    name: str
    records: pd.DataFrame
    content: str | None = None

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

    def exact(self, trial: str, but: str | None = None) -> str:
        """Defense and knobs of a trial (``but`` one) with all digits: equal for equal settings alone."""
        row = self.settings[trial]
        known = self.knobs[trial] or {
            name: v for name, v in row.items() if name.startswith(KNOB) and not pd.isna(v)
        }
        return f"{row['defense']} " + " ".join(
            f"{name}={known[name]!r}" for name in sorted(known) if name != but
        )

    def key(self, pair: tuple[str, str], pool: str) -> tuple[str, ...]:
        """What a reading of two settings (or of one twice) is of, but for the attackers."""
        return (*self.scene, *(self.exact(trial) for trial in pair), pool)

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
        values = [first.get(name) for name in SAME_SCENE]
        return (self.images, *("" if v is None or pd.isna(v) else str(v) for v in values))

    @functools.cached_property
    def images(self) -> str:
        """Identifies the images: the data set's name; of the user's own folder with the digest of its
        content, or (in records without it) with its path and the split of the first seed."""
        if self.dataset not in DATASETS or not DATASETS[self.dataset].takes_path:
            return self.dataset
        if self.content is not None:
            return f"{self.dataset} {self.content}"
        first = self.records.sort_values("seed", kind="stable").iloc[0]
        return f"{first['dataset']} {first.get('split')}"

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

    @functools.cached_property
    def screened(self) -> frozenset[str]:
        """Trials that were cut short: some of their attackers did not run, by the results of the others."""
        return frozenset(map(str, self.records.loc[self.records["status"] == PRUNED, "trial"]))


def collect_one(folder: Path, name: str | None = None) -> Evidence:
    """The records of a study's folder, or of a compact copy.

    Raises:
        ConfigError: it is none, or is damaged.
    """
    study = load(folder)
    frames = [study.episodes] if study.fresh is None else [study.episodes, study.fresh]
    content = study.about.get("content")
    records = pd.concat(frames, ignore_index=True)
    return Evidence(name or folder.name, records, None if content is None else str(content))


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
