"""Text from records as data: nothing in it moves a cursor, hides, or becomes markup.

Names, errors and versions of a study were written by whoever ran it. A terminal obeys escape codes, Markdown
headings and fences, a browser and a terminal alike the marks that turn the reading direction around.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pandas as pd

_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
"""Unicode's categories of what is not seen: controls, formats (direction marks), private, halves, breaks."""
_MARKS = re.compile(r"([\\`*{}\[\]<>#|~&$!]|(?<![^\W_])_|_(?![^\W_]))")
"""What Markdown, and the HTML in it, give a meaning to in the middle of a line."""


def visible(text: object) -> str:
    """The text with everything that is not seen written out (``\\x1b``, ``\\u202e``); lines and tabs stay."""
    text = str(text)
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(
        c
        if c in "\n\t" or unicodedata.category(c) not in _HIDDEN
        else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


def visible_line(text: object, most: int = 2000) -> str:
    """:func:`visible` text in one line of at most so many characters."""
    line = " ".join(visible(" ".join(str(text).split())).split())
    return line if len(line) <= most else f"{line[: most - 4]} ..."


def markdown_text(text: object) -> str:
    """A line that Markdown shows as it is: no heading, emphasis, link, cell or element."""
    line = _MARKS.sub(r"\\\1", visible_line(text))
    return line.replace("://", r"\://").replace("www.", r"www\.").replace("@", r"\@")


def fenced(text: str, kind: str = "text") -> str:
    """A block that Markdown shows as it is; the fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{visible(text)}\n{fence}"


NOTHING = "-"


def number(value: Any, form: str = ".4f") -> str:
    """A number in the given format, or a dash where it is missing."""
    return NOTHING if pd.isna(value) else format(float(value), form)
