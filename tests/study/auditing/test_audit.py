"""A whole audit of a classifier in this process: what leaks and repeats, without private images, resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audited_servers import pictures, scores

from study.auditing.answers import Answers
from study.auditing.asking import Asker
from study.auditing.audit import FRESH, audit
from study.auditing.endpoint import EndpointError, Reply
from study.auditing.findings import HELD_OUT, Findings, text_of
from study.auditing.images import AuditImages, without_copies
from study.auditing.rechecking import StaleAnswersError


def images(private: bool = True) -> AuditImages:
    pools = {"public": pictures(130, 0)}
    return without_copies(pools | ({"train": pictures(60, 1), "test": pictures(40, 2)} if private else {}))


class Model:
    """Answers of a kind, until it has answered ``lasts`` questions."""

    def __init__(self, kind: str = "plain", lasts: int = 10**6) -> None:
        self.kind, self.lasts, self.asked = kind, lasts, list[bytes]()
        self.rng = np.random.default_rng(0)

    def __call__(self, x_HWC: np.ndarray) -> Reply:
        if len(self.asked) >= self.lasts:
            raise EndpointError("gone")
        self.asked.append(x_HWC.tobytes())
        c = np.array(scores(x_HWC[..., 0]))
        if self.kind == "odd" and len(self.asked) == 1:
            c[c.argmin()] = -1e-9
        if self.kind == "label":
            c = np.eye(3)[c.argmax()]
        if self.kind == "fixed":
            c = np.eye(3)[c.argmax()] * 0.6 + 0.4 * np.array([0.2112347, 0.3312391, 0.4575262])
        if self.kind == "fresh":
            c = c + self.rng.normal(0, 0.01, 3)
            c = np.abs(c) / np.abs(c).sum()
        return Reply(200, json.dumps(c.tolist()).encode(), 0.0)


def run(model: Model, out: Path, private: bool = True, queries: int = 400) -> Findings:
    with Answers(out, {}) as answers:
        asker = Asker(model, answers, path="", budget=queries)
        return audit(asker, images(private), url="http://a", budget=queries)


def test_scores_leak_and_a_change_is_named(tmp_path: Path) -> None:
    model = Model()
    found = run(model, tmp_path)
    assert set(found.excess) == {"train", "test"}
    assert all(e.low > 0.02 for e in found.excess.values())
    assert found.above
    assert found.change is not None
    assert found.change.high < min(e.high for e in found.excess.values())
    assert found.family.name == "smooth"
    assert found.cells["train"].excess == 1.0
    assert found.queries == len(model.asked) <= 400
    assert "mixtures" in found.attackers
    assert found.probes.decimals > 10


def test_one_score_below_zero_does_not_hide_the_leak(tmp_path: Path) -> None:
    whole, odd = run(Model(), tmp_path / "a"), run(Model("odd"), tmp_path / "b")
    for pool, excess in odd.excess.items():
        assert excess.estimate == pytest.approx(whole.excess[pool].estimate, abs=0.02)
    assert odd.probes.negative
    assert not odd.probes.logits


def test_labels_alone_are_certified(tmp_path: Path) -> None:
    found = run(Model("label"), tmp_path)
    assert not found.above
    assert found.change is None
    assert found.family.name == "label-only"
    assert found.probes.steps == 1
    for pool, cells in found.cells.items():
        assert cells.excess == pytest.approx(0, abs=1e-9)
        assert cells.cells == 3
        assert found.excess[pool].estimate < 0.02


def test_one_answer_a_label_is_not_advised_to_give_one(tmp_path: Path) -> None:
    """Whatever the interval: with few images it is wide."""
    with Answers(tmp_path, {}) as answers:
        asker = Asker(Model("fixed"), answers, path="", budget=400)
        found = audit(asker, images(), url="http://a", budget=400, bar=-1.0)
    assert found.above
    assert found.change is None
    assert "each label has one answer already" in text_of(found)
    assert str(found.family) == "codebook: few different answers to many images"
    assert found.family.evidence.startswith("one answer a label: 3 different answers in ")


def test_answers_that_differ_are_not_certified(tmp_path: Path) -> None:
    found = run(Model("fresh"), tmp_path)
    assert (found.cells, found.uncertified) == ({}, FRESH)
    assert found.family.name == "noise"
    assert found.probes.repeat_distance > 0.001
    assert found.above
    assert found.change is not None
    assert found.change.defense == "label-only"


def test_without_private_images(tmp_path: Path) -> None:
    found = run(Model(), tmp_path, private=False)
    assert list(found.excess) == [HELD_OUT]
    assert found.excess[HELD_OUT].low > 0.02
    assert found.cells == {}
    assert found.asked["public"] > 100


def test_a_broken_audit_goes_on_and_finds_the_same(tmp_path: Path) -> None:
    whole = run(Model(), tmp_path / "whole")
    asked = list[bytes]()
    for lasts in (70, 150, 10**6):
        model = Model(lasts=lasts)
        if lasts < 10**6:
            with pytest.raises(EndpointError):
                run(model, tmp_path / "broken")
            assert len(model.asked) == lasts
        else:
            again = run(model, tmp_path / "broken")
        asked += model.asked
    assert len(asked) == whole.queries + 10
    assert (again.earlier.answers, again.earlier.rechecked) == (220, 5)
    assert replace(again, earlier=whole.earlier, queries=whole.queries) == whole


def test_answers_of_an_older_model_stop_it(tmp_path: Path) -> None:
    found = run(Model("label"), tmp_path)
    assert found.earlier.oldest is None
    newer = Model()
    with pytest.raises(StaleAnswersError, match="another --out"):
        run(newer, tmp_path)
    assert 5 <= len(newer.asked) <= 15
    same = Model("label")
    again = run(same, tmp_path)
    assert len(same.asked) == 5
    assert again.queries == found.queries + len(newer.asked) + 5
    assert "answers from earlier runs, oldest 20" in text_of(again)
    assert again.excess == found.excess
