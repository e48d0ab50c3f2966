"""Building blocks of the tables: captions, names of settings, numbers with intervals, rows."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from mipoison.scene import TEST_SEEN
from study.analysis.knobs import knobs_text
from study.runtime.plain import number, visible, visible_line

SEEN = "check.test_seen"


def data_name(dataset: object) -> str:
    """A data set's name as it may be shown around: of a user's folder the kind, without its path."""
    return visible_line(str(dataset).partition(":")[0])


def describe(episodes: pd.DataFrame, more: Mapping[str, object] | None = None) -> str:
    """One line on the numbers' origin: ``more`` (study, scale), data, sizes, seeds, attackers, device."""

    def values(column: str, missing: str) -> str:
        found = sorted(episodes[column].dropna().unique()) if column in episodes else []
        return ", ".join(f"{v:g}" if isinstance(v, float) else visible_line(v) for v in found) or missing

    names = sorted({data_name(v) for v in episodes["dataset"].dropna()}) if "dataset" in episodes else []
    parts = [f"{key} {value}" for key, value in (more or {}).items() if value is not None]
    parts += [f"data {', '.join(names) or 'unknown'}", f"auxiliary {values('auxiliary', 'unknown')}"]
    limit = values("scene.limit", "")
    parts += [f"at most {limit} training images a side" if limit else "all training images"]
    seeds = [] if "seed" not in episodes else sorted({int(s) for s in episodes["seed"].dropna()})
    parts += [f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'} ({', '.join(map(str, seeds))})"]
    if "attack" in episodes and len(episodes):
        parts += [f"{episodes['attack'].nunique()} attackers"]
    sizes = {"victim": "scene.victim_steps", "decoder": "scene.decoder_steps"}
    if values("scene.victim", ""):  # the user's own, which the study did not train; its evaluators it did
        sizes = {"evaluators": "scene.victim_steps", "decoder": "scene.decoder_steps"}
    if test_seen(episodes):
        parts += [f"test images: {TEST_SEEN}"]
    sizes_text = [f"{name} {values(column, '')}" for name, column in sizes.items() if values(column, "")]
    parts += [f"training steps: {', '.join(sizes_text)}"] if sizes_text else []
    return "; ".join([*parts, f"device {values('device', 'unknown')}"])


def test_seen(episodes: pd.DataFrame) -> bool | None:
    """Whether the victim may have been trained on the test images of any record; None if no record tells."""
    known = episodes.reindex(columns=[SEEN])[SEEN].dropna()
    return bool(known.astype(bool).any()) if len(known) else None


def setting_name(setting: Mapping[str, Any]) -> str:
    """Defense and knobs: ``lpa budget=0.012 rounds=7``."""
    return f"{setting['defense']} {knobs_text(setting)}".strip()


def alignments(episodes: pd.DataFrame) -> dict[str, float]:
    """Trial -> mean cosine of its released vectors' gradients to its target, of defenses that have one."""
    if "alignment_after" not in episodes:
        return {}
    measured = pd.to_numeric(episodes["alignment_after"], errors="coerce").groupby(episodes["trial"]).mean()
    return {str(trial): float(value) for trial, value in measured.dropna().items()}


def with_alignment(setting: Mapping[str, Any], cosines: Mapping[str, float]) -> str:
    """Defense and knobs, and on a line of its own how far its vectors align, if it aligns them."""
    cosine = cosines.get(str(setting["trial"]))
    return setting_name(setting) + ("" if cosine is None else f"\nmean cosine {cosine:+.3f}")


def with_interval(setting: Mapping[str, Any], name: str, form: str = "+.3f") -> str:
    low, high = setting[f"{name}_low"], setting[f"{name}_high"]
    interval = "" if pd.isna(low) or pd.isna(high) else f"\n[{low:{form}}, {high:{form}}]"
    return number(setting[name], form) + interval


def by_attacker(setting: Mapping[str, Any], name: str, form: str) -> str:
    attacker = setting[f"{name}_attacker"]
    named = "" if pd.isna(attacker) else "\n" + textwrap.fill(str(attacker), 14)
    return number(setting[name], form) + named


def new_table(title: str, caption: str, *columns: str) -> Table:
    """A table without rows.

    Args:
        columns: ``name`` is right-aligned, ``name<`` left-aligned; ``name|`` is left-aligned and takes the
            remaining width.
    """
    title, caption = visible(title), visible(caption)
    table = Table(title=Text(title, style="bold"), caption=Text(caption), box=box.SIMPLE_HEAD, expand=True)
    table.collapse_padding = True
    table.title_justify = table.caption_justify = "left"
    for column in columns:
        name, left, ratio = column.rstrip("<|"), column[-1] in "<|", 1 if column.endswith("|") else None
        table.add_column(
            Text(visible(name)), justify="left" if left else "right", ratio=ratio, overflow="fold"
        )
    return table


def add_row(table: Table, *cells: str) -> None:
    # Text objects: an error message may contain rich's markup, or escape codes of a terminal.
    table.add_row(*(Text(visible(cell)) for cell in cells))
