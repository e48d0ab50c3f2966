"""Every curl line of the page on serving is run by curl, against a server with keys, budget and label."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tyro
from openapi_spec_validator import OpenAPIV31SpecValidator
from worst_bodies import SHAPE, encoded

pytest.importorskip("uvicorn", reason="ray[serve] is not installed")

from running_server import fetch, running

from study import serve
from study.serving.api_keys import ApiKeys
from study.serving.door import Door

PAGE = (Path(__file__).parents[3] / ".docs/pages/serving.md").read_text()
LINES = re.findall(r"^curl .*$", PAGE, flags=re.MULTILINE)
KEYS = re.search(r"^KEY=.*\n^export .*$", PAGE, flags=re.MULTILINE)
LABEL = b'{"excess_leakage": 0.01}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the lines send."""
    (tmp_path / "image.png").write_bytes(encoded("PNG"))
    (tmp_path / "other.jpg").write_bytes(encoded("JPEG"))
    array = np.random.default_rng(0).random((3, *SHAPE)).astype(np.float32)
    np.save(tmp_path / "images.npy", array)
    (tmp_path / "images.json").write_text(json.dumps({"images": array[:2].tolist()}))
    return tmp_path


def curl(line: str, port: int, folder: Path, key: str) -> str:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("curl or bash is not installed")
    script = line.replace(":8000", f":{port}").replace(
        "curl ", "curl --silent --show-error --fail-with-body ", 1
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env={"PATH": "/usr/bin:/bin", "KEY": key}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


def test_the_page_has_the_lines() -> None:
    assert len(LINES) == 11
    assert KEYS is not None


def check(line: str, answer: str) -> None:
    if "/release" in line:
        found = json.loads(answer)
        n = 2 if "other.jpg" in line or "images.json" in line else 3 if "images.npy" in line else 1
        assert [len(row) for row in found["released"]] == [2] * n
        assert len(found["labels"]) == n
    elif "/metrics" in line:
        assert "# TYPE mipoison_requests_total counter" in answer
    elif "/openapi.json" in line:
        OpenAPIV31SpecValidator(json.loads(answer)).validate()
    elif "/label" in line:
        assert answer.encode() == LABEL
    else:
        assert json.loads(answer)["image_shape"] == list(SHAPE)


@pytest.mark.timeout(300)
def test_each_line_is_answered(folder: Path) -> None:
    with running(label=LABEL) as port:
        for line in LINES:
            check(line, curl(line, port, folder, "none is asked for"))


@pytest.mark.timeout(300)
def test_the_keys_of_the_page_open_the_door(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEYS is not None
    if shutil.which("openssl") is None or shutil.which("sha256sum") is None:
        pytest.skip("openssl or sha256sum is not installed")
    script = f'{KEYS[0]}\necho "$KEY"\necho "$MIPOISON_API_KEYS"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    key, text = done.stdout.split()
    with running(door=Door(ApiKeys.from_text(text)), label=LABEL) as port:
        asked = [line for line in LINES if "$KEY" in line]
        assert len(asked) == 3
        for line in asked:
            check(line, curl(line, port, folder, key))
        assert fetch(port, "/release", encoded("PNG"), x_api_key="wrong")[0] == 401


def test_the_command_with_a_budget_makes_that_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = re.findall(r"^mipoison serve (.*--queries-per-key.*)$", PAGE, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIPOISON_API_KEYS", "anna:" + "0" * 64)
    door = serve._door(tyro.cli(serve.Arguments, args=line.split()))
    assert door.keys is not None
    assert door.budget is not None
    assert (door.budget.most, door.budget.path) == (1000, tmp_path / "unit.queries.sqlite")
    assert serve._said_of(door).startswith("1 API key; 1000 queries for each key, counted in ")
    assert "MIPOISON_API_KEYS" not in os.environ
