"""Tables and figure of a finished study from its records alone: nothing is run.

``python study/render.py results/digits-same`` renders a study's folder; ``--compact OUT`` writes a small copy
of the records (two Parquet files and the settings) that renders to the same page.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.storage import Storage
from study.frontier import pareto_front, selection_bias, settings_table
from study.progress import Progress
from study.records import Records, to_frame
from study.reporting import markdown
from study.reporting.figures import frontier_figure
from study.reporting.tables import describe

EPISODES, FRESH, ABOUT = "episodes.parquet", "fresh.parquet", "study.json"
MAX_ACCURACY_DROP = 0.02
KEPT = ("settings", "versions", "started")
"""Of study.json: what a published copy needs, without the command line's paths."""


@dataclass(frozen=True)
class Arguments:
    """Render a study's tables (report.md) and its frontier (frontier.png) from Parquet."""

    folder: Annotated[Path, tyro.conf.Positional]
    """a study's folder, or a compact copy of one"""
    out: Path | None = None
    """where report.md and frontier.png go; default: the folder itself"""
    compact: Path | None = None
    """also write a compact copy of the records (and the page) there"""


@dataclass(frozen=True)
class Finished:
    """A finished study: its name, settings, episodes, the fresh ones if there are any, and where it lies.

    Attributes:
        storage, folder: its files are ``folder/<name>`` there.
    """

    name: str
    about: dict[str, Any]
    episodes: pd.DataFrame
    fresh: pd.DataFrame | None
    storage: Storage
    folder: str

    @property
    def max_accuracy_drop(self) -> float:
        """The study's constraint (share); records of the paper's tables have none and get the default."""
        return float(self.about.get("settings", {}).get("max_accuracy_drop", MAX_ACCURACY_DROP))

    def read(self, name: str) -> bytes | None:
        """A file of the study, None if there is none."""
        return self.storage.read(f"{self.folder}/{name}")


def load(folder: Path | str) -> Finished:
    """Read a study's folder or a compact copy, here or in an object store (``s3://bucket/prefix/study``).

    Raises:
        ConfigError: no study there, or one without a finished episode.
    """
    place = str(folder)
    if "://" in place:
        base, mark, query = place.partition("?")
        root, _, name = base.rstrip("/").rpartition("/")
        root += mark + query
    else:
        path = Path(folder).expanduser().resolve()
        root, name, place = str(path.parent), path.name, str(path)
    storage = Storage(root)
    stored = storage.read(f"{name}/{ABOUT}")
    if stored is None:
        raise ConfigError(f"{place}: no study here ({ABOUT} is missing)")
    try:
        about = json.loads(stored)
    except ValueError as error:
        raise ConfigError(f"{place}: {ABOUT} is damaged (no JSON)") from error
    compact = storage.read(f"{name}/{EPISODES}")
    if compact is not None:
        episodes = to_frame(pq.read_table(io.BytesIO(compact)))
        later = storage.read(f"{name}/{FRESH}")
        fresh = None if later is None else to_frame(pq.read_table(io.BytesIO(later)))
    else:
        episodes = Records(storage, name).read()
        again = Records(storage, f"{name}.fresh").read()
        fresh = again if len(again) else None
    if episodes.empty:
        raise ConfigError(f"{place}: no finished episode")
    return Finished(about.get("study", name), about, episodes, fresh, storage, name)


def write_compact(study: Finished, out: Path) -> None:
    """Two Parquet files and the settings."""
    out.mkdir(parents=True, exist_ok=True)
    for name, frame in ((EPISODES, study.episodes), (FRESH, study.fresh)):
        if frame is not None:
            kept = frame.dropna(axis=1, how="all")
            pq.write_table(pa.Table.from_pandas(kept, preserve_index=False), out / name, compression="zstd")
    about = {"study": study.name, **{k: study.about[k] for k in KEPT if k in study.about}}
    (out / ABOUT).write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")


def page(study: Finished, settings: pd.DataFrame | None = None) -> str:
    """The study's tables as Markdown (``settings``: its settings table, if it is there)."""
    told = study.about["settings"]
    about = {"study": study.name, "scale": told["scale"]}
    return markdown(study.episodes, study.fresh, about, told["max_accuracy_drop"], settings)


def render(study: Finished, out: Path) -> None:
    """Write report.md and frontier.png."""
    out.mkdir(parents=True, exist_ok=True)
    drop = study.about["settings"]["max_accuracy_drop"]
    settings = settings_table(study.episodes, max_accuracy_drop=drop)
    (out / "report.md").write_text(page(study, settings))
    bias = None if study.fresh is None else selection_bias(settings, study.fresh, drop)
    info = describe(study.episodes, {"study": study.name, "scale": study.about["settings"]["scale"]})
    frontier_figure(settings, pareto_front(settings), out / "frontier.png", info, fresh=bias)


def main(arguments: Sequence[str] | None = None) -> int:
    """Render; 0 if done, 2 for bad input."""
    chosen = tyro.cli(Arguments, args=arguments, prog="study/render.py")
    console = Console(highlight=False, soft_wrap=True)
    parts = 3 if chosen.compact else 2
    with Progress(console) as progress:
        progress.brief("reading the records", 0, parts)
        try:
            study = load(chosen.folder)
        except ConfigError as error:
            Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
            return 2
        out = chosen.out or chosen.folder
        progress.brief("writing tables and figure", 1, parts)
        render(study, out)
        if chosen.compact is not None:
            progress.brief("writing the compact copy", 2, parts)
            write_compact(study, chosen.compact)
            render(study, chosen.compact)
    console.print(f"written: {out}/report.md, {out}/frontier.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
