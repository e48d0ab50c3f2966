"""A trial asks as much of the storage in a large study as in a small one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from study.bench import study_growth as costs


def test_a_trial_asks_as_much_of_the_storage_in_a_large_study_as_in_a_small_one(tmp_path: Path) -> None:
    template = costs.Template()
    few, many = (costs.measure(template, n) for n in (2, 12))
    assert (few.trials, many.trials) == (2, 12)
    assert many.episodes - few.episodes == 10 * 21
    assert few.requests == many.requests
    assert Counter(many.requests).keys() == {"read", "write"}  # no listing: it would grow with the study
    assert many.compact_mb < many.small_mb
