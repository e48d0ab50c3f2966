"""A lease in the study's storage makes sure that at most one driver runs a study.

The lease works alike on a disk, over NFS and in an object store, because it needs only that a written file
appears in listings. A driver first writes its own claim, then lists all claims. If it finds another live
claim, it withdraws its own, so that of two drivers that start together at most one continues. The holder
renews its claim every few seconds.

A claim is ignored, so that a killed driver blocks nobody, in three cases: its process no longer runs (on the
same machine); it did not change while this driver watched it for a minute; no driver can have written it.
Only this driver's own clock is used, as the clocks of other machines may be wrong.
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
from study.runtime.watchdog import add_last_resort, drop_last_resort

log = logging.getLogger(__name__)

RENEW_S, STALE_S = 10.0, 60.0
"""The holder renews its claim this often; a claim that did not change for ``STALE_S`` is ignored."""
ROUNDS = 8
"""How often two drivers that start at the same time withdraw their claims and try again."""
ASKING, HOLDING = "asking", "holding"
ALIVE = "alive"
"""Stands for the start time of a running process whose start time cannot be read."""
MAX_CLAIM_BYTES = 2**16
_NAME = re.compile(r"/[\w-]+\.json\Z")


class Lease:
    """The exclusive right to run a study, held inside a ``with`` block.

    Attributes:
        lost: why this driver has lost the lease; None while it holds it.

    Raises:
        ConfigError: on entering, if another driver holds the lease; the message names its process and start.
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
        self._quick = copy.copy(storage)  # without retries: the next renewal follows in a few seconds
        self._quick.patience_s = 0.0
        self.renew_s, self.stale_s, self._say = renew_s, stale_s, say
        self.lost: str | None = None
        self._folder = f"{study}/drivers"
        self._name = f"{self._folder}/{uuid.uuid4().hex}.json"
        self._watch = ClaimWatch(stale_s)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._claim: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": machine_id(),
            "born": start_time(os.getpid()),
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
        add_last_resort(self._let_go)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        drop_last_resort(self._let_go)
        self._thread.join(timeout=60)
        self._withdraw()

    def _let_go(self) -> None:
        self._stop.set()
        self._withdraw()

    def _withdraw(self) -> None:
        self._remove(self._quick, self._name)
        folder = self.storage.local_path(self._folder)
        for empty in () if folder is None else (folder, folder.parent):
            try:
                empty.rmdir()  # a study that was refused leaves no empty folders
            except OSError:
                break

    @staticmethod
    def _remove(storage: Storage, name: str) -> None:
        try:
            storage.delete(name)
        except StorageError as error:  # harmless: other drivers ignore the claim once it is stale
            log.warning("%s", error)

    def _write(self, state: str, storage: Storage | None = None) -> None:
        """Write the claim with a new counter, so that other drivers see it change."""
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

    def _others(self, storage: Storage) -> tuple[list[OtherClaim], list[str]]:
        """The claims of other drivers that may be running, and the names of claims that are void."""
        live, dead = [], []
        # Read before asking for the times: NFS updates a file's times when the file is opened.
        found = {
            n: _claim(storage, n) for n in storage.names(self._folder) if _NAME.search(n) and n != self._name
        }
        times = storage.modified(self._folder) if found else {}
        for name, data in found.items():
            if data is None:  # withdrawn after the listing
                continue
            claim = read_claim(data)
            lives = self._watch.alive(name, data, times.get(name))
            if claim is not None and claim["machine"] == self._claim["machine"]:
                here = is_running(claim["pid"], claim["born"])
                lives = lives if here is None else here
            if claim is None or lives is False:
                dead.append(name)
            else:
                live.append(OtherClaim(name, claim, lives is True))
        return live, dead

    def _renew(self) -> None:
        while not self._stop.wait(self.renew_s):
            try:
                self._renew_once()
                holders = [o.claim for o in self._others(self._quick)[0] if o.claim["state"] == HOLDING]
            except FileNotFoundError:
                self._lose("its claim was removed")
                return
            except OSError as error:  # storage unreachable; no other driver can take the lease there either
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
        except StorageError:  # on a full disk the modification time can still be changed
            self._quick.touch(self._name)

    def _lose(self, reason: str) -> None:
        """Interrupt this driver as Ctrl-C would, so that two drivers do not run the study."""
        if self._stop.is_set():
            return
        self.lost = (
            f"study {self.study!r} is no longer this driver's ({reason}, after its storage was out of reach)"
        )
        signals.interrupt_main_thread()


@dataclass(frozen=True)
class OtherClaim:
    """Another driver's claim. ``alive``: its driver is known to run; if False, that is not known yet."""

    name: str
    claim: dict[str, Any]
    alive: bool


class ClaimWatch:
    """Observes which claims are renewed, by this process's own clock: other clocks may be wrong.

    Args:
        stale_s: a claim that did not change for this many seconds is stale.
    """

    def __init__(self, stale_s: float) -> None:
        self._stale_s = stale_s
        self._seen: dict[str, tuple[bytes, float | None, float]] = {}

    def alive(self, name: str, data: bytes, modified: float | None) -> bool | None:
        """True: the claim changed since the last look. False: it is stale. None: not known yet."""
        now = time.monotonic()
        before = self._seen.get(name)
        if before is None or before[:2] != (data, modified):
            self._seen[name] = (data, modified, now)
            return None if before is None else True
        return False if now - before[2] > self._stale_s else None


def _claim(storage: Storage, name: str) -> bytes | None:
    """The bytes of a claim, None if it is gone, b'' if it is too large or no regular file."""
    try:
        return storage.read(name, MAX_CLAIM_BYTES)
    except UnfitError:
        return b""


def read_claim(data: bytes) -> dict[str, Any] | None:
    """The claim in a file, None if no driver can have written the file."""
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


def machine_id() -> str:
    """Identifies the machine, boot and process namespace, in which process ids can be compared."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append(str(uuid.getnode()))
    return " ".join(parts)


def start_time(pid: int) -> str | None:
    """When a process of this machine started (clock ticks since boot), None if it ended or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # there is no /proc, or it hides other accounts' processes
        return ALIVE if _exists(pid) else None
    return None if fields[0] in ("Z", "X") else fields[19]


def is_running(pid: int, began: str) -> bool | None:
    """Whether the process with this id and start time runs; None: a process runs, but perhaps another one."""
    now = start_time(pid)
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
