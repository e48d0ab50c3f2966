"""One driver a study: a lease in the study's storage, alike on a disk, over NFS and in an object store.

A driver first leaves a claim of its own, then looks at the others. Whoever sees another claim steps back, so
that of two that start at once at most one goes on; all that is asked of the storage is that what was written
can be listed. The holder renews its claim every few seconds. A claim whose process is gone (same machine),
that did not change while it was watched for a while (by the watcher's clock: that of another machine, or of a
storage, may say anything), or that no driver can have written counts for nothing: a driver that was killed
blocks nobody.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mipoison.config import ConfigError
from mipoison.storage.files import Storage, StorageError, UnfitError
from study.records.store import check_name
from study.runtime import signals

log = logging.getLogger(__name__)

RENEW_S, STALE_S = 10.0, 60.0
"""A claim is renewed that often, and ignored once it was watched for that long without a change."""
ROUNDS = 8
"""Times that a driver which met another one at the start steps back and tries again."""
ASKING, HOLDING = "asking", "holding"
ALIVE = "alive"
"""Of a process whose beginning cannot be told."""
MAX_CLAIM_BYTES = 2**16
_NAME = re.compile(r"/[\w-]+\.json\Z")


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
        self._watch = Watch(stale_s)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._claim: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": machine(),
            "born": born(os.getpid()),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "renewed": 0,
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
        self._remove(self._quick, self._name)
        folder = self.storage.local_path(self._folder)
        for empty in () if folder is None else (folder, folder.parent):
            try:
                empty.rmdir()  # a refused study leaves nothing
            except OSError:
                break

    @staticmethod
    def _remove(storage: Storage, name: str) -> None:
        try:
            storage.delete(name)
        except StorageError as error:  # it counts for nothing all the same, or goes stale by itself
            log.warning("%s", error)

    def _write(self, state: str, storage: Storage | None = None) -> None:
        """The claim, never twice the same: that it changes tells others that this driver lives."""
        self._claim |= {"state": state, "renewed": self._claim["renewed"] + 1}
        (storage or self.storage).write(self._name, json.dumps(self._claim, indent=2).encode())

    def _acquire(self) -> None:
        told = False
        patience = time.monotonic() + self.stale_s + 2 * self.renew_s
        meetings = 0
        while True:
            self._write(ASKING)
            others, dead = self._others(self.storage)
            if not others:
                self._write(HOLDING)
                for name in dead:
                    self._remove(self.storage, name)
                return
            self.storage.delete(self._name)
            first = max(others, key=lambda o: (o.claim["state"] == HOLDING, o.alive))
            asking = first.claim["state"] == ASKING
            meetings += asking and first.alive
            if meetings >= ROUNDS or time.monotonic() > patience or (first.alive and not asking):
                raise ConfigError(self._refusal(first.claim))
            if not told and not asking:
                self._say(
                    f"study {self.study!r} was driven by process {first.claim['pid']} on "
                    f"{first.claim['host']}; waiting up to {self.stale_s:.0f} s to see whether that driver "
                    "is alive"
                )
                told = True
            time.sleep(random.SystemRandom().uniform(0.1, 1.0) if asking else min(self.renew_s / 2, 2.0))

    def _refusal(self, claim: dict[str, Any]) -> str:
        return (
            f"study {self.study!r} in {self.storage.root} is being run by process {claim['pid']} on "
            f"{claim['host']} since {claim['since']}: wait for it, "
            "stop it and use --resume, or choose another --name"
        )

    def _others(self, storage: Storage) -> tuple[list[Other], list[str]]:
        """Claims of others that may live, and names of dead ones."""
        live, dead = [], []
        # Read first: over NFS, opening a file is what makes its times up to date.
        found = {
            n: _claim(storage, n) for n in storage.names(self._folder) if _NAME.search(n) and n != self._name
        }
        times = storage.modified(self._folder) if found else {}
        for name, data in found.items():
            if data is None:  # withdrawn meanwhile
                continue
            claim = read_claim(data)
            lives = self._watch.alive(name, data, times.get(name))
            if claim is not None and claim["machine"] == self._claim["machine"]:
                here = runs(claim["pid"], claim["born"])
                lives = lives if here is None else here
            if claim is None or lives is False:
                dead.append(name)
            else:
                live.append(Other(name, claim, lives is True))
        return live, dead

    def _renew(self) -> None:
        while not self._stop.wait(self.renew_s):
            try:
                self._renew_once()
                holders = [o.claim for o in self._others(self._quick)[0] if o.claim["state"] == HOLDING]
            except FileNotFoundError:
                self._lose("its claim was removed")
                return
            except OSError as error:  # the storage is away; nobody else can take the study from there either
                log.warning("lease of study %s: %s", self.study, error)
                continue
            if holders:
                self._lose(f"process {holders[0]['pid']} on {holders[0]['host']} took it over")
                return

    def _renew_once(self) -> None:
        if self._quick.read(self._name) is None:
            raise FileNotFoundError(self._name)
        try:
            self._write(HOLDING, self._quick)
        except StorageError:  # a full disk has room for a new time
            self._quick.touch(self._name)

    def _lose(self, reason: str) -> None:
        """Stop the driver as Ctrl-C would: two drivers must not go on."""
        if self._stop.is_set():
            return
        self.lost = (
            f"study {self.study!r} is no longer this driver's ({reason}, after its storage was out of reach)"
        )
        signals.interrupt_main_thread()


@dataclass(frozen=True)
class Other:
    """Another driver's claim; ``alive``: it is known to live, else that remains to be seen."""

    name: str
    claim: dict[str, Any]
    alive: bool


class Watch:
    """Tells by this process's own clock which claims are renewed; other clocks may say anything.

    Args:
        stale_s: a claim that did not change for so long is nobody's.
    """

    def __init__(self, stale_s: float) -> None:
        self._stale_s = stale_s
        self._seen: dict[str, tuple[bytes, float | None, float]] = {}

    def alive(self, name: str, data: bytes, modified: float | None) -> bool | None:
        """True: it changed since it was last seen. False: not for too long. None: that is not known yet."""
        now = time.monotonic()
        before = self._seen.get(name)
        if before is None or before[:2] != (data, modified):
            self._seen[name] = (data, modified, now)
            return None if before is None else True
        return False if now - before[2] > self._stale_s else None


def _claim(storage: Storage, name: str) -> bytes | None:
    """A claim's bytes; of what is none, and of any size, nothing but that it is there."""
    try:
        return storage.read(name, MAX_CLAIM_BYTES)
    except UnfitError:
        return b""


def read_claim(data: bytes) -> dict[str, Any] | None:
    """A claim as a driver wrote it, None if it is anything else."""
    try:
        claim = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(claim, dict):
        return None
    texts = [claim.get(key) for key in ("host", "machine", "born", "since")]
    sound = (
        all(isinstance(text, str) and text.isprintable() for text in texts)
        and type(claim.get("pid")) is int
        and 0 < claim["pid"] < 2**31
        and claim.get("state") in (ASKING, HOLDING)
    )
    return claim if sound else None


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
    except (
        OSError
    ):  # no /proc, or one that hides other accounts' processes: that it lives is all one can tell
        return ALIVE if _exists(pid) else None
    return None if fields[0] in ("Z", "X") else fields[19]


def runs(pid: int, began: str) -> bool | None:
    """Whether a process of this machine that began then is there; None: one is, perhaps another."""
    now = born(pid)
    if now == ALIVE or (now is not None and began == ALIVE):
        return None
    return now is not None and now == began


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
