"""One driver a study: a lease in the study's storage, alike on a disk, over NFS and in an object store.

A driver first leaves a claim of its own, then looks at the others. Whoever sees another claim steps back, so
that of two that start at once at most one goes on; all that is asked of the storage is that what was written
can be listed. The holder renews its claim every few seconds. A claim whose process is gone (same machine) or
that was not renewed for a while (by the storage's own clock) counts for nothing: a driver that was killed
blocks nobody.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import random
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mipoison.config import ConfigError
from mipoison.storage import Storage, StorageError
from study.records import check_name

log = logging.getLogger(__name__)

RENEW_S, STALE_S = 10.0, 60.0
"""A claim is renewed that often, and ignored once it is that old."""
ROUNDS = 8
"""Times that a driver which met another one at the start steps back and tries again."""
ASKING, HOLDING = "asking", "holding"


class Lease:
    """The right to drive a study, as a context.

    Attributes:
        lost: why this driver no longer holds it, None while it does.

    Raises:
        ConfigError: on entering, if another driver holds it: who, since when, what to do.
    """

    def __init__(
        self,
        storage: Storage,
        study: str,
        *,
        renew_s: float = RENEW_S,
        stale_s: float = STALE_S,
        say: Callable[[str], None] = log.warning,
    ) -> None:
        self.storage, self.study = storage, check_name(study)
        self._quick = copy.copy(storage)  # what is renewed every few seconds need not be waited for
        self._quick.patience_s = 0.0
        self.renew_s, self.stale_s, self._say = renew_s, stale_s, say
        self.lost: str | None = None
        self._folder = f"{study}/drivers"
        self._name = f"{self._folder}/{uuid.uuid4().hex}.json"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._claim = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": machine(),
            "born": born(os.getpid()),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def __enter__(self) -> Self:
        try:
            self._acquire()
        except BaseException:
            self._withdraw()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=60)
        self._withdraw()

    def _withdraw(self) -> None:
        try:
            self._quick.delete(self._name)
        except StorageError as error:  # it goes stale by itself
            log.warning("%s", error)
        folder = self.storage.local_path(self._folder)
        for empty in () if folder is None else (folder, folder.parent):
            try:
                empty.rmdir()  # a refused study leaves nothing
            except OSError:
                break

    def _write(self, state: str) -> None:
        self.storage.write(self._name, json.dumps(self._claim | {"state": state}, indent=2).encode())

    def _acquire(self) -> None:
        told = False
        patience = time.monotonic() + self.stale_s + 2 * self.renew_s
        meetings = 0
        seen: dict[str, float] = {}
        while True:
            self._write(ASKING)
            others, stale = self._others(self.storage)
            if not others:
                self._write(HOLDING)
                for name in stale:
                    self.storage.delete(name)
                return
            self.storage.delete(self._name)
            name, claim, age, renewed = max(others, key=lambda o: o[1].get("state") == HOLDING)
            if claim.get("state") == ASKING:
                meetings += 1
                if meetings < ROUNDS:
                    time.sleep(random.SystemRandom().uniform(0.1, 1.0))
                    continue
            # A process of this machine is known to live; of another one, a renewed claim tells.
            alive = claim.get("machine") == self._claim["machine"] or renewed > seen.setdefault(name, renewed)
            if alive or meetings >= ROUNDS or time.monotonic() > patience:
                raise ConfigError(self._refusal(claim, age))
            if not told:
                self._say(
                    f"study {self.study!r} was driven by process {claim.get('pid')} on {claim.get('host')} "
                    f"{age:.0f} s ago; waiting up to {self.stale_s:.0f} s to see whether that driver is alive"
                )
                told = True
            time.sleep(min(self.renew_s / 2, 2.0))

    def _refusal(self, claim: dict[str, Any], age: float) -> str:
        return (
            f"study {self.study!r} in {self.storage.root} is being run by process {claim.get('pid')} on "
            f"{claim.get('host')} since {claim.get('since')} (seen {max(age, 0):.0f} s ago): wait for it, "
            "stop it and use --resume, or choose another --name"
        )

    def _others(self, storage: Storage) -> tuple[list[tuple[str, dict[str, Any], float, float]], list[str]]:
        """Live claims of others (name, content, age in seconds, time of renewal); names of dead ones."""
        times = storage.modified(self._folder)
        now = times.get(self._name, max(times.values(), default=0.0))
        live, dead = [], []
        for name, renewed in times.items():
            if name == self._name:
                continue
            data = storage.read(name)
            if data is None:
                continue
            try:
                claim = json.loads(data)
            except ValueError:
                claim = None
            claim = claim if isinstance(claim, dict) else {}
            here = claim.get("machine") == self._claim["machine"]
            runs = here and born(int(claim.get("pid") or 0)) == claim.get("born")
            age = now - renewed
            if runs or (not here and age <= self.stale_s):
                live.append((name, claim, age, renewed))
            else:
                dead.append(name)
        return live, dead

    def _renew(self) -> None:
        while not self._stop.wait(self.renew_s):
            try:
                self._quick.touch(self._name)
                holders = [
                    claim for _, claim, _, _ in self._others(self._quick)[0] if claim.get("state") == HOLDING
                ]
            except FileNotFoundError:
                self._lose("its claim was removed")
                return
            except OSError as error:  # the storage is away; nobody else can take the study from there either
                log.warning("lease of study %s: %s", self.study, error)
                continue
            if holders:
                self._lose(f"process {holders[0].get('pid')} on {holders[0].get('host')} took it over")
                return

    def _lose(self, reason: str) -> None:
        """Stop the driver as Ctrl-C would: two drivers must not go on."""
        if self._stop.is_set():
            return
        self.lost = (
            f"study {self.study!r} is no longer this driver's ({reason}, after its storage was out of reach)"
        )
        os.kill(os.getpid(), signal.SIGINT)


def machine() -> str:
    """What tells apart the machines, boots and process namespaces in which a process id means something."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append(str(uuid.getnode()))
    return " ".join(parts)


def born(pid: int) -> str | None:
    """When a process of this machine began (clock ticks since boot), None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists() or pid <= 0:
            return None
        try:  # no /proc: that it lives is all that can be told
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "alive"
    return None if fields[0] in ("Z", "X") else fields[19]
