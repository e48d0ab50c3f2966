"""Reads the user's own images from ``<root>/<class>/<image>``, the layout of torchvision's ImageFolder.

Each image is turned upright by its EXIF orientation, cropped to its central square and resized (bilinear,
antialiased). The images have one channel if all of them are grey, and are RGB otherwise.

The user states the split with two folders in that layout, side by side: ``train/`` (or ``private/``) has the
images that the classifier was trained on, ``attack/`` (or ``public/``) those that the attacker and the
defender's substitutes may use. Upper and lower case do not matter. Any other set of folders that may be a
split (``val/``, ``test/``) is refused, because only the user knows whose images those are.

No file is skipped silently: each one is read, or causes an error, or is named in the notes as not read.

Shape suffixes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mipoison.data.images import (
    IMAGE_SUFFIXES,
    DataError,
    grey_if_all_are,
    printable,
    read_squares,
    shown,
    some,
)
from mipoison.data.sources import Loaded, Source

PRIVATE_NAMES, PUBLIC_NAMES = ("train", "private"), ("attack", "public")
_OTHER_SIDES = ("test", "testing", "val", "valid", "validation", "training", "dev", "holdout")
_IMAGE_LIKE = (".heic", ".heif", ".avif", ".jxl", ".raw", ".dng", ".nef", ".cr2", ".arw", ".svg", ".npy")
"""Suffixes of image formats that Pillow cannot read; a list of unread files names such files first."""
_LITTER = ("__macosx", "@eadir", "lost+found", "$recycle.bin", "__pycache__")
"""Folders that operating systems and archives create; they are not taken for classes."""
_SPLIT = (
    "an explicit split is exactly two folders, train/ (or private/) and attack/ (or public/), each with one "
    "folder a class: put what the classifier was trained on into the first, what the attacker and the "
    "defender's substitutes may use into the second (a fifth of each is held out by itself), and move the "
    "rest away"
)


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The images of a folder.

    Attributes:
        images_NHWC: uint8, 0 to 255. labels_N: int64, index into the class names.
        public_N: bool, true for images of the public folder; None if the user stated no split.
        class_names: the classes of both folders together, sorted.
        notes: one line that counts and names the files that were not read, and those that were read from
            subfolders of a class; '' if there are none.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    public_N: np.ndarray | None
    class_names: tuple[str, ...]
    notes: str


def load_image_folder(source: Source) -> Loaded:
    """The loader of ``folder:PATH``."""
    found = read_image_folder(source.path, source.side)
    return Loaded(
        found.images_NHWC,
        found.labels_N,
        public_N=found.public_N,
        class_names=found.class_names,
        notes=found.notes,
    )


def read_image_folder(root: Path, side: int) -> ImageFolder:
    """Read a folder of classes, or the private and the public folder of a split that the user stated.

    Args:
        root: the folder. side: height and width of the resized images, in pixels.

    Raises:
        DataError: the folder does not exist, has fewer than two classes or a class without images, an image
            cannot be read, or the folders may be another kind of split; one line.
    """
    if not root.is_dir():
        fault = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"folder: {root} {fault}; expected <class>/<image> below it")
    sides, unread = _sides(root)
    files = []
    links = _Links("folder", [path for side_root in sides for path in (side_root, *_folders(side_root))])
    for side_root in sides:
        found, others = class_files("folder", side_root, links=links)
        _check_classes(side_root, found)
        files.append(found)
        unread += others
    if sides == [root]:
        _check_unnamed_sides(root, files[0])
    names = sorted({name for found in files for name in found})
    paths = [path for found in files for name in sorted(found) for path in found[name]]
    counts = [(names.index(name), len(found[name])) for found in files for name in sorted(found)]
    labels_N = np.repeat([label for label, _ in counts], [n for _, n in counts])
    public_N = (
        np.repeat([False, True], [sum(map(len, found.values())) for found in files]) if files[1:] else None
    )
    images_NHWC = grey_if_all_are(read_squares("folder", root, paths, "RGB", side))
    below = [path for found in files for name in found for path in found[name] if path.parent.name != name]
    notes = [describe_unread(unread, root)] if unread else []
    if below:
        folders = some(sorted({f"{shown(path.parent, root)}/" for path in below}))
        notes.append(f"{len(below)} images in subfolders count to the class above them: {folders}")
    return ImageFolder(images_NHWC, labels_N.astype(np.int64), public_N, tuple(names), "; ".join(notes))


def class_files(
    name: str, root: Path, *, nested: bool = True, links: _Links | None = None
) -> tuple[dict[str, list[Path]], list[Path]]:
    """The image files of each class, and all other files below the root.

    Hidden files and folders, and those that operating systems create, never count as images. Links are
    followed.

    Args:
        name: name of the data set, for messages. root: the folder with one folder a class.
        nested: whether images in subfolders of a class belong to the class.
        links: the checker of links shared by both folders of a split; None if the root is the whole data set.

    Returns:
        Class name -> its image files, both sorted; and the files that are none of these.

    Raises:
        DataError: a folder cannot be listed; a link is broken, leads in a circle, or leads from a class to
            another folder of the data set.
    """
    links = links or _Links(name, [root, *_folders(root)])
    files: dict[str, list[Path]] = {}
    unread: list[Path] = []
    for entry in sorted(root.iterdir()):
        if entry.is_dir():
            found = _walk(name, root, entry, links)
            if _hidden(entry):
                unread += found
                continue
            images = [path for path in found if _is_image(path, entry) and (nested or path.parent == entry)]
            files[entry.name] = sorted(images)
            unread += sorted(set(found) - set(images))
        elif entry.is_symlink() and not entry.exists() and not _hidden(entry):
            raise DataError(f"{name}: {shown(entry, root)} in {root} is a broken link; repair or remove it")
        else:
            unread.append(entry)
    return files, unread


def describe_unread(unread: Iterable[Path], root: Path) -> str:
    """Count and name the files that were not read, in one line; those that may be images come first."""
    known = {*Image.registered_extensions(), *_IMAGE_LIKE}

    def order(path: Path) -> tuple[bool, bool, Path]:
        hidden = any(part.startswith(".") or part.lower() in _LITTER for part in path.relative_to(root).parts)
        return hidden, path.suffix.lower() not in known, path

    names = [shown(path, root) for path in sorted(unread, key=order)]
    return f"{len(names)} file{'s' * (len(names) != 1)} not read: {some(names)}" if names else ""


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _LITTER


def _is_image(path: Path, folder: Path) -> bool:
    inside = path.relative_to(folder).parts
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(_hidden(Path(part)) for part in inside)


class _Links:
    """Checks the links inside classes, so that no image is read twice or counted to the wrong class.

    A link may lead to a folder outside the data set, unless another link leads there too.

    Args:
        name: name of the data set, for messages. own: the data set's own folders, which are the root and the
            classes; each may itself be a link.
    """

    def __init__(self, name: str, own: Iterable[Path]) -> None:
        self._name, self._own = name, [path.resolve() for path in own]
        self._reached: dict[tuple[int, int], Path] = {}

    def check(self, root: Path, folder: Path) -> bool:
        """Whether a folder below a class is a link, or is reached through one.

        Raises:
            DataError: the link leads in a circle, into the data set, or where another link leads.
        """
        real, above = folder.resolve(), folder.parent.resolve()
        subject = f"{self._name}: {shown(folder, root)} in {root}"
        if folder.is_symlink():
            if above.is_relative_to(real):
                raise DataError(f"{subject} is a link in a circle; remove it")
            if any(real.is_relative_to(own) or own.is_relative_to(real) for own in self._own):
                raise DataError(
                    f"{subject} is a link to {printable(real)}, another folder of the same data set: its "
                    "images would be read twice; remove it"
                )
        elif (status := above.stat()) and (status.st_dev, status.st_ino) not in self._reached:
            return False
        status = real.stat()
        first = self._reached.setdefault((status.st_dev, status.st_ino), folder)
        if first != folder:
            raise DataError(
                f"{subject} leads to {printable(real)}, as {printable(first)} does: its images would be "
                "read twice; remove one of the links"
            )
        return True


def _folders(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.is_dir() and not _hidden(path)]


def _walk(name: str, root: Path, folder: Path, links: _Links | None = None) -> list[Path]:
    """Every file below a folder, and every folder that has an image's suffix, sorted.

    Raises:
        DataError: a folder cannot be listed, or a link leads where it must not (see :class:`_Links`).
    """
    links = links or _Links(name, [folder])

    def fail(error: OSError) -> None:
        where = shown(Path(os.fsdecode(error.filename)), root)
        raise DataError(f"{name}: {where} in {root} cannot be listed ({error.strerror})") from error

    found = []
    for at, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        here = Path(at)
        for inner in list(folders):
            if any(_hidden(Path(part)) for part in (here / inner).relative_to(folder.parent).parts):
                if (here / inner).is_symlink():  # e.g. of a repository or an environment: not searched
                    folders.remove(inner)
            else:
                links.check(root, here / inner)
        found += [here / file for file in files]
        found += [here / inner for inner in folders if Path(inner).suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found)


def _sides(root: Path) -> tuple[list[Path], list[Path]]:
    """Find out whether the user stated a split.

    Returns:
        The private and the public folder, or the root alone; and the files beside them, which are not read.

    Raises:
        DataError: the names of the folders suggest another kind of split.
    """
    folders = _folders(root)
    private, public, other = (
        [path for path in folders if path.name.lower() in names]
        for names in (PRIVATE_NAMES, PUBLIC_NAMES, _OTHER_SIDES)
    )
    named = [*private, *public, *other]
    if not named or not (len(named) == len(folders) or any(map(_has_classes, named))):
        return [root], []  # one folder of classes; a class may be named "train" or "test", too
    if len(private) == len(public) == 1:
        rest = [path for path in folders if path not in (private[0], public[0])]
        below = {path: _walk("folder", root, path) for path in rest}
        if not any(_is_image(file, path) for path, files in below.items() for file in files):
            sides = [private[0], public[0]]
            beside = [path for path in root.iterdir() if path not in folders and not path.is_dir()]
            litter = [path for path in root.iterdir() if path.is_dir() and _hidden(path)]
            beside += [file for path in litter for file in _walk("folder", root, path)]
            return sides, [*beside, *(file for files in below.values() for file in files)]
    listed = some([f"{shown(path, root)}/" for path in folders])
    raise DataError(f"folder: {root} has {listed}; {_SPLIT}")


def _has_classes(folder: Path) -> bool:
    """Whether a folder looks like one side of a split: images in its subfolders and none beside them."""
    files = [file for file in _walk("folder", folder.parent, folder) if _is_image(file, folder)]
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
        f"folder: {root} has {names} with the same folders in both ({inner}); {_SPLIT}; if these are two "
        "classes, put their images into them without subfolders"
    )


def _check_classes(root: Path, files: dict[str, list[Path]]) -> None:
    if len(files) < 2:
        hint = ""
        for only in files:
            if len([path for path in (root / only).iterdir() if path.is_dir() and not _hidden(path)]) > 1:
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


def _held(folder: Path) -> str:
    """The name of a class without images, and the kinds of files that its folder contains instead."""
    kinds = Counter(path.suffix.lower() or "no suffix" for path in _walk("folder", folder.parent, folder))
    held = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(3))
    return f"{folder.name!r} (holds {held})" if held else repr(folder.name)
