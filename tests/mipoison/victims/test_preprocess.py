"""Stated preprocessing is what torchvision's transforms compute, from every form in which it is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms as v1
from torchvision.models import (
    EfficientNet_B1_Weights,
    MobileNet_V3_Small_Weights,
    ResNet18_Weights,
    ResNet50_Weights,
    ViT_B_16_Weights,
)
from torchvision.transforms import v2

from mipoison.config import ConfigError
from mipoison.serving.protect import fit_unit, load_unit, load_victim
from mipoison.victims import preprocessed
from mipoison.victims.ask import classifier_of
from mipoison.victims.identity import state_digest
from mipoison.victims.preprocess import Preprocessing, preprocessing_from

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHTS = [
    ResNet18_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2, EfficientNet_B1_Weights.IMAGENET1K_V2,
    ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1, MobileNet_V3_Small_Weights.DEFAULT,
]  # fmt: skip
VIT = {  # preprocessor_config.json of google/vit-base-patch16-224
    "do_normalize": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    "resample": 2, "size": {"height": 224, "width": 224},
}  # fmt: skip


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("side", [32, 300])
def test_torchvision_s_own_transforms(weights: Any, side: int) -> None:
    x = images(2, 3, side, side + 8)
    transforms = weights.transforms()
    for given in (transforms, weights, weights.transforms):
        stated = preprocessing_from(given)
        assert torch.equal(stated(x), transforms(x))
    assert Preprocessing.from_plain(json.loads(json.dumps(stated.plain()))) == stated
    grey = images(2, 1, side, side)
    assert torch.equal(stated(grey), transforms(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("v", [v1, v2])
def test_a_compose(v: Any) -> None:
    x = images(2, 3, 40, 50)
    steps = [v.Resize(64, antialias=True), v.CenterCrop(48), v.Normalize(MEAN, STD)]
    assert torch.equal(preprocessing_from(v.Compose(steps))(x), nn.Sequential(*steps)(x))
    first = [v.PILToTensor(), v.Resize((30, 20)), v.ConvertImageDtype(torch.float)]
    assert preprocessing_from(v.Compose(first))(x).shape == (2, 3, 30, 20)
    for wrong in ([v.RandomHorizontalFlip()], [v.CenterCrop(3), v.Resize(5)], [v.Resize(5, max_size=9)]):
        with pytest.raises(ConfigError, match="none that can be stated"):
            preprocessing_from(v.Compose(wrong))


def by_hand(pixels: np.ndarray) -> np.ndarray:
    """What Hugging Face's ViT processor does with a file, in Pillow and NumPy."""
    image = Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR)
    return ((np.asarray(image, np.float64) / 255 - 0.5) / 0.5).transpose(2, 0, 1)


@pytest.mark.parametrize("form", [lambda c: c, lambda c: Processor(c)])
def test_hugging_face_s_image_processors(form: Callable[[dict[str, Any]], Any]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    found = preprocessing_from(form(VIT))(x)[0].numpy()
    assert np.abs(found - by_hand(pixels)).max() < 0.01  # Pillow rounds to 8 bits
    clip = {"do_resize": True, "size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True,
            "crop_size": {"height": 224, "width": 200}, "do_normalize": False}  # fmt: skip
    assert preprocessing_from(form(clip)) == Preprocessing(
        resize=(224,), crop=(224, 200), interpolation="bicubic"
    )
    assert preprocessing_from(form({"do_resize": False, "do_normalize": False})) == Preprocessing()
    for wrong in (
        {"crop_pct": 0.875},
        {"rescale_factor": 1},
        {"size": {"longest_edge": 3}},
        {"do_pad": True},
    ):
        with pytest.raises(ConfigError) as caught:
            preprocessing_from(form(VIT | wrong))
        assert "\n" not in str(caught.value)


class Processor:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def to_dict(self) -> dict[str, Any]:
        return self.config


@pytest.mark.parametrize("given", ["resize", 224, lambda x: x, nn.Identity(), object()])
def test_what_are_no_transforms(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"give weights\.transforms\(\)"):
        preprocessing_from(given)


@pytest.mark.parametrize(
    "values", [{"resize": (0,)}, {"crop": (3,)}, {"mean": (0.5,)}, {"mean": (0.5,), "std": (0.0,)},
               {"mean": (0, 0), "std": (1, 1)}, {"interpolation": "sinc"},
               {"resize": (5,), "interpolation": "lanczos"}],
)  # fmt: skip
def test_values_out_of_bounds(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Preprocessing(**values)


class Big(nn.Module):
    """Takes colour images of 224 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Conv2d(3, 4, 32, 32)
        self.h = nn.Linear(4 * 49, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.f(x).relu().flatten(1))


@pytest.fixture
def big(tmp_path: Path) -> Big:
    torch.manual_seed(0)
    return Big().eval()


def test_the_same_weights_with_and_without(big: Big) -> None:
    wrapped = preprocessed(big, ResNet18_Weights.DEFAULT)
    assert state_digest(wrapped) == state_digest(big)
    with pytest.raises(ConfigError, match="leave transforms out"):
        preprocessed(wrapped, ResNet18_Weights.DEFAULT)


def test_without_transforms_the_error_says_how_to_state_them(big: Big) -> None:
    with pytest.raises(ConfigError, match=r"transforms=weights\.transforms\(\)"):
        classifier_of(big)(images(2, 1, 32, 32))


def test_a_unit_keeps_them(big: Big, tmp_path: Path) -> None:
    x, transforms = images(24, 1, 32, 32), ResNet18_Weights.DEFAULT.transforms()
    unit = fit_unit(
        big, private=x[:12], public=x[12:], defense="rounding", config={"decimals": 3}, transforms=transforms,
        device="cpu",
    )  # fmt: skip
    unit.save(tmp_path / "unit")
    protected = load_unit(tmp_path / "unit", device="cpu").wrap(big)
    assert protected.preprocessing == preprocessing_from(transforms)
    with torch.no_grad():
        clean = torch.softmax(big(transforms(x.expand(-1, 3, -1, -1))), 1)
    assert (protected(x) - clean).abs().max() < 1e-3 + 1e-5
    again = load_unit(tmp_path / "unit", device="cpu").wrap(big, transforms=transforms)
    assert torch.equal(again(x), protected(x))
    with pytest.raises(ConfigError, match="differs"):
        unit.wrap(big, transforms=VIT)


def test_a_loaded_victim_and_its_digest(big: Big, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"{__name__}:Big"
    torch.save(big.state_dict(), tmp_path / "w.pt")
    victims = [
        load_victim(source, tmp_path / "w.pt", transforms=given)
        for given in (None, ResNet18_Weights.DEFAULT, VIT)
    ]
    assert len({victim.digest for victim in victims}) == 3
    x = images(2, 3, 32, 32)
    expected = big(ResNet18_Weights.DEFAULT.transforms()(x))
    assert torch.allclose(victims[1](x), expected, atol=1e-5)
