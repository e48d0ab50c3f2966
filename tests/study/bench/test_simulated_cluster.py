"""The private environment of a simulated cluster: nothing of the user's Ray in it, nothing left behind."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from study.bench.simulated_cluster import private_environment


def test_home_token_and_temporary_files_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("MIPOISON_RAY_TMP", "/elsewhere")
    with private_environment(RAY_health_check_period_ms="500") as environment:
        folder = Path(environment["HOME"])
        assert environment["TMPDIR"] == str(folder)
        assert len(environment["MIPOISON_RAY_TMP"]) < 60  # sockets of at most 107 bytes lie below it
        assert Path(environment["MIPOISON_RAY_TMP"]).parent == folder
        assert "RAY_ADDRESS" not in environment
        assert environment["RAY_health_check_period_ms"] == "500"
        token = Path(environment["RAY_AUTH_TOKEN_PATH"])
        assert token.parent == folder
        assert [stat.S_IMODE(p.stat().st_mode) for p in (folder, token)] == [0o700, 0o600]
        with private_environment() as other:
            assert other["HOME"] != str(folder)
            assert Path(other["RAY_AUTH_TOKEN_PATH"]).read_bytes() != token.read_bytes()
    assert not folder.exists()
