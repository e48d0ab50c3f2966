"""Kept images are asked again: equal answers go on, another model stops it, noise alone does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audited_servers import pictures, scores

from study.auditing.answers import Answers
from study.auditing.asking import Asker
from study.auditing.endpoint import Reply
from study.auditing.rechecking import Earlier, StaleAnswersError, recheck

X = pictures(12, 0)
Model = Callable[[np.ndarray], np.ndarray]


def plain(x_HWC: np.ndarray) -> np.ndarray:
    return np.array(scores(x_HWC[..., 0]))


def noisy(model: Model, sd: float, seed: int) -> Model:
    rng = np.random.default_rng(seed)
    return lambda x_HWC: model(x_HWC) + rng.normal(0, sd, 3)


def asker_of(model: Model, answers: Answers) -> Asker:
    def ask(x_HWC: np.ndarray) -> Reply:
        return Reply(200, json.dumps(model(x_HWC).tolist()).encode(), 0.0)

    return Asker(ask, answers, path="", budget=12)


def sent(before: Model, now: Model, out: Path) -> int:
    """Questions of a recheck after ``before`` answered all images."""
    with Answers(out, {}) as answers:
        first = asker_of(before, answers)
        assert recheck(first, X) == 0
        first.query(X, "public")
    with Answers(out, {}) as answers:
        again = asker_of(now, answers)
        n = recheck(again, X)
        assert (again.queries, again.left) == (12 + n, 0)
        assert again.query(X, "public").shape == (12, 3)
    return n


def test_the_same_model_goes_on(tmp_path: Path) -> None:
    assert sent(plain, plain, tmp_path) == 5


def test_another_model_stops_it(tmp_path: Path) -> None:
    with pytest.raises(StaleAnswersError, match="another --out"):
        sent(lambda x: np.eye(3)[plain(x).argmax()], plain, tmp_path)


@pytest.mark.parametrize("sd", [0.001, 0.3])
def test_noise_alone_does_not_stop_it(tmp_path: Path, sd: float) -> None:
    for seed in range(5):
        assert sent(noisy(plain, sd, seed), noisy(plain, sd, 100 + seed), tmp_path / str(seed)) == 15


def test_another_model_below_noise_stops_it(tmp_path: Path) -> None:
    with pytest.raises(StaleAnswersError):
        sent(noisy(plain, 0.01, 0), noisy(lambda x: plain(x)[::-1], 0.01, 1), tmp_path)
    with pytest.raises(StaleAnswersError):  # an exact model, now with noise
        sent(plain, noisy(lambda x: plain(x) + 0.2, 0.05, 1), tmp_path)


def test_where_the_answers_come_from() -> None:
    assert str(Earlier()) == "all answers are of this run"
    assert str(Earlier(3, 9, 86400.0)) == "3 of 9 answers from earlier runs, oldest 1970-01-02 00:00 UTC"
