"""Local files: anything but a regular file of permitted size is refused before it is read, links too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mipoison.config import ConfigError
from mipoison.storage.failures import UnfitError
from mipoison.storage.files import Storage


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnfitError):
        Storage(tmp_path).read("pipe")


@pytest.mark.timeout(20)
def test_a_sparse_file_of_300_gb_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(300 * 2**30)
    with pytest.raises(UnfitError):
        Storage(tmp_path).read("huge")


def test_a_reader_states_its_own_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert Storage(tmp_path).read("a", 5) == b"12345"
    with pytest.raises(UnfitError):
        Storage(tmp_path).read("a", 4)


def test_a_link_out_of_a_study_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"token": "secret"}')
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").symlink_to("../config.json")
    with pytest.raises((ConfigError, OSError)) as refused:
        Storage(tmp_path).read("study/study.json")
    assert "secret" not in str(refused.value)
