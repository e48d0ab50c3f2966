"""Elements of HTML. All text that comes from records goes through :func:`escape`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from study.runtime.plain import visible


def escape(value: object) -> str:
    """Escape text for elements and quoted attributes, with control characters made visible."""
    return html.escape(visible(value), quote=True)


def section(name: str, title: str, *body: str) -> str:
    """A section with a heading and an anchor (``#name``)."""
    heading = f'<h2 id="{escape(name)}-title">{escape(title)}</h2>'
    labelled = f'id="{escape(name)}" aria-labelledby="{escape(name)}-title"'
    return f"<section {labelled}>{heading}{''.join(body)}</section>"


def note(text: str) -> str:
    """A paragraph of explanation."""
    return f'<p class="note">{escape(text)}</p>'


def scroller(label: str, inner: str) -> str:
    """A region that scrolls sideways on a narrow screen, also by keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{inner}</div>'


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numeric: Iterable[int] = (),
    raw: Iterable[int] = (),
    name: str = "",
) -> str:
    """A table with a caption and header cells.

    Args:
        columns: their headings. rows: cells, as text. numeric: places of right-aligned columns. raw: places
            of columns whose cells are HTML already.
        name: the table's id; with one, its columns can be sorted by a click on their headings.
    """
    right, ready = set(numeric), set(raw)
    attributes = f' id="{escape(name)}" class="sortable"' if name else ""
    head = "".join(
        f'<th scope="col"{_right(i in right)}>{_lines(column)}</th>' for i, column in enumerate(columns)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_right(i in right)}>{cell if i in ready else _lines(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    inner = f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return scroller(caption, f"<table{attributes}>{inner}</table>")


def _right(yes: bool) -> str:
    return ' class="number"' if yes else ""


def _lines(cell: object) -> str:
    return escape(cell).replace("\n", "<br>")


def from_rich(shown: Table) -> str:
    """Convert a rich table of ``study.reports.tables`` to HTML, its caption below."""
    columns = [str(column.header) for column in shown.columns]
    cells = [[_plain(cell) for cell in column.cells] for column in shown.columns]
    numeric = [i for i, column in enumerate(shown.columns) if column.justify == "right"]
    below = note(_plain(shown.caption)) if shown.caption else ""
    return table(_plain(shown.title), columns, zip(*cells, strict=True), numeric=numeric) + below


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def command(text: str) -> str:
    """A command with a button that copies it."""
    button = '<button type="button" class="copy">copy</button>'
    return f'<span class="command"><code>{escape(text)}</code>{button}</span>'
