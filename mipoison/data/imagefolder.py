"""Reads the user's own images from ``<root>/<class>/<image>``, the layout of torchvision's ImageFolder.

Each image is turned upright by its EXIF orientation, cropped to its central square and resized (bilinear,
antialiased). The images have one channel if all of them are grey, and are RGB otherwise.

The user states the split with folders in that layout, side by side: ``train/`` (or ``private/``) has the
images that the classifier was trained on, ``attack/`` (or ``public/``) those that the attacker and the
defender's substitutes may use, and ``test/``, which may be left out, private images that the classifier has
not seen. Upper and lower case do not matter. Any other set of folders that may be a split (``val/``) is
refused, because only the user knows whose images those are.

No file is skipped silently: each one is read, or causes an error, or is named in the notes as not read.

Shape suffixes: N images, H height, W width, C channels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mipoison.data.images import (
    IMAGE_SUFFIXES,
    DataError,
    grey_if_all_are,
    read_squares,
    shown,
    some,
)
from mipoison.data.sources import Loaded, Source
from mipoison.data.walking import Links, class_files, describe_unread, folders_in, hidden, is_image, walk

PRIVATE_NAMES, PUBLIC_NAMES, TEST_NAMES = ("train", "private"), ("attack", "public"), ("test",)
_OTHER_SIDES = ("testing", "val", "valid", "validation", "training", "dev", "holdout")
_SPLIT = (
    "an explicit split is exactly two folders, train/ (or private/) and attack/ (or public/), each with one "
    "folder a class: put what the classifier was trained on into the first, what the attacker and the "
    "defender's substitutes may use into the second, private images that the classifier has not seen into a "
    "third, test/ (without it a fifth of the first is held out), and move the rest away"
)


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The images of a folder.

    Attributes:
        images_NHWC: uint8, 0 to 255. labels_N: int64, index into the class names.
        public_N: bool, true for images of the public folder; None if the user stated no split.
        test_N: bool, true for images of the test folder; None if there is none.
        class_names: the classes of all these folders together, sorted.
        layout: which folders were taken for what, and how many images they have.
        notes: one line that counts and names the files that were not read, and those that were read from
            subfolders of a class; '' if there are none.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    public_N: np.ndarray | None
    test_N: np.ndarray | None
    class_names: tuple[str, ...]
    layout: str
    notes: str


def load_image_folder(source: Source) -> Loaded:
    """The loader of ``folder:PATH``."""
    found = read_image_folder(source.path, source.side)
    return Loaded(
        found.images_NHWC,
        found.labels_N,
        official_test_N=found.test_N,
        public_N=found.public_N,
        class_names=found.class_names,
        layout=found.layout,
        notes=found.notes,
    )


def read_image_folder(root: Path, side: int) -> ImageFolder:
    """Read a folder of classes, or the private, public and test folders of a split that the user stated.

    Args:
        root: the folder. side: height and width of the resized images, in pixels.

    Raises:
        DataError: the folder does not exist, has fewer than two classes or a class without images, an image
            cannot be read, or the folders may be another kind of split; one line.
    """
    if not root.is_dir():
        fault = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"folder {root} {fault}; expected <class>/<image> below it")
    sides, unread = _sides(root)
    files = []
    links = Links("folder", [path for side_root in sides for path in (side_root, *folders_in(side_root))])
    for side_root in sides:
        found, others = class_files("folder", side_root, links=links)
        _check_classes(side_root, found)
        files.append(found)
        unread += others
    if sides == [root]:
        _check_unnamed_sides(root, files[0])
    if len(sides) == 3:
        _check_test_classes(root, files[0], files[2])
    names = sorted({name for found in files for name in found})
    paths = [path for found in files for name in sorted(found) for path in found[name]]
    counts = [(names.index(name), len(found[name])) for found in files for name in sorted(found)]
    labels_N = np.repeat([label for label, _ in counts], [n for _, n in counts])
    sizes = [sum(map(len, found.values())) for found in files]
    public_N = np.repeat([False, True, False][: len(sizes)], sizes) if files[1:] else None
    test_N = np.repeat([False, False, True], sizes) if files[2:] else None
    images_NHWC = grey_if_all_are(read_squares("folder", root, paths, "RGB", side))
    below = [path for found in files for name in found for path in found[name] if path.parent.name != name]
    notes = [describe_unread(unread, root)] if unread else []
    if below:
        folders = some(sorted({f"{shown(path.parent, root)}/" for path in below}))
        notes.append(f"{len(below)} images in subfolders count to the class above them: {folders}")
    return ImageFolder(
        images_NHWC,
        labels_N.astype(np.int64),
        public_N=public_N,
        test_N=test_N,
        class_names=tuple(names),
        layout=_layout(sides, sizes),
        notes="; ".join(notes),
    )


def _sides(root: Path) -> tuple[list[Path], list[Path]]:
    """Find out whether the user stated a split.

    Returns:
        The private and the public folder, and the test folder if it has images; or the root alone; and the
        files beside them, which are not read.

    Raises:
        DataError: the names of the folders suggest another kind of split.
    """
    folders = folders_in(root)
    private, public, test, other = (
        [path for path in folders if path.name.lower() in names]
        for names in (PRIVATE_NAMES, PUBLIC_NAMES, TEST_NAMES, _OTHER_SIDES)
    )
    named = [*private, *public, *test, *other]
    if not named or not (len(named) == len(folders) or any(map(_has_classes, named))):
        return [root], []  # one folder of classes; a class may be named "train" or "test", too
    if len(private) == len(public) == 1:
        sides = [private[0], public[0]]
        below = {path: walk("folder", root, path) for path in folders if path not in sides}
        with_images = [path for path in below if any(is_image(file, path) for file in below[path])]
        if not with_images or (len(with_images) == 1 and with_images[0] in test):
            sides += with_images
            below = {path: files for path, files in below.items() if path not in with_images}
            beside = [path for path in root.iterdir() if path not in folders and not path.is_dir()]
            litter = [path for path in root.iterdir() if path.is_dir() and hidden(path)]
            beside += [file for path in litter for file in walk("folder", root, path)]
            return sides, [*beside, *(file for files in below.values() for file in files)]
    listed = some([f"{shown(path, root)}/" for path in folders])
    raise DataError(f"folder {root} has {listed}; {_SPLIT}")


def _has_classes(folder: Path) -> bool:
    """Whether a folder looks like one side of a split: images in its subfolders and none beside them."""
    files = [file for file in walk("folder", folder.parent, folder) if is_image(file, folder)]
    return bool(files) and all(file.parent != folder for file in files)


def _check_unnamed_sides(root: Path, files: dict[str, list[Path]]) -> None:
    """Refuse two folders that contain the same folders of images and nothing else, whatever their names.

    Such folders are not two classes but a split, and only the user knows which of them is private.
    """
    below = [{path.relative_to(root / name).parts[:-1][:1] for path in files[name]} for name in files]
    if len(below) != 2 or below[0] != below[1] or len(below[0]) < 2 or () in below[0]:
        return
    names = " and ".join(f"{shown(root / name, root)}/" for name in files)
    inner = some([shown(root / part, root) for (part,) in sorted(below[0])])
    raise DataError(
        f"folder {root} has {names} with the same folders in both ({inner}); {_SPLIT}; if these are two "
        "classes, put their images into them without subfolders"
    )


def _check_classes(root: Path, files: dict[str, list[Path]]) -> None:
    if len(files) < 2:
        hint = ""
        for only in files:
            if len([path for path in (root / only).iterdir() if path.is_dir() and not hidden(path)]) > 1:
                hint = f"; are the classes those of {root / only}?"
        raise DataError(
            f"folder: {len(files)} class folder{'s' * (len(files) != 1)} in {root}, need at least 2: "
            f"<class>/<image>{hint}"
        )
    if empty := [_held(root / name) for name, paths in files.items() if not paths]:
        raise DataError(
            f"folder: {len(empty)} of {len(files)} classes in {root} have no image "
            f"({', '.join(IMAGE_SUFFIXES)}): {some(empty)}; add images or remove the folder"
        )


def _check_test_classes(root: Path, private: dict[str, list[Path]], test: dict[str, list[Path]]) -> None:
    """Refuse a test folder of other classes than the private folder's."""
    if wrong := sorted({*private} ^ {*test}):
        raise DataError(
            f"folder {root} has {some([repr(name) for name in wrong])} in only one of train/ and test/: "
            "both need the same classes"
        )


def _layout(sides: list[Path], sizes: list[int]) -> str:
    """Which folders were taken for what, in one line."""
    if not sides[1:]:
        return f"one folder of classes, {sizes[0]} images: no split stated"
    roles = ("private", "the attacker's", "private test images")
    parts = [
        f"{shown(side, side.parent)}/ = {role} ({n} images)"
        for side, role, n in zip(sides, roles, sizes, strict=False)
    ]
    return ", ".join(parts)


def _held(folder: Path) -> str:
    """The name of a class without images, and the kinds of files that its folder contains instead."""
    kinds = Counter(path.suffix.lower() or "no suffix" for path in walk("folder", folder.parent, folder))
    held = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(3))
    return f"{folder.name!r} (holds {held})" if held else repr(folder.name)
