"""A proper client of a served classifier, before and while others send the worst bodies."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from worst_bodies import SHAPE, npy

from study.serving.listeners import process_tree


@dataclass(frozen=True)
class Found:
    """By how much the proper client's p99 grew, and the server's memory."""

    times: float
    grown_mb: float


def under_attack(port: int, pid: int, seconds: float) -> Found:
    """64 attackers, at another address and in a process of their own; a proper client gets 200 throughout,
    and nobody a 500.
    """
    before = memory(pid)
    quiet, _ = proper(port, seconds / 2)
    command = [
        sys.executable,
        str(Path(__file__).with_name("worst_bodies.py")),
        str(port),
        str(seconds),
        "64",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attackers:
        attacked, statuses = proper(port, seconds - 0.5)
        seen = json.loads(attackers.communicate(timeout=60)[0])
    found = Found(p99(attacked) / p99(quiet), memory(pid) - before)
    print(f"quiet {said(quiet)}; attacked {said(attacked)}; {found}")
    print(seen)
    assert set(statuses) == {200}
    assert not [name for name in seen if name.endswith(": 500")]
    assert any(": 413" in name for name in seen)
    return found


def proper(port: int, seconds: float) -> tuple[list[float], list[int]]:
    """One image at a time, on a new connection each: seconds of each, sorted, and the statuses."""
    body = npy(np.full(SHAPE, 0.5, np.float32))
    times, statuses = [], []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/release", body, {"Content-Type": "application/x-npy"})
        response = connection.getresponse()
        response.read()
        connection.close()
        statuses.append(response.status)
        times.append(time.perf_counter() - began)
        time.sleep(0.02)
    return sorted(times), statuses


def memory(pid: int) -> float:
    """Megabytes of a process and all that it started; pages that several share count once."""
    total = 0
    for member in process_tree(pid):
        with contextlib.suppress(OSError):  # it ended
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def p99(times: list[float]) -> float:
    return times[min(len(times) - 1, int(0.99 * len(times)))]


def said(times: list[float]) -> str:
    return f"p50 {1000 * times[len(times) // 2]:.0f} ms, p99 {1000 * p99(times):.0f} ms of {len(times)}"
