"""Every command on the pages, in the examples of ``--help`` too, is one that the argument parsers take.

A word that no parser knows fails here at once; ``test_readme.py`` runs what one machine can run.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from study.runtime.command import COMMANDS
from tests.test_readme import ROOT, blocks_of, documents

INLINE = re.compile(r"`((?:python study/|mipoison )[^`]+)`")
SCRIPT = re.compile(r"(?:^|/)study/(\w+)\.py$")
"""A script of the study, which takes what the sub-command of its name takes."""
MORE_PAGES = ("CONTRIBUTING.md", "SECURITY.md", "clusters/README.md", "study/FINDINGS.md")


def pages() -> list[Path]:
    return [*documents(), *(ROOT / name for name in MORE_PAGES)]


def calls_of(line: str) -> list[tuple[str, list[str]]]:
    """The sub-commands of mipoison in a shell line, each with its words, until ``&&``, ``;`` or ``|``.

    Variables, ``nice`` or ``ray job submit --`` may stand before them.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words, found = list(lexer), []
    for i, word in enumerate(words):
        script = SCRIPT.search(word)
        if word == "mipoison" and (i == 0 or not words[i - 1].startswith("-")):
            name, start = (words[i + 1], i + 2) if i + 1 < len(words) else ("--help", i + 1)
        elif script and i and words[i - 1].startswith("python") and script[1] in COMMANDS:
            name, start = script[1], i + 1
        else:
            continue
        ends = [j for j in range(start, len(words)) if re.fullmatch(r"[;&|]+", words[j])]
        found.append((name, words[start : ends[0] if ends else None]))
    return found


def lines_of(text: str) -> list[str]:
    """Lines of a page that may have commands: of its blocks of code, and code within sentences."""
    blocks = [block for block in blocks_of(text) if not re.match(r"(from|import) ", block)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [*lines, *(" ".join(found.split()) for found in INLINE.findall(text))]


def calls() -> list[Any]:
    """Every call on a page, once: (sub-command, its words)."""
    found: dict[tuple[str, ...], Any] = {}
    for page in pages():
        for line in lines_of(page.read_text()):
            if "mipoison" in line or "study/" in line:
                with contextlib.suppress(ValueError):  # no shell line: an apostrophe in what is printed
                    for name, words in calls_of(line):
                        found.setdefault((name, *words), (page, name, words))
    return [
        pytest.param(name, words, id=f"{page.name}: {name} {' '.join(words)}")
        for page, name, words in found.values()
    ]


def parsed(name: str, words: list[str]) -> object:
    """What the parser of a sub-command makes of its words.

    Raises:
        SystemExit: it does not take them.
    """
    from study.runtime.arguments import parse

    module = importlib.import_module(f"study.{name}")
    if name == "pareto":
        from study.settings.adoption import named_study

        words = named_study(words)
    return parse(module.Arguments, words, name)


def test_calls_are_found_wherever_a_shell_has_them() -> None:
    line = 'KEY="a b" mipoison serve --unit u --victim "n:m" && nice python study/pareto.py --trials 2 # x'
    assert calls_of(line) == [("serve", ["--unit", "u", "--victim", "n:m"]), ("pareto", ["--trials", "2"])]
    assert calls_of("ray job submit -- python study/pareto.py --seeds 2") == [("pareto", ["--seeds", "2"])]
    assert calls_of("pip install mipoison-example; mipoison board a | less") == [("board", ["a"])]


@pytest.mark.parametrize(("name", "words"), calls())
def test_a_documented_command_parses(name: str, words: list[str]) -> None:
    if name.startswith("-"):
        return
    assert name in COMMANDS, f"there is no sub-command {name!r}"
    if words and "--help" not in words:  # a name alone speaks of the sub-command
        parsed(name, words)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_an_example_of_help_parses(name: str) -> None:
    module = importlib.import_module(f"study.{name}")
    for example in getattr(module, "EXAMPLES", ()):
        parsed(name, shlex.split(example, comments=True))


@pytest.mark.parametrize("words", [["--no-such-option", "1"], ["--trials", "many"], ["word"]])
def test_what_no_parser_knows_fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("pareto", words)
    assert capsys.readouterr().err


def test_most_of_the_pages_commands_are_found() -> None:
    found = {param.values[0] for param in calls()}
    assert {"pareto", "report", "protect", "serve", "audit", "board", "check", "evaluate"} <= found
    assert len(calls()) >= 35
