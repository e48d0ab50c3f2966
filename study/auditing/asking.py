"""Asks the endpoint about images within a budget, or takes the answers that are kept.

Shape suffixes: N images, K classes, H height, W width, C channels.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from study.auditing.answers import Answers, Kept, name_of
from study.auditing.endpoint import Reply
from study.auditing.rechecking import Earlier
from study.auditing.scores import AnswerError, Scores, read_scores

RECHECK, AGAIN = "recheck", 1000
"""Pool, and least repetition, of answers to :meth:`Asker.ask_again`."""
UNREADABLE = (
    "{error} (image {image}..., kept in {n} answers). Nothing is lost: correct --scores and run the command "
    "again, or ask such questions again with --ask-again"
)


class BudgetSpentError(Exception):
    """The next question would be one more than the budget allows."""


class Asker:
    """Questions to the endpoint, each sent once and kept.

    Args:
        ask: sends a question; see ``Endpoint.ask``. answers: where answers are kept.
        path: to the scores in an answer. budget: most questions, those of earlier runs included; those of
            :meth:`ask_again` come on top.
        again: ask once more where the kept answer cannot be read.
        told: called after each question with the number of questions so far.
    """

    def __init__(
        self,
        ask: Callable[[np.ndarray], Reply],
        answers: Answers,
        *,
        path: str,
        budget: int,
        again: bool = False,
        told: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._ask, self._answers, self._path, self._budget = ask, answers, path, budget
        self._again, self._told = again, told
        self.n_classes = 0
        self.names: tuple[str, ...] = ()
        self.decimals = 0
        earlier = answers.all()
        self._earlier: dict[str, list[Kept]] = {}
        for kept in earlier:
            self._earlier.setdefault(kept.image, []).append(kept)
        self._n_earlier = len(earlier)
        self._oldest = min((kept.asked_at for kept in earlier), default=None)
        self._pools = Counter(kept.pool for kept in earlier)

    def tell(self) -> None:
        """Say how many questions there are so far."""
        self._told(self.queries)

    @property
    def left(self) -> int:
        """Questions that may still be sent."""
        return max(0, self._budget - (len(self._answers) - self._pools[RECHECK]))

    @property
    def earlier(self) -> Earlier:
        """What earlier runs left, and what this one asked."""
        return Earlier(self._n_earlier, len(self._answers), self._oldest)

    def kept_of(self, pool: str) -> int:
        """Answers of a pool, over all runs."""
        return self._pools[pool]

    def earlier_answers(self, image_HWC: np.ndarray) -> list[tuple[float, ...]]:
        """Answers (each K) of earlier runs to an image, the first and its repeats; what can be read."""
        kept_R = [k for k in self._earlier.get(name_of(image_HWC), []) if 0 <= k.repetition < AGAIN]
        return [self._read(k).values for k in kept_R if self._readable(k)]

    def ask_again(self, image_HWC: np.ndarray) -> tuple[float, ...]:
        """The present answer (K) to an image, whether or not one is kept; see :meth:`query` for errors."""
        name, repetition = name_of(image_HWC), AGAIN
        while self._answers.get(name, repetition) is not None:
            repetition += 1
        return self._read(self._send(image_HWC, name, repetition, RECHECK)).values

    @property
    def queries(self) -> int:
        """Questions sent so far, over all runs."""
        return len(self._answers)

    def query(self, images_NHWC: np.ndarray, pool: str, repetition: int = 0) -> Tensor:
        """Answers (N, K), float64, of images (uint8).

        Args:
            pool: what they are asked for, which is kept beside the answer.
            repetition: how often each of them was asked before.

        Raises:
            BudgetSpentError: nothing is left to ask. EndpointError: the endpoint fails.
            AnswerError: an answer cannot be read, or has another number of scores than the first.
        """
        rows = [self._scores(image, pool, repetition).values for image in images_NHWC]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), self.n_classes)

    def _scores(self, image_HWC: np.ndarray, pool: str, repetition: int) -> Scores:
        name = name_of(image_HWC)
        kept = self._answers.get(name, repetition)
        if kept is not None and self._again and not self._readable(kept):
            self._answers.forget(kept)
            kept = None
        if kept is None:
            if not self.left:
                raise BudgetSpentError(f"all {self._budget} questions are spent")
            kept = self._send(image_HWC, name, repetition, pool)
        return self._read(kept)

    def _send(self, image_HWC: np.ndarray, name: str, repetition: int, pool: str) -> Kept:
        at = time.time()
        reply = self._ask(image_HWC)
        kept = Kept(name, repetition, pool, reply.status, reply.body, reply.seconds, at)
        self._answers.add(kept)
        self._pools[pool] += 1
        self.tell()
        return kept

    def _readable(self, kept: Kept) -> bool:
        try:
            self._read(kept)
        except AnswerError:
            return False
        return True

    def _read(self, kept: Kept) -> Scores:
        try:
            found = read_scores(kept.body, self._path)
            shape = (len(found.values), found.names)
            if self.n_classes and shape != (self.n_classes, self.names):
                raise AnswerError(f"{shape[0]} scores, the first answer had {self.n_classes}")
        except AnswerError as error:
            text = UNREADABLE.format(error=error, image=kept.image[:12], n=len(self._answers))
            raise AnswerError(text) from error
        self.n_classes, self.names = shape
        self.decimals = max(self.decimals, found.decimals)
        return found


class OracleOf:
    """The asker as an attacker sees it: images in [0, 1] in, answers out, within the budget.

    Args:
        asker: asks. pool: what the attacker's questions are kept as. as_scores: see ``Vectors``.
    """

    def __init__(self, asker: Asker, pool: str, as_scores: Callable[[Tensor], Tensor]) -> None:
        self._asker, self._pool, self._as_scores = asker, pool, as_scores
        self._before = asker.queries

    @property
    def n_classes(self) -> int:
        """K."""
        return self._asker.n_classes

    @property
    def queries(self) -> int:
        """Questions that this attacker sent."""
        return self._asker.queries - self._before

    def query(self, x_NCHW: Tensor) -> Tensor:
        """Answers (N, K), float32, of images; pixels are brought to 8 bits first."""
        bytes_NHWC = (x_NCHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return self._as_scores(self._asker.query(bytes_NHWC, self._pool))
