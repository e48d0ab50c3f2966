"""Tables and figure of a finished study from its records alone: nothing is run.

``python study/render.py results/digits-same`` renders a study's folder; ``--compact OUT`` writes a small copy
of the records (two Parquet files and the settings) that renders to the same page.
"""

from __future__ import annotations

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
from study.frontier import frontier_table, selection_bias, settings_table
from study.records import Records, to_frame
from study.reporting import markdown
from study.reporting.figures import frontier_figure
from study.reporting.tables import describe

EPISODES, FRESH, ABOUT = "episodes.parquet", "fresh.parquet", "study.json"
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
    """A finished study: its name, settings, episodes, and the fresh ones if there are any."""

    name: str
    about: dict[str, Any]
    episodes: pd.DataFrame
    fresh: pd.DataFrame | None


def load(folder: Path) -> Finished:
    """Read a study's folder or a compact copy.

    Raises:
        ConfigError: no study there, or one without a finished episode.
    """
    folder = folder.expanduser().resolve()
    if not (folder / ABOUT).is_file():
        raise ConfigError(f"{folder}: no study here ({ABOUT} is missing)")
    try:
        about = json.loads((folder / ABOUT).read_bytes())
    except ValueError as error:
        raise ConfigError(f"{folder}: {ABOUT} is damaged (no JSON)") from error
    name = about.get("study", folder.name)
    if (folder / EPISODES).is_file():
        episodes = to_frame(pq.read_table(folder / EPISODES))
        fresh = to_frame(pq.read_table(folder / FRESH)) if (folder / FRESH).is_file() else None
    else:
        storage = Storage(folder.parent)
        episodes = Records(storage, folder.name).read()
        later = Records(storage, f"{folder.name}.fresh").read()
        fresh = later if len(later) else None
    if episodes.empty:
        raise ConfigError(f"{folder}: no finished episode")
    return Finished(name, about, episodes, fresh)


def write_compact(study: Finished, out: Path) -> None:
    """Two Parquet files and the settings."""
    out.mkdir(parents=True, exist_ok=True)
    for name, frame in ((EPISODES, study.episodes), (FRESH, study.fresh)):
        if frame is not None:
            kept = frame.dropna(axis=1, how="all")
            pq.write_table(pa.Table.from_pandas(kept, preserve_index=False), out / name, compression="zstd")
    about = {"study": study.name, **{k: study.about[k] for k in KEPT if k in study.about}}
    (out / ABOUT).write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")


def page(study: Finished) -> str:
    """The study's tables as Markdown."""
    settings = study.about["settings"]
    about = {"study": study.name, "scale": settings["scale"]}
    return markdown(study.episodes, study.fresh, about, settings["max_accuracy_drop"])


def render(study: Finished, out: Path) -> None:
    """Write report.md and frontier.png."""
    out.mkdir(parents=True, exist_ok=True)
    drop = study.about["settings"]["max_accuracy_drop"]
    (out / "report.md").write_text(page(study))
    bias = None if study.fresh is None else selection_bias(study.episodes, study.fresh, drop)
    info = describe(study.episodes, {"study": study.name, "scale": study.about["settings"]["scale"]})
    settings, front = (
        settings_table(study.episodes, max_accuracy_drop=drop),
        frontier_table(study.episodes, drop),
    )
    frontier_figure(settings, front, out / "frontier.png", info, fresh=bias)


def main(arguments: Sequence[str] | None = None) -> int:
    """Render; 0 if done, 2 for bad input."""
    chosen = tyro.cli(Arguments, args=arguments, prog="study/render.py")
    console = Console(highlight=False, soft_wrap=True)
    try:
        study = load(chosen.folder)
    except ConfigError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
        return 2
    out = chosen.out or chosen.folder
    render(study, out)
    if chosen.compact is not None:
        write_compact(study, chosen.compact)
        render(study, chosen.compact)
    console.print(f"written: {out}/report.md, {out}/frontier.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
