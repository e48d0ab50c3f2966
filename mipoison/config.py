"""Configurations: frozen, keyword-only dataclasses of plain values that check themselves.

A defense's or attacker's configuration subclasses :class:`Config`, validates in ``__post_init__`` with
:meth:`Config.require` and friends, and round-trips through flat keys (``defense.budget``). The ranges that a
sweep may explore stand beside the knob, in ``KNOBS``, as plain data: the library never imports the sweeper.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

Plain = bool | int | float | str
_NUMPY: dict[type, tuple[type, ...]] = {int: (np.integer,), float: (np.integer, np.floating)}
"""Numbers that fields of a type take beside Python's own: what comes out of an array."""
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[@-_])")
"""Of a terminal: colours and the like."""


class ConfigError(ValueError):
    """A value a user chose is not possible; the message names field, value, bound and choices in one line."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """What a sweep may try for one field: a float or integer interval, or a list of choices.

    Attributes:
        low, high: inclusive bounds (numbers), or None with ``choices``.
        log: whether the interval is explored on a log scale.
        integer: whether only whole numbers are meant.
        choices: the values, for a categorical knob.
        help: what the knob does, with its unit.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: tuple[Plain, ...] | None = None
    help: str = ""


def choose(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return ``name`` if it is valid, else raise ConfigError with the valid names and the nearest."""
    options = sorted(valid)
    if name in options:
        return name
    near = difflib.get_close_matches(str(name), options, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ConfigError(f"unknown {kind} {name!r}{hint}; choose from: {', '.join(options)}")


@functools.cache
def _kinds(cls: type[Config]) -> dict[str, tuple[type, bool]]:
    """Evaluating annotations takes a millisecond, and tables of settings ask for every column."""
    hints = typing.get_type_hints(cls)
    return {f.name: _kind_of(hints[f.name]) for f in dataclasses.fields(cls)}


@functools.cache
def _literals(cls: type[Config]) -> dict[str, tuple[Plain, ...]]:
    """Fields that take one of a few values, and these; cached, as a configuration is made of every record."""
    hints = typing.get_type_hints(cls)
    literal = (f.name for f in dataclasses.fields(cls) if typing.get_origin(hints[f.name]) is typing.Literal)
    return {name: typing.get_args(hints[name]) for name in literal}


def _kind_of(annotation: Any) -> tuple[type, bool]:
    """(plain type, optional?) of a resolved field annotation; Literal and ``X | None`` are understood."""
    if typing.get_origin(annotation) is typing.Literal:
        return type(typing.get_args(annotation)[0]), False
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        return _kind_of(inner[0])[0], True
    return annotation, False


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration: validation helpers, flat keys, a stable digest.

    Raises:
        ConfigError: by subclasses, in ``__post_init__``, for a value out of bounds or of the wrong type.
    """

    KNOBS: ClassVar[Mapping[str, Knob]] = {}
    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({},)
    """Settings that a sweep tries first, as changes of the defaults."""
    BEFORE: ClassVar[Mapping[str, Plain | None]] = {}
    """Fields that are younger than some records, with what those records did: not always today's default."""
    SOURCE: ClassVar[str] = ""
    """The paper or section that it comes from; empty for a control of ours."""
    COST: ClassVar[int] = 1
    """An attacker's cost: 0 is seconds (closed form), 1 one training of a decoder, 2 several of them."""

    def __post_init__(self) -> None:
        for name, (kind, optional) in self.field_kinds().items():
            value = getattr(self, name)
            if value is None and optional:
                continue
            if isinstance(value, _NUMPY.get(kind, ())):
                value = value.item()  # type: ignore[attr-defined]
                object.__setattr__(self, name, value)
            if kind is float and type(value) is int and abs(value) < 2**1023:
                object.__setattr__(self, name, float(value))
                value = float(value)
            if type(value) is not kind:
                raise ConfigError(f"{type(self).__name__}.{name} = {value!r}: must be {kind.__name__}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{type(self).__name__}.{name} = {value!r}: must be finite")
        for name, options in _literals(type(self)).items():  # type: ignore[arg-type]
            self.one_of(name, options)
        self.validate()

    @classmethod
    def summary(cls) -> str:
        """The first paragraph of the docstring on one line: what it configures, for tables."""
        return " ".join((cls.__doc__ or "").partition("\n\n")[0].split())

    def changed(self, *, before: bool = False) -> dict[str, Plain | None]:
        """The fields that differ from their defaults.

        Args:
            before: from what was done before a field existed (see :data:`BEFORE`), where that differs.
        """
        earlier = self.BEFORE if before else {}
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != earlier.get(f.name, f.default)
        }

    def validate(self) -> None:
        """Checks beyond the types; subclasses override. Runs at construction."""

    def make(self, *args: Any) -> Any:
        """Build the object that this configures: a defense, an attacker (no arguments), a network (shapes).

        Raises:
            NotImplementedError: a configuration that builds nothing by itself, such as a scene's.
        """
        raise NotImplementedError(f"{type(self).__name__} builds nothing by itself")

    @classmethod
    def field_kinds(cls) -> dict[str, tuple[type, bool]]:
        """Field name -> (bool, int, float or str; whether None is allowed), in order of definition."""
        return dict(_kinds(cls))  # type: ignore[arg-type]

    def require(self, name: str, ok: bool, bound: str) -> None:
        """Raise ConfigError naming field, value and bound unless ``ok``."""
        if not ok:
            raise ConfigError(f"{type(self).__name__}.{name} = {getattr(self, name)!r}: must be {bound}")

    def one_of(self, name: str, choices: Iterable[Plain]) -> None:
        """Raise ConfigError unless the field's value is among ``choices``."""
        options = tuple(choices)
        self.require(name, getattr(self, name) in options, "one of " + ", ".join(map(str, options)))

    def flat(self, prefix: str = "") -> dict[str, Plain | None]:
        """The fields as ``{prefix.field: value}``; inverse of :meth:`from_flat`.

        A field that is younger than some records (see BEFORE) is left out at its default, where that is what
        was done before: the settings of those records keep their identity.
        """
        dot, flat = f"{prefix}." if prefix else "", dict[str, Plain | None]()
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name not in self.BEFORE or not value == f.default == self.BEFORE[f.name]:
                flat[f"{dot}{f.name}"] = value
        return flat

    def knobs(self) -> dict[str, Plain | None]:
        """This setting's point in the space that a sweep explores: a value of each of ``KNOBS``."""
        return {name: getattr(self, name) for name in self.KNOBS}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], prefix: str = "") -> Self:
        """Build from flat keys; those without the prefix are ignored, unknown ones raise ConfigError."""
        dot = f"{prefix}." if prefix else ""
        own = {k[len(dot) :]: v for k, v in values.items() if k.startswith(dot)}
        for key in own:
            choose(f"{cls.__name__} field", key, cls.field_kinds())
        return cls(**own)

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> Self:
        """Build from the flat keys of a record or a saved unit: what it lacks was as :data:`BEFORE` says."""
        return cls.from_flat({**cls.BEFORE, **values})

    def digest(self) -> str:
        """Twelve hexadecimal digits that identify class and values.

        Fields at their defaults (or at what was done before they existed, see BEFORE) are left out, so that a
        new option changes neither the digests nor the random numbers of configurations that do not use it.
        """
        return digest({"class": type(self).__name__, **self.changed(before=True)})[:12]


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of a plain value (keys sorted, floats by repr)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def one_line(error: BaseException) -> str:
    """An error of somebody else's code as part of a message: kind and text, no line breaks, no colours."""
    text = _ESCAPES.sub("", f"{type(error).__name__}: {error}")
    return " ".join(text.split())[:300]
