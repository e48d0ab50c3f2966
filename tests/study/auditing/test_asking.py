"""Each question is sent once, within the budget, over restarts; an unreadable answer is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from audited_servers import pictures, scores

from study.auditing.answers import Answers
from study.auditing.asking import Asker, BudgetSpentError, OracleOf
from study.auditing.endpoint import Reply
from study.auditing.scores import AnswerError

X = pictures(6, 0)


class Server:
    def __init__(self, body: bytes | None = None) -> None:
        self.asked, self.body = list[bytes](), body

    def __call__(self, x_HWC: np.ndarray) -> Reply:
        self.asked.append(x_HWC.tobytes())
        return Reply(200, self.body or json.dumps(scores(x_HWC[..., 0])).encode(), 0.0)


def test_each_question_once(tmp_path: Path) -> None:
    server, told = Server(), list[int]()
    for n in (3, 6):
        with Answers(tmp_path, {}) as answers:
            asker = Asker(server, answers, path="", budget=100, told=told.append)
            found = asker.query(X[:n], "public")
    assert len(server.asked) == len(set(server.asked)) == 6
    assert told == [1, 2, 3, 4, 5, 6]
    assert found.shape == (6, 3)
    assert np.allclose(found, [scores(x[..., 0]) for x in X])
    with Answers(tmp_path, {}) as answers:
        asker = Asker(server, answers, path="", budget=100)
        asker.query(X[:2], "public", repetition=1)
    assert len(server.asked) == 8
    assert asker.queries == 8


def test_the_budget_counts_over_restarts(tmp_path: Path) -> None:
    server = Server()
    for _ in range(2):
        with Answers(tmp_path, {}) as answers:
            asker = Asker(server, answers, path="", budget=4)
            with pytest.raises(BudgetSpentError, match="all 4"):
                asker.query(X, "public")
            assert asker.left == 0
    assert len(server.asked) == 4


def test_an_unreadable_answer_is_kept_and_read_again_with_another_path(tmp_path: Path) -> None:
    server = Server(b'{"p": [0.2, 0.8]}')
    with Answers(tmp_path, {}) as answers, pytest.raises(AnswerError, match="--scores") as raised:
        Asker(server, answers, path="scores", budget=9).query(X, "public")
    assert "kept in 1 answers" in str(raised.value)
    with Answers(tmp_path, {}) as answers:
        asker = Asker(server, answers, path="p", budget=9)
        assert asker.query(X[:1], "public").tolist() == [[0.2, 0.8]]
    assert len(server.asked) == 1


def test_an_unreadable_answer_is_asked_again_on_demand(tmp_path: Path) -> None:
    server = Server(b"<html>")
    for _ in range(2):
        with Answers(tmp_path, {}) as answers, pytest.raises(AnswerError, match="not JSON"):
            Asker(server, answers, path="", budget=9).query(X[:1], "public")
    assert len(server.asked) == 1
    server.body = None
    with Answers(tmp_path, {}) as answers:
        asker = Asker(server, answers, path="", budget=9, again=True)
        assert asker.query(X[:1], "public").shape == (1, 3)
        assert asker.queries == 2
    assert len(server.asked) == 2


def test_another_number_of_scores_is_refused(tmp_path: Path) -> None:
    server = Server()
    with Answers(tmp_path, {}) as answers:
        asker = Asker(server, answers, path="", budget=9)
        asker.query(X[:2], "public")
        server.body = b"[0.5, 0.5]"
        with pytest.raises(AnswerError, match="2 scores, the first answer had 3"):
            asker.query(X[2:3], "public")


def test_the_attackers_oracle_asks_about_pixels_of_8_bits(tmp_path: Path) -> None:
    server = Server()
    with Answers(tmp_path, {}) as answers:
        asker = Asker(server, answers, path="", budget=9)
        asker.query(X[:1], "public")
        oracle = OracleOf(asker, "mixture", lambda c: c.float())
        x = torch.from_numpy(X[:1].transpose(0, 3, 1, 2)).float() / 255
        found = oracle.query(x + 0.001)
        assert (oracle.queries, oracle.n_classes) == (0, 3)  # the same 8 bits: kept
        oracle.query(1 - x)
        assert oracle.queries == 1
    assert np.allclose(found, [scores(X[0, ..., 0])], atol=1e-6)
    assert server.asked[1] == (255 - X[0]).tobytes()
