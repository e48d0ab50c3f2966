"""Planted files and hostile names are harmless, and secrets appear in no file or log."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import pickle
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from simulated import SETTINGS, Driver, arguments, assert_whole, private_environment

import mipoison.scene
from mipoison.randomness import role_seed
from mipoison.storage.files import Storage
from study.pareto import main
from study.records.images import read_pictures
from study.render import main as render

pytestmark = pytest.mark.timeout(400)
LOCAL = ["--executor", "local"]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    with private_environment() as environment:
        yield environment


class Payload:
    """Makes a folder when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def test_the_payload_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").is_dir()


def test_pictures_with_objects_in_them_are_left_out(tmp_path: Path) -> None:
    storage, marker = Storage(tmp_path / "root"), tmp_path / "executed"
    objects = np.array([Payload(marker)], dtype=object)
    for save in (np.savez, np.savez_compressed, np.save):
        sink = io.BytesIO()
        save(sink, objects)
        storage.write("s/pictures/t.npz", sink.getvalue())
        assert read_pictures(storage, "s", "t") == {}
    for data in (pickle.dumps(Payload(marker)), b"", b"PK\3\4 torn"):
        storage.write("s/pictures/t.npz", data)
        assert read_pictures(storage, "s", "t") == {}
    assert not marker.exists()


def test_planted_pickles_are_never_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, marker = tmp_path / "root", tmp_path / "executed"
    assert main([*arguments(root, trials=1), *LOCAL]) == 0
    bomb = pickle.dumps(Payload(marker))
    about = (root / "s" / "study.json").read_bytes()
    (root / "s" / "drivers").mkdir()
    (root / "s" / "drivers" / "x.json").write_bytes(bomb)
    kinds = set()
    for path in [p for p in root.rglob("*") if p.is_file()]:
        signed = hashlib.sha256(bomb).hexdigest().encode() + b"\n" + bomb
        path.write_bytes(signed if path.parent.name == "artifacts" else bomb)
        kinds.add(path.parent.name + path.suffix)
    assert kinds == {
        "artifacts", "drivers.json", "episodes.parquet", "pictures.npz", "trials.json",
        "s.json", "s.parquet", "s.md", "s.png", "s.html", "s.log",
    }  # fmt: skip
    os.utime(root / "s" / "drivers" / "x.json", (0, 0))

    capsys.readouterr()
    assert main([*arguments(root, trials=2), *LOCAL, "--resume"]) == 2
    assert "study.json" in capsys.readouterr().err
    assert render([str(root / "s")]) == 2
    assert "study.json" in capsys.readouterr().err
    (root / "s" / "study.json").write_bytes(about)
    assert render([str(root / "s")]) == 2  # no finished episode
    assert "no finished episode" in capsys.readouterr().err
    mipoison.scene._remembered.cache_clear()
    assert main([*arguments(root, trials=2), *LOCAL, "--resume"]) == 0
    assert render([str(root / "s")]) == 0
    assert not marker.exists()
    assert_whole(root, tmp_path / "calm", 2)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "a\0b", "..", ".hidden", "a\\b"])
def test_study_names_cannot_escape(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*arguments(tmp_path / "root"), *LOCAL]
    command[3] = name
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "study name" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_study_s_folder_that_leads_outside_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "s").symlink_to(tmp_path / "outside")
    assert main([*arguments(tmp_path / "root", trials=1), *LOCAL]) == 2
    error = capsys.readouterr().err
    assert "leads outside" in error
    assert error.count("\n") == 1
    assert list((tmp_path / "outside").iterdir()) == []


def test_credentials_in_the_storage_s_uri_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*arguments(Path("x")), *LOCAL]
    command[1] = "s3://AKIAXXXX:hunter2@bucket/x"
    assert main(command) == 2
    captured = capsys.readouterr()
    assert "no credentials in the URI" in captured.err
    assert "hunter2" not in captured.err + captured.out


# ---------------------------------------------------------------- secrets


def forms(secret: bytes) -> list[bytes]:
    """The forms in which a secret may appear: raw, as text, hexadecimal, base64."""
    return [secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"="), repr(secret)[2:-1].encode()]


@pytest.mark.ray
def test_secrets_are_in_no_file_and_no_log(environment: dict[str, str], tmp_path: Path) -> None:
    """A verbose study on Ray with keys in the environment; Ray's logs are searched while it runs."""
    token = secrets.token_hex(32)
    keys = {
        "AWS_ACCESS_KEY_ID": "AKIA" + secrets.token_hex(8).upper(),
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
        "AWS_SESSION_TOKEN": secrets.token_urlsafe(60),
    }
    environment = environment | keys
    Path(environment["RAY_AUTH_TOKEN_PATH"]).write_text(token)
    looked_for = {name: forms(value.encode()) for name, value in (keys | {"token": token}).items()}
    for seed in range(int(SETTINGS["seeds"])):
        secret = role_seed(seed, "secret")
        values = [*forms(secret.to_bytes(8, "big")), str(secret).encode()]
        looked_for[f"the service's secret, seed {seed}"] = values
    driver = Driver(environment, [*arguments(tmp_path / "root", trials=1), "--verbose", "--no-dashboard"])
    logs: dict[Path, bytes] = {}
    deadline = time.monotonic() + 280
    while driver.process.poll() is None and time.monotonic() < deadline:
        for path in Path(environment["TMPDIR"]).rglob("logs/**/*"):
            try:
                if path.is_file():
                    logs[path] = path.read_bytes()
            except OSError:
                continue
        time.sleep(0.5)
    output = driver.finish()
    found = logs | {p: p.read_bytes() for p in (tmp_path / "root").rglob("*") if p.is_file()}
    found[driver.log] = output.encode()
    assert any("raylet" in p.name for p in logs), sorted(p.name for p in logs)
    assert any(p.suffix == ".parquet" for p in found)
    assert any(p.parent.name == "artifacts" for p in found)
    for name, values in looked_for.items():
        holders = sorted(str(p) for p, data in found.items() if any(value in data for value in values))
        assert holders == [], f"{name} is in {holders}"


@pytest.mark.parametrize("how", [bytes, bytes.hex, base64.b64encode, lambda secret: f"key {secret!r}"])
def test_the_search_would_find_them(how: Callable[[bytes], bytes | str]) -> None:
    secret = role_seed(0, "secret").to_bytes(8, "big")
    text = how(secret)
    text = text.encode() if isinstance(text, str) else text
    assert any(value in b"before " + text + b" after" for value in forms(secret))
