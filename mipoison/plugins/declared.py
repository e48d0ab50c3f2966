"""What a study keeps of the configurations that plug-ins brought, and stand-ins made of it.

Whoever reads a study need not have its plug-ins, and code that records name is never imported. So the study
declares the configurations as plain data: class name, fields, knobs. A stand-in is a configuration class made
of a declaration: it holds values for tables and pictures, and makes nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from mipoison.config import Config, ConfigError, Knob, Plain, literals

NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")
"""Names of defenses and attackers, as records accept them."""
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,39}")
_KINDS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
MOST = 64
"""Fields of a declaration, and declarations of a study, at most."""


def declaration(config: type[Config]) -> dict[str, Any]:
    """A configuration class as JSON values."""
    options = literals(config)  # type: ignore[arg-type]
    fields = {}
    for f in dataclasses.fields(config):
        kind, optional = config.field_kinds()[f.name]
        fields[f.name] = {
            "kind": kind.__name__,
            "optional": optional,
            "default": f.default,
            "options": list(options.get(f.name, ())),
        }
    knobs = {
        name: {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(knob).items()}
        for name, knob in config.KNOBS.items()
    }
    return {
        "class": config.__name__,
        "summary": config.summary(),
        "fields": fields,
        "knobs": knobs,
        "cost": config.COST,
        "screens": config.SCREENS,
    }


class StandIn(Config):
    """Base of stand-ins: values without code."""

    MAKES: ClassVar[bool] = False
    NEEDS: ClassVar[str] = "its plug-in"

    def make(self, *args: Any) -> Any:
        """Raises ConfigError: what it configures is code that is not here."""
        raise ConfigError(
            f"{type(self).__name__} is of {self.NEEDS}, which is not loaded: if you have it and trust it, "
            "give it with --plugin"
        )


def is_stand_in(config: type[Config] | Config) -> bool:
    """Whether a configuration, or its class, is a stand-in."""
    return issubclass(config if isinstance(config, type) else type(config), StandIn)


def stand_in(declared: Any, needs: str) -> type[Config]:
    """A configuration class of a declaration.

    Args:
        declared: what :func:`declaration` returned; of records, so that everything is checked.
        needs: the plug-in, for messages.

    Raises:
        ConfigError: it is no declaration.
    """
    try:
        return _stand_in(declared, needs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"no declaration of a configuration ({type(error).__name__})") from error


def _stand_in(declared: Mapping[str, Any], needs: str) -> type[Config]:
    name, fields = str(declared["class"]), declared["fields"]
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,79}", name) or len(fields) > MOST:
        raise ValueError
    made = []
    for field, about in fields.items():
        if not _FIELD.fullmatch(field):
            raise ValueError
        kind: Any = _KINDS[about["kind"]]
        options = tuple(_plain(value) for value in about["options"])
        if options and any(type(value) is not kind for value in options):
            raise ValueError
        annotation: Any = Literal[options] if options else kind
        default = about["default"]
        if about["optional"] is True:
            annotation = annotation | None
        made.append(
            (field, annotation, dataclasses.field(default=None if default is None else _plain(default)))
        )
    knobs = {str(k): _knob(v) for k, v in declared["knobs"].items() if k in fields}
    space = {
        "KNOBS": knobs,
        "COST": int(declared["cost"]),
        "SCREENS": declared["screens"] is True,
        "NEEDS": needs,
        "__doc__": str(declared["summary"])[:500],
        "__module__": __name__,
    }
    kind = dataclasses.make_dataclass(
        name, made, bases=(StandIn,), namespace=space, frozen=True, kw_only=True
    )
    kind()  # the defaults fit their types
    return kind


def _plain(value: Any) -> Plain:
    if not isinstance(value, bool | int | float | str):
        raise TypeError
    return value


def _knob(value: Mapping[str, Any]) -> Knob:
    choices = value["choices"]
    return Knob(
        low=None if value["low"] is None else float(value["low"]),
        high=None if value["high"] is None else float(value["high"]),
        log=value["log"] is True,
        integer=value["integer"] is True,
        choices=None if choices is None else tuple(_plain(choice) for choice in choices),
        help=str(value["help"])[:200],
    )
