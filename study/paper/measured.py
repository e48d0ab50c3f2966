"""What a reproduction run measured: the records of each of the paper's data sets, read from their folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mipoison.config import ConfigError
from mipoison.storage.files import Storage
from study.paper.experiments import RUNS, PaperRow, folder_of
from study.paper.run import FOLDER, records_for
from study.records.finished import EPISODES, compact_episodes
from study.records.reading import Unreadable, fetch, leave_out
from study.records.reading.documents import MAX_JSON_BYTES, about_to_show
from study.records.store import STUDY_FILE
from study.reports.cells import describe


@dataclass(frozen=True)
class Measured:
    """The records of one run.

    Attributes:
        name: the data set it ran on. about: the content of ``study.json``.
        storage, folder: its other files are ``<folder>/<name>`` in that storage.
    """

    name: str
    about: Mapping[str, Any]
    episodes: pd.DataFrame
    storage: Storage
    folder: str

    def values(self, row: PaperRow, column: str) -> pd.Series:
        """Seed -> value of a column in the row's successful episodes; empty if there are none."""
        e = self.episodes
        if column not in e:  # a compact copy omits columns that are all null
            return pd.Series(dtype=float)
        mask = (e["trial"] == row.trial) & (e["attack"] == row.attack) & (e["status"] == "ok")
        found: pd.Series = e[mask].set_index("seed")[column].dropna().sort_index().astype(float)
        return found

    def caption(self, seed: int | None = None) -> str:
        """One line on data, sizes, seeds (or one seed alone) and device."""
        episodes = self.episodes if seed is None else self.episodes[self.episodes["seed"] == seed]
        return describe(episodes, {"scale": self.about["settings"].get("scale")})


def load(storage: str, faces: str) -> dict[str, Measured]:
    """Name of a run -> its records, for all runs with records.

    Raises:
        ConfigError: no run has records.
    """
    found = {}
    for run in RUNS:
        records = records_for(storage, folder_of(run, faces))
        try:
            stored = fetch(records.storage, f"{records.study}/{STUDY_FILE}", MAX_JSON_BYTES)
            if stored is None:
                continue
            about = about_to_show(stored, f"{records.study}/{STUDY_FILE}")
        except Unreadable as error:
            leave_out(f"{records.study}/{STUDY_FILE}", error)
            continue
        episodes = compact_episodes(records.storage, f"{records.study}/{EPISODES}")
        if episodes is None:
            episodes = records.read()
        if len(episodes):
            found[run] = Measured(records.study, about, episodes, records.storage, records.study)
    if not found:
        raise ConfigError(f"no records below {storage}/{FOLDER}: leave --render out to run the experiments")
    return found


def failed_share(found: Mapping[str, Measured]) -> float:
    """Share of failed episodes over all runs."""
    return float(np.mean([s == "failed" for m in found.values() for s in m.episodes["status"]]))
