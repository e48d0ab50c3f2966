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
from torchvision.models.optical_flow import Raft_Small_Weights
from torchvision.models.segmentation import FCN_ResNet50_Weights
from torchvision.models.video import R3D_18_Weights
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
    for wrong in (
        [v.RandomHorizontalFlip()], [v.CenterCrop(3), v.Resize(5)], [v.Resize(5, max_size=9)],
        [v.Normalize((0.5,), (0.5,)), v.Grayscale(3)], [v.Grayscale(3), v.Normalize((0.5,), (0.5,))],
    ):  # fmt: skip
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
        resize=(224,), crop=(224, 200), interpolation="bicubic", colour=False
    )
    assert preprocessing_from(form({"do_resize": False, "do_normalize": False})) == Preprocessing(
        colour=False
    )
    for wrong in (
        {"crop_pct": 0.875},
        {"rescale_factor": 1},
        {"size": {"longest_edge": 3}},
        {"do_pad": True},
        {"do_flip_channel_order": True},
        {"do_something_new": True},
        {"include_top": True},
        {"rescale_offset": True},
        {"do_rescale": False},
        {"size": 224, "do_center_crop": True, "crop_size": 224},
        {"image_mean": None},
    ):
        with pytest.raises(ConfigError) as caught:
            preprocessing_from(form(VIT | wrong))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mean": list(MEAN), "std": list(STD)}, "has mean, std"),
        (VIT | {"mean": list(MEAN)}, "has mean"),
        ({}, "none of an image processor's settings"),
        ({"architecture": "vit", "pretrained_cfg": {"mean": list(MEAN)}}, "none of an image processor's"),
        ({"image_std": list(STD)}, "image_mean"),
    ],
)
def test_a_dictionary_that_would_do_nothing_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        preprocessing_from(given)
    assert "\n" not in str(caught.value)


def test_pixels_up_to_255_are_refused() -> None:
    """Here they are in [0, 1]: the statistics of others would make all images nearly equal."""
    mean, std = [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]
    unscaled = [v2.ToImage(), v2.ToDtype(torch.float32, scale=False)]
    for steps in (unscaled, [v2.Normalize(mean, std)], [*unscaled, v2.Normalize(MEAN, STD)]):
        with pytest.raises(ConfigError, match=r"in \[0, 1\]"):
            preprocessing_from(v2.Compose(steps))
    scaled = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToDtype(torch.float32)])
    assert preprocessing_from(scaled) == Preprocessing(colour=False)
    assert preprocessing_from(v1.Compose([v1.ToTensor(), v1.Normalize(MEAN, STD)])).mean == MEAN


@pytest.mark.parametrize("v", [v1, v2])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images(v: Any, channels: int) -> None:
    """Of colour images, as torchvision makes them, and of one channel; the digest's text states it."""
    mean, std = ((0.4,), (0.3,)) if channels == 1 else (MEAN, STD)
    steps = v.Compose([v.Grayscale(channels), v.Resize(20, antialias=True), v.Normalize(mean, std)])
    found = preprocessing_from(steps)
    x = images(2, 3, 32, 40)
    assert torch.allclose(found(x), steps(x), atol=1e-6)
    one = images(2, 1, 32, 40)  # the weights of the channels sum to 0.9999
    assert torch.allclose(found(one), steps(one.expand(-1, 3, -1, -1)), atol=1e-3)
    assert Preprocessing.from_plain(json.loads(json.dumps(found.plain()))) == found
    without = preprocessing_from(v.Compose(steps.transforms[1:]))
    assert "grey" not in without.plain()
    assert preprocessed(Big(), found).extra_repr() != preprocessed(Big(), without).extra_repr()


def test_what_normalises_nothing_keeps_its_channels() -> None:
    x = images(2, 1, 16, 16)
    hugging_face = {"do_resize": True, "size": {"height": 20, "width": 20}, "do_normalize": False}
    for given in (v1.Compose([v1.Resize(20), v1.ToTensor()]), hugging_face, v2.Compose([v2.Resize(20)])):
        assert preprocessing_from(given)(x).shape == (2, 1, 20, 20)
    for given in (v2.Compose([v2.RGB(), v2.Resize(20)]), hugging_face | {"do_convert_rgb": True}):
        assert preprocessing_from(given)(x).shape == (2, 3, 20, 20)


@pytest.mark.parametrize("side", [64, 224])
def test_pillow_s_nearest(side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    config = {
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 0,
        "do_normalize": False,
    }
    found = preprocessing_from(config)(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    expected = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST))
    assert np.array_equal((found[0].permute(1, 2, 0) * 255).round().numpy(), expected)


def test_numbers_are_the_same_from_a_list_and_from_a_tensor() -> None:
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
    found = [
        preprocessing_from(v1.Compose([v1.Normalize(kind(mean), kind(std))]))
        for kind in (list, torch.tensor, lambda x: np.array(x, np.float32))
    ]
    assert found == [found[0]] * 3
    assert torch.equal(torch.tensor(found[0].mean + found[0].std), torch.tensor(mean + std))
    given = [v1.Compose([v1.Normalize(kind(MEAN), kind(STD))]) for kind in (list, torch.tensor)]
    for one in (*given, ResNet18_Weights.DEFAULT):
        assert (preprocessing_from(one).mean, preprocessing_from(one).std) == (MEAN, STD)


def test_presets_of_other_tasks_are_refused() -> None:
    for weights in (R3D_18_Weights.DEFAULT, Raft_Small_Weights.DEFAULT, FCN_ResNet50_Weights.DEFAULT):
        with pytest.raises(ConfigError, match="transforms are a "):
            preprocessing_from(weights)


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
               {"resize": (5,), "interpolation": "lanczos"}, {"resize": ()}, {"resize": (24.5,)},
               {"resize": ("a",)}, {"crop": 224}, {"crop": (True, True)}, {"antialias": "no"}, {"colour": 1},
               {"mean": ("a",), "std": (1,)}, {"mean": (float("nan"),), "std": (1,)},
               {"mean": (0.5,), "std": (float("inf"),)}, {"mean": (0.5,), "std": (float("nan"),)},
               {"mean": (-float("inf"),), "std": (1,)}, {"mean": (10**400,), "std": (1,)},
               {"mean": (-(10**5000),), "std": (1,)}, {"mean": 0.5, "std": 1}, {"interpolation": None}],
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
