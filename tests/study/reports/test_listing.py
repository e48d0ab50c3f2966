"""Both listings come from their own registry (the commands are tested in test_defenses and test_attacks)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mipoison.attacks import ATTACKS
from mipoison.defenses import DEFENSES
from study.reports.listing import REGISTRIES, list_registered


@pytest.mark.parametrize(
    ("kind", "registry", "other"), [("defense", DEFENSES, "kernel"), ("attacker", ATTACKS, "lpa")]
)
def test_each_kind_lists_its_own_registry(
    kind: Any, registry: dict[str, Any], other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(name: str | None) -> Any:
        return lambda: SimpleNamespace(name=name, plugin=())

    assert set(REGISTRIES) == {"defense", "attacker"}
    assert list_registered(kind, ask(None)) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in registry)
    assert list_registered(kind, ask(other)) == 2
    assert f"unknown {kind} '{other}'" in capsys.readouterr().err
