"""What a study runs on: finite numbers, apart from what it measures."""

from __future__ import annotations

import dataclasses
import math

import pytest

from mipoison.config import ConfigError
from study.settings.resources import Resources
from study.settings.study_settings import (
    IDENTITY,
    Arguments,
    StudySettings,
)
from tests.study.settings.test_study_settings import refused


@pytest.mark.parametrize("name", ["cpus_per_worker", "gpus_per_worker"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_resources_are_finite(name: str, value: float) -> None:
    assert name in refused(**{name: value})


def test_what_is_measured_is_apart_from_where_and_how_it_runs() -> None:
    """Each field is in one group; nothing but the groups of IDENTITY, and digests, is compared on resume."""
    groups = [c for c in Arguments.__mro__ if dataclasses.is_dataclass(c) and c is not Arguments]
    names = [f.name for group in groups for f in dataclasses.fields(group)]
    assert sorted(names) == sorted(f.name for f in dataclasses.fields(StudySettings))
    assert len(set(names)) == len(names)
    compared = {f.name for group in IDENTITY for f in dataclasses.fields(group)}
    assert set(StudySettings().identity()) == compared | {"victim_digest"}
    for name in ("executor", "workers", "address", "storage", "data_root", "dashboard", "trials", "name"):
        assert name not in compared


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 2),
        ("address", "auto"),
        ("concurrent", 3),
        ("gpus_per_worker", 0.5),
        ("cpus_per_worker", 2),
    ],
)
def test_what_local_has_no_use_for_is_refused(name: str, value: object) -> None:
    text = refused(executor="local", **{name: value})
    assert f"--{name.replace('_', '-')} {value} without effect: --executor local" in text
    StudySettings(executor="ray", **{name: value})  # type: ignore[arg-type]


def test_what_local_does_anyway_is_accepted() -> None:
    Resources(executor="local", workers=0, concurrent=1).check_resources()


def test_an_executor_takes_resources_alone() -> None:
    Resources(workers=0, concurrent=2).check_resources()
    assert isinstance(StudySettings(), Resources)
    with pytest.raises(ConfigError, match="concurrent = 0"):
        Resources(concurrent=0).check_resources()
