"""A study's requests to an object store: their number per trial does not grow with the study."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from buckets import Bucket
from simulated import arguments

import mipoison.scene
from study.pareto import main

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]
LEASE = "drivers"
"""Requests that depend on time, not on the number of trials: renewals of the lease."""


def requests_of(server: Bucket, trials: int, attackers: tuple[str, ...]) -> Counter[tuple[str, str]]:
    mipoison.scene._remembered.cache_clear()
    prefix = f"requests/{trials}-{len(attackers)}"
    command = [
        *arguments(Path("x"), trials=trials, attackers=attackers),
        "--executor",
        "local",
        "--no-screen",
    ]
    command[1] = server.at(prefix)
    assert main(command) == 0
    found = server.requests(prefix)
    assert found["PUT", "frontier.parquet"] == 1  # requests are counted
    return Counter({what: n for what, n in found.items() if what[1] != LEASE})


def test_requests_of_a_trial(server: Bucket) -> None:
    two = ("class-mean", "passive")
    three = (*two, "ridge")
    few, many, wide = (requests_of(server, n, a) for n, a in ((2, two), (5, two), (5, three)))
    more = {what: (many[what] - few[what]) / 3 for what in {*many, *few} if many[what] != few[what]}
    # A read is two HEADs and a GET: the anchors (two) and, in the driver, the trial; and at the study's end
    # all trials, for the frontier and for the report.
    assert more == {
        ("HEAD", "episode"): 2,
        ("PUT", "episode"): 2,
        ("PUT", "trials"): 1,
        ("PUT", "episodes"): 1,
        ("PUT", "pictures"): 1,
        ("GET", "episodes"): 5,
        ("HEAD", "episodes"): 10,
    }
    # One more attacker, of five trials and two anchors.
    per_episode = {what: wide[what] - many[what] for what in wide if wide[what] != many[what]}
    assert per_episode == {("HEAD", "episode"): 7, ("PUT", "episode"): 7}
    per_trial, each = sum(more.values()), sum(per_episode.values()) / 7
    print(f"\n{per_trial:g} requests a trial of 2 episodes, {each:g} an episode more")
