"""The user's own images: ``<root>/<class>/<image>``, torchvision's ImageFolder layout, any number of classes.

Rule for sizes: the central square of each image (upright by its EXIF mark), resized to the side asked for,
bilinear with antialiasing. One channel if every image is grey, else RGB.

Two folders side by side, ``train/`` (or ``private/``) and ``attack/`` (or ``public/``), each in that layout,
are an explicit split: the first holds what the classifier was trained on, the second what the attacker and
the defender's substitutes may use.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mipoison.images import IMAGE_SUFFIXES, DataError, grey_if_all_are, read_squares, some

PRIVATE_NAMES, PUBLIC_NAMES = ("train", "private"), ("attack", "public")
_OTHER_SIDES = ("test", "val", "valid", "validation")


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """What was read.

    Attributes:
        images_NHWC: uint8. labels_N: int64, counts the class names in their sorted order.
        public_N: bool, true in the public folder of an explicit split; None where there is no such split.
        class_names: sorted; of both sides together.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    public_N: np.ndarray | None
    class_names: tuple[str, ...]


def read_image_folder(root: Path, side: int) -> ImageFolder:
    """Read a folder of classes, or an explicit split of two.

    Raises:
        DataError: no folder, fewer than two classes, a class without images, unreadable images; one line.
    """
    if not root.is_dir():
        fault = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"folder: {root} {fault}; expected <class>/<image> below it")
    sides = _sides(root)
    files = [_files(side_root) for side_root in sides]
    names = sorted({name for found in files for name in found})
    paths = [path for found in files for name in sorted(found) for path in found[name]]
    counts = [(names.index(name), len(found[name])) for found in files for name in sorted(found)]
    labels_N = np.repeat([label for label, _ in counts], [n for _, n in counts])
    public_N = (
        np.repeat([False, True], [sum(map(len, found.values())) for found in files]) if files[1:] else None
    )
    images_NHWC = grey_if_all_are(read_squares("folder", root, paths, "RGB", side))
    return ImageFolder(images_NHWC, labels_N.astype(np.int64), public_N, tuple(names))


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _sides(root: Path) -> list[Path]:
    """The private and the public folder of an explicit split, or the one folder of classes."""
    names = {path.name for path in _folders(root)}
    private, public = [n for n in PRIVATE_NAMES if n in names], [n for n in PUBLIC_NAMES if n in names]
    if len(private) == len(public) == 1 and len(names) == 2:
        return [root / private[0], root / public[0]]
    reserved = {*PRIVATE_NAMES, *PUBLIC_NAMES, *_OTHER_SIDES}
    if names and names <= reserved:
        raise DataError(
            f"folder: {root} has {', '.join(sorted(names))}; an explicit split is exactly two folders, "
            "train/ (or private/) and attack/ (or public/), each with one folder a class"
        )
    return [root]


def _files(root: Path) -> dict[str, list[Path]]:
    """Class name -> its image files, sorted; subfolders of a class count to it."""
    files = {
        folder.name: sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
        for folder in _folders(root)
    }
    if len(files) < 2:
        raise DataError(
            f"folder: {len(files)} class folder{'s' * (len(files) != 1)} in {root}, need at least 2: "
            "<class>/<image>"
        )
    if empty := [repr(name) for name, paths in files.items() if not paths]:
        raise DataError(
            f"folder: {len(empty)} of {len(files)} classes in {root} have no image "
            f"({', '.join(IMAGE_SUFFIXES)}): {some(empty)}; add images or remove the folder"
        )
    return files
