"""Every command on the pages, in the examples of ``--help`` too, is one that the argument parsers take.

A word that no parser knows fails here at once; ``test_readme.py`` and ``study/test_commands_run.py`` run
what one machine can run.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from study.runtime.command import COMMANDS
from tests.test_readme import PROGRAMS, ROOT, blocks_of, documents

INLINE = re.compile(r"`((?:[\w./-]*python[\d.]* [^`]*study[/.]|mipoison |ray (?:job )?submit |srun )[^`]+)`")
SCRIPT = re.compile(r"(?:^|/)study/(\w+)\.py$")
"""A script of the study, which takes what the sub-command of its name takes."""
PATH = re.compile(r"\b((?:tests/)?study/[\w/]+\.py)\b")
MODULE = re.compile(r"study\.(\w+)")
REDIRECTED = re.compile(r"\d?[<>]")
WRAPPERS = ("srun", "env", "nice", "nohup", "timeout", "time", "mpirun")
"""Programs that run another one, which their options may stand before."""
BEGINS = re.compile(
    rf"\s*(?:\$ |\()?(?:\w+=\S*\s+)*(?:[\w./-]*/)?(?:{'|'.join((*PROGRAMS, *WRAPPERS))}|python[\d.]+)\s"
)
MORE_PAGES = ("CONTRIBUTING.md", "SECURITY.md", "clusters/README.md", "study/FINDINGS.md")


def pages() -> list[Path]:
    return [*documents(), *(ROOT / name for name in MORE_PAGES)]


def simple_commands(line: str) -> list[list[str]]:
    """The words of each command of a shell line, between ``&&``, ``;``, ``|`` and brackets, up to ``>``.

    Raises:
        ValueError: a quotation mark is missing.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split, lexer.commenters = True, "#"
    found: list[list[str]] = [[]]
    for word in lexer:
        if re.fullmatch(r"[;&|()]+", word):
            found.append([])
        else:
            found[-1].append(word)
    return [list(itertools.takewhile(lambda word: not REDIRECTED.match(word), words)) for words in found]


def calls_of(line: str) -> list[tuple[str, list[str]]]:
    """The sub-commands of mipoison in a shell line, each with its words: as the program, the module or the
    script, after variables, wrappers, and what hands a command to a cluster.

    Raises:
        ValueError: a quotation mark is missing.
    """
    return [call for words in simple_commands(line) if (call := call_of(words)) is not None]


def call_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The sub-command of one simple command, with its words; None if it calls none."""
    program = next((word for word in words if not re.match(r"\w+=", word)), "")
    for i, word in enumerate(words):
        before, rest = words[:i], words[i + 1 :]
        script, after = SCRIPT.search(word), before[-1] if before else ""
        python = any(Path(one).name.startswith("python") for one in before)
        if Path(word).name == "mipoison" and not python:
            if not after.startswith("-") or after == "--" or program in WRAPPERS:
                return (rest[0], rest[1:]) if rest else ("--help", [])
        elif python and after == "-m":
            return (module[1], rest) if (module := MODULE.fullmatch(word)) else None
        elif script and (python or word == program):
            return script[1], rest
        elif script and before[:2] == ["ray", "submit"]:
            return script[1], rest[1:] if rest[:1] == ["--"] else rest
    return None


def lines_of(text: str) -> list[str]:
    """Lines of a page that may have commands: of its blocks of code, and code within sentences."""
    blocks = [block for block in blocks_of(text) if not re.match(r"(from|import) ", block)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [*lines, *(" ".join(found.split()) for found in INLINE.findall(text))]


def shell_lines() -> list[tuple[Path, str]]:
    """Lines of the pages that speak of mipoison or of a script of the study."""
    found = [(page, line) for page in pages() for line in lines_of(page.read_text())]
    return [
        (page, line) for page, line in found if "mipoison" in line or "study/" in line or "study." in line
    ]


def unreadable(line: str) -> bool:
    """Whether a line begins with a program's name, and is no shell line."""
    try:
        simple_commands(line)
    except ValueError:
        return BEGINS.match(line) is not None  # else an apostrophe in what is printed
    return False


def calls() -> list[Any]:
    """Every call on a page, once: (sub-command, its words)."""
    found: dict[tuple[str, ...], Any] = {}
    for page, line in shell_lines():
        with contextlib.suppress(ValueError):  # see unreadable
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


def without_help(words: list[str]) -> list[str]:
    """The words that a parser has to know: with ``--help`` among them it would stop there and say nothing."""
    return [word for word in words if word not in ("--help", "-h")]


def test_a_wrong_option_beside_help_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert without_help(["--help"]) == []
    with pytest.raises(SystemExit):
        parsed("pareto", without_help(["--help", "--no-such"]))
    assert "--no-such" in capsys.readouterr().err
    parsed("pareto", without_help(["--trials", "3", "--help"]))


def test_calls_are_found_wherever_a_shell_has_them() -> None:
    line = 'KEY="a b" mipoison serve --unit u --victim "n:m" && nice python study/pareto.py --trials 2 # x'
    assert calls_of(line) == [("serve", ["--unit", "u", "--victim", "n:m"]), ("pareto", ["--trials", "2"])]
    assert calls_of("ray job submit -- python study/pareto.py --seeds 2") == [("pareto", ["--seeds", "2"])]
    assert calls_of("pip install mipoison-example; mipoison board a | less") == [("board", ["a"])]


@pytest.mark.parametrize(
    "line",
    [
        "ray submit clusters/aws.yaml study/pareto.py -- --no-such 1",
        "ray submit --start x.yaml study/pareto.py --no-such 1",
        "ray job submit --no-wait -- venv/bin/python mipoison/study/pareto.py --no-such 1",
        "ray job submit --working-dir . -- mipoison pareto --no-such 1",
        "python3.11 -u study/pareto.py --no-such 1",
        "python -X dev -m study.pareto --no-such 1",
        "./study/pareto.py --no-such 1",
        "srun --exclusive mipoison pareto --no-such 1",
        "X=1 nice -n 10 venv/bin/mipoison pareto --no-such 1 > log 2>&1 &",
        "(mipoison pareto --no-such 1)",
        "x=$(mipoison pareto --no-such 1)",
        "cd x && uv run mipoison pareto --no-such 1 | less",
    ],
)
def test_a_wrong_option_is_seen_however_a_command_is_called(line: str) -> None:
    assert calls_of(line) == [("pareto", ["--no-such", "1"])]


@pytest.mark.parametrize(
    "line", ["docker run --rm mipoison x", "git clone --name mipoison", "python -m pytest study/pareto.py"]
)
def test_what_calls_no_sub_command(line: str) -> None:
    assert calls_of(line) == []


def test_a_misspelt_script_is_a_sub_command_that_is_unknown() -> None:
    for line in ("python study/paretoo.py --trials 2", "python -m study.paretoo", "mipoison paretoo"):
        assert [name for name, _ in calls_of(line)] == ["paretoo"]
    assert "paretoo" not in COMMANDS


def test_a_missing_quotation_mark_is_seen() -> None:
    for line in ("mipoison pareto --name 'x", 'KEY=1 python study/pareto.py --name "x', "ray submit 'x -- y"):
        assert unreadable(line)
    assert not unreadable("the study's defenses, of mipoison")
    assert not unreadable("mipoison pareto --name 'x'")


def test_every_line_that_begins_with_a_program_is_a_shell_line() -> None:
    assert [(page.name, line) for page, line in shell_lines() if unreadable(line)] == []


def test_scripts_that_the_pages_name_exist() -> None:
    named = {path for page in pages() for path in PATH.findall(page.read_text())}
    assert len(named) >= 8
    assert {path for path in named if not (ROOT / path).is_file()} == set()


@pytest.mark.parametrize(("name", "words"), calls())
def test_a_documented_command_parses(name: str, words: list[str]) -> None:
    if name in ("--help", "--version"):
        return
    assert name in COMMANDS, f"there is no sub-command {name!r}"
    if asked := without_help(words):  # a name alone speaks of the sub-command
        parsed(name, asked)


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
