"""Asks a few kept images again: answers of an older model must not pass for those of the present one.

Where repeats of an image are equal, one that differs is enough. Where they differ, the earlier answer must be
further from the present ones than twice what repeats differ, or be the odd one among all answers of every
image that is asked again, which happens by chance with probability 4 ** -RECHECKED.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from study.auditing.endpoint import EndpointError
from study.auditing.probes import SAME

if TYPE_CHECKING:
    from study.auditing.asking import Asker

RECHECKED = 5
"""Images that are asked again when an audit goes on."""
MORE = 2
"""Further answers to each of them where the first differs."""

Values = Sequence[float]


class StaleAnswersError(EndpointError):
    """The endpoint answers otherwise than it did in an earlier run. One line."""


@dataclass(frozen=True)
class Earlier:
    """Where the answers come from.

    Attributes:
        answers: of earlier runs. of: all, after this run. oldest: seconds since 1970; None: none is earlier.
        rechecked: questions that were asked again in this run.
    """

    answers: int = 0
    of: int = 0
    oldest: float | None = None
    rechecked: int = 0

    def __str__(self) -> str:
        if self.oldest is None:
            return "all answers are of this run"
        day = datetime.fromtimestamp(self.oldest, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"{self.answers} of {self.of} answers from earlier runs, oldest {day}"


def recheck(asker: Asker, images_NHWC: NDArray[np.uint8]) -> int:
    """Ask up to ``RECHECKED`` of these images again that earlier runs asked; returns the questions sent.

    Raises:
        StaleAnswersError: the endpoint answers otherwise now. EndpointError, AnswerError: see
            ``Asker.query``.
    """
    known = [image for image in images_NHWC if asker.earlier_answers(image)]
    at = np.linspace(0, len(known) - 1, min(RECHECKED, len(known))).round().astype(int)
    chosen = [known[i] for i in at]
    old = [asker.earlier_answers(image) for image in chosen]
    new: list[list[Values]] = [[asker.ask_again(image)] for image in chosen]
    sent = len(chosen)
    if not _apart(old, new, 0.0):
        return sent
    for image, answers in zip(chosen, new, strict=True):
        answers += [asker.ask_again(image) for _ in range(MORE)]
        sent += MORE
    spread = max(_widest(answers) for answers in new)
    spread = max(spread, *(_widest(asker.earlier_answers(image)) for image in known))
    if _apart(old, new, spread) or (spread > _same(new) and _all_odd(old, new)):
        raise StaleAnswersError(
            "the endpoint answers otherwise than in an earlier run: the kept answers are of another model or "
            "defense; give another --out"
        )
    return sent


def _apart(old: Sequence[Sequence[Values]], new: Sequence[Sequence[Values]], spread: float) -> bool:
    """Whether an earlier answer is further from all present ones than twice the spread."""
    limit = max(_same(new), 2 * spread)
    return any(
        min(_distance(before[0], after) for after in answers) > limit
        for before, answers in zip(old, new, strict=True)
    )


def _all_odd(old: Sequence[Sequence[Values]], new: Sequence[Sequence[Values]]) -> bool:
    """Whether the earlier answer is the one furthest from the others, for each of ``RECHECKED`` images."""
    if len(new) < RECHECKED:
        return False
    for before, answers in zip(old, new, strict=True):
        rows = np.array([before[0], *answers])
        apart_R = np.linalg.norm(rows[:, None] - rows[None], axis=2).sum(1)
        if int(apart_R.argmax()) != 0 or np.isclose(apart_R[0], apart_R[1:]).any():
            return False
    return True


def _widest(answers: Sequence[Values]) -> float:
    rows = np.array(answers)
    return float(np.linalg.norm(rows - rows[:1], axis=1).max())


def _distance(one: Values, other: Values) -> float:
    return float(np.linalg.norm(np.subtract(one, other)))


def _same(new: Sequence[Sequence[Values]]) -> float:
    return SAME * max([1.0, *(abs(v) for answers in new for row in answers for v in row)])
