"""Configurations: frozen, keyword-only dataclasses of plain values that check themselves.

The configuration of a defense or an attacker subclasses :class:`Config`, checks its values in
:meth:`Config.validate`, and can be written to and read from flat keys (``defense.budget``). Its ``KNOBS``
say, as plain data, which fields a search may change and in which ranges; the library never imports the
search.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib.util
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
"""Types of numpy that a field of a Python type accepts; the value is converted."""
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[@-_])")
"""Escape sequences of a terminal, such as colours."""


class ConfigError(ValueError):
    """A user's value that is not possible. The message is one line with field, value and bound."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """The values that a search may try for one field: an interval of numbers, or a list of choices.

    Attributes:
        low, high: inclusive bounds (numbers), or None with ``choices``.
        log: whether the interval is explored on a log scale.
        integer: whether the interval has whole numbers only.
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
    """:meth:`Config.field_kinds`, cached: it takes a millisecond, and tables call it for every column."""
    hints = typing.get_type_hints(cls)
    return {f.name: _kind_of(hints[f.name]) for f in dataclasses.fields(cls)}


@functools.cache
def literals(cls: type[Config]) -> dict[str, tuple[Plain, ...]]:
    """Fields annotated as Literal -> their values. Cached, since every record makes a configuration."""
    hints = typing.get_type_hints(cls)
    literal = (f.name for f in dataclasses.fields(cls) if typing.get_origin(hints[f.name]) is typing.Literal)
    return {name: typing.get_args(hints[name]) for name in literal}


def _kind_of(annotation: Any) -> tuple[type, bool]:
    """(plain type, whether None is allowed) of a field's annotation: a type, Literal or ``X | None``."""
    if typing.get_origin(annotation) is typing.Literal:
        return type(typing.get_args(annotation)[0]), False
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        return _kind_of(inner[0])[0], True
    return annotation, False


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configurations: checks its values, converts to flat keys and back, has a stable digest.

    Raises:
        ConfigError: a value is out of bounds or of the wrong type.
    """

    KNOBS: ClassVar[Mapping[str, Knob]] = {}
    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({},)
    """Settings that a search tries first, as changes of the defaults."""
    BEFORE: ClassVar[Mapping[str, Plain | None]] = {}
    """Fields that older records lack -> the value that those records behaved by, which may differ from the
    default."""
    SOURCE: ClassVar[str] = ""
    """The paper or section that it comes from; empty for our own controls."""
    COST: ClassVar[int] = 1
    """What an attacker costs: 0 seconds (closed form, trees, a small network), 1 about as much as training a
    decoder, 2 as training several."""
    EXTRAS: ClassVar[Mapping[str, str]] = {}
    """Packages that a defense or an attacker needs and only an extra installs -> the extra."""
    SCREENS: ClassVar[bool] = False
    """Whether an attacker is cheap enough to judge every setting of a search: a closed form that asks about
    each of its images once, in about a second."""

    MAKES: ClassVar[bool] = True
    """Whether :meth:`make` builds something: not of a stand-in, see :mod:`mipoison.plugins`."""

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
        for name, options in literals(type(self)).items():  # type: ignore[arg-type]
            self.one_of(name, options)
        self.validate()

    @classmethod
    def summary(cls) -> str:
        """The first paragraph of the docstring on one line, for tables."""
        return " ".join((cls.__doc__ or "").partition("\n\n")[0].split())

    def changed(self, *, before: bool = False) -> dict[str, Plain | None]:
        """The fields that differ from their defaults.

        Args:
            before: compare a field in :data:`BEFORE` with its value there, not with the default.
        """
        earlier = self.BEFORE if before else {}
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != earlier.get(f.name, f.default)
        }

    def validate(self) -> None:
        """Check values beyond their types. Subclasses override it; it runs at construction."""

    def make(self, *args: Any) -> Any:
        """Build what this configures: a defense or an attacker (no arguments), or a network (shapes).

        Raises:
            NotImplementedError: for a configuration that builds nothing by itself, such as a scene's.
        """
        raise NotImplementedError(f"{type(self).__name__} builds nothing by itself")

    @classmethod
    def field_kinds(cls) -> dict[str, tuple[type, bool]]:
        """Field name -> (bool, int, float or str; whether None is allowed), in order of definition."""
        return dict(_kinds(cls))  # type: ignore[arg-type]

    def require(self, name: str, ok: bool, bound: str) -> None:
        """Raise a ConfigError that names field, value and bound, unless ``ok``."""
        if not ok:
            raise ConfigError(f"{type(self).__name__}.{name} = {getattr(self, name)!r}: must be {bound}")

    def one_of(self, name: str, choices: Iterable[Plain]) -> None:
        """Raise a ConfigError unless the field's value is one of ``choices``."""
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
        """Build from flat keys. Keys without the prefix are ignored; unknown ones raise a ConfigError."""
        dot = f"{prefix}." if prefix else ""
        own = {k[len(dot) :]: v for k, v in values.items() if k.startswith(dot)}
        for key in own:
            choose(f"{cls.__name__} field", key, cls.field_kinds())
        return cls(**own)

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> Self:
        """Build from the flat keys of a record or a saved unit. Missing fields are as in :data:`BEFORE`."""
        return cls.from_flat({**cls.BEFORE, **values})

    def digest(self) -> str:
        """Twelve hexadecimal digits that identify class and values.

        Fields at their defaults (or at their value in BEFORE) are left out. So a new field changes neither
        the digest nor the random numbers of configurations that do not use it.
        """
        return digest({"class": type(self).__name__, **self.changed(before=True)})[:12]


def missing_extra(config: type[Config] | Config) -> str | None:
    """What to install before a configuration can run, in words; None if nothing is missing."""
    lacking = [extra for package, extra in config.EXTRAS.items() if importlib.util.find_spec(package) is None]
    return f'pip install "mipoison[{",".join(dict.fromkeys(lacking))}]"' if lacking else None


def span(knob: Knob) -> str:
    """The values that a search tries for a knob: ``0.0001 to 0.7, log scale``."""
    if knob.choices is not None:
        return ", ".join(str(choice) for choice in knob.choices)
    kinds = ["whole numbers"] * knob.integer + ["log scale"] * knob.log
    return ", ".join([f"{knob.low:g} to {knob.high:g}", *kinds])


def ranges(cls: type[Config]) -> list[str]:
    """The fields of a configuration, one text each: name, default, and its values.

    Of a knob the range that a search tries, of a Literal its values, of others the type. The bounds that
    ``validate`` checks may be wider than a search's.
    """
    out = []
    for f in dataclasses.fields(cls):
        kind, optional = cls.field_kinds()[f.name]
        if f.name in cls.KNOBS:
            values = f"searched: {span(cls.KNOBS[f.name])}"
        elif f.name in literals(cls):  # type: ignore[arg-type]
            values = "one of " + ", ".join(map(str, literals(cls)[f.name]))  # type: ignore[arg-type]
        else:
            values = kind.__name__ + " or None" * optional
        out.append(f"{f.name} = {f.default!r} ({values})")
    return out


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of a plain value (keys sorted, floats by repr)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def kind_of(value: object) -> str:
    """What a wrong value is, for a message: ``an int``, ``a list``, ``the class Soft``."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def one_line(error: BaseException) -> str:
    """An error of other code, as a part of our message: type and text, without line breaks and colours."""
    text = _ESCAPES.sub("", f"{type(error).__name__}: {error}")
    return " ".join(text.split())[:300]
