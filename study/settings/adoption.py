"""A resumed study goes on with its own settings: what the command line leaves out is as stored."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from mipoison.config import ConfigError
from mipoison.victims.source import is_statement
from study.runtime.plain import visible_line
from study.settings.study_settings import IDENTITY, Arguments


def named_study(words: Sequence[str]) -> list[str]:
    """The command line with ``--resume NAME`` written as ``--resume --name NAME``."""
    out: list[str] = []
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        if word.startswith("--resume="):
            out += ["--resume", "--name", word.partition("=")[2]]
        elif before == "--resume" and not word.startswith("-"):
            out += ["--name", word]
        else:
            out.append(word)
    return out


def given_names(words: Sequence[str]) -> set[str]:
    """The fields that a command line sets: ``decoder_steps`` of ``--decoder-steps 3``, ``screen`` of
    ``--no-screen``."""
    flags = [word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")]
    return {*flags, *(flag.removeprefix("no_") for flag in flags)}


def adopted(asked: Arguments, words: Sequence[str], stored: Mapping[str, Any]) -> Arguments:
    """The arguments, with the stored value of every setting of the study that the command line leaves out.

    What it does give is compared with the study afterwards, see ``study.session.opening``.

    Args:
        words: the command line. stored: the settings in ``study.json``.

    Raises:
        ConfigError: a stored value is of another type than the setting; or the images are those of a folder,
            which the user has to name: pictures of what is read are written to the storage; or the classifier
            is the user's own and is not given.
    """
    given = given_names(words)
    if stored.get("victim_digest") is not None and asked.victim is None:
        raise ConfigError(
            "--resume: the study is of a classifier of your own, and one that only records name is never "
            "loaded (it runs code): give it with --victim (and --victim-state), as you began the study"
        )
    changes: dict[str, Any] = {}
    for group in IDENTITY:
        hints = typing.get_type_hints(group)
        for f in dataclasses.fields(group):
            if f.name in given or f.name not in stored:
                continue
            value = stored[f.name]
            value = tuple(value) if isinstance(value, list) else value
            if not _fits(value, hints[f.name]):
                shown = visible_line(repr(value), 80)
                raise ConfigError(f"study.json is damaged: {f.name} = {shown} is not of the setting's type")
            if f.name == "victim_transforms" and value is not None and not is_statement(str(value)):
                raise ConfigError("study.json is damaged: victim_transforms is no statement in JSON")
            if f.name == "dataset" and ":" in str(value):
                raise ConfigError(
                    f"--resume: the study's images are {visible_line(value, 200)}, and a folder that only "
                    "records name is not read: give it with --dataset"
                )
            changes[f.name] = value
    return dataclasses.replace(asked, **changes)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of an annotation's type: plain types, unions, Literals, tuples of texts."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, kind) for kind in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint
