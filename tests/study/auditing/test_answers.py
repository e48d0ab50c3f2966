"""Answers survive a kill, a torn line, a kill between both files; no other endpoint's are taken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mipoison.config import ConfigError
from study.auditing import answers as module
from study.auditing.answers import Answers, Kept, any_kept, name_of

OF = {"url": "http://a"}


def kept(i: int, repetition: int = 0) -> Kept:
    return Kept(f"{i:064x}", repetition, "public", 200, bytes([i, 255, 0]), 0.5, 1.0 + i)


def test_names_are_of_pixels_and_shape() -> None:
    x = np.arange(12, dtype=np.uint8)
    names = {name_of(x.reshape(s)) for s in ((2, 6, 1), (6, 2, 1), (2, 2, 3))} | {
        name_of(x[::-1].reshape(2, 6, 1))
    }
    assert len(names) == 4
    assert name_of(x.reshape(2, 6, 1)) == name_of(x.reshape(2, 6, 1).copy(order="F"))


def test_answers_come_back_and_are_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 3)
    rows = [kept(i) for i in range(7)] + [kept(0, 1)]
    with Answers(tmp_path, OF) as store:
        for row in rows[:5]:
            store.add(row)
    with Answers(tmp_path, OF) as store:
        assert len(store) == 5
        for row in rows[5:]:
            store.add(row)
        assert store.all() == rows
        assert store.get(rows[7].image, 1) == rows[7]
        assert store.get(rows[7].image, 2) is None
    files = sorted((tmp_path / "answers").glob("*.parquet"))
    assert [pq.read_metadata(f).num_rows for f in files] == [3, 2, 3]
    assert (tmp_path / "journal.jsonl").read_bytes() == b""


KILLED = """
import os, signal, sys
from pathlib import Path
from study.auditing import answers
from study.auditing.answers import Answers, Kept, any_kept
answers.CHUNK = 4
store = Answers(Path(sys.argv[1]), {"url": "http://a"})
for i in range(10):
    store.add(Kept(f"{i:064x}", 0, "public", 200, bytes([i, 255, 0]), 0.5, 1.0 + i))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=120, check=False)
    assert ended.returncode == -9
    with Answers(tmp_path, OF) as store:
        assert store.all() == [kept(i) for i in range(10)]
    with Answers(tmp_path, OF) as store:
        assert len(store) == 10


def test_a_torn_line_is_left_out_and_a_chunk_is_not_counted_twice(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with Answers(tmp_path, OF) as store:
        store.add(kept(1))
        before = journal.read_bytes()
    journal.write_bytes(before + before[: len(before) // 2])  # killed before the truncation, and torn
    with Answers(tmp_path, OF) as store:
        assert store.all() == [kept(1)]
        store.add(kept(2))
    with Answers(tmp_path, OF) as store:
        assert store.all() == [kept(1), kept(2)]


def test_forgotten_answers_stay_in_the_files_and_count(tmp_path: Path) -> None:
    for _ in range(2):
        with Answers(tmp_path, OF) as store:
            if (old := store.get(kept(1).image)) is None:
                store.add(kept(1))
                store.forget(kept(1))
                assert store.get(kept(1).image) is None
                store.add(Kept(**{**vars(kept(1)), "body": b"new"}))
            else:
                assert old.body == b"new"
            assert len(store) == 2


@pytest.mark.parametrize("before", [b'{"url": "http://mistaken"}', b"{"])
def test_without_an_answer_the_endpoint_may_be_another(tmp_path: Path, before: bytes) -> None:
    (tmp_path / "endpoint.json").write_bytes(before)
    assert not any_kept(tmp_path)
    with Answers(tmp_path, OF) as store:
        store.add(kept(1))
        assert any_kept(tmp_path)
    assert any_kept(tmp_path)
    assert json.loads((tmp_path / "endpoint.json").read_text()) == OF
    with pytest.raises(ConfigError, match="another endpoint"):
        Answers(tmp_path, {"url": "http://mistaken"})


def test_one_audit_at_a_time_and_of_one_endpoint(tmp_path: Path) -> None:
    with Answers(tmp_path, OF) as store:
        store.add(kept(0))
        with pytest.raises(ConfigError, match="in use"):
            Answers(tmp_path, OF)
    with pytest.raises(ConfigError, match=r"another endpoint or request \(url differs\)"):
        Answers(tmp_path, {"url": "http://b"})
    with pytest.raises(ConfigError, match=r"\(query differs\)"):
        Answers(tmp_path, OF | {"query": "1"})
    with pytest.raises(ConfigError, match=r"\(headers differ\)"):
        Answers(tmp_path, OF | {"headers": "1"})
    with pytest.raises(ConfigError, match=r"\(query, url differ\)"):
        Answers(tmp_path, {"url": "http://b", "query": "1"})
    for damaged in (b"", b"{", b"[]", b"\xff\xfe{", b"null"):
        whole = (tmp_path / "endpoint.json").read_bytes()
        (tmp_path / "endpoint.json").write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"endpoint.json is damaged .* another --out"):
            Answers(tmp_path, OF)
        (tmp_path / "endpoint.json").write_bytes(whole)
    with Answers(tmp_path, OF) as store:
        store.add(kept(1))
    next((tmp_path / "answers").glob("*.parquet")).write_bytes(b"PAR1 damaged")
    with pytest.raises(ConfigError, match="cannot be read"):
        Answers(tmp_path, OF)
