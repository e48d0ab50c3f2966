"""Print text from records safely, without letting it act as escape codes or markup.

The author of a study controls the names, errors and versions in its records. Unescaped, such text could send
escape codes to a terminal, add headings and links to Markdown, or reverse the direction of reading.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
"""Unicode categories of invisible characters: control, format (direction marks), private use, surrogates,
line and paragraph separators."""
_MARKS = re.compile(r"([\\`*{}\[\]<>#|~&$!]|(?<![^\W_])_|_(?![^\W_]))")
"""Characters that have a meaning in the middle of a line of Markdown, or of HTML in it."""


def visible(text: object) -> str:
    """The text with invisible characters escaped (``\\x1b``, ``\\u202e``); line breaks and tabs are kept."""
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
    """:func:`visible` text in one line of at most ``most`` characters."""
    line = " ".join(visible(" ".join(str(text).split())).split())
    return line if len(line) <= most else f"{line[: most - 4]} ..."


def markdown_text(text: object) -> str:
    """One line, escaped so that Markdown renders it literally."""
    line = _MARKS.sub(r"\\\1", visible_line(text))
    return line.replace("://", r"\://").replace("www.", r"www\.").replace("@", r"\@")


def fenced(text: str, kind: str = "text") -> str:
    """A fenced code block; its fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{visible(text)}\n{fence}"


NOTHING = "-"


def number(value: Any, form: str = ".4f") -> str:
    """A number in the given format; a dash if it is missing."""
    import pandas as pd

    return NOTHING if pd.isna(value) else format(float(value), form)
