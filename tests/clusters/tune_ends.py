"""Trials that end in different ways, on a local Ray as a study starts it; runs in its own process.

Prints one line of JSON: what the study heard of each trial, how many ran at once, where Ray listened, what
was left in the home folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from study.executors.environment import plan_ray
from study.records.constraints import Constraints
from study.settings.resources import Resources
from study.trial.failure import TrialFailure
from study.trial.spec import TrialSpec

ENDS = ("fine", "none", "nan", "absent", "nothing", "raises", "dies", "dies once", "fine", "fine")
MEET_S = 60
"""A second trial begins within that time."""
LISTENING = "0A"
"""State of a listening socket in /proc/net/tcp."""


def trainable(config: dict[str, Any]) -> dict[str, Any]:
    """A trainable that ends as the trial's knob says."""
    spec, folder = config["spec"], Path(os.environ["HOME"])
    end = spec["knobs"]["end"]
    with open(folder / "spans", "a") as file:
        file.write(f"{time.monotonic()} 1\n")
    until = time.monotonic() + MEET_S
    # The first trial waits for the second, so that two run at the same time on any machine.
    while spec["trial"].startswith("0 ") and time.monotonic() < until:
        if (folder / "spans").read_text().count("\n") > 1:
            break
        time.sleep(0.05)
    time.sleep(0.3)
    with open(folder / "spans", "a") as file:
        file.write(f"{time.monotonic()} -1\n")
    if end == "raises":
        raise ValueError("a bug")
    if end == "dies once" and not (folder / "died").exists():
        (folder / "died").touch()
        os._exit(1)
    if end == "dies":
        os._exit(1)
    outcomes: dict[str, Any] = {
        "none": None,
        "nan": {"worst_attack_accuracy": float("nan")},
        "absent": {"episodes": 1.0},
    }
    if end == "nothing":
        return {"done": True}
    return {"outcome": json.dumps(outcomes.get(end, {"worst_attack_accuracy": 0.5})), "done": True}


def spec(number: int, end: str) -> TrialSpec:
    """A trial whose knob says how to end."""
    return TrialSpec(
        study="s",
        constraints=Constraints().flat(),
        trial=f"{number} {end}",
        attempt=0,
        defense="noise",
        knobs={"end": end},
        attackers=(),
        scenes=(),
        root="unused",
        data_root=None,
    )


def listening(pids: list[int]) -> list[str]:
    """Local addresses (hexadecimal) on which these processes accept connections, IPv4 and IPv6."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                found.append(fields[1].partition(":")[0])
    return found


def main() -> None:
    resources = Resources(workers=0, concurrent=2)
    plan = plan_ray("local")
    from simulated import descendants

    from study.executors.ray_executor import RayExecutor, start_ray

    start_ray(plan)
    executor = RayExecutor(resources, plan)
    executor.trainable = trainable
    queue, heard = [spec(i, end) for i, end in enumerate(ENDS)], list[tuple[str, Any, str | None]]()
    executor.search(
        len(queue),
        lambda: queue.pop(0) if queue else None,
        lambda spec, end: heard.append(
            (spec.trial, None, end.message) if isinstance(end, TrialFailure) else (spec.trial, end, None)
        ),
    )
    addresses = listening([os.getpid(), *descendants(os.getpid())])
    executor.close()
    running = most = 0
    starts: Counter[int] = Counter()
    for line in sorted((Path(os.environ["HOME"]) / "spans").read_text().splitlines()):
        step = int(line.split()[1])
        running += step
        starts[step] += 1
        most = max(most, running)
    home = [str(p.relative_to(os.environ["HOME"])) for p in Path(os.environ["HOME"]).rglob("*token*")]
    json.dump(
        {"heard": heard, "most": most, "starts": starts[1], "addresses": addresses, "tokens": home},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
