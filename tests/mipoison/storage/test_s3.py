"""Where an s3:// root leads: URIs, credentials, servers that are not there, errors that pass."""

from __future__ import annotations

import http.server
import socket
import threading
import time

import pytest
from buckets import KEYS, Bucket

from mipoison.config import ConfigError
from mipoison.storage.files import Storage, StorageError

# ---------------------------------------------------------------- URIs


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIAXXXX:hunter2@bucket/x",
        "s3://hunter2@bucket/x",
        "s3://bucket/x?access_key=a&secret_key=hunter2",
        "s3://bucket/x?session_token=hunter2",
        "s3://bucket/x?endpoint_override=localhost:1&Password=hunter2",
        "hdfs://user:hunter2@host/x",
    ],
)
def test_credentials_in_the_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigError, match="no credentials in the URI") as caught:
        Storage(uri)
    assert "hunter2" not in str(caught.value)
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)


def test_credentials_in_the_endpoint_s_variable_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hunter2@localhost:1")
    with pytest.raises(ConfigError, match="no credentials in the URI") as caught:
        Storage("s3://bucket/x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://bucket/x?endpoint=localhost:1", "endpoint=localhost:1: choose from endpoint_override, region"),
        ("s3://bucket/x?region=", "query parameter region="),
        ("s3://bucket/x?endpoint_override=localhost:1&scheme=ftp", "scheme=ftp: choose from http, https"),
        ("s3://bucket/../x?region=us-east-1", "plain names"),
        ("s3://bucket/a//x?region=us-east-1", "plain names"),
        ("s3://", "names no bucket"),
    ],
)
def test_uris_that_are_not_understood(uri: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Storage(uri)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_endpoint_of_the_environment_travels_in_the_root(
    server: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    storage = Storage("s3://bucket/by-variable/")
    storage.write("a", b"x")
    query = f"endpoint_override=127.0.0.1:{server.port}&region=eu-central-1&scheme=http"
    assert storage.root == f"s3://bucket/by-variable?{query}"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert Storage(storage.root).read("a") == b"x"
    assert Storage(server.at("by-variable")).read("a") == b"x"
    assert not any(value in storage.root for value in KEYS.values())


# ---------------------------------------------------------------- errors


def test_a_missing_bucket_fails_at_once(server: Bucket) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"cannot be written: .*NO_SUCH_BUCKET") as caught:
        Storage(server.at("x", bucket="nobucket")).check_writable()
    assert "Request ID" not in str(caught.value)
    assert time.monotonic() - began < 2.5


def test_no_access_fails_at_once() -> None:
    class Forbidden(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(403)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET = answer

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forbidden) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        storage = Storage(f"s3://bucket/x?endpoint_override=127.0.0.1:{web.server_port}&scheme=http")
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"cannot write a: .*ACCESS_DENIED"):
            storage.write("a", b"x")
        assert time.monotonic() - began < 2.5
        web.shutdown()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def test_a_server_that_is_not_there_is_waited_for_and_named(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    storage = Storage(f"s3://bucket/x?endpoint_override=127.0.0.1:{port}&scheme=http", patience_s=2)
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"cannot read a \(for \d+ s\): .*NETWORK_CONNECTION") as caught:
        storage.read("a")
    assert 2 <= time.monotonic() - began < 12
    assert "trying again for 2 s" in caplog.text
    assert "\n" not in str(caught.value)


def test_a_server_that_stops_for_a_while_is_waited_for(server: Bucket) -> None:
    storage = Storage(server.at("pause"), patience_s=60)
    thread = threading.Thread(target=server.pause, args=(4,))
    thread.start()
    time.sleep(0.3)
    storage.write("a", b"x")
    assert storage.read("a") == b"x"
    thread.join()
