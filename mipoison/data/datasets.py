"""The data sets that the library knows, as plain uint8 arrays: `DATASETS` is the registry.

`load_dataset` reads a data set from disk, downloads it if its source allows that, and checks it. Whatever is
wrong with a user's files is a `DataError` of one line. The loaders are in :mod:`mipoison.data.ten_classes`,
:mod:`mipoison.data.faces` and :mod:`mipoison.data.imagefolder`; :mod:`mipoison.data.splits` divides the
images between victim and attacker.

Shape suffixes: N images, H height, W width, C channels, K classes or identities.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import numpy as np

from mipoison.data.faces import load_named_faces, load_own_faces
from mipoison.data.imagefolder import load_image_folder
from mipoison.data.images import DataError
from mipoison.data.sources import FACE_SIDE, FOLDER_SIDE, DatasetSpec, Kind, RawImages, Source
from mipoison.data.ten_classes import load_cifar10, load_digits, load_mnist, read_idx

__all__ = [
    "DATASETS",
    "FACE_SIDE",
    "FOLDER_SIDE",
    "SIDES",
    "DataError",
    "DatasetSpec",
    "Kind",
    "RawImages",
    "Source",
    "check_image_size",
    "dataset_choices",
    "default_data_root",
    "load_dataset",
    "parse_name",
    "read_idx",
]

SIDES = (16, 32, 64)
"""Heights and widths, in pixels, that the library's victims, evaluators and inversion models support."""


def default_data_root() -> Path:
    """The data folder if the caller names none: `$MIPOISON_DATA`, else `~/.cache/mipoison/data`."""
    return Path(os.environ.get("MIPOISON_DATA") or "~/.cache/mipoison/data").expanduser()


def dataset_choices() -> str:
    """The valid names in one line, as error messages and `--help` print them."""
    return ", ".join(f"{name}:PATH" if spec.takes_path else name for name, spec in DATASETS.items())


def parse_name(dataset: str) -> tuple[str, str]:
    """Split `mnist` or `faces:PATH` into the key of `DATASETS` and the path ('' if it has none).

    Raises:
        DataError: unknown name, a path for a data set that takes none, or no path for one that needs it.
    """
    name, colon, path = dataset.partition(":")
    if name not in DATASETS or (colon and not DATASETS[name].takes_path):
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near and name not in DATASETS else ""
        raise DataError(f"unknown dataset {dataset!r}{hint}; choose from {dataset_choices()}")
    if DATASETS[name].takes_path and not path:
        raise DataError(f"dataset {dataset!r} needs a path: {name}:PATH ({DATASETS[name].description})")
    return name, path


def check_image_size(dataset: str, image_size: int | None) -> int:
    """Height and width, in pixels, that the images of a data set will have.

    Args:
        image_size: what the user asked for; None means the data set's default.

    Raises:
        DataError: the size is not supported, or the images of this data set have a fixed size.
    """
    spec = DATASETS[parse_name(dataset)[0]]
    if image_size is None:
        return spec.image_shape[1]
    choices = ", ".join(map(str, SIDES))
    if spec.kind != "folder":
        own = spec.image_shape[1]
        raise DataError(
            f"image_size = {image_size}: {dataset} is {own}x{own}; only folder:PATH takes {choices}"
        )
    if image_size not in SIDES:
        raise DataError(
            f"image_size = {image_size}: the inversion models are built for {choices}; choose one, and let a "
            f"classifier that takes {image_size}x{image_size} resize in its forward "
            f"(torch.nn.functional.interpolate(x, {image_size}))"
        )
    return image_size


def load_dataset(
    dataset: str,
    *,
    data_root: Path | str | None = None,
    download: bool = True,
    image_size: int | None = None,
) -> RawImages:
    """Read one data set, downloading it if it is missing and its source allows that.

    Args:
        dataset: a name of `DATASETS`; `folder:PATH`, `faces:PATH` and `facescrub:PATH` name the user's
            folder.
        data_root: folder of the downloaded data sets; may be read-only. None means `default_data_root()`.
        download: if False, the network is never used.
        image_size: height and width in pixels of the images of `folder:PATH`, one of SIDES; None means
            FOLDER_SIDE.

    Raises:
        DataError: unknown name, or missing, truncated or malformed files; one line that says what to do.
    """
    name, path = parse_name(dataset)
    root = Path(data_root).expanduser() if data_root is not None else default_data_root()
    try:
        own = Path(path).expanduser()
    except RuntimeError as error:  # "~name" of a user that this machine does not know
        raise DataError(f"dataset {dataset!r}: {error}") from error
    spec = DATASETS[name]
    side = check_image_size(dataset, image_size)
    loaded = spec.loader(Source(name=name, spec=spec, root=root, path=own, download=download, side=side))
    labels, channels = loaded.labels_N, loaded.images_NHWC.shape[-1]
    if spec.kind == "classes" and np.unique(labels).tolist() != list(range(10)):
        raise DataError(f"{name}: expected labels 0 to 9, all present, got {np.unique(labels)[:20].tolist()}")
    if spec.image_shape[0] not in (None, channels):
        raise DataError(f"{name}: expected images with {spec.image_shape[0]} channel(s), got {channels}")
    return RawImages(
        images_NHWC=loaded.images_NHWC,
        labels_N=labels.astype(np.int64),
        official_test_N=loaded.official_test_N,
        name=name,
        kind=spec.kind,
        public_N=loaded.public_N,
        class_names=loaded.class_names,
        notes=loaded.notes,
        layout=loaded.layout,
    )


_GREY, _FACE = (1, 32, 32), (1, FACE_SIDE, FACE_SIDE)

DATASETS: dict[str, DatasetSpec] = {
    "digits": DatasetSpec(loader=load_digits, image_shape=(1, 16, 16), kind="classes", pixel_scale=None,
                          description="1,797 scanned digits that scikit-learn ships: needs no download"),
    "mnist": DatasetSpec(loader=load_mnist, image_shape=_GREY, kind="classes", pixel_scale=10.53,
                         description="70,000 handwritten digits"),
    "fashion-mnist": DatasetSpec(loader=load_mnist, image_shape=_GREY, kind="classes", pixel_scale=8.03,
                                 description="70,000 pictures of clothes"),
    "cifar10": DatasetSpec(loader=load_cifar10, image_shape=(3, 32, 32), kind="classes", pixel_scale=16.0,
                           description="60,000 colour pictures of animals and vehicles"),
    "olivetti": DatasetSpec(loader=load_named_faces, image_shape=_FACE, kind="identities", pixel_scale=4.0,
                            description="400 faces of 40 people"),
    "lfw": DatasetSpec(loader=load_named_faces, image_shape=_FACE, kind="identities", pixel_scale=4.0,
                       min_per_identity=10, drop_rare=True,
                       description="Labeled Faces in the Wild, people with ten images or more"),
    "lfw-30": DatasetSpec(loader=load_named_faces, image_shape=_FACE, kind="identities", pixel_scale=4.0,
                          min_per_identity=30, drop_rare=True,
                          description="Labeled Faces in the Wild, people with thirty images or more"),
    "facescrub": DatasetSpec(loader=load_own_faces, image_shape=_FACE, kind="identities", pixel_scale=4.0,
                             takes_path=True, max_identities=200,
                             description="your folder <identity>/*.jpg, grey; the 200 with most images"),
    "faces": DatasetSpec(loader=load_own_faces, image_shape=(None, FACE_SIDE, FACE_SIDE), kind="identities",
                         pixel_scale=4.0, takes_path=True,
                         description="your folder <identity>/<image>, or an .npz of images and labels"),
    "folder": DatasetSpec(loader=load_image_folder, image_shape=(None, FOLDER_SIDE, FOLDER_SIDE),
                          kind="folder", pixel_scale=None, takes_path=True,
                          description="your folder <class>/<image>, any number of classes"),
}  # fmt: skip
