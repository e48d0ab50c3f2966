"""All that the page shows of one study: texts, tables, charts and the data that the charts draw."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from study.analysis.identification import CHANCE
from study.records.finished import StoredStudy
from study.reports.commands import own_victim, rerun_commands
from study.reports.findings import Findings
from study.reports.html import chart_data, charts, sections, vectors
from study.reports.html.drawing import Drawing, quickly
from study.reports.html.heatmap import heatmap
from study.reports.html.marks import key_of
from study.reports.html.reconstructions import grid
from study.reports.html.thinning import explain_thinning, thinned
from study.reports.html.verdict import verdict
from study.reports.label import label, recommended
from study.reports.summary import answer
from study.reports.utility_report import utility_report
from study.runtime.entry import command
from study.trial.rerun import NO_VICTIM, GivenVictim

Plain = dict[str, Any]
CONTENTS = {
    "answer": "answer", "utility": "utility", "attackers": "attackers", "reconstructions": "reconstructions",
    "settings": "settings", "knobs": "knobs", "methods": "methods", "checks": "checks",
}  # fmt: skip
"""Section -> its name in the list of contents."""


@dataclass(frozen=True)
class Source:
    """A study to show.

    Attributes:
        study: its records. like: its path or address, for command lines on the page.
        label: of the recommended setting, computed once for page and files; None if none is recommended.
    """

    study: StoredStudy
    like: str
    found: Findings
    label: Plain | None = field(repr=False)

    @classmethod
    def of(cls, study: StoredStudy, like: str, found: Findings | None = None) -> Source:
        """A study with its findings (computed if not given) and the label of what it recommends."""
        found = Findings.of(study) if found is None else found
        best = recommended(found)
        made = None if best is None else label(study, best, like=like, found=found)
        return cls(study, like, found, made)


@dataclass(frozen=True)
class VectorOptions:
    """Whether and how clean and released vectors are shown: see ``vectors.panels``."""

    wanted: bool | None
    data_root: str | None = None
    given: GivenVictim = NO_VICTIM
    progress: Callable[[str, int, int], None] = lambda what, done, total: None


def content(source: Source, index: int, prefix: str, options: VectorOptions) -> tuple[Plain, Plain]:
    """What the templates show of a study, and the JSON of its charts: ``datasets`` and ``charts``.

    Args:
        index: its place on the page. prefix: before the ids of its elements and before its permalinks.
    """
    study, found = source.study, source.found
    configurations = found.configurations
    best = None if source.label is None else str(source.label["trial"])
    commands = rerun_commands(study, source.like)
    panels, why = vectors.panels(
        study, configurations, wanted=options.wanted, data_root=options.data_root, given=options.given,
        progress=options.progress,
    )  # fmt: skip
    shown = thinned(found.with_leakage)
    rows = chart_data.settings(found, shown, commands, best)
    key = key_of(rows)
    shares = chart_data.curves(study.episodes, shown, best)
    projections, projected = charts.projections(panels)
    with quickly():
        hero = charts.hero(rows, key, found.margin)
        groups: dict[str, list[Drawing]] = {
            "utility_charts": charts.utility(rows, key),
            "leakage_charts": charts.leakage(rows, key, CHANCE, chart_data.mean_image(configurations)),
            "knob_charts": charts.knobs(rows, key),
            "vector_charts": projections,
        }
        share_chart = charts.shares(shares, key)
    again = f"{command('report')} {shlex.quote(source.like)} --vectors yes{own_victim(study)}"
    pictures, importance = grid(study, configurations), sections.importance(found.comparable)
    optional = {"reconstructions": pictures, "knobs": groups["knob_charts"] or importance}
    left_out = [name for name, there in optional.items() if not there]
    verdicts = found.verdicts.set_index("trial")["verdict"].to_dict()
    page = {
        "index": index,
        "prefix": prefix,
        "name": study.name,
        "verdict": verdict(found, source.label),
        "label": source.label,
        "answer": answer(found),
        "info": found.info,
        "hero": hero,
        "key": key,
        "legend": sections.legend(rows, found.margin),
        "left_out": explain_thinning(len(shown), len(configurations)),
        "contents": [(prefix + name, text) for name, text in CONTENTS.items() if name not in left_out],
        **groups,
        "utility_table": sections.from_rich(found.once(utility_report)),
        "attackers_note": sections.attackers_note(rows, any(r["defense"] == "label-only" for r in rows)),
        "heat": heatmap(study.episodes, shown),
        "shares": share_chart,
        "pictures": pictures,
        "settings_columns": sections.COLUMNS,
        "settings": sections.settings_table(shown, commands, verdicts, prefix),
        "importance": importance,
        "facts": sections.facts(study, configurations),
        "tables": sections.statistics(found),
        "vectors_note": why if not panels else f"{why} {vectors.ABOUT}",
        "vectors_command": None if panels else again,
        "about": sections.about(study),
        "checks": sections.checks(study.episodes),
        "failures": sections.failures(study.episodes),
    }
    every = [hero, *(d for group in groups.values() for d in group), *([share_chart] if share_chart else [])]
    data = {"settings": rows, "curves": shares, **projected}
    return page, {
        "name": study.name,
        "prefix": prefix,
        "datasets": data,
        "charts": {d.name: drawing_json(d) for d in every},
    }


def drawing_json(drawing: Drawing) -> Plain:
    """What the script needs of a chart."""
    names = ("title", "spec", "data", "columns", "only", "tall")
    return {name: getattr(drawing, name) for name in names}


def safe_prefix(name: str, index: int) -> str:
    """A prefix for ids and permalinks of one of several studies: ``digits-same/``."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', name) or 'study'}{'' if index == 0 else f'-{index}'}/"
