"""The blocks for proxies in the page on serving, run in the proxies themselves where these are installed."""

from __future__ import annotations

import contextlib
import getpass
import http.client
import json
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from running_server import NPY, ONE, free_port, running

from study.serving.budget import QueryBudget
from study.serving.door import Door, networks

PAGE = Path(__file__).parents[3] / ".docs" / "pages" / "serving.md"
OTHERS = "    location = /metrics { deny all; }\n", "    respond /metrics 403\n"
"""What the page says of metrics, one a proxy."""
CLIENT, FRESH = "127.0.0.3", "127.0.0.4"
"""From which clients ask, and one that has spent nothing; proxies ask from 127.0.0.1, which is trusted."""


@dataclass(frozen=True)
class Proxied:
    """A server behind a proxy: the proxy's port, and where the server counts its clients' queries."""

    port: int
    certificate: Path
    budget: QueryBudget

    def ask(
        self, path: str = "/release", body: bytes | None = ONE, client: str = CLIENT, **headers: str
    ) -> tuple[int, bytes]:
        """Status and body of an answer over TLS, whose certificate is checked; 0 if there was none."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        sent = {"Content-Type": NPY, **{name.replace("_", "-"): value for name, value in headers.items()}}
        with contextlib.closing(
            http.client.HTTPSConnection(
                "localhost", self.port, timeout=20, context=context, source_address=(client, 0)
            )
        ) as connection:
            try:
                connection.request("GET" if body is None else "POST", path, body, sent)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                return 0, b""  # closed while the body was sent


def block(start: str) -> str:
    """The documented block that begins so, with the line on metrics in it."""
    (found,) = [
        b for b in re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL) if b.startswith(start)
    ]
    line = OTHERS[0] if start.startswith("server") else OTHERS[1]
    assert line.strip() in PAGE.read_text()
    return found.rstrip().removesuffix("}") + line + "}\n"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of localhost that nobody else trusts, and its key."""
    pem, key = folder / "api.example.org.pem", folder / "api.example.org.key"
    words = (
        "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    command = ["openssl", *words.split(), "-out", str(pem), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return pem, key


def nginx(folder: Path, port: int, upstream: int) -> list[str]:
    """The command of nginx with the documented server and nothing else."""
    server = block("server {")
    for documented, here in (
        ("443 ssl", f"127.0.0.1:{port} ssl"),
        ("api.example.org;", "localhost;"),
        ("/etc/ssl/", f"{folder}/"),
        ("127.0.0.1:8000", f"127.0.0.1:{upstream}"),
    ):
        assert documented in server
        server = server.replace(documented, here)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = f"user {getpass.getuser()};" if getpass.getuser() == "root" else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/errors;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{server}\n}}\n"
    )
    return ["nginx", "-c", str(file), "-p", str(folder), "-e", str(folder / "errors")]


def caddy(folder: Path, port: int, upstream: int) -> list[str]:
    """The command of Caddy with the documented site; the certificate is ours, as no authority is asked."""
    site = block("api.example.org {")
    tls = f"    tls {folder}/api.example.org.pem {folder}/api.example.org.key\n    bind 127.0.0.1\n"
    site = site.replace("api.example.org {\n", f"https://localhost:{port} {{\n{tls}")
    assert "127.0.0.1:8000" in site
    site = site.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")
    file = folder / "Caddyfile"
    options = (
        "{\n    admin off\n    auto_https off\n    storage file_system " + str(folder / "store") + "\n}\n"
    )
    file.write_text(options + site)
    return ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"]


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    make: Callable[[Path, int, int], list[str]] = request.param
    for needed in (make.__name__, "openssl"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    folder, port = tmp_path_factory.mktemp(make.__name__), free_port()
    folder.chmod(0o755)
    pem, _ = certificate(folder)
    budget = QueryBudget(folder / "queries.sqlite", 5)
    door = Door(budget=budget, proxies=networks(["127.0.0.1"]))
    with running(door=door) as upstream, open(folder / "said", "wb") as said:
        proxy = subprocess.Popen(
            make(folder, port, upstream),
            stdout=said,
            stderr=said,
            env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        try:
            found = Proxied(port, pem, budget)
            until = time.monotonic() + 20
            while time.monotonic() < until and proxy.poll() is None:
                if found.ask("/health", None)[0] == 200:
                    break
                time.sleep(0.1)
            else:
                pytest.fail((folder / "said").read_text() + (folder / "errors").read_text())
            yield found
        finally:
            proxy.terminate()
            proxy.wait(20)


def test_answers_come_through(proxied: Proxied) -> None:
    status, body = proxied.ask(X_Forwarded_For="198.51.100.1")
    assert status == 200
    assert json.loads(body)["released"] == [[0.25, 0.75]]
    assert proxied.ask("/health", None)[0] == 200


def test_nobody_gets_another_client_s_budget_by_naming_it(proxied: Proxied) -> None:
    """Whatever the client writes on the left, the proxy adds its address on the right: one budget for all."""
    statuses = [proxied.ask(X_Forwarded_For=f"203.0.113.{i}")[0] for i in range(8)]
    assert 429 in statuses
    assert proxied.ask(X_Forwarded_For="203.0.113.77")[0] == 429


def test_metrics_stay_inside(proxied: Proxied) -> None:
    assert proxied.ask("/metrics", None)[0] == 403


def test_bodies_beyond_the_bound_are_refused(proxied: Proxied) -> None:
    """By the proxy: with 413, or 502 or a closed connection where it stopped while it passed the body on."""
    assert proxied.ask(body=b"\0" * (9 * 2**20), client=FRESH)[0] in (413, 502, 400, 0)
    assert proxied.ask("/health", None)[0] == 200
