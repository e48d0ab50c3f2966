"""The worked example runs from end to end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from mipoison.serving.protect import load_unit, load_victim
from study.examples import protect_torchvision as example


@pytest.mark.timeout(590)
def test_the_worked_example(tmp_path: Path) -> None:
    """In a process of its own, as the README says; then its unit, loaded here, answers."""
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(Path(__file__).parents[3])}
    script = str(Path(example.__file__))
    began = time.monotonic()
    run = subprocess.run(
        [sys.executable, script, "--out", "out"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=570,
    )  # fmt: skip
    print(f"example: {time.monotonic() - began:.0f} s")
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    assert (tmp_path / "out" / "results" / "folder-same" / "report.md").is_file()
    episodes = pd.read_parquet(tmp_path / "out" / "results" / "folder-same" / "episodes")
    assert (episodes["victim"].str.startswith(f"{example.CLASSIFIER}@")).all()
    assert episodes["model_accuracy"].max() > 0.8
    victim = load_victim(example.CLASSIFIER, str(tmp_path / "out" / "resnet18.safetensors"))
    protected = load_unit(tmp_path / "out" / "unit", device="cpu").wrap(victim, secret=example.SECRET)
    x = torch.rand(4, 1, example.SIDE, example.SIDE)
    with torch.no_grad():
        clean, released = torch.softmax(victim(x), 1), protected(x)
    assert torch.equal(clean.argmax(1), released.argmax(1))
    assert float((clean - released).abs().max()) < 0.1 + 1e-5  # one decimal
    assert torch.allclose(10 * released, (10 * released).round(), atol=1e-5)
    assert not torch.equal(clean, released)
    assert "serve.py --unit out/unit --victim study.examples" in run.stdout
