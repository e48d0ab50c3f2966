"""The worked example runs from end to end."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from mipoison.serving.protect import load_unit, load_victim
from study.examples import protect_torchvision as example


@pytest.mark.long
@pytest.mark.timeout(590)
def test_the_worked_example(worked_example: Path) -> None:
    """In a process of its own, as the page says; then its unit, loaded here, answers."""
    assert "Traceback" not in (worked_example / "stderr").read_text()
    out = worked_example / "protected-digits"
    assert (out / "results" / "folder-same" / "report.md").is_file()
    episodes = pd.read_parquet(out / "results" / "folder-same" / "episodes")
    assert (episodes["victim"].str.startswith(f"{example.CLASSIFIER}@")).all()
    assert episodes["model_accuracy"].max() > 0.8  # on test/, which it was not trained on
    assert not episodes["check.test_seen"].any()
    victim = load_victim(example.CLASSIFIER, str(out / "resnet18.safetensors"))
    protected = load_unit(out / "unit", device="cpu").wrap(victim, secret=example.SECRET)
    x = torch.rand(4, 1, example.SIDE, example.SIDE)
    with torch.no_grad():
        clean, released = torch.softmax(victim(x), 1), protected(x)
    assert torch.equal(clean.argmax(1), released.argmax(1))
    assert float((clean - released).abs().max()) < 0.1 + 1e-5  # one decimal
    assert torch.allclose(10 * released, (10 * released).round(), atol=1e-5)
    assert not torch.equal(clean, released)
    said = (worked_example / "stdout").read_text()
    assert "serve.py --unit protected-digits/unit --victim study.examples" in said
