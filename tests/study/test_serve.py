"""The served endpoint under load, run as a person would: good and broken requests, then a clean stop."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from under_attack import under_attack

from mipoison.defenses.lpa_amortised import LPAAmortisedConfig
from mipoison.scene import SceneConfig
from mipoison.serving.protect import fit_unit, load_unit, load_victim
from study import serve
from study.serving.listeners import listeners
from study.serving.request_parsing import MAX_BYTES, MAX_IMAGES

ROOT = Path(__file__).parents[2]
SECRET = "a secret for the tests"
START_S = 200
NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(196, 4))
"""
SHAPE = (1, 16, 16)


def write_unit(folder: Path) -> nn.Module:
    """A small classifier's module, weights and amortised unit below a folder; the classifier."""
    (folder / "served_net.py").write_text(NET)
    code: dict[str, object] = {}
    exec(NET, code)
    model: nn.Module = code["make"]().eval()  # type: ignore[operator]
    save_file(model.state_dict(), folder / "net.safetensors")
    x = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(2))
    unit = fit_unit(
        model, private=x[:30], public=x[30:], defense="lpa-amortised",
        config=LPAAmortisedConfig(budget=0.05, steps=5, batch=8),
        scale=SceneConfig(decoder_width=2, decoder_steps=5, decoder_batch=8), device="cpu",
    )  # fmt: skip
    unit.save(folder / "unit")
    return model


# ---------------------------------------------------------------------------------------- the command line


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        code = serve.main(arguments)
    except SystemExit as stop:  # tyro's own
        code = stop.code  # type: ignore[assignment]
    assert code == 2
    _, err = capsys.readouterr()
    assert "Traceback" not in err
    return err


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a unit as the current one; whatever starts Ray fails the test."""
    pytest.importorskip("ray.serve", reason="ray[serve] is not installed")
    monkeypatch.setattr(serve, "_steps", lambda *_: pytest.fail("Ray was started"))
    monkeypatch.setattr(serve, "plan_ray", lambda address: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_unit(tmp_path)
    yield tmp_path
    sys.modules.pop("served_net", None)


def test_bad_input_is_one_line(
    quiet: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = ["--victim", "served_net:make"]
    port = ["--port", str(free_port())]
    monkeypatch.delenv("MIPOISON_SECRET", raising=False)
    assert "no unit.json" in usage_error(capsys, "--unit", "none", *victim, *port)
    said = usage_error(capsys, "--unit", "unit", *victim, *port)
    assert "16 to 64 bytes" in said
    assert "MIPOISON_SECRET" in said
    monkeypatch.setenv("MIPOISON_SECRET", "hunter2")
    said = usage_error(capsys, "--unit", "unit", *victim, *port)
    assert "has 7 bytes" in said
    assert "hunter2" not in said
    monkeypatch.setenv("MIPOISON_SECRET", SECRET)
    assert "'served_nett'" in usage_error(capsys, "--unit", "unit", "--victim", "served_nett:make", *port)
    other = ["--victim", "torchvision.models:squeezenet1_1"]
    assert "another classifier" in usage_error(capsys, "--unit", "unit", *other, *port)
    assert "port = 0" in usage_error(capsys, "--unit", "unit", *victim, "--port", "0")
    assert "replicas = 0" in usage_error(capsys, "--unit", "unit", *victim, *port, "--replicas", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = str(taken.getsockname()[1])
        said = usage_error(capsys, "--unit", "unit", *victim, "--port", busy)
        assert "cannot listen on" in said
        assert "--port" in said


def test_ports_beyond_loopback_are_named() -> None:
    with socket.socket() as open_to_all:
        open_to_all.bind(("0.0.0.0", 0))
        open_to_all.listen()
        port = open_to_all.getsockname()[1]
        assert [line.split()[-1] for line in serve._beyond_loopback(1)] == [f"0.0.0.0:{port}"]
        assert serve._beyond_loopback(port) == []  # the endpoint's own: its address was asked for


def test_the_copies_listen_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's function is given another address; where Ray has none of that name, that is no error."""
    replica = pytest.importorskip("ray.serve._private.replica", reason="ray[serve] is not installed")
    from study.serving.endpoint import keep_to_loopback

    opened: list[str] = []
    monkeypatch.setattr(replica, "add_port_to_grpc_server", lambda server, address: opened.append(address))
    assert keep_to_loopback()
    replica.add_port_to_grpc_server(None, "[::]:0")
    assert opened == ["127.0.0.1:0"]
    monkeypatch.delattr(replica, "add_port_to_grpc_server")
    assert not keep_to_loopback()


# ----------------------------------------------------------------------------------------------- under load


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    folder: Path
    log: Path

    def ask(
        self, body: bytes | None, content_type: str, path: str = "/release", method: str = "POST"
    ) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": content_type})
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"{}")
        finally:
            connection.close()

    def healthy(self) -> bool:
        try:
            return self.ask(None, "", "/health", "GET")[0] == 200
        except (OSError, http.client.HTTPException, ValueError):
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The command line itself, with a home and temporary folder of its own (short: sockets lie below it)."""
    pytest.importorskip("ray.serve", reason="ray[serve] is not installed")
    with tempfile.TemporaryDirectory(prefix="mip", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_unit(folder)
        port, log = free_port(), folder / "log"
        drop = ("RAY_", "PYTEST_", "MIPOISON_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(drop)} | {
            "HOME": name, "TMPDIR": name, "MIPOISON_RAY_TMP": f"{name}/r", "MIPOISON_SECRET": SECRET,
            "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT), "FORCE_COLOR": "1",
        }  # fmt: skip
        with log.open("w") as sink:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "study" / "serve.py"), "--unit", "unit", "--victim",
                 "served_net:make", "--victim-state", "net.safetensors", "--port", str(port)],
                cwd=folder, env=environment, stdout=sink, stderr=subprocess.STDOUT, text=True,
                start_new_session=True,
            )  # fmt: skip
        running = Server(process, port, folder, log)
        try:
            until = time.monotonic() + START_S
            while not (running.healthy() and "Ctrl-C stops" in log.read_text()):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.5)
            yield running
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)


def test_the_start_shows_how_far_it_is(server: Server) -> None:
    log = server.log.read_text()
    for i, text in enumerate(("starting Ray", "starting the HTTP server", "loading the classifier")):
        assert text in log
        assert f"{i}/3 | " in log
    assert "s left" in log  # from what the steps before took


def npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def requests() -> list[tuple[bytes, str, Tensor | int]]:
    """200 requests: body, content type, and the images that are meant or the status that is due."""
    rng = np.random.default_rng(7)
    out: list[tuple[bytes, str, Tensor | int]] = []
    broken: list[tuple[bytes, str, int]] = [
        (b"hello", "image/png", 422),
        (b"hello", "text/html", 415),
        (b"{", "application/json", 400),
        (npy(np.zeros((1, 28, 28))), "application/x-npy", 422),
        (npy(np.full(SHAPE, np.nan)), "application/x-npy", 422),
        (npy(np.zeros((MAX_IMAGES + 1, *SHAPE), np.uint8)), "application/x-npy", 413),
    ]
    for i in range(200):
        if i % 4 == 3:
            out.append(broken[(i // 4) % len(broken)])
            continue
        pixels = rng.integers(0, 256, (1 + i % 5, *SHAPE), np.uint8)
        x = torch.from_numpy(pixels).float() / 255
        if i % 4 == 0:
            sink = io.BytesIO()
            Image.fromarray(pixels[0, 0]).save(sink, "PNG")
            out.append((sink.getvalue(), "image/png", x[:1]))
        elif i % 4 == 1:
            out.append((npy(x.numpy()), "application/x-npy", x))
        else:
            out.append((json.dumps({"images": x.tolist()}).encode(), "application/json", x))
    return out


@pytest.mark.ray
@pytest.mark.timeout(2 * START_S)
def test_two_hundred_requests_by_eight_clients(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every good answer is what the unit gives directly, every broken request gets its status."""
    monkeypatch.chdir(server.folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("served_net", None)
    victim = load_victim("served_net:make", "net.safetensors")
    protected = load_unit(server.folder / "unit", device="cpu").wrap(victim, secret=SECRET)
    asked = requests()
    began = time.monotonic()
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda r: server.ask(r[0], r[1]), asked))
    seconds = time.monotonic() - began
    for (_, _, meant), (status, answer) in zip(asked, answers, strict=True):
        if isinstance(meant, int):
            assert status == meant, answer
            assert isinstance(answer["error"], str)
            continue
        assert status == 200, answer
        released = torch.tensor(answer["released"])
        assert torch.allclose(released, protected(meant), atol=2e-5, rtol=0)
        assert answer["labels"] == released.argmax(1).tolist()
        assert not torch.allclose(released, torch.softmax(victim(meant), 1), atol=1e-3)
    print(f"200 requests in {seconds:.1f} s")
    assert server.healthy()


@pytest.mark.ray
@pytest.mark.timeout(2 * START_S)
def test_requests_that_reach_nothing(server: Server) -> None:
    assert server.ask(b"", "image/png", "/other")[0] == 404
    assert server.ask(None, "", "/release", "GET")[0] == 405
    assert server.ask(b"", "", "/health", "POST")[0] == 405
    assert server.ask(None, "", "/health", "GET")[1] == {
        "status": "ok", "image_shape": list(SHAPE), "n_classes": 4,
    }  # fmt: skip
    try:
        status = server.ask(b"x" * (MAX_BYTES + 1), "image/png")[0]
    except (BrokenPipeError, ConnectionResetError):  # answered and hung up before all was sent
        status = 413
    assert status == 413
    # A client that promises more than it sends, and goes.
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"POST /release HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\nabc")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        client.recv(100)
    assert server.healthy()


@pytest.mark.ray
@pytest.mark.timeout(2 * START_S)
def test_the_worst_bodies_for_a_few_seconds(server: Server) -> None:
    """A proper client is answered, nobody gets a 500, memory is bounded; how fast: the slow test below."""
    found = under_attack(server.port, server.process.pid, 4)
    assert found.grown_mb < 500
    assert server.healthy()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2 * START_S)
def test_the_worst_bodies_for_twenty_seconds(server: Server) -> None:
    """On a machine that does nothing else."""
    found = under_attack(server.port, server.process.pid, 20)
    assert found.times < 10
    assert found.grown_mb < 500


@pytest.mark.ray
@pytest.mark.timeout(2 * START_S)
def test_every_listener_of_the_process_tree_is_on_loopback(server: Server) -> None:
    """Ray's servers, and those of the copies of the classifier, as SECURITY.md says."""
    heard = listeners(server.process.pid)
    assert ("127.0.0.1", server.port) in [(one.address, one.port) for one in heard]
    assert len({one.process for one in heard}) >= 4  # this, gcs_server, raylet, the copies
    assert any("ServeReplica" in one.process for one in heard)  # its gRPC, that Ray opens to all interfaces
    assert not [one for one in heard if not one.on_loopback]
    assert "listens beyond this machine" not in server.log.read_text()


@pytest.mark.ray
@pytest.mark.timeout(2 * START_S)
def test_it_stops_cleanly(server: Server) -> None:
    """Last of this file: Ctrl-C ends server and Ray; nothing that was written holds the secret."""
    (token,) = (server.folder / "r").glob("m*/token-*")  # Ray has opened its folder beside it to everybody
    assert [p.stat().st_mode & 0o777 for p in (token, *token.parents[:2])] == [0o600, 0o700, 0o700]
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):  # who is impatient presses twice
        server.process.send_signal(number)
    assert server.process.wait(90) == 0, server.log.read_text()
    said = server.log.read_text()
    assert "Traceback" not in said
    assert "raylet" not in said  # Ray's noise
    assert f"http://127.0.0.1:{server.port}/release" in said
    assert not server.healthy()
    assert list((server.folder / "r").iterdir()) == []
    for path in server.folder.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
