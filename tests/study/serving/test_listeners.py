"""Where the server listens: where it was told to; a taken port is one line."""

from __future__ import annotations

import os
import socket

import pytest
from worst_bodies import SHAPE

from mipoison.config import ConfigError
from study.serving.http_server import HttpServer
from study.serving.listeners import listeners


def test_a_taken_port_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{number}"):
            HttpServer("127.0.0.1", number, image_shape=SHAPE, n_classes=2, couples=False, max_batches=1)


def test_it_listens_where_it_was_told_to_and_nowhere_else(port: int) -> None:
    mine = [(heard.address, heard.port) for heard in listeners(os.getpid()) if heard.pid == os.getpid()]
    assert ("127.0.0.1", port) in mine
    assert all(heard.on_loopback for heard in listeners(os.getpid()))
    with socket.socket() as open_to_all:
        open_to_all.bind(("0.0.0.0", 0))
        open_to_all.listen()
        (found,) = (heard for heard in listeners(os.getpid()) if not heard.on_loopback)
        assert (found.address, found.port) == ("0.0.0.0", open_to_all.getsockname()[1])
