"""A classifier's own preprocessing, stated as plain data: resize, crop, normalise, grey to colour.

Images of 16 to 64 pixels reach a classifier of 224 in this way, and a unit keeps the statement with it. It is
read from what libraries give: ``weights.transforms()`` of torchvision, a ``Compose`` of its transforms, or an
image processor of Hugging Face (or its ``preprocessor_config.json`` as a dictionary).

Shape suffixes: N images, CHW image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from mipoison.config import ConfigError, choose, kind_of, one_line

INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "lanczos", "box")
"""Names of interpolations, as torchvision's. On tensors torchvision has neither lanczos nor box."""
_ON_TENSORS = INTERPOLATIONS[:4]
_PILLOW = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
"""Pillow's nearest takes the pixel at the centre, which torchvision calls ``nearest-exact``."""
_SCALE = {"ToTensor", "ConvertImageDtype"}
_AS_THEY_ARE = {*_SCALE, "PILToTensor", "ToImage", "ToPureTensor"}
"""Transforms without effect on images in [0, 1]."""
GIVE = (
    "give weights.transforms() of torchvision, a Compose of Resize, CenterCrop and Normalize, or an image "
    "processor of Hugging Face; put anything else into the classifier's forward"
)

_STATED = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
"""Switches of an image processor that can be stated; with any other ``do_`` that is on it is refused."""
_NOT_STATED = ("include_top", "rescale_offset")
_SETTINGS = {*_STATED, "size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std"}
"""Settings of an image processor that are read: a dictionary without one of them is something else."""
_LARGE = 1e6

Size = tuple[int, ...]


def shown(value: Any) -> str:
    """A value in a message, not longer than a line."""
    try:
        return repr(list(value) if isinstance(value, tuple) else value)[:80]
    except ValueError:  # an integer of thousands of digits
        return "a number of many digits"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What happens to images in [0, 1] before a classifier sees them, in this order.

    Attributes:
        resize: (shorter side,) or (height, width); None: not resized.
        interpolation: a name of INTERPOLATIONS. antialias: whether it antialiases.
        crop: (height, width) of the central crop; None: not cropped.
        mean, std: of each channel, subtracted and divided by; empty: not normalised.
        colour: whether grey images become three equal channels.
        grey: whether colour images become grey before all else (torchvision's weights of the channels); with
            ``colour`` in three equal channels.
    """

    resize: Size | None = None
    interpolation: str = "bilinear"
    antialias: bool = True
    crop: Size | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    colour: bool = True
    grey: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        self._check_types()
        choose("interpolation of the transforms", self.interpolation, INTERPOLATIONS)
        for name, sizes, lengths in (("resize", self.resize, (1, 2)), ("crop", self.crop, (2,))):
            if sizes is not None and (len(sizes) not in lengths or min(sizes) < 1 or max(sizes) > 4096):
                raise ConfigError(f"transforms: {name} = {shown(sizes)}: must be 1 to 4096 pixels")
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ConfigError(f"transforms: mean {shown(self.mean)} and std {shown(self.std)} do not fit")
        if not all(-_LARGE < m <= 1 for m in self.mean) or not all(s < _LARGE for s in self.std):
            raise ConfigError(
                f"transforms: mean {shown(self.mean)} and std {shown(self.std)}: must be finite and means at "
                "most 1, as pixels here are in [0, 1]: divide both by 255 if they are of pixels up to 255"
            )
        if len(self.mean) not in (0, 1, 3):
            raise ConfigError(f"transforms: mean of {len(self.mean)} channels: must be 1 or 3")
        if self.resize is not None and self.interpolation not in _ON_TENSORS:
            raise ConfigError(
                f"transforms: torchvision has no interpolation {self.interpolation} for tensors: choose "
                f"{', '.join(_ON_TENSORS)}"
            )

    def _check_types(self) -> None:
        """Raise ConfigError where a value is not of its field's type."""
        for name, kinds, many in (
            ("resize", int, True), ("crop", int, True), ("mean", int | float, True),
            ("std", int | float, True), ("interpolation", str, False), ("antialias", bool, False),
            ("colour", bool, False), ("grey", bool, False),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is None and name in ("resize", "crop"):
                continue
            parts = value if many else (value,)
            if not isinstance(parts, tuple) or not all(
                isinstance(part, kinds) and (kinds is bool or not isinstance(part, bool)) for part in parts
            ):
                raise ConfigError(f"transforms of an unknown form: {name} = {shown(value)}")

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """The images as the classifier takes them: those of torchvision's transforms for these tensors."""
        # Imported here: torchvision takes a second, and most classifiers state nothing.
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        channels = x_NCHW.shape[1]
        if self.grey and channels == 3:
            x_NCHW = F.rgb_to_grayscale(x_NCHW, 3 if self.colour else 1)
        if self.colour and channels == 1 and len(self.mean) != 1:
            x_NCHW = x_NCHW.expand(-1, 3, -1, -1)
        if self.resize is not None:
            mode = InterpolationMode(self.interpolation)
            x_NCHW = F.resize(x_NCHW, list(self.resize), interpolation=mode, antialias=self.antialias)
        if self.crop is not None:
            x_NCHW = F.center_crop(x_NCHW, list(self.crop))
        if self.mean:
            if len(self.mean) != x_NCHW.shape[1]:
                raise ValueError(f"transforms for {len(self.mean)} channels, images of {channels}")
            x_NCHW = F.normalize(x_NCHW, list(self.mean), list(self.std))
        return x_NCHW

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON; :meth:`from_plain` reads them. ``grey`` is left out where it is False."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return values if self.grey else {name: v for name, v in values.items() if name != "grey"}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Inverse of :meth:`plain`.

        Raises:
            ConfigError: unknown names or values out of bounds.
        """
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        try:
            return cls(**fields)
        except TypeError as error:
            raise ConfigError(f"transforms of an unknown form: {error}") from error


class Preprocessed(nn.Module):
    """A classifier behind its preprocessing: images (N, C, H, W) in [0, 1] of any size to what it returns.

    The weights' names and digest are those of the classifier. What it prints of itself states the
    preprocessing, which is so part of the digest of a classifier that a study records.
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.module, self.preprocessing = module, preprocessing

    def forward(self, x_NCHW: Tensor) -> Any:
        return self.module(self.preprocessing(x_NCHW))

    def extra_repr(self) -> str:
        return f"{self.preprocessing}{', grey' if self.preprocessing.grey else ''}"


def preprocessed(model: nn.Module, transforms: Any) -> Preprocessed:
    """A classifier behind its stated preprocessing; a factory for ``--victim`` may return it.

    Args:
        model: the classifier. transforms: see :func:`preprocessing_from`.

    Raises:
        ConfigError: the classifier has its preprocessing already, or the transforms are of another kind.
    """
    if isinstance(model, Preprocessed):
        raise ConfigError("the classifier has its preprocessing already: leave transforms out")
    return Preprocessed(model, preprocessing_from(transforms))


def preprocessing_from(given: Any) -> Preprocessing:
    """What transforms do, as plain data.

    Args:
        given: ``weights.transforms()`` (or the weights), a ``Compose``, an image processor of Hugging Face or
            its configuration, or a :class:`Preprocessing`.

    Raises:
        ConfigError: anything else, or steps that are random or of another kind.
    """
    try:
        return _read(given)
    except ConfigError:
        raise
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ConfigError(f"transforms of an unknown form ({one_line(error)}): {GIVE}") from error


def _read(given: Any) -> Preprocessing:
    if isinstance(given, Preprocessing):
        return given
    if isinstance(inner := getattr(given, "transforms", None), functools.partial):  # torchvision's weights
        given = inner()
    elif isinstance(given, functools.partial):  # weights.transforms, not called
        given = given()
    if isinstance(given, Mapping):
        return Preprocessing.from_plain(given) if "antialias" in given else _hugging_face(given)
    if callable(to_dict := getattr(given, "to_dict", None)):
        return _hugging_face(to_dict())
    if any(kind.__name__ == "ImageClassification" for kind in type(given).__mro__):
        mean = _numbers(given.mean)
        return Preprocessing(
            resize=_sizes(given.resize_size), crop=_crop(given.crop_size), mean=mean, std=_numbers(given.std),
            interpolation=_interpolation(given.interpolation), antialias=_antialias(given),
            colour=len(mean) == 3,
        )  # fmt: skip
    steps = getattr(given, "transforms", None)
    if isinstance(steps, Sequence | nn.ModuleList):
        return _composed(list(steps))
    raise ConfigError(f"transforms are {kind_of(given)}: {GIVE}")


def _composed(steps: list[Any]) -> Preprocessing:
    """Of a Compose, whose steps must come in the order of :class:`Preprocessing`."""
    found: dict[str, Any] = {}
    order = ["Resize", "CenterCrop", "Normalize"]
    colour: bool | None = None
    scaled = False
    for step in steps:
        name = type(step).__name__
        if name in ("Grayscale", "RGB"):
            if "mean" in found:
                raise ConfigError(f"transforms: {name} after Normalize is none that can be stated: {GIVE}")
            colour = name == "RGB" or step.num_output_channels == 3
            found["grey"] = found.get("grey", False) or name == "Grayscale"
        elif name == "ToDtype":
            if not (scaled or step.scale):
                raise ConfigError(
                    "transforms: ToDtype(scale=False) leaves pixels up to 255 as they are; here they are in "
                    "[0, 1]: give scale=True, with mean and std to fit"
                )
            scaled = True
        elif name in _AS_THEY_ARE:
            scaled |= name in _SCALE
        elif name not in order:
            raise ConfigError(f"transforms: {name} is none that can be stated: {GIVE}")
        else:
            order = order[order.index(name) + 1 :]
            found |= _STEPS[name](step)
    three = len(found.get("mean", ())) == 3
    if colour and "mean" in found and not three:
        raise ConfigError(f"transforms: one mean for three channels is none that can be stated: {GIVE}")
    return Preprocessing(**found, colour=three if colour is None else colour)


def _resize(step: Any) -> dict[str, Any]:
    if getattr(step, "max_size", None) is not None:
        raise ConfigError(f"transforms: Resize with max_size is none that can be stated: {GIVE}")
    interpolation = _interpolation(step.interpolation)
    return {"resize": _sizes(step.size), "interpolation": interpolation, "antialias": _antialias(step)}


_STEPS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "Resize": _resize,
    "CenterCrop": lambda step: {"crop": _crop(step.size)},
    "Normalize": lambda step: {"mean": _numbers(step.mean), "std": _numbers(step.std)},
}


def _hugging_face(given: Mapping[str, Any]) -> Preprocessing:
    """Of an image processor's configuration."""
    ours = sorted({f.name for f in fields(Preprocessing)} & set(given))
    if ours or not _SETTINGS & set(given):
        held = f"has {', '.join(ours)}" if ours else "has none of an image processor's settings"
        raise ConfigError(f"transforms: the dictionary {held}: an image processor's say do_resize, size, "
                          "do_normalize, image_mean, image_std")  # fmt: skip
    if given.get("crop_pct") is not None:
        raise ConfigError(f"transforms: crop_pct cannot be stated: {GIVE}")
    for name, value in given.items():
        if value and (name in _NOT_STATED or (name.startswith("do_") and name not in _STATED)):
            raise ConfigError(f"transforms: {name} of an image processor cannot be stated: {GIVE}")
    size, crop = given.get("size"), given.get("crop_size")
    if given.get("do_resize", size is not None) and not isinstance(size, Mapping | int):
        raise ConfigError(f"transforms: size is {size!r}, expected height and width or shortest_edge")
    found: dict[str, Any] = {}
    if given.get("do_resize", size is not None):
        found["resize"] = _edges(size)
        found["interpolation"] = _interpolation(given.get("resample", 2))
    if given.get("do_center_crop", False):
        if "resize" in found and isinstance(size, int):
            raise ConfigError("transforms: size is a number, which processors that crop read in two ways: "
                              "give height and width or shortest_edge")  # fmt: skip
        found["crop"] = _crop(_edges(crop))
    if not given.get("do_rescale", True):
        raise ConfigError("transforms: do_rescale is false, which leaves pixels up to 255: here they are in "
                          "[0, 1]")  # fmt: skip
    if abs(float(given.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-6:
        raise ConfigError("transforms: rescale_factor other than 1/255: pixels here are in [0, 1]")
    if given.get("do_normalize", bool({"image_mean", "image_std"} & set(given))):
        found |= {"mean": _numbers(given["image_mean"]), "std": _numbers(given["image_std"])}
    colour = len(found.get("mean", ())) == 3 or bool(given.get("do_convert_rgb"))
    return Preprocessing(**found, colour=colour)


def _edges(size: Any) -> Size:
    if isinstance(size, Mapping):
        if "shortest_edge" in size and "longest_edge" not in size:
            return (int(size["shortest_edge"]),)
        if {"height", "width"} <= set(size):
            return (int(size["height"]), int(size["width"]))
        raise ConfigError(f"transforms: size {dict(size)!r}: expected height and width or shortest_edge")
    return _crop(size)


def _sizes(size: Any) -> Size:
    return (int(size),) if isinstance(size, int) else tuple(int(s) for s in size)


def _crop(size: Any) -> Size:
    found = _sizes(size)
    return found * 2 if len(found) == 1 else found


def _numbers(values: Any) -> tuple[float, ...]:
    """In the fewest digits of the same float32: the same of a list and of a tensor."""
    numbers = torch.as_tensor(values, dtype=torch.float32).flatten().numpy()
    return tuple(float(str(v)) for v in numbers)


def _interpolation(given: Any) -> str:
    """The name of torchvision's or Pillow's interpolation."""
    value = getattr(given, "value", given)
    return _PILLOW.get(value, str(value)) if isinstance(value, int) else str(value)


def _antialias(step: Any) -> bool:
    value = getattr(step, "antialias", True)
    return True if value is None else bool(value)
