"""The example of a torchvision classifier of 224 pixels runs; its unit keeps the weights' transforms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mipoison.serving.protect import load_unit, load_victim
from study.examples import protect_224 as example


@pytest.mark.long
@pytest.mark.timeout(590)
def test_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(["--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert int(printed.partition("recognises ")[2].partition("%")[0]) > 30  # of ten classes
    assert "label agreement 100%" in printed
    assert f"--victim {example.NETWORK}" in printed
    state = tmp_path / "net.safetensors"
    protected = load_unit(tmp_path / "unit", device="cpu").wrap(load_victim(example.NETWORK, state))
    whole = load_victim("study.examples.protect_224:classifier", state)  # as a study takes it
    x = example.digits()[0][1000:1005]
    clean = torch.softmax(whole(x), 1)
    net = example.network().eval()
    net.load_state_dict({k.removeprefix("module."): v for k, v in whole.module.state_dict().items()})
    with torch.no_grad():
        expected = torch.softmax(net(example.WEIGHTS.transforms()(x.expand(-1, 3, -1, -1))), 1)
    assert torch.allclose(clean, expected, atol=1e-5)
    released = protected(x)
    assert torch.equal(released.argmax(1), clean.argmax(1))
    assert float((released - clean).abs().max()) < 0.1 + 1e-3
    assert protected.preprocessing is not None
    assert protected.preprocessing.resize == (256,)
