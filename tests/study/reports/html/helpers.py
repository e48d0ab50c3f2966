"""Reading a report page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd

from mipoison.storage.files import Storage
from study.records.finished import StoredStudy


class Reader(HTMLParser):
    """Elements with their attributes, the text outside scripts and styles, tables as lists of rows."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text, self.inside, self.cell = "", "", False
        self.rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        self.inside = tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""
        self.cell = self.cell and tag not in ("td", "th", "table")

    def handle_data(self, data: str) -> None:
        if self.inside in ("script", "style"):
            return
        self.text += data + " "
        if self.cell:
            self.rows[-1][-1] += data


def finished(frame: pd.DataFrame, tmp_path: Path, name: str = "made-up") -> StoredStudy:
    about = {
        "settings": {"max_accuracy_drop": 0.02, "scale": "quick"},
        "command": ["--data-root", "/my data"],
    }
    return StoredStudy(name, about, frame, None, Storage(tmp_path), "made-up")


def numbers_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', page, flags=re.DOTALL)
    assert found
    return json.loads(found[1])


def settings_of(page: str) -> list[dict[str, Any]]:
    """The settings that the page's first study draws."""
    return numbers_of(page)["studies"][0]["datasets"]["settings"]


HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
