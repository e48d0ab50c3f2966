"""Reads the scores out of an answer: JSON, and the path to a list (or an object) of numbers in it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from study.auditing.endpoint import beginning
from study.runtime.plain import visible_line

MOST_CLASSES = 100_000


class AnswerError(Exception):
    """An answer that holds no scores where they should be. One line."""


@dataclass(frozen=True)
class Scores:
    """The scores of one answer.

    Attributes:
        values: in the endpoint's order; by name where it names them.
        names: of the classes, where the answer has them; sorted.
        decimals: most digits after the point that were printed.
    """

    values: tuple[float, ...]
    names: tuple[str, ...]
    decimals: int


def read_scores(body: bytes, path: str) -> Scores:
    """Scores of an answer.

    Args:
        body: JSON. path: keys and indices with dots between, e.g. ``predictions.0.scores``; '' for all of it.

    Raises:
        AnswerError: no JSON, nothing at the path, or something else than finite numbers there.
    """
    try:
        found: Any = json.loads(body, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"not JSON ({visible_line(error, 80)}): {beginning(body)}") from error
    for step in path.split(".") if path else []:
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise AnswerError(f"nothing at {step!r} of the path {path!r}: {beginning(body)}") from error
    names: tuple[str, ...] = ()
    if isinstance(found, dict):
        names = tuple(sorted(found))
        found = [found[name] for name in names]
    if not isinstance(found, list) or not 2 <= len(found) <= MOST_CLASSES:
        raise AnswerError(f"no list of two scores or more at {path!r}: {beginning(body)}")
    for value in found:
        if not _finite(value):
            raise AnswerError(f"{visible_line(value, 40)!r} among the scores is no finite number")
    return Scores(tuple(map(float, found)), names, max(map(_decimals, found)))


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _decimals(value: int | Decimal) -> int:
    exponent = value.as_tuple().exponent if isinstance(value, Decimal) else 0
    return max(0, -exponent) if isinstance(exponent, int) else 0
