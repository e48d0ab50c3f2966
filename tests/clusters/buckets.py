"""An object store on loopback: moto's S3 in a process of its own, with one bucket, that can be paused.

``python buckets.py`` prints the port that it found.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from mipoison.storage import Storage

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIATESTKEYID0000001",
    "AWS_SECRET_ACCESS_KEY": "test/secret+key/0123456789",
}


class Bucket:
    """``uri`` is the root that a study is given."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.uri = self.at("studies")

    def at(self, prefix: str, bucket: str = "bucket") -> str:
        """Another root in the same store."""
        return f"s3://{bucket}/{prefix}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def pause(self, seconds: float) -> None:
        """Answers nothing for a while; connections hang."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def fetch(self, target: Path, uri: str | None = None) -> Path:
        """Copy everything below a root into a folder, as ``aws s3 sync`` does."""
        storage = Storage(uri or self.uri)
        fs.copy_files(storage._path, str(target), source_filesystem=storage._fs)
        return target

    def close(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)
        self.process.kill()
        self.process.wait(timeout=30)


@contextmanager
def bucket() -> Iterator[Bucket]:
    """A running store."""
    server = Bucket()
    try:
        yield server
    finally:
        server.close()


def main() -> None:
    import logging

    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket("bucket", "us-east-1")
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
