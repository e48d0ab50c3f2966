"""Parses command lines into dataclasses: options in groups, examples, and no default that says nothing."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from study.runtime.entry import command, program, until_closed

T = TypeVar("T")
_METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


def parse(
    cls: type[T],
    arguments: Sequence[str] | None,
    name: str,
    *,
    groups: Mapping[str, Sequence[type]] | None = None,
    examples: Sequence[str] = (),
) -> T:
    """Parse a command line.

    Args:
        cls: a dataclass; its docstring is the description, those of its fields are the help.
        arguments: None for the command line's. name: of the entry script.
        groups: title -> dataclasses whose fields it has, together all of those of ``cls``; None: no groups.
        examples: commands without the program's name, shown below the description.

    Raises:
        SystemExit: help was asked for (0), or the command line is wrong (2).
    """
    text = "\n".join(line.strip() for line in (cls.__doc__ or "").strip().splitlines())
    if examples:
        text += "\n\nExamples:\n" + "\n".join(f"  {command(name)} {example}".rstrip() for example in examples)
    options: dict[str, Any] = {"args": arguments, "prog": program(name), "description": text}
    if groups is None:
        return _as(cls, until_closed(lambda: tyro.cli(_plain_hints(cls), **options)))
    fields = [
        (title, made, dataclasses.field(default_factory=made))
        for title, classes in groups.items()
        for made in (_plain_hints(*classes),)
    ]
    grouped = dataclasses.make_dataclass("Grouped", fields, kw_only=True)
    found = until_closed(lambda: tyro.cli(grouped, config=(tyro.conf.OmitArgPrefixes,), **options))
    values: dict[str, Any] = {}
    for title in groups:
        values |= vars(getattr(found, title))
    return cls(**values)


def _as(cls: type[T], found: Any) -> T:
    return cls(**{f.name: getattr(found, f.name) for f in dataclasses.fields(cls)})  # type: ignore[arg-type]


def _plain_hints(*classes: type) -> Any:
    """A dataclass of the fields of some, whose help says nothing where the default is nothing.

    tyro finds the help of fields in the classes that it is derived from.
    """
    fields: list[tuple[str, Any, Any]] = []
    for cls in classes:
        hints = typing.get_type_hints(cls, include_extras=True)
        for f in dataclasses.fields(cls):
            value = dataclasses.field(default=f.default, default_factory=f.default_factory)
            fields.append((f.name, _annotated(hints[f.name], f.default), value))
    first = classes[0]
    made = dataclasses.make_dataclass(
        first.__name__, fields, bases=classes[::-1], frozen=True, kw_only=True,
        namespace={"__doc__": first.__doc__, "__module__": first.__module__},
    )  # fmt: skip
    return made


def _annotated(hint: Any, default: Any) -> Any:
    """An annotation with the hint of the default, and a name of the value where None is another one."""
    kept = list(getattr(hint, "__metadata__", ()))
    inner = hint.__origin__ if kept else hint
    changes: dict[str, Any] = {"help_behavior_hint": _default_hint}
    if default is None and (metavar := _metavar(inner)):
        changes["metavar"] = metavar
    for i, entry in enumerate(kept):
        if hasattr(entry, "help_behavior_hint"):  # what tyro.conf.arg returned
            own = {"metavar": entry.metavar} if entry.metavar is not None else {}
            kept[i] = dataclasses.replace(entry, **{**changes, **own})
            break
    else:
        kept.append(tyro.conf.arg(**changes))
    out = inner
    for entry in kept:
        out = Annotated[out, entry]
    return out


def _metavar(hint: Any) -> str | None:
    """``INT`` of ``int | None``, ``{a,b}`` of an optional Literal; None of anything else."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return None
    inner = [a for a in typing.get_args(hint) if a is not type(None)]
    if len(inner) != 1:
        return None
    if typing.get_origin(inner[0]) is typing.Literal:
        return "{" + ",".join(map(str, typing.get_args(inner[0]))) + "}"
    return _METAVARS.get(inner[0])


def _default_hint(default: str) -> str:
    """``(default: 3)``; nothing where the default is none, which the help explains."""
    return "" if default in ("", "None") else f"(default: {default})"
