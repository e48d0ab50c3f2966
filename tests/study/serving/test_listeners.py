"""Where the server listens: where it was told to; a taken port is one line."""

from __future__ import annotations

import _thread
import os
import socket

import pytest
from running_server import free_port, mean
from worst_bodies import SHAPE

from mipoison.config import ConfigError
from study.serving.http_server import HttpServer
from study.serving.listeners import listeners, listening


def server(port: int) -> HttpServer:
    return HttpServer("127.0.0.1", port, image_shape=SHAPE, n_classes=2, couples=False, max_batches=1)


def test_a_taken_port_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{number}: .* with --port$"):
            server(number)


def test_of_two_servers_on_one_port_the_second_is_refused_before_either_has_started() -> None:
    number = free_port()
    first = server(number)
    try:
        with pytest.raises(ConfigError, match="choose a free one with --port"):
            server(number)
    finally:
        first.stop(1)
    server(number).stop(1)


def test_a_server_that_fails_as_it_starts_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not interrupt the process, which has yet to say why."""
    monkeypatch.setattr(_thread, "interrupt_main", lambda: pytest.fail("interrupted"))
    failing = server(free_port())
    failing._socket.close()
    try:
        with pytest.raises(RuntimeError, match="failed as it started"):
            failing.start(mean, lambda: "")
    finally:
        failing.stop(1)


def test_an_address_of_no_machine_names_the_host_option() -> None:
    with pytest.raises(ConfigError, match="--host"):
        listening("192.0.2.1", free_port())


def test_it_listens_where_it_was_told_to_and_nowhere_else(port: int) -> None:
    mine = [(heard.address, heard.port) for heard in listeners(os.getpid()) if heard.pid == os.getpid()]
    assert ("127.0.0.1", port) in mine
    assert all(heard.on_loopback for heard in listeners(os.getpid()))
    with socket.socket() as open_to_all:
        open_to_all.bind(("0.0.0.0", 0))
        open_to_all.listen()
        (found,) = (heard for heard in listeners(os.getpid()) if not heard.on_loopback)
        assert (found.address, found.port) == ("0.0.0.0", open_to_all.getsockname()[1])
