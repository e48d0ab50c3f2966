"""The example of a classifier with ``.logits`` runs, and its unit answers with its transforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mipoison.config import ConfigError
from mipoison.serving.protect import fit_unit, load_unit, load_victim
from study.examples import protect_huggingface as example


@pytest.mark.timeout(590)
def test_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(["--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    accuracy = int(printed.partition("recognises ")[2].partition("%")[0])
    assert accuracy > 60
    assert "label agreement 100%" in printed
    assert f"--victim {example.CLASSIFIER}" in printed
    victim = load_victim(example.CLASSIFIER, tmp_path / "vit.safetensors")
    protected = load_unit(tmp_path / "unit", device="cpu").wrap(victim)
    x = example.digits()[0][1000:1003]
    # By hand: each digit as a picture, resized by Pillow, normalised.
    seen = []
    for image in x:
        big = Image.fromarray(image[0].numpy()).resize((224, 224), Image.Resampling.BILINEAR)
        seen.append(torch.from_numpy(np.array(big)).expand(3, -1, -1) * 2 - 1)
    model = example.classifier().eval()
    model.load_state_dict(victim.module.state_dict())
    with torch.no_grad():
        clean = torch.softmax(model(torch.stack(seen)).logits, 1)
    released = protected(x)
    assert torch.equal(released.argmax(1), clean.argmax(1))
    assert float((released - clean).abs().max()) < 0.1 + 1e-3
    assert torch.allclose(10 * released, (10 * released).round(), atol=1e-5)


def test_without_the_transforms_the_error_names_them() -> None:
    x = torch.rand(8, 1, 16, 16)
    with pytest.raises(ConfigError, match="transforms=") as caught:
        fit_unit(example.classifier(), private=x[:4], public=x[4:], defense="rounding", device="cpu")
    assert "\n" not in str(caught.value)
