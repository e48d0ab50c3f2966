"""The report page: one HTML file with a study's charts and tables. It loads nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.records.finished import StoredStudy
from study.reports.findings import Findings
from study.reports.html import sections, vectors
from study.reports.html.chart_data import chart_data
from study.reports.html.heatmap import heatmap
from study.reports.html.markup import escape, section
from study.reports.html.reconstructions import grid
from study.reports.html.thinning import explain_thinning, thinned
from study.runtime.entry import command
from study.runtime.plain import visible
from study.trial.rerun import NO_VICTIM, GivenVictim, has_own_victim

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("base.js", "frontier.js", "plots.js", "tables.js")
PAGE = "report.html"


def no_progress(what: str, done: int, total: int) -> None:
    """A progress callback that does nothing."""


def rerun_commands(study: StoredStudy, like: str) -> dict[str, str]:
    """Trial -> the command line that runs it again."""
    words = list(study.about.get("command", []))
    root = next((b for a, b in itertools.pairwise(words) if a in ("--data-root", "--data_root")), None)
    data = f" --data-root {shlex.quote(str(root))}" if root else ""
    start, end = f"{command('evaluate')} --like {shlex.quote(like)} --trial ", data + _own(study)
    return {
        str(trial): f"{start}{shlex.quote(str(trial))}{end}" for trial in sorted(set(study.episodes["trial"]))
    }


def _own(study: StoredStudy) -> str:
    """An option for studies of a user's own classifier: the reader names it, never the records."""
    return " --victim YOUR_CLASSIFIER" if has_own_victim(study.episodes) else ""


def build(
    study: StoredStudy,
    like: str,
    *,
    with_vectors: bool | None = None,
    data_root: str | None = None,
    given: GivenVictim = NO_VICTIM,
    progress: vectors.Progress = no_progress,
) -> str:
    """Build the page of a study.

    Args:
        like: the study's path or address, for command lines on the page.
        with_vectors: see ``vectors.panels``.
        data_root: the data folder, for the vectors; None for the default.
        given: the reader's classifier, for the vectors. Classifiers that records name are never loaded.
        progress: called before each slow step.
    """
    found = Findings.of(study)
    configurations = found.configurations
    commands = rerun_commands(study, like)
    again = f"{command('report')} {shlex.quote(like)} --vectors yes{_own(study)}"
    panels, why = vectors.panels(
        study, configurations, wanted=with_vectors, data_root=data_root, given=given, progress=progress
    )
    shown = thinned(found.with_leakage)
    drawn = chart_data(study.episodes, shown, commands, found.extrapolated, margin=found.margin)
    drawn |= {"vectors": panels}
    body = "".join(
        [
            sections.header(study, configurations, explain_thinning(len(shown), len(configurations))),
            sections.frontier(configurations, drawn),
            section("attackers", "Attackers by setting", heatmap(study.episodes, shown)),
            sections.knobs(found.comparable),
            sections.curves(drawn),
            section("reconstructions", "Reconstructions", grid(study, configurations)),
            sections.vectors(panels, why, None if panels else again),
            sections.all_settings(shown, commands),
            sections.statistics(found),
            sections.checks(study.episodes),
            sections.failures(study.episodes),
            sections.about(study),
        ]
    )
    return document(study.name, body, drawn)


def document(title: str, body: str, drawn: Mapping[str, Any]) -> str:
    """The whole document: a content policy that forbids requests, styles, body, data and scripts."""
    script = "\n".join((ASSETS / name).read_text() for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}\n}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )
    # Without "<" no text of a record can end the script element.
    numbers = json.dumps(_shown(drawn), allow_nan=False, separators=(",", ":"))
    numbers = numbers.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)} - "
        f"mipoison</title><style>{(ASSETS / 'page.css').read_text()}</style></head>\n"
        f'<body><main>{body}</main><div id="tooltip" role="status" hidden></div>\n'
        f'<script type="application/json" id="numbers">{numbers}</script>\n'
        f"<script>{script}</script></body></html>\n"
    )


def _shown(value: Any) -> Any:
    """The charts' data with control characters made visible in all texts."""
    if isinstance(value, Mapping):
        return {visible(k): _shown(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(v) for v in value]
    return visible(value) if isinstance(value, str) else value


def write_page(study: StoredStudy, like: str, **options: Any) -> int:
    """Write ``report.html`` into the study's folder; returns its size in bytes."""
    page = build(study, like, **options).encode()
    study.storage.write(f"{study.folder}/{PAGE}", page)
    return len(page)
