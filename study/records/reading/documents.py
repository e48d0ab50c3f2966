"""Validates the JSON files of a study: ``study.json`` and ``trials/<trial>.json``."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from mipoison.config import Config, ConfigError, choose
from mipoison.defenses import DEFENSES
from study.records.constraints import FIELDS, is_bound
from study.records.reading import Unreadable, leave_out
from study.runtime.plain import visible_line

MAX_JSON_BYTES, MAX_DEPTH = 2**24, 32
MAX_ATTEMPT = 10**6
"""Bound of a trial's attempts: a file's name has six digits for them."""


def parse_json(data: bytes) -> Any:
    """Parse JSON with finite numbers, unique keys and bounded nesting.

    Raises:
        Unreadable: anything else.
    """
    if len(data) > MAX_JSON_BYTES:
        raise Unreadable(f"{len(data)} bytes of JSON, at most {MAX_JSON_BYTES} are read")
    try:
        value = json.loads(
            data, object_pairs_hook=_unique, parse_constant=_not_finite, parse_float=_finite_number
        )
    except Unreadable:
        raise
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise Unreadable(f"not JSON ({visible_line(error, 120)})") from error
    _check_shape(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unreadable("JSON with a key that occurs twice")
    return found


def _not_finite(text: str) -> Any:
    raise Unreadable(f"JSON with {text}, which is not a finite number")


def _finite_number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(visible_line(text, 20))


def _check_shape(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise Unreadable(f"JSON nested more than {MAX_DEPTH} deep")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item, *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and any("\ud800" <= c <= "\udfff" for c in item):
                raise Unreadable("JSON with an unpaired surrogate")
        level, depth = below, depth + 1


def about_of(data: bytes) -> dict[str, Any]:
    """Parse ``study.json`` as an object. Its values are validated by those who use them.

    Raises:
        Unreadable: it is not an object.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise Unreadable(f"holds {_kind(value)}, not an object")
    return value


def settings_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a ``study.json``, for a study that is resumed.

    Raises:
        Unreadable: there are none.
    """
    settings = about.get("settings")
    if not isinstance(settings, dict):
        raise Unreadable(f"settings: {_kind(settings)}, not an object")
    return settings


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_margin(value: Any) -> bool:
    return _is_share(value) and value < 1


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


_ABOUT: dict[str, Callable[[Any], bool]] = {
    "command": _is_texts, "margin": _is_margin, "settings": lambda value: isinstance(value, dict),
    "source": _is_text, "started": _is_text, "study": _is_text,
}  # fmt: skip
_SETTINGS: dict[str, Callable[[Any], bool]] = {
    "scale": _is_text,
    **{field: functools.partial(is_bound, field) for field in FIELDS},
}


def about_to_show(data: bytes, name: str) -> dict[str, Any]:
    """Parse ``study.json`` for a report, which needs few of its fields.

    Fields of an unexpected type are left out with a warning.

    Args:
        name: the file's name, for warnings.

    Raises:
        Unreadable: it is not an object.
    """
    about = about_of(data)
    kept = {k: v for k, v in about.items() if _kept(name, k, v, _ABOUT)}
    settings = kept.get("settings", {})
    kept["settings"] = {k: v for k, v in settings.items() if _kept(name, f"{k}", v, _SETTINGS)}
    return kept


def _kept(file: str, field: str, value: Any, judges: Mapping[str, Callable[[Any], bool]]) -> bool:
    fine = field not in judges or judges[field](value)
    if not fine:
        leave_out(f"{file}: {field} = {visible_line(value, 40)}", "not of the type that a study writes")
    return fine


def started_of(data: bytes) -> dict[str, Any]:
    """Parse ``trials/<trial>.json``: ``defense``, ``knobs`` (all) and ``attempt`` of a started trial.

    Raises:
        Unreadable: a key is missing or of the wrong type, or this version does not accept the setting.
    """
    value = parse_json(data)
    if not isinstance(value, dict) or not {"defense", "knobs", "attempt"} <= set(value):
        raise Unreadable("the keys defense, knobs and attempt are not all there")
    defense, knobs, attempt = (value[name] for name in ("defense", "knobs", "attempt"))
    if type(attempt) is not int or not 0 <= attempt < MAX_ATTEMPT:
        raise Unreadable(
            f"attempt = {visible_line(attempt, 40)}: must be an integer from 0 to {MAX_ATTEMPT - 1}"
        )
    return {"defense": defense, "knobs": config_from(defense, knobs).flat(), "attempt": attempt}


def config_from(defense: Any, knobs: Any) -> Config:
    """The configuration of a stored setting.

    Raises:
        Unreadable: values of the wrong type, or a setting that this version does not accept.
    """
    if not isinstance(defense, str) or not isinstance(knobs, dict):
        raise Unreadable(f"defense is {_kind(defense)} and knobs {_kind(knobs)}, not a name and an object")
    try:
        return DEFENSES[choose("defense", defense, DEFENSES)].from_flat(knobs)
    except ConfigError as error:
        raise Unreadable(visible_line(error, 160)) from error


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")
