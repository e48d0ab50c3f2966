"""An object store on loopback: moto's S3 server in its own process, with one bucket; it can be paused.

``python buckets.py LOG`` prints the port that it found, and writes a line for each request to the log.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from pyarrow import fs

from mipoison.storage.files import Storage

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIATESTKEYID0000001",
    "AWS_SECRET_ACCESS_KEY": "test/secret+key/0123456789",
}


class Bucket:
    """A bucket; ``uri`` is the storage root for a study."""

    def __init__(self) -> None:
        self._log = tempfile.NamedTemporaryFile("r", suffix=".log")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, __file__, self._log.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.uri = self.at("studies")

    def at(self, prefix: str, bucket: str = "bucket") -> str:
        """Another root in the same store."""
        return f"s3://{bucket}/{prefix}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def requests(self, prefix: str) -> Counter[tuple[str, str]]:
        """(method, kind of file) -> requests below a prefix so far; kind: folder, or name without hash."""
        counts: Counter[tuple[str, str]] = Counter()
        self._log.seek(0)
        for line in self._log:
            method, path, query = line.rstrip("\n").split(" ")
            if "list-type" in query:
                method, path = "LIST", "/bucket/" + dict(parse_qsl(query)).get("prefix", "")
            below = path.removeprefix(f"/bucket/{prefix}/")
            if below != path:
                parts = below.rstrip("/").split("/")
                kind = parts[1] if len(parts) > 1 else parts[0]
                counts[method, re.sub(r"-[0-9a-f]{32}$", "", kind)] += 1
        return counts

    def pause(self, seconds: float) -> None:
        """Stop answering for a while; connections hang."""
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
        self._log.close()


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
    application = DomainDispatcherApplication(create_backend_app)

    def logged(environ: dict[str, Any], answer: Any) -> Any:
        with open(sys.argv[1], "a") as log:  # a short line is written in one piece
            print(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], file=log)
        return application(environ, answer)

    server = make_server("127.0.0.1", 0, logged, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
