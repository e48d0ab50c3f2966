"""From a row of a study to a unit that answers: by the command line, through what a replica loads."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from running_server import ask, free_port
from worst_bodies import npy

from mipoison.deployment import deploy, release
from mipoison.scene import prepare
from study import protect, serve
from study.records.finished import load
from study.serving.privacy_label import read_label
from study.trial.protecting import chosen
from tests.study.test_evaluate import compact, searched

__all__ = ["compact"]  # a fixture


def test_a_row_becomes_a_unit_that_answers_with_its_vectors(
    small_study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = pytest.importorskip("study.serving.endpoint", reason="ray[serve] is not installed")
    number = searched(small_study, "rounding").partition("-")[0]
    out = tmp_path / "unit"
    assert protect.main(["--study", str(small_study), "--setting", number, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"distortion (\d\.\d+), recorded \1: the same", said)
    assert f"serve.py --unit {out}" in said
    label = json.loads(read_label(str(out)) or b"{}")
    assert label["trial"].partition("-")[0] == number
    assert f"--like {small_study.name} " in label["command"]  # no path of this machine
    served = endpoint.Served(unit=str(out), victim=None, victim_state=None, device="cpu", threads=1).load()
    setting = chosen(load(small_study), number)
    scene = prepare(setting.scene, str(small_study.parent))
    episode = release(deploy(scene, setting.defense, setting.config)).vectors["private_test"]
    torch.testing.assert_close(served(scene.split.private_test.x_NCHW), episode, rtol=0, atol=1e-6)


def test_keyed_noise_asks_for_a_secret_and_a_copy_is_trained_anew(
    compact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "unit"
    arguments = ["--study", str(compact), "--setting", searched(compact, "tail-noise"), "--seed", "1"]
    assert protect.main([*arguments, "--out", str(out)]) == 0
    assert 'MIPOISON_SECRET="' in capsys.readouterr().out
    assert json.loads((out / "unit.json").read_text())["about"]["seed"] == 1
    assert not (compact.parent / "artifacts").exists()
    assert protect.main([*arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "holds a unit already" in error
    assert "--overwrite" in error
    assert protect.main([*arguments, "--out", str(out), "--overwrite"]) == 0


def test_a_setting_that_distorts_otherwise_is_not_saved(
    compact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered, out = tmp_path / "altered", tmp_path / "unit"
    altered.mkdir()
    (altered / "study.json").write_bytes((compact / "study.json").read_bytes())
    table = pq.read_table(compact / "episodes.parquet").to_pandas()
    table["confidence_distortion"] *= 1.5
    table.to_parquet(altered / "episodes.parquet")
    arguments = ["--study", str(altered), "--setting", searched(compact, "rounding"), "--out", str(out)]
    assert protect.main(arguments) == 1
    assert "different" in capsys.readouterr().out
    assert not out.exists()
    assert protect.main([*arguments, "--anyway"]) == 0
    assert (out / "unit.json").is_file()
    assert read_label(str(out)) is None  # it would speak of other vectors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--setting", "t9999"], "unknown setting 't9999'"),
        (["--setting", "none", "--seed", "9"], "seed = 9"),
        (["--setting", "none", "--victim", "net:make"], "trained its own classifier"),
        (["--setting", "none", "--victim-state", "w.pt"], "without --victim"),
    ],
)
def test_bad_input_is_one_line(
    small_study: Path, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert protect.main(["--study", str(small_study), *arguments, "--out", str(tmp_path / "u")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.strip().count("\n") == 0
    assert not (tmp_path / "u").exists()


@pytest.mark.ray
@pytest.mark.timeout(500)
def test_the_server_answers_with_the_unit_alone(small_study: Path) -> None:
    """By HTTP: no classifier is named, it is in the unit's folder."""
    pytest.importorskip("ray.serve", reason="ray[serve] is not installed")
    setting = chosen(load(small_study), searched(small_study, "rounding"))
    scene = prepare(setting.scene, str(small_study.parent))
    x = scene.split.private_test.x_NCHW[:3]
    with tempfile.TemporaryDirectory(prefix="mip", dir="/tmp", ignore_cleanup_errors=True) as home:
        words = ["--study", str(small_study), "--setting", setting.trial, "--out", f"{home}/unit"]
        assert protect.main(words) == 0
        drop = ("RAY_", "PYTEST_", "MIPOISON_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(drop)} | {
            "HOME": home, "TMPDIR": home, "MIPOISON_RAY_TMP": f"{home}/r", "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        port, log = free_port(), Path(home) / "log"
        with log.open("w") as sink:
            server = subprocess.Popen(
                [sys.executable, serve.__file__, "--unit", "unit", "--port", str(port)],
                cwd=home, env=environment, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            until = time.monotonic() + 300
            while True:
                try:
                    status, answer = ask(port, npy(x.numpy()))
                    if status == 200:
                        break
                except (OSError, http.client.HTTPException, ValueError):
                    pass
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(1)
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
    episode = release(deploy(scene, setting.defense, setting.config)).vectors["private_test"][:3]
    torch.testing.assert_close(torch.tensor(answer["released"]), episode, rtol=0, atol=2e-5)
