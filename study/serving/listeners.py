"""Opens the server's port; lists those on which a process and its descendants listen (``/proc`` of Linux)."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from mipoison.config import ConfigError

_LISTEN = "0A"
_PROC = Path("/proc")
_REMEDIES = {
    errno.EADDRINUSE: ": choose a free one with --port",
    errno.EACCES: ": choose one from 1024 on with --port",
    errno.EADDRNOTAVAIL: ": choose an address of this machine with --host",
}


@dataclass(frozen=True, order=True)
class Listener:
    """A listening socket.

    Attributes:
        process: name of the process that holds it.
    """

    address: str
    port: int
    pid: int
    process: str

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        found = ipaddress.ip_address(self.address)
        mapped = getattr(found, "ipv4_mapped", None)
        return (mapped or found).is_loopback


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, so that nobody else can have the port; whoever connects waits to be answered.

    To be bound is not enough: of two servers that start at once, both could bind the port.

    Raises:
        ConfigError: the port is taken or not permitted, or the address is not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "")
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}{remedy}") from error
    return listener


def listeners(pid: int) -> list[Listener]:
    """Listening TCP sockets of a process and all its descendants; empty without ``/proc``."""
    sockets = _sockets()
    found = set()
    for member in process_tree(pid):
        with contextlib.suppress(OSError):  # it ended
            command = (_PROC / str(member) / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            name = command.rpartition("/")[2]  # not comm: that is cut after 15 characters
            for link in (_PROC / str(member) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if (address := sockets.get(os.readlink(link))) is not None:
                        found.add(Listener(*address, member, name))
    return sorted(found)


def process_tree(pid: int) -> list[int]:
    """The ids of a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it ended
            # The name is in brackets and may hold any character; the parent is the second field after it.
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    out = [pid]
    for member in out:  # grows while it is iterated
        out.extend(children.get(member, []))
    return out


def _sockets() -> dict[str, tuple[str, int]]:
    """Target of a link in ``/proc/PID/fd`` -> address and port, for every listening socket."""
    out = {}
    for table in ("tcp", "tcp6"):
        path = _PROC / "net" / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == _LISTEN:
                address, _, port = fields[1].partition(":")
                # Words of four bytes each, in the machine's own order: little-endian on x86 and ARM.
                raw = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8))
                out[f"socket:[{fields[9]}]"] = (str(ipaddress.ip_address(raw)), int(port, 16))
    return out
