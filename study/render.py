"""Tables and figure of a finished study from its records alone: nothing is run.

``python study/render.py results/digits-same`` renders a study's folder; ``--compact OUT`` writes a small copy
of the records (two Parquet files and the settings) that renders to the same page.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.storage.files import Storage
from study.analysis.frontier import pareto_front, selection_bias, settings_table
from study.records.reading import Unreadable, leave_out, saying
from study.records.reading.documents import about_to_show
from study.records.reading.episodes import compact_of
from study.records.store import ABOUT, Records, check_name, episode_schema, to_frame
from study.reports.figures import drawn, frontier_figure
from study.reports.markdown import markdown
from study.reports.tables import describe
from study.runtime.plain import visible_line
from study.runtime.progress import Progress

EPISODES, FRESH = "episodes.parquet", "fresh.parquet"
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

    @property
    def shown(self) -> dict[str, object]:
        """What tables say of the study itself."""
        return {"study": self.name, "scale": self.about.get("settings", {}).get("scale")}

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
        about = about_to_show(stored, f"{name}/{ABOUT}")
    except Unreadable as error:
        raise ConfigError(f"{place}: {ABOUT} is damaged ({error})") from error
    episodes = compact_episodes(storage, f"{name}/{EPISODES}")
    if episodes is not None and len(episodes):
        fresh = compact_episodes(storage, f"{name}/{FRESH}")
    else:
        episodes = Records(storage, name).read()
        fresh = Records(storage, f"{name}.fresh").read()
    if episodes.empty:
        raise ConfigError(f"{place}: no finished episode")
    fresh = fresh if fresh is not None and len(fresh) else None
    return Finished(_name(about, name), about, episodes, fresh, storage, name)


def compact_episodes(storage: Storage, name: str) -> pd.DataFrame | None:
    """Episodes in a file of a compact copy; None if it is not there, or none of ours."""
    data = storage.read(name)
    try:
        return None if data is None else to_frame(compact_of(data, episode_schema(), name))
    except Unreadable as error:
        leave_out(name, error)
        return None


def _name(about: Mapping[str, Any], folder: str) -> str:
    """The name that the study gives itself; its folder's where that is no name."""
    try:
        return check_name(about.get("study", folder))
    except ConfigError as error:
        leave_out(f"{folder}/{ABOUT}: study", error)
        return visible_line(folder)


def write_compact(study: Finished, out: Path) -> None:
    """Two Parquet files and the settings."""
    target = Storage(out)  # it writes through no link
    for name, frame in ((EPISODES, study.episodes), (FRESH, study.fresh)):
        if frame is not None:
            target.write(name, small_parquet(frame.dropna(axis=1, how="all")))
    about = {"study": study.name, **{k: study.about[k] for k in KEPT if k in study.about}}
    target.write(ABOUT, (json.dumps(about, indent=2, sort_keys=True) + "\n").encode())


def small_parquet(frame: pd.DataFrame) -> bytes:
    """A frame as a small Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), sink, compression="zstd")
    return sink.getvalue()


def page(study: Finished, settings: pd.DataFrame | None = None) -> str:
    """The study's tables as Markdown (``settings``: its settings table, if it is there)."""
    return markdown(study.episodes, study.fresh, study.shown, study.max_accuracy_drop, settings)


def render(study: Finished, out: Path) -> None:
    """Write report.md and frontier.png."""
    target, drop = Storage(out), study.max_accuracy_drop
    settings = settings_table(study.episodes, max_accuracy_drop=drop)
    target.write("report.md", page(study, settings).encode())
    bias = None if study.fresh is None else selection_bias(settings, study.fresh, drop)
    info = describe(study.episodes, study.shown)
    front = pareto_front(settings)
    figure = drawn(lambda path: frontier_figure(settings, front, path, info, fresh=bias))
    if figure is not None:
        target.write("frontier.png", figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Render; 0 if done, 2 for bad input."""
    chosen = tyro.cli(Arguments, args=arguments, prog="study/render.py")
    console = Console(highlight=False, soft_wrap=True)
    parts = 3 if chosen.compact else 2
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    out = chosen.out or chosen.folder
    try:
        with Progress(console) as progress, saying(lambda text: errors.print(text, markup=False)):
            progress.brief("reading the records", 0, parts)
            study = load(chosen.folder)
            progress.brief("writing tables and figure", 1, parts)
            render(study, out)
            if chosen.compact is not None:
                progress.brief("writing the compact copy", 2, parts)
                write_compact(study, chosen.compact)
                render(study, chosen.compact)
    except (ConfigError, OSError) as error:
        errors.print(f"error: {visible_line(error, 2000)}", markup=False)
        return 2
    console.print(f"written: {out}/report.md, {out}/frontier.png", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
