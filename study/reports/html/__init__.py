"""The report page: one HTML file with the verdict, charts and tables of a study, or of several.

It loads nothing from the network. Templates are Jinja's, charts Vega-Lite's (see ``charts``), drawn by the
vendored scripts in ``assets/vendor``.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from study.records.finished import StoredStudy
from study.reports.findings import Findings
from study.reports.html import charts, sections
from study.reports.html.content import Source, VectorOptions, content, drawing_json, safe_prefix
from study.reports.html.verdict import excess_text, interval_text
from study.reports.label import write_labels
from study.runtime.plain import visible
from study.trial.rerun import NO_VICTIM, GivenVictim

HERE = Path(__file__).parent
ASSETS, TEMPLATES = HERE / "assets", HERE / "templates"
LIBRARY = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")
"""The vendored scripts in the order in which they run."""
SCRIPT = ("charts.js", "tables.js")
PAGE, SEVERAL = "report.html", "comparison.html"


def no_progress(what: str, done: int, total: int) -> None:
    """A progress callback that does nothing."""


def build(
    study: StoredStudy,
    like: str,
    *,
    with_vectors: bool | None = None,
    data_root: str | None = None,
    given: GivenVictim = NO_VICTIM,
    progress: Any = no_progress,
) -> str:
    """Build the page of one study.

    Args:
        like: the study's path or address, for command lines on the page.
        with_vectors, data_root, given: see ``vectors.panels``.
        progress: called before each slow step.
    """
    options = VectorOptions(with_vectors, data_root, given, progress)
    return build_page([Source.of(study, like)], options)


def build_page(sources: Sequence[Source], options: VectorOptions) -> str:
    """Build the page of one study or of several; with several it opens with a comparison."""
    many = len(sources) > 1
    prefixes = [safe_prefix(s.study.name, i) if many else "" for i, s in enumerate(sources)]
    made = [content(s, i, p, options) for i, (s, p) in enumerate(zip(sources, prefixes, strict=True))]
    numbers: dict[str, Any] = {"studies": [numbers for _, numbers in made]}
    shown: dict[str, Any] = {"studies": [page for page, _ in made], "many": many}
    shown["title"] = " and ".join(s.study.name for s in sources)
    if many:
        rows = compared(numbers["studies"])
        drawing = charts.compare(rows)
        numbers["compare"] = {"datasets": {"all": rows}, "charts": {"compare": drawing_json(drawing)}}
        shown |= {"compare": drawing, "comparison": comparison(shown["studies"])}
    return document(shown, numbers)


def compared(studies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings of several studies as the comparison's chart draws them; ``part``: the study's place."""
    names = [str(study["name"]) for study in studies]
    rows = []
    for i, study in enumerate(studies):
        shown = names[i] if names.count(names[i]) == 1 else f"{names[i]} ({i + 1})"
        for row in study["datasets"]["settings"]:
            kept = {name: row[name] for name in charts.COMPARED}
            rows.append({"study": shown, "part": i, **kept})
    return rows


def comparison(studies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The table of several studies' answers."""
    rows = []
    for study in studies:
        made = study["label"]
        if made is None:
            rows.append([study["name"], study["verdict"]["deploy"], "-", "-", "-", "-"])
            continue
        measured, utility = made["measured"], made["utility"]
        known = dict((name, value) for name, value, _ in study["verdict"]["numbers"])
        rows.append(
            [
                study["name"],
                f"{study['verdict']['deploy']}\n{study['verdict']['badge']}",
                known.get("guarantee", "-"),
                excess_text(measured["excess_leakage"]["worst"]),
                interval_text(measured["identification_auc"], ".3f"),
                interval_text({"value": utility["confidence_distortion"], "low": None, "high": None}, ".3g"),
            ]
        )
    columns = [
        "study",
        "answer",
        "guarantee",
        "excess leakage\n[one-sided 95 %]",
        "identification\nAUC [95 %]",
        "distortion",
    ]
    return sections.shown_table(f"{len(rows)} studies", columns, rows, (2, 3, 4, 5))


def environment() -> jinja2.Environment:
    """Jinja with escaping on, missing names as errors, and control characters of texts made visible."""

    def finalize(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
    )


def document(shown: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    """The whole document: a content policy that forbids requests and evaluation of texts as code.

    The library is compressed (a third of its size); the page's script unpacks it into a script element,
    which the policy allows by its hash alone.
    """
    library = "\n".join((ASSETS / "vendor" / name).read_text() for name in LIBRARY)
    script = "\n".join((ASSETS / name).read_text() for name in SCRIPT)
    script = f'(async () => {{\n"use strict";\n{script}\n}})();\n'
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src {digest(script)} {digest(library)}"
    )
    # Without "<" no text of a record can end the script element.
    text = json.dumps(_shown(numbers), allow_nan=False, separators=(",", ":"))
    text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    packed = base64.b64encode(gzip.compress(library.encode(), mtime=0)).decode()
    page = environment().get_template("page.html.jinja")
    return page.render(
        shown,
        policy=policy,
        css=Markup((ASSETS / "page.css").read_text()),
        numbers=Markup(text),
        library=Markup(packed),
        script=Markup(script),
    ).lstrip()


def digest(script: str) -> str:
    """A script's source in a content policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _shown(value: Any) -> Any:
    """The charts' data with control characters made visible in all texts."""
    if isinstance(value, Mapping):
        return {visible(k): _shown(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(v) for v in value]
    return visible(value) if isinstance(value, str) else value


def write_page(
    study: StoredStudy, like: str, *, with_vectors: bool | None = None, found: Findings | None = None
) -> int:
    """Write ``report.html`` and the recommended setting's label into the study's folder; returns the page's
    size in bytes.

    Args:
        found: the study's findings, if there are some already.
    """
    source = Source.of(study, like, found)
    page = build_page([source], VectorOptions(with_vectors)).encode()
    study.storage.write(f"{study.folder}/{PAGE}", page)
    if source.label is not None:
        write_labels(source.label, study.storage, f"{study.folder}/")
    return len(page)
