"""A simulated endpoint is audited over HTTP and compared; finished rows are not run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from study.bench import audit_endpoints
from study.bench.audit_endpoints import audited, images_of, main, row_of, run, summary
from study.bench.simulated_endpoint import Drawn, deployed

TINY = dict(limit=120, victim_steps=30, decoder_steps=5, decoder_width=4)
ONE = Drawn(
    number=0, dataset="digits", seed=5, width=8, hidden=16, steps=30, defense="rounding", knobs={"steps": 4}
)


def test_an_audit_of_a_simulated_endpoint(tmp_path: Path) -> None:
    deployment = deployed(ONE, str(tmp_path), **TINY)
    held = images_of(deployment)
    assert set(held.private) == {"train", "test"}
    found = audited(deployment, queries=250)
    assert found.family.name == "grid"
    assert found.probes.steps == 4
    assert found.queries <= 250
    truth = {"full_train": found.excess["train"].estimate, "full_test": 0.99}
    row = row_of(ONE, deployment, truth, found)
    assert (row["covers_train"], row["covers_test"], row["covers"], row["hit"]) == (True, False, False, True)
    assert row["knobs"] == "steps=4"


def test_rows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()
    real = audit_endpoints.deployed

    def small(endpoint: Drawn, store: str, data_root: str | None) -> Any:
        return real(endpoint, store, data_root, **TINY)

    def quick(deployment: Any) -> Any:
        asked.append(deployment.name)
        return audited(deployment, queries=200)

    monkeypatch.setattr(audit_endpoints, "deployed", small)
    monkeypatch.setattr(audit_endpoints, "drawn", lambda number, master: ONE)
    monkeypatch.setattr(audit_endpoints, "audited", quick)
    monkeypatch.setattr(
        audit_endpoints,
        "full_study",
        lambda d: {"full_train": 0.0, "full_test": 0.0, "full_attacker_train": "a"},
    )
    for _ in range(2):
        table = run(
            tmp_path / "o" / "t.csv", endpoints=1, store=str(tmp_path), data_root=None, truths=tmp_path
        )
    assert asked == ["rounding"]
    assert len(table) == 1
    assert "of 1 endpoints" in summary(table)


def test_the_summary_counts() -> None:
    table = pd.DataFrame(
        {"covers": [True, False, True], "hit": [True, True, True], "audit_seconds": [60, 30, 90]}
    )
    assert summary(table).startswith("2 of 3 endpoints")
    assert "family named in 3" in summary(table)
    assert "slowest audit 1.5 min" in summary(table)
    assert main([]) == main(["a", "b", "c"]) == 2
