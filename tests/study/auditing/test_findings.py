"""The text and the plain values of an audit say what was found, and what was not."""

from __future__ import annotations

import json
from dataclasses import replace

from audited_pools import plain_probes

from study.auditing.advice import Change
from study.auditing.family import Family
from study.auditing.findings import HELD_OUT, Cells, Findings, text_of
from study.auditing.intervals import AuditedExcess

EXCESS = AuditedExcess(0.31, 0.27, 0.36, 0.31, "kernel", 300, 0.02, 0.01, 0.03)
LOW = replace(EXCESS, estimate=0.0, low=0.0, high=0.015)
FOUND = Findings(
    url="http://a/classify\x1b[31m",
    queries=1980,
    asked={"public": 600, "train": 300},
    probes=plain_probes(),
    family=Family("smooth", "moves smoothly"),
    excess={"train": EXCESS, "test": LOW},
    cells={"train": Cells(1.0, 300, 1)},
    uncertified="",
    change=Change("round the scores to multiples of 1/5", "rounding", {"steps": 5}, 0.02, 0.018),
    bar=0.02,
    notes=("3 of 603 public images are copies, and left out",),
)


def test_the_text() -> None:
    text = text_of(FOUND)
    for part in (
        "1980 questions",
        "0.310 [0.270, 0.360] on images that the classifier was trained on",
        "above 0.02",
        "0.000 [0.000, 0.015] on private images",
        "within 0.02",
        "certified        nothing",
        "the same each time",
        "to one",
        "smooth: none to be seen",
        "multiples of 1/5",
        "an estimate",
        "3 of 603",
    ):
        assert part in text, part
    assert "\x1b" not in text


def test_what_is_above_the_bar() -> None:
    assert FOUND.above
    assert not replace(FOUND, excess={"test": LOW}).above
    assert replace(FOUND, excess={"test": replace(LOW, high=0.021)}).above
    certified = replace(
        FOUND,
        excess={"train": replace(EXCESS, low=0.01), "test": LOW},
        cells={"train": Cells(0.0, 10, 30), "test": Cells(0.0, 10, 30)},
    )
    assert not certified.above
    assert "certified        at most 0.000 on the asked train images (10 answers)" in text_of(certified)


def test_a_certificate_does_not_overrule_what_was_measured() -> None:
    found = replace(FOUND, excess={"train": replace(EXCESS, low=0.03)}, cells={"train": Cells(0.004, 15, 3)})
    assert found.above
    assert "above 0.02" in text_of(found)
    assert not replace(found, excess={"train": replace(EXCESS, low=0.02)}).above


def test_what_the_attackers_do_not_see_is_not_within() -> None:
    noise = replace(FOUND, excess={"train": LOW}, cells={}, probes=plain_probes(repeat_distance=0.1))
    assert noise.above
    assert "not shown to be within 0.02" in text_of(noise)
    assert "one answer an image; who asks q times sees more" in text_of(noise)
    assert "none was looked for" in text_of(replace(noise, change=None))
    hidden = replace(noise, probes=plain_probes(hidden=9))
    assert hidden.above
    assert "9 answers differ from others in hidden digits" in text_of(hidden)
    assert not replace(hidden, cells={"train": Cells(0.01, 5, 9)}).above
    assert not replace(noise, probes=plain_probes()).above


def test_what_a_certificate_alone_shows_is_called_so() -> None:
    wide = replace(FOUND, excess={"train": replace(LOW, high=0.044)}, cells={"train": Cells(0.01, 10, 30)})
    assert not wide.above
    assert "within 0.02 (by certificate)" in text_of(wide)
    assert "by certificate" not in text_of(replace(wide, excess={"train": LOW}))


def test_one_answer_a_label_needs_no_advice_to_answer_so() -> None:
    seen = plain_probes(distinct=5, most_of_label=1)
    text = text_of(replace(FOUND, probes=seen, change=None, excess={"test": replace(LOW, high=0.03)}))
    assert "not shown to be within" in text
    assert "each label has one answer already" in text
    assert "fixed vector" not in text


def test_without_private_images() -> None:
    text = text_of(replace(FOUND, excess={HELD_OUT: LOW}, cells={}, uncertified="no images", change=None))
    assert "nothing can be said of images that the classifier was trained on" in text
    assert "nothing: no images" in text
    nothing = "nothing can be said of images that the classifier was trained on"
    assert nothing in text_of(replace(FOUND, excess={"test": LOW}))
    assert nothing not in text_of(replace(FOUND, excess={"train": LOW}))
    assert "none is needed" in text


def test_the_plain_values_are_json() -> None:
    plain_values = replace(FOUND, excess={"train": replace(EXCESS, by_training=float("nan"))}).plain()
    read = json.loads(json.dumps(plain_values, allow_nan=False))
    assert read["above"] is True
    assert read["excess"]["train"]["by_training"] is None
    assert read["family"]["name"] == "smooth"
    assert read["change"]["knobs"] == {"steps": 5}
